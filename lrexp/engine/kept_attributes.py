"""Numbers, texts, tensors and containers of these that modules keep in plain attributes.

A checkpoint holds those that training has changed: a counter, a last loss, a list of losses. One
that is known in two places is not held: put back as a copy in each, it would be two from then on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.engine.probing.fingerprint import OF_TORCH, own_attributes
from lrexp.engine.state import NotCapturable, misfit, outlives, plain, revived

_DEEPEST = 20  # containers in containers


def capture_attributes(
    model: nn.Module,
    optimizer: Optimizer,
    changed: Iterable[tuple[str, str]],
    device: torch.device,
) -> list[list[Any]]:
    """Return [module path, name, value] of each changed attribute.

    Raises:
        NotCapturable: one is no plain value, is gone, or is known in two places.
    """
    modules, found = dict(model.named_modules()), []
    for path, name in changed:
        held = vars(modules[path]) if path in modules else {}
        if isinstance(held.get(name), FunctionType | MethodType):  # no copy of a model has its own
            raise outlives(f"what `{name}` refers to")
        if name not in held or not _is_plain(held[name]):
            raise NotCapturable(f"training changes the attribute `{name}`")
        found.append((path, name, held[name]))
    if not found:
        return []
    known = Counter(_pieces_around(model, optimizer))
    for _, name, value in found:
        if any(known[piece] > 1 for piece in _pieces(value)):
            raise NotCapturable(f"training changes the attribute `{name}`, which others share")
    return [[path, name, plain(value, device)] for path, name, value in found]


def restore_attributes(
    model: nn.Module, saved: Sequence[Sequence[Any]], device: torch.device
) -> None:
    """Put back what `capture_attributes` returned.

    Raises:
        MisfitError: the model is another one now.
    """
    modules = dict(model.named_modules())
    for path, name, value in saved:
        if path not in modules or name in OF_TORCH:
            raise misfit(f"there is no attribute {name} in a module {path!r}")
        _put(modules[path].__dict__, name, revived(value, device))


def _put(held: dict[str, Any], name: str, value: Any) -> None:
    own = held.get(name)
    if type(own) is list and type(value) is list:
        own[:] = value  # in place: a function may hold it, too
    elif type(own) is dict and type(value) is dict:
        own.clear()
        own.update(value)
    else:
        held[name] = value


def _is_plain(value: Any, depth: int = _DEEPEST) -> bool:
    """Return whether a value comes back from a file as what it is."""
    if isinstance(value, Tensor):
        is_strided = type(value) is Tensor and value.layout is torch.strided
        return is_strided and not value.requires_grad and not value.is_inference()
    if value is None or type(value) in (bool, int, float, complex, str):
        return True
    if depth == 0:
        return False
    if type(value) in (list, tuple):
        return all(_is_plain(item, depth - 1) for item in value)
    if type(value) is dict:
        keys = all(type(key) in (str, int) for key in value)
        return keys and all(_is_plain(item, depth - 1) for item in value.values())
    return False


def _pieces_around(model: nn.Module, optimizer: Optimizer) -> Iterator[int]:
    """Yield the pieces of all attributes, of all tensors that are trained, and of their states."""
    parameters = list(model.parameters())
    tensors = [*parameters, *model.buffers()]
    tensors += [p.grad for p in parameters if p.grad is not None]
    tensors += [x for own in optimizer.state.values() for x in own.values() if _is_tensor(x)]
    been: set[int] = set()
    for value in tensors:
        yield from _pieces(value)
    for module in model.modules():
        for _, value in own_attributes(module):
            yield from _pieces(value, been)


def _pieces(value: Any, been: set[int] | None = None) -> Iterator[int]:
    """Yield what tells apart all in a value that can be changed in place; views are one piece."""
    been = set() if been is None else been
    if isinstance(value, Tensor):
        if value.layout is torch.strided and value.numel():
            yield value.untyped_storage().data_ptr()
    elif isinstance(value, list | tuple | Mapping):
        if not isinstance(value, tuple):
            yield id(value)
        if id(value) not in been:
            been.add(id(value))
            for item in value.values() if isinstance(value, Mapping) else value:
                yield from _pieces(item, been)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)
