"""What the training of one trial changes: its model, its optimizer, and what its loss keeps.

Modules also keep numbers, texts, tensors and containers of these in plain attributes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from lrexp.engine.data_state import DataState
from lrexp.engine.state import ON_HOST, NotCapturable, copied, misfit, outlives, plain, revived
from lrexp.engine.task import Task
from lrexp.engine.vectorized.fingerprint import (
    OF_TORCH,
    Fingerprint,
    differences,
    first_difference,
    function_fingerprint,
    is_own,
    model_fingerprint,
    own_attributes,
)

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
    tensors += [x for own in optimizer.state.values() for x in own.values() if _is_a_tensor(x)]
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


def _is_a_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


_OF_OTHER_SHAPES = ("Adafactor", "LBFGS")  # optimizers of torch, all in Python
_NUMBERS = ("step", "eta", "mu", "mu_product")  # states that are one number


class Changing:
    """The objects that the training of one trial changes.

    Args:
        task: what is trained; its data are watched, too.
        model: as it was built, and so its optimizer and the task's loss.
    """

    def __init__(self, task: Task, model: nn.Module, optimizer: Optimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self._loss, self._device = task.loss, task.device
        # A loss may hold modules in a closure. Their tensors are kept wherever they are.
        self._modules = [model, *_modules_in(task.loss)]
        self._fresh: tuple[DataState, Fingerprint, list[Fingerprint]] | None = None
        if task.pause is not None:  # else `capture` is not asked for, and looking takes a little
            with suppress(Exception):  # as in `checkpoint`
                self._fresh = DataState(task), self._own(), self._others()

    def capture(self) -> dict[str, Any]:
        """Return all tensors and plain values.

        Raises:
            NotCapturable: something else has changed since the model was built.
        """
        if self._fresh is None:
            raise NotCapturable("its attributes cannot be compared")
        data, own, others = self._fresh
        data.require_unchanged()
        of_function = isinstance(self._loss, FunctionType) and is_own(self._loss.__module__)
        shared = [True, of_function]  # by trials: the rest is made anew for each
        for number, (fresh, now) in enumerate(zip(others, self._others(), strict=True)):
            if found := first_difference(fresh, now):
                if any(shared[number : number + 1]):
                    raise outlives(f"`{found[1]}`")
                raise NotCapturable(f"training changes the attribute `{found[1]}`")
        changed = differences(own, self._own())
        return {
            "modules": [_tensors(module) for module in self._modules],
            "attributes": capture_attributes(self._model, self._optimizer, changed, self._device),
            "optimizer": _optimizer_state(self._optimizer, self._device),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put everything back as `capture` found it.

        Raises:
            MisfitError: the model is another one now.
        """
        if len(state["modules"]) != len(self._modules):
            raise misfit("the loss is another one now")
        for module, tensors in zip(self._modules, state["modules"], strict=True):
            _restore_tensors(module, tensors)
        restore_attributes(self._model, state["attributes"], self._device)
        _restore_optimizer(self._optimizer, state["optimizer"], self._device)

    def _own(self) -> Fingerprint:
        """Return what the model's modules keep outside of parameters and buffers."""
        return model_fingerprint(self._model, by_value=True, thorough=True, only="own")

    def _others(self) -> list[Fingerprint]:
        """Return what models of its kind share, what the loss keeps, the optimizer, and hooks."""
        optimizer, model = self._optimizer, self._model
        captured = [t for m in self._modules for t in (*m.parameters(), *m.buffers())]
        captured += [t for own in optimizer.state.values() for t in own.values() if _is_tensor(t)]
        look = partial(function_fingerprint, by_value=True, thorough=True, apart_from=captured)
        own: dict[str, Any] = {}  # torch's need no more than their state
        if not type(optimizer).__module__.startswith("torch."):
            every = vars(SGD([torch.zeros(1)]))  # has them
            own = {name: x for name, x in vars(optimizer).items() if name not in every}
        own["frozen"] = [name for name, p in model.named_parameters() if not p.requires_grad]
        seen = [
            model_fingerprint(model, by_value=True, thorough=True, only="shared"),
            look(self._loss),
            look(SimpleNamespace(**own)),
        ]
        return [*seen, *map(look, _hooks(model))]


def _overwrite(tensor: Tensor, saved: Tensor, name: str) -> None:
    """Overwrite a tensor in place.

    Raises:
        MisfitError: it has another shape or type.
    """
    if tensor.shape != saved.shape or tensor.dtype != saved.dtype:
        was, now = (f"{tuple(t.shape)} {t.dtype}" for t in (saved, tensor))
        raise misfit(f"{name} was {was} and is {now}")
    with torch.no_grad():
        tensor.copy_(saved)


def _tensors(module: nn.Module) -> dict[str, dict[str, Tensor]]:
    return {
        "parameters": {name: copied(tensor) for name, tensor in module.named_parameters()},
        "buffers": {name: copied(tensor) for name, tensor in module.named_buffers()},
    }


def _restore_tensors(module: nn.Module, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
    parameters = dict(module.named_parameters())
    if parameters.keys() != saved["parameters"].keys():
        was, now = (", ".join(names) for names in (saved["parameters"], parameters))
        raise misfit(f"the parameters were {was}, and are {now}")
    for name, tensor in parameters.items():
        _overwrite(tensor, saved["parameters"][name], name)
    buffers = dict(module.named_buffers())
    for name in buffers.keys() - saved["buffers"].keys():
        owner, own_name = _owner(module, name)
        del owner._buffers[own_name]
    for name, value in saved["buffers"].items():
        own = buffers.get(name)
        if own is None or own.shape != value.shape or own.dtype != value.dtype:
            owner, own_name = _owner(module, name)  # made, or made anew, by the forward
            device = next(module.parameters(), value).device if own is None else own.device
            owner._buffers[own_name] = value.to(device, copy=True)
        elif 0 not in own.stride() or not torch.equal(own, value.to(own.device)):
            _overwrite(own, value, name)  # not into an expanded one, which cannot be written to


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, own_name = name.rpartition(".")
    return module.get_submodule(path), own_name


def _optimizer_state(optimizer: Optimizer, device: torch.device) -> list[dict[str, Any]]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not set(optimizer.state) <= set(parameters):
        raise NotCapturable("its optimizer keeps more than a state per parameter")
    state = optimizer.state
    return [
        {
            "numbers": {
                # a captured step holds the LR in a tensor
                name: float(value) if name == "lr" else plain(value, device)
                for name, value in group.items()
                if name != "params"
            },
            "states": [plain(state[p], device) if p in state else None for p in group["params"]],
        }
        for group in optimizer.param_groups
    ]


def _restore_optimizer(
    optimizer: Optimizer, saved: list[dict[str, Any]], device: torch.device
) -> None:
    """Put groups and states back; load_state_dict would cast states to their parameter's type."""
    groups = optimizer.param_groups
    if [len(g["params"]) for g in groups] != [len(s["states"]) for s in saved]:
        raise misfit("the optimizer's parameter groups are others now")
    for group, own in zip(groups, saved, strict=True):
        for name, value in own["numbers"].items():
            if name == "lr" and isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group[name] = revived(value, device)
        for parameter, state in zip(group["params"], own["states"], strict=True):
            if state is not None:
                _check_state(optimizer, parameter, state)
                optimizer.state[parameter] = revived(state, device)


def _check_state(optimizer: Optimizer, parameter: Tensor, state: Mapping[str, Any]) -> None:
    """Refuse tensors that the optimizer's kernels, which ask no questions, would read beyond.

    Raises:
        MisfitError: one has neither the parameter's form nor that of a number.
    """
    is_known = type(optimizer).__module__.startswith("torch.optim.")
    if not is_known or type(optimizer).__name__ in _OF_OTHER_SHAPES:
        return
    for name, value in state.items():
        saved = value.get(ON_HOST, value) if isinstance(value, Mapping) else value
        if not isinstance(saved, Tensor) or (name in _NUMBERS and saved.ndim == 0):
            continue
        if (saved.shape, saved.dtype) != (parameter.shape, parameter.dtype):
            form, own = (f"{tuple(t.shape)} {t.dtype}" for t in (saved, parameter))
            raise misfit(f"the optimizer's {name} is {form}, and its parameter {own}")


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _modules_in(value: Any, depth: int = 4) -> list[nn.Module]:
    """Return the modules that a function or object holds, each once, in a fixed order."""
    if isinstance(value, nn.Module):
        return [value]
    if depth == 0:
        return []
    found: dict[int, nn.Module] = {}
    for held in _held(value):
        found.update((id(module), module) for module in _modules_in(held, depth - 1))
    return list(found.values())


def _held(value: Any) -> Iterator[Any]:
    if isinstance(value, MethodType):
        yield value.__self__
    elif isinstance(value, FunctionType):
        assigned = [cell for cell in value.__closure__ or () if cell != CellType()]
        yield from (cell.cell_contents for cell in assigned)
        yield from value.__defaults__ or ()
    elif isinstance(value, list | tuple):
        yield from value
    elif isinstance(value, Mapping):
        yield from value.values()
    elif not isinstance(value, type | ModuleType):
        if callable(getattr(value, "func", None)):  # functools.partial
            yield from (value.func, getattr(value, "args", ()), getattr(value, "keywords", {}))
        yield from list(getattr(value, "__dict__", {}).values())


def _hooks(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        for name, value in vars(module).items():
            if name.endswith("_hooks") and "state_dict" not in name:
                yield from value.values()
