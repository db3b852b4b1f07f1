"""What Python objects hold beside their parameters: did it change, does it differ?

A function also refers to its closure, and to globals that may keep something.
"""

from __future__ import annotations

import hashlib
import logging
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from lrexp.errors import is_library

PLAIN = (str, bytes, bool, int, complex, type(None), torch.dtype, torch.device, torch.Size)
_KEEPING = (*PLAIN, float, list, dict, set, deque, Tensor, nn.Module)
_MODULES = 3  # that lead from a name to another: package.module.counter


def references(function: object) -> Iterator[tuple[str, Any]]:
    """Yield names and values of a function's closure, and of the globals that its code names.

    Of these: numbers, containers, tensors, random generators, and what is of the user's own code.
    """
    if isinstance(function, MethodType):
        yield "__self__", function.__self__
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType):
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if name != "__class__":
            yield name, value
    names = list(dict.fromkeys(_names(function.__code__)))
    for name in names:
        if name in function.__globals__:
            yield from _kept(name, function.__globals__[name], names)


def references_of_class(cls: type, *, inherited: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield what a class of the user's own keeps, and what its methods refer to."""
    for own in cls.__mro__ if inherited else (cls,):
        if is_own(own.__module__):
            yield from class_attributes(own)
            for name, value in list(vars(own).items()):
                if isinstance(value, FunctionType) and name not in ("__init__", "__new__"):
                    yield from references(value)


def class_attributes(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield what a class keeps beside its code."""
    for name, value in list(vars(cls).items()):
        if not name.startswith("__") and not _is_code(value):
            yield name, value


def is_own(module: str | None) -> bool:
    """Return whether a module is neither of lrexp nor installed.

    Example:
        >>> is_own("torch"), is_own("__main__")
        (False, True)
    """
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return module == "__main__" or (file is not None and not is_library(file))


def attributes(value: object) -> list[tuple[str, Any]]:
    """Return the attributes of an object, those in slots too."""
    if isinstance(value, partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if hasattr(value, "__dict__"):
        return list(vars(value).items())
    slots = getattr(type(value), "__slots__", ())
    names = (slots,) if isinstance(slots, str) else slots
    return [(name, getattr(value, name)) for name in names if hasattr(value, name)]


def generator_state(value: object) -> Any:
    """Return the state of a random generator; None for all else."""
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    return None


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names in a code, and in the functions inside of it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _kept(
    name: str, value: Any, names: list[str], depth: int = _MODULES
) -> Iterator[tuple[str, Any]]:
    if isinstance(value, ModuleType):
        if depth and is_own(value.__name__):
            for inner in names:
                if inner in vars(value):
                    yield from _kept(f"{name}.{inner}", vars(value)[inner], names, depth - 1)
    elif isinstance(value, type):
        if is_own(value.__module__) and not issubclass(value, nn.Module):
            yield from ((f"{name}.{own}", held) for own, held in class_attributes(value))
    elif isinstance(value, FunctionType):
        if is_own(value.__module__):
            yield name, value
    elif (
        isinstance(value, _KEEPING)
        or generator_state(value) is not None
        or is_own(type(value).__module__)
    ):
        yield name, value


def _is_code(value: object) -> bool:
    return callable(value) or isinstance(value, (property, classmethod, staticmethod))


# (module path, attribute) -> what compares equal as long as nothing changed; several where an
# attribute, a class attribute and a global variable have one name
Fingerprint: TypeAlias = dict[tuple[str, str], list[Any]]
_DEPTH, _WIDTH = 3, 64
_ALL_THE_WAY = 30  # levels, of a thorough look
OF_TORCH = set(vars(nn.Module())) - {"training"}  # parameters, buffers, submodules, hooks


def model_fingerprint(
    model: nn.Module,
    by_value: bool = False,
    thorough: bool = False,
    only: Literal["own", "shared"] | None = None,
) -> Fingerprint:
    """Return the attributes of all modules, their classes' and what their methods refer to.

    Parameters, buffers and submodules are left out.

    Args:
        by_value: compare what objects hold and not which objects they are, as is right for two
            models; False is right for one model at two times.
        thorough: look at everything that can be reached.
        only: the attributes of modules, or only what models of these classes share.
    """
    registered = {id(x) for x in (*model.parameters(), *model.buffers(), *model.modules())}
    look, depth = _Look(by_value, registered, thorough), _ALL_THE_WAY if thorough else _DEPTH
    seen: Fingerprint = {}
    classes: set[type] = set()
    for path, module in model.named_modules():
        own = own_attributes(module) if only != "shared" else ()
        is_known = only == "own" or type(module) in classes
        shared = () if is_known else _shared_attributes(type(module))
        classes.add(type(module))
        for name, value in (*own, *shared):
            seen.setdefault((path, name), []).append(look(value, depth))
    return seen


def function_fingerprint(
    function: object,
    by_value: bool = False,
    thorough: bool = False,
    apart_from: Iterable[object] = (),
) -> Fingerprint:
    """Return what a function refers to, or the attributes of an object that is called.

    Tensors count here wherever they are: nobody else looks after a loss module's buffers.

    Args:
        function: or an object.
        by_value: as for `model_fingerprint`, and thorough, too.
        apart_from: tensors and modules that somebody else does look after.
    """
    look, seen = _Look(by_value, set(map(id, apart_from)), thorough), Fingerprint()
    depth = _ALL_THE_WAY if thorough else _DEPTH + 2
    held = [("", name, value) for name, value in references(function)]
    if isinstance(function, nn.Module):
        for path, module in function.named_modules():
            tensors = module._parameters | module._buffers
            own = (*own_attributes(module), *_shared_attributes(type(module)))
            held += [(path, *item) for item in (*own, *tensors.items())]
    elif not isinstance(function, FunctionType):
        held += [("", *item) for item in attributes(function)]
        held += [("", *item) for item in references_of_class(type(function))]
    for path, name, value in held:
        seen.setdefault((path, name), []).append(look(value, depth))
    return seen


def first_difference(before: Fingerprint, after: Fingerprint) -> tuple[str, str] | None:
    """Return the (module path, attribute) that is not the same in both."""
    return next(differences(before, after), None)


def differences(before: Fingerprint, after: Fingerprint) -> Iterator[tuple[str, str]]:
    """Yield each (module path, attribute) that is not the same in both."""
    for key in dict.fromkeys((*before, *after)):
        if key not in before or key not in after or before[key] != after[key]:
            yield key


class Same:
    """Equal while it is the very same object; holds it, so that its id is not given away."""

    def __init__(self, value: object, state: object = None) -> None:
        self.value, self.state = value, state

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Same) and self.value is other.value
        return same and self.state == other.state  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]


class _Look:
    """Turns a value into something that can be compared later."""

    def __init__(
        self, by_value: bool, registered: AbstractSet[int], thorough: bool = False
    ) -> None:
        self._by_value, self._registered = by_value, registered
        self._width = None if thorough else _WIDTH
        self._been: dict[int, Any] = {}  # objects that a thorough look has been inside of

    def __call__(self, value: Any, depth: int) -> Any:
        if (state := _state(value)) is not None:
            return state
        if id(value) in self._registered:
            return "registered" if self._by_value else Same(value)
        if isinstance(value, Tensor):
            return _numbers(value) if self._by_value else Same(value, version(value))
        if isinstance(value, (FunctionType, MethodType)):
            return self._function(value, depth)
        if depth == 0 or not self._is_new(value):
            return type(value) if self._by_value else Same(value)
        return self._inside(value, depth - 1)

    def _is_new(self, value: Any) -> bool:
        """Return whether to look inside; a thorough look would not come to an end otherwise."""
        if self._width is not None:
            return True
        if id(value) in self._been or isinstance(value, (ModuleType, type, logging.Logger)):
            return False  # from a module all of a program can be reached
        self._been[id(value)] = value  # held, so that its id is not given away
        return True

    def _inside(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            items = _ends(list(value.items()), self._width)
            return type(value), len(value), [(repr(k), self(v, depth)) for k, v in items]
        if isinstance(value, (list, tuple, deque)):
            return type(value), len(value), [self(v, depth) for v in _ends(value, self._width)]
        if isinstance(value, (set, frozenset)):
            return type(value), len(value), set(value)
        held = [(name, self(v, depth)) for name, v in attributes(value)[: self._width]]
        return (type(value), held) if self._by_value else Same(value, held)

    def _function(self, value: Any, depth: int) -> Any:
        inside = references(value) if depth and self._is_new(value) else ()
        held = [(name, self(v, depth - 1)) for name, v in inside]
        return (_code(value), held) if self._by_value else Same(_code(value), held)


def version(tensor: Tensor) -> int | None:
    """Return the number of in-place changes so far; None where torch does not count them."""
    return None if tensor.is_inference() else tensor._version


def own_attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a module beside its parameters, buffers, submodules and hooks."""
    for name, value in vars(module).items():
        if name not in OF_TORCH:
            yield name, value


def _shared_attributes(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield those of user-written classes, and what their methods refer to."""
    for base in cls.__mro__:
        if base is object or base.__module__.split(".", maxsplit=1)[0] == "torch":
            continue
        if is_own(base.__module__):
            yield from references_of_class(base, inherited=False)
            continue
        yield from class_attributes(base)
        if isinstance(forward := vars(base).get("forward"), FunctionType):
            yield from references(forward)


def _state(value: object) -> Any:
    """Return plain values, arrays and states of random generators; None for all else."""
    if isinstance(value, PLAIN) or type(value) is float:
        return type(value), repr(value)  # NaN is equal to itself this way
    if isinstance(value, (np.ndarray, np.generic)):
        return value.shape, str(value.dtype), _digest(value.tobytes())
    return generator_state(value)


def _numbers(tensor: Tensor) -> tuple[Any, ...]:
    flat = tensor.detach().cpu().contiguous().flatten()
    return tuple(tensor.shape), tensor.dtype, _digest(flat.view(torch.uint8).numpy().tobytes())


def _digest(data: bytes) -> bytes:
    """Return the bytes, or what stands for them where keeping them would take memory."""
    return data if len(data) <= 64 else hashlib.blake2b(data).digest()


def _ends(items: Sequence[Any] | deque[Any], width: int | None) -> list[Any]:
    """Return all items of a short sequence, the first and last of one longer than `width`."""
    items = list(items)
    if width is None or len(items) <= width:
        return items
    return items[: width // 2] + items[-width // 2 :]


def _code(function: Callable[..., Any]) -> CodeType | None:
    return getattr(function, "__code__", None)
