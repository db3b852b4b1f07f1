"""Whether an order can be sent to a worker process, and if not, why."""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

from lrexp.errors import ConfigError
from lrexp.order import Order

REMEDY = "Put it into a module that can be imported, or use 1: training in this process."


class _Pickler(pickle.Pickler):
    """Refuses what only this process knows, which an ordinary pickle names and cannot find."""

    def reducer_override(self, thing: Any) -> Any:
        """Refuse functions and classes of the main module: a worker has another one."""
        home = getattr(thing, "__module__", None)
        if home == "__main__" and hasattr(thing, "__qualname__"):
            raise pickle.PicklingError(
                f"{thing.__qualname__} is defined in the notebook or script itself"
            )
        return NotImplemented


def packed(order: Order, jobs: int) -> bytes:
    """Return the order as bytes that a worker process can open.

    Raises:
        ConfigError: its Python objects cannot be sent; the key is `jobs`.
    """
    buffer = io.BytesIO()
    _refuse(_packing_problem(order, buffer), jobs)
    return buffer.getvalue()


def refuse_processes(order: Order, jobs: int) -> None:
    """Raise a ConfigError for `jobs` if the order cannot be given to worker processes."""
    _refuse(why_not_processes(order), jobs)


def why_not_processes(order: Order) -> str | None:
    """Return why an order cannot be given to worker processes, None where it can.

    Example:
        >>> order = make_order("compare", {}, objects=Objects(loss=lambda y, t: y))
        >>> why_not_processes(order)  # doctest: +SKIP
        "needs what can be sent to another process, and loss cannot: Can't pickle <function ..."
    """
    if not sys.executable:
        return "needs a Python interpreter to start, and this program contains its own"
    return _packing_problem(order, _Nowhere())


def _refuse(reason: str | None, jobs: int) -> None:
    if reason is not None:
        raise ConfigError.single("jobs", reason, jobs, REMEDY)


def _packing_problem(order: Order, file: io.RawIOBase | io.BytesIO) -> str | None:
    try:
        _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(order)
    except Exception as error:  # an object's own __reduce__ may raise anything
        names = " or ".join(sorted(order.objects.sections)) or "the config"
        why = str(error) or type(error).__name__
        return f"needs what can be sent to another process, and {names} cannot: {why}"
    return None


class _Nowhere(io.RawIOBase):
    """A file for nothing: a trial needs no copy of the data."""

    def write(self, data: Any) -> int:
        """Count."""
        return memoryview(data).nbytes
