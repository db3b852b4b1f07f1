"""What a training step does beside turning tensors into tensors, found by trying it.

Which parameters and buffers it changes, and how: in place or by replacing them.
"""

from __future__ import annotations

import copy
import itertools
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import CellType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.engine.dropout import MaskShape, generator_states, recorded_dropouts
from lrexp.engine.rng import Reseed, preserved_rng, preserved_settings, seed_everything
from lrexp.engine.step import make_update, updates
from lrexp.engine.task import Task
from lrexp.engine.training import LrSource
from lrexp.engine.vectorized.fingerprint import (
    Fingerprint,
    first_difference,
    function_fingerprint,
    model_fingerprint,
    version,
)
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.optimizers import set_lr, set_momentum
from lrexp.workloads.seeds import derive_seed


class Watch:
    """Follows the parameters and buffers of a model through updates.

    Attributes:
        mutated_buffers: names of buffers changed in place so far.
        mutated_parameters: names of parameters changed by anyone but the optimizer.
        reassigned: names of both that became other tensors, or that came or went.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model = model
        self.mutated_buffers: set[str] = set()
        self.mutated_parameters: set[str] = set()
        self.reassigned: set[str] = set()
        self._buffers = _snapshot(dict(model.named_buffers()))
        self._parameters = _snapshot(dict(model.named_parameters()))
        optimizer.register_step_pre_hook(lambda *_: self._before_step())

    def _before_step(self) -> None:
        self.mutated_parameters |= self._compare(
            self._parameters, dict(self._model.named_parameters())
        )

    def after_update(self) -> None:
        """Look at the buffers, and take the parameters as the optimizer left them for the next."""
        self.mutated_buffers |= self._compare(self._buffers, dict(self._model.named_buffers()))
        parameters = dict(self._model.named_parameters())
        self.reassigned |= _replaced(self._parameters, parameters)
        self._buffers = _snapshot(dict(self._model.named_buffers()))
        self._parameters = _snapshot(parameters)

    def after_evaluation(self) -> None:
        """Look at everything once more."""
        self._before_step()
        self.after_update()

    def _compare(self, before: dict[str, _Seen], now: Mapping[str, Tensor]) -> set[str]:
        gone = _replaced(before, now)
        self.reassigned |= gone
        return {name for name, seen in before.items() if name not in gone and seen.changed()}


@dataclass(frozen=True, eq=False)
class _Seen:
    """A tensor and what it was."""

    tensor: Tensor
    version: int | None
    value: Tensor

    def changed(self) -> bool:
        if version(self.tensor) != self.version or self.tensor.shape != self.value.shape:
            return True
        now, then = self.tensor.detach(), self.value  # `tensor.data = ...` has no new version
        return not bool(((now == then) | (now.isnan() & then.isnan())).all())


def _snapshot(tensors: Mapping[str, Tensor]) -> dict[str, _Seen]:
    return {name: _Seen(t, version(t), t.detach().clone()) for name, t in tensors.items()}


def _replaced(before: dict[str, _Seen], now: Mapping[str, Tensor]) -> set[str]:
    return {
        name
        for name in before.keys() | now.keys()
        if name not in before or name not in now or before[name].tensor is not now[name]
    }


@dataclass(frozen=True, eq=False)
class Facts:
    """What was seen in the first two updates of a task, and in an evaluation where it has any.

    Args:
        model: the model after these updates; what it computes once and keeps is there already.
        losses: of these updates, those that the sequential engine finds.
        mutated_buffers: names of buffers that were changed in place.
        mutated_parameters: names of parameters that were changed other than by the optimizer.
        reassigned: names of parameters and buffers that became other tensors, or that came or went.
        python_state: a phrase that names an attribute which changes from step to step.
        has_hooks: the user's own hooks are on modules or parameters.
        python_random: Python's or NumPy's global random numbers were drawn.
        torch_random: the model draws random numbers of torch, apart from `dropouts`.
        dropouts: the dropout masks of one micro-batch.
        eval_random: an evaluation draws random numbers, those of dropouts included.
    """

    model: nn.Module = field(repr=False)
    losses: list[float]
    mutated_buffers: frozenset[str]
    mutated_parameters: frozenset[str]
    reassigned: frozenset[str]
    python_state: str | None
    has_hooks: bool
    python_random: bool
    torch_random: bool
    dropouts: tuple[MaskShape, ...]
    eval_random: bool


def probe(task: Task) -> Facts:
    """Do two updates of a fresh model as the sequential engine does them, and report.

    The task's own loss, every global generator and the data are left as they were. What the user's
    code raises is raised.
    """
    task = replace(task, loss=copied(task.loss))
    with preserved_rng(task.device), preserved_settings():
        model, optimizer = task.build()
        if not model.training:
            model.train()
        watch = Watch(model, optimizer)
        seed_everything(derive_seed(task.trial.seed, "training"))
        python_before = _python_states()
        states, losses = [], []
        for loss, last in _updates(task, model, optimizer):
            watch.after_update()
            states.append(_states(task, model))
            losses.append(loss)
            batch = last
        state = _change(states, "step")
        dropouts, torch_random = recorded_dropouts(lambda: _forward(task, model, batch))
        python_random = python_before != _python_states()
        eval_state, eval_random, eval_python_random = _evaluated(task, model)
        watch.after_evaluation()
    return Facts(
        model=model,
        losses=losses,
        mutated_buffers=frozenset(watch.mutated_buffers),
        mutated_parameters=frozenset(watch.mutated_parameters),
        reassigned=frozenset(watch.reassigned),
        python_state=state or eval_state,
        has_hooks=_has_hooks(model),
        python_random=python_random or eval_python_random,
        torch_random=torch_random,
        dropouts=dropouts,
        eval_random=eval_random,
    )


def why_not_stackable(facts: Facts) -> str | None:
    """Return why copies of this model cannot be trained as one, or None where they can.

    The answer goes on after "cannot be trained as a stack: ".
    """
    if facts.reassigned:
        return f"its forward replaces {_listed(facts.reassigned)} by another tensor"
    if facts.mutated_parameters:
        return f"its forward changes the parameter {_listed(facts.mutated_parameters)}"
    if facts.python_state is not None:
        return f"{facts.python_state}, which stacked copies would share"
    if facts.python_random:
        return "it draws random numbers of Python or NumPy, which stacked copies would share"
    if facts.has_hooks:
        return "hooks are registered on it, which would run once for all stacked copies"
    return None


def differing_constant(one: nn.Module, other: nn.Module) -> str | None:
    """Return a phrase that names an attribute in which two fresh models differ, if there is one.

    Stacked copies share all that is neither parameter nor buffer. Models of two seeds may differ
    there: random features kept in a plain attribute, a random permutation.
    """
    found = first_difference(model_fingerprint(one, True), model_fingerprint(other, True))
    return None if found is None else f"{_owner(found[0])} has another `{found[1]}` in every seed"


def _updates(task: Task, model: nn.Module, optimizer: Optimizer) -> Iterator[tuple[float, Any]]:
    """Yield (loss, its last micro-batch) of each of the first two updates."""
    update, reseed = make_update(task, model, optimizer), Reseed(task.trial.seed, task.device)
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    lr_source = LrSource(task)
    momentum = task.schedule.momentum if isinstance(task.schedule, Schedule) else None
    batches = updates(task.train, task.trial.seed, task.accumulate)
    for number, (_, micro_batches) in enumerate(itertools.islice(batches, 2)):
        step = min(number, task.total_steps - 1)
        set_lr(optimizer, base_lrs, lr_source.lr(step) / task.base_lr)
        if momentum is not None:
            set_momentum(optimizer, momentum(step))
        reseed(step)
        loss = update(micro_batches).item()
        if lr_source.wants_loss:
            lr_source.observe(step, loss)
        yield loss, micro_batches[-1]


def _forward(task: Task, model: nn.Module, batch: Any) -> None:
    inputs, targets = batch
    with torch.autocast(task.device.type, torch.bfloat16, enabled=task.autocast):
        task.loss(model(inputs), targets)


def _evaluated(task: Task, model: nn.Module) -> tuple[str | None, bool, bool]:
    """Evaluate twice; return what of its state changed in between, and what random numbers it drew.

    That is: any of torch, any of Python or NumPy.

    What of it changed in training is known by then.
    """
    if task.val is None or not task.eval_every:
        return None, False, False
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    batch = next(iter(task.val.in_order()))
    before, states = (generator_states(), _python_states()), []
    with torch.no_grad():
        for _ in range(2):
            _forward(task, model, batch)
            states.append(_states(task, model))
    after = (generator_states(), _python_states())
    for module, training in modes:
        module.training = training
    drawn = any(not torch.equal(a, b) for a, b in zip(before[0], after[0], strict=False))
    return _change(states, "evaluation"), drawn, before[1] != after[1]


def _states(task: Task, model: nn.Module) -> tuple[Fingerprint, Fingerprint]:
    return model_fingerprint(model), function_fingerprint(task.loss)


def _change(states: list[tuple[Fingerprint, Fingerprint]], when: str) -> str | None:
    (model_before, loss_before), (model_after, loss_after) = states
    if found := first_difference(model_before, model_after):
        return f"{_owner(found[0])} changes its attribute `{found[1]}` in every {when}"
    if found := first_difference(loss_before, loss_after):
        return f"its loss changes its attribute `{found[1]}` in every {when}"
    return None


def _owner(path: str) -> str:
    return f"its module {path}" if path else "the model"


def _listed(names: frozenset[str]) -> str:
    first, *others = sorted(names)
    return f"`{first}`" + (f" and {len(others)} more" if others else "")


def _python_states() -> tuple[str, str]:
    numpy = sys.modules.get("numpy")
    return repr(random.getstate()), repr(numpy.random.get_state(legacy=False)) if numpy else ""


def _has_hooks(model: nn.Module) -> bool:
    """Return whether anyone but torch itself put hooks on modules, parameters or buffers."""
    hooks: list[Callable[..., Any]] = []
    for module in model.modules():
        for name, value in vars(module).items():
            if name.endswith("hooks") and "state_dict" not in name:
                hooks += value.values()
    for tensor in (*model.parameters(), *model.buffers()):
        for name in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            hooks += (getattr(tensor, name, None) or {}).values()
    return any(not _is_torchs(hook) for hook in hooks)


def _is_torchs(hook: Any) -> bool:
    module = getattr(hook, "__module__", None) or type(hook).__module__
    return str(module).split(".", maxsplit=1)[0] == "torch"


def copied(loss: Any, depth: int = 3) -> Any:
    """Return a copy of a loss with all that it keeps; deepcopy takes functions as they are."""
    try:
        if depth == 0 or not isinstance(loss, FunctionType) or not loss.__closure__:
            return copy.deepcopy(loss)
        cells = tuple(CellType(copied(c.cell_contents, depth - 1)) for c in loss.__closure__)
    except Exception:  # an open file, a graph's tensor, a `__deepcopy__` that raises: share it
        return loss
    code, scope, name = loss.__code__, loss.__globals__, loss.__name__
    twin = FunctionType(code, scope, name, loss.__defaults__, cells)
    twin.__kwdefaults__ = loss.__kwdefaults__
    return twin
