"""What a function refers to beside its arguments: its closure, and globals that may keep something.

Functions and modules of the user's own are followed, and so are classes; those of a library are
taken as they are. Names are read from the code: an attribute of a module counts where it is named.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

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
