"""Files of a run that are whole, but hold something else than lrexp writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lrexp.errors import LrexpError, RunError

_MISFITS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@contextmanager
def as_written(what: str) -> Iterator[None]:
    """Turn what goes wrong with values of another kind than expected into a RunError.

    To check every value of a stranger's file before it is shown would say each of them twice.
    """
    try:
        yield
    except LrexpError:
        raise
    except _MISFITS as error:
        said = f"{type(error).__name__}: {error}"
        raise RunError(f"{what}: is damaged: it holds what no run writes ({said}).") from error
