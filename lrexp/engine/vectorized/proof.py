"""What an ordinary step tells of a model, and the proof that a stack trains as its trials do alone.

A stack runs Python code once, for a trace, so what the code keeps from step to step is lost, and
copies share what is neither parameter nor buffer. Nobody looks for that: the first steps of a
stack are compared with those of its trials one by one, of two seeds where there are several. What
does not show there, since it matters later or by less than rounding, is not found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lrexp.engine.cuda_graphs.capture import prepare_update
from lrexp.engine.dropout import MaskShape, generator_states, recorded_dropouts
from lrexp.engine.rng import preserved_rng, preserved_settings, seed_everything
from lrexp.engine.state import same_bits
from lrexp.engine.step import DataState
from lrexp.engine.task import Task
from lrexp.engine.training import Training
from lrexp.engine.vectorized.copies import NotStackable, Trained
from lrexp.records import TrialId
from lrexp.workloads.objectives import copy_objective
from lrexp.workloads.seeds import derive_seed

COMPARED = 3  # steps
SEEDS = 2  # that are compared


@contextmanager
def undisturbed(task: Task) -> Iterator[None]:
    """Give generators, settings and the task's data back their states at the end."""
    with preserved_rng(task.device), preserved_settings(), DataState(task).kept():
        yield


class Alone:
    """A fresh training of one task, step by step, without records.

    Args:
        task: it keeps its loss as it is; a copy is used.
        may_capture: steps become CUDA graphs where they can.

    Attributes:
        model: that is trained, task: with the copy of the loss.
        batch: the last micro-batch, as the data give it if nothing is captured.
    """

    def __init__(self, task: Task, *, may_capture: bool = True) -> None:
        self.task = replace(task, objective=copy_objective(task.objective), pause=None, state=None)
        self.model, optimizer = self.task.build()
        if not self.model.training:
            self.model.train()
        capturable = None if may_capture else False
        batches, update = prepare_update(self.task, self.model, optimizer, capturable)
        seed_everything(derive_seed(task.trial.seed, "training"))
        self._training = Training(self.task)
        begin = self._training.begin(self.model, optimizer, update)
        self._updates = self._training.updates(batches, begin)
        self.batch: Any = None

    def step(self, number: int) -> Tensor:
        """Do an update; return its loss, valid until the next one."""
        epoch, micro_batches = next(self._updates)
        self.batch = micro_batches[-1]
        _, loss = self._training.step(number, epoch, micro_batches)
        if self._training.lr_source.wants_loss:
            self._training.lr_source.observe(number, loss.item())
        return loss


@dataclass(frozen=True, eq=False)
class Facts:
    """What was seen in the first step of a task, and in an evaluation where it has any.

    Args:
        model: the model after this step; what it computes once and keeps is there already.
        mutated: names of buffers of the model and the loss (a `Trained`) that were changed.
        torch_random: the model draws random numbers of torch, apart from `dropouts`.
        dropouts: the dropout masks of one micro-batch.
        eval_random: an evaluation draws random numbers, those of dropouts included.
    """

    model: nn.Module = field(repr=False)
    mutated: frozenset[str]
    torch_random: bool
    dropouts: tuple[MaskShape, ...]
    eval_random: bool


def facts_of(task: Task) -> Facts:
    """Do a step of a fresh model as the sequential engine does it, and report.

    Raises:
        NotStackable: its forward replaces tensors.
        Exception: what the user's code raises.
    """
    with undisturbed(task):
        alone = Alone(task, may_capture=False)
        trained = Trained(alone.model, alone.task.objective)
        before = _tensors(trained)
        seen = {name: (_version(b), b.detach().clone()) for name, b in trained.named_buffers()}
        alone.step(0)
        eval_random = _evaluates_at_random(alone.task, alone.model)
        now = _tensors(trained)
        names = before.keys() | now.keys()
        if replaced := sorted(name for name in names if before.get(name) is not now.get(name)):
            others = f" and {len(replaced) - 1} more" if len(replaced) > 1 else ""
            name = replaced[0].removeprefix("model.")
            raise NotStackable(f"its forward replaces `{name}`{others} by another tensor")
        mutated = frozenset(
            name  # kernels of batch norm leave the version as it is
            for name, (version, value) in seen.items()
            if _version(now[name]) != version or not same_bits(now[name], value)
        )
        dropouts, torch_random = recorded_dropouts(
            lambda: _forward(alone.task, alone.model, alone.batch)
        )
    return Facts(alone.model, mutated, torch_random, dropouts, eval_random)


def _tensors(trained: nn.Module) -> dict[str, Tensor]:
    return {**dict(trained.named_parameters()), **dict(trained.named_buffers())}


def _version(tensor: Tensor) -> int | None:
    """Return the number of in-place changes so far; None where torch does not count them."""
    return None if tensor.is_inference() else tensor._version


def _forward(task: Task, model: nn.Module, batch: Any) -> None:
    with torch.autocast(task.device.type, torch.bfloat16, enabled=task.autocast):
        task.objective(model, batch)


def _evaluates_at_random(task: Task, model: nn.Module) -> bool:
    if task.val is None or not task.eval_every:
        return False
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    batch = next(iter(task.val.in_order()))
    before = generator_states()
    with torch.no_grad():
        _forward(task, model, batch)
    after = generator_states()
    for module, training in modes:
        module.training = training
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=False))


def witnesses(tasks: Sequence[Task]) -> list[int]:
    """Return whose steps are compared: of two seeds the task of the lowest LR, the tamest."""
    by_seed: dict[int, int] = {}
    for row in sorted(range(len(tasks)), key=lambda row: tasks[row].base_lr):
        by_seed.setdefault(tasks[row].trial.seed, row)
    return list(by_seed.values())[:SEEDS]


def first_losses(task: Task, buffers: Mapping[str, Tensor]) -> list[float]:
    """Return the losses of a task's first steps, one by one.

    Args:
        buffers: to begin with, by their names in a `Trained`: an evaluation may have changed
            them.
    """
    with undisturbed(task):
        alone = Alone(task)
        with torch.no_grad():
            for name, own in Trained(alone.model, alone.task.objective).named_buffers():
                if name in buffers:
                    own.copy_(buffers[name])
        return [alone.step(number).item() for number in range(min(COMPARED, task.total_steps))]


def require_alike(
    expected: Mapping[TrialId, Sequence[float]], tasks: Sequence[Task], step: int, losses: Tensor
) -> None:
    """Compare the losses of a step of a stack with those of trials on their own.

    Args:
        expected: of some trials, from the first step on; tasks: of the stack, a row each.
        losses: of that step, (copies,).

    Raises:
        NotStackable: they differ by more than rounding.
    """
    for task, loss in zip(tasks, losses.tolist(), strict=True):
        own = expected.get(task.trial)
        if own is not None and not agree(own[step], loss, tolerance(losses.dtype, task)):
            raise NotStackable(other_losses(own[step], loss))


def agree(own: float, stacked: float, tolerance: float) -> bool:
    """Return whether two trainings gave the same loss, up to rounding."""
    are_finite = math.isfinite(own) or math.isfinite(stacked)
    return not are_finite or math.isclose(own, stacked, rel_tol=tolerance, abs_tol=1e-9)


def tolerance(dtype: torch.dtype, task: Task) -> float:
    """Return what rounding may change of the first losses, as a share of them.

    Of small networks that is 2e-7 in float32, at any sane LR; deep ones amplify it. A GPU may take
    ten bits for the products of convolutions (TF32).
    """
    if task.autocast:
        return 3e-2
    return 1e-8 if dtype == torch.float64 else 1e-3 if task.device.type != "cpu" else 5e-5


def other_losses(own: float, stacked: float) -> str:
    """Return the reason why trials are trained one by one."""
    return (
        "its losses in a stack are not those of a trial on its own "
        f"({stacked:.6g} instead of {own:.6g})"
    )
