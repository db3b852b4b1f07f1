"""The batches of each update, and the update: forward, backward, clip, step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map
from torch.utils.data import IterableDataset, Subset

from lrexp.engine.dropout import own_dropout
from lrexp.engine.state import is_stateful, misfit, plain, revived
from lrexp.engine.task import Task
from lrexp.workloads.batches import Batches
from lrexp.workloads.loaders import IterableBatches, LoaderBatches
from lrexp.workloads.losses import wrong_loss
from lrexp.workloads.objectives import OwnStep, is_of_parts
from lrexp.workloads.optimizers import parts_of, unfuse_if_sparse
from lrexp.workloads.streaming import StreamingBatches


@dataclass(frozen=True)
class Position:
    """How far a training has come: `step` updates, of which `epoch` began after `epoch_start`.

    `epoch` is that of the last update, even where it was the last one of its epoch: data without
    a length shows that only when it is asked for more.
    """

    step: int = 0
    epoch: int = 0
    epoch_start: int = 0

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], total_steps: int) -> Position:
        """Return the position that a checkpoint holds as a dict.

        Raises:
            ValueError: it is no place inside of a training of so many steps.
        """
        at = cls(**plain)
        are_counts = all(type(n) is int and n >= 0 for n in (at.step, at.epoch, at.epoch_start))
        if not are_counts or not at.epoch_start <= at.step < total_steps:
            raise ValueError(f"there is no {at} in {total_steps} steps")
        return at


class DataState:
    """The declared state of a task's data.

    Loaders, samplers and iterable datasets are gone through again from the start of a pass, so
    theirs is that of this moment. Datasets and collate functions are called for each batch, so
    theirs is that of the checkpoint.
    """

    def __init__(self, task: Task) -> None:
        iterated, called = _parts_of(task.train)
        self._iterated = _stateful(iterated)
        # an evaluation goes through all of its data at once
        self._called = _stateful([*called, *(part for own in _parts_of(task.val) for part in own)])
        self._all = [*self._iterated, *self._called]
        self._pass: list[Any] = []
        self._saved: Mapping[str, Any] | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Give all back their states at the end: every trial begins with the same."""
        before = [(part, copy.deepcopy(part.state_dict())) for part in self._all]
        try:
            yield
        finally:
            for part, state in before:
                part.load_state_dict(state)

    def start_pass(self, batches: Batches, seed: int, epoch: int, start: int) -> Iterator[Any]:
        """Return the batches of a pass from `start` on; after `restore`, in the states restored."""
        saved, self._saved = self._saved, None
        if saved is not None:
            _put_back(self._iterated, saved["pass"])
        self._pass = [copy.deepcopy(part.state_dict()) for part in self._iterated]
        if saved is None or not self._all:
            return iter(batches.epoch(seed, epoch, start))
        found = iter(batches.epoch(seed, epoch))
        for _ in range(start):
            next(found)
        _put_back(self._called, saved["now"])
        return found

    def to_plain(self) -> Any:
        """Return the states.

        Raises:
            NotCapturable: one holds something else than tensors and plain values.
        """
        return plain({"pass": self._pass, "now": [part.state_dict() for part in self._called]})

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `to_plain` gave, at the next pass.

        Raises:
            MisfitError: other parts of the data keep a state now.
        """
        if (len(saved["pass"]), len(saved["now"])) != (len(self._iterated), len(self._called)):
            raise misfit("other parts of the data keep a state now")
        self._saved = saved


def _put_back(parts: Sequence[Any], states: Sequence[Any]) -> None:
    for part, state in zip(parts, states, strict=True):
        part.load_state_dict(revived(state, torch.device("cpu")))


def _stateful(parts: Sequence[Any]) -> list[Any]:
    return list({id(part): part for part in parts if is_stateful(part)}.values())


def _parts_of(batches: Batches | None) -> tuple[list[Any], list[Any]]:
    """Return the user's own that is gone through in a pass, and that is called for each batch."""
    if isinstance(batches, IterableBatches):
        return [batches.dataset], []
    if isinstance(batches, StreamingBatches):
        return [], [_whole(batches.dataset), batches.collate]
    if not isinstance(batches, LoaderBatches):
        return [], []
    loader, dataset = batches.loader, batches.loader.dataset
    if is_stateful(loader):  # it looks after the others
        return [loader], []
    samplers = [
        loader.sampler,
        loader.batch_sampler,
        getattr(loader.batch_sampler, "sampler", None),
    ]
    if isinstance(dataset, IterableDataset):
        return [*samplers, dataset], [loader.collate_fn]
    return samplers, [_whole(dataset), loader.collate_fn]


def _whole(dataset: Any) -> Any:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def updates(
    batches: Batches,
    seed: int,
    accumulate: int,
    begin: Position | None = None,
    data: DataState | None = None,
) -> Iterator[tuple[int, list[Any]]]:
    """Yield (epoch, its micro-batches) for each update after `begin`, epoch after epoch.

    Every epoch starts afresh: micro-batches that do not fill an update are left out. `data` is
    what the batches come from, where its state is to be followed.
    """
    begin = begin or Position()
    epoch, done = begin.epoch, begin.step - begin.epoch_start  # updates of this epoch
    while True:
        pending: list[Any] = []
        empty = done == 0
        where = (seed, epoch, done * accumulate)
        one_pass = batches.epoch(*where) if data is None else data.start_pass(batches, *where)
        for batch in one_pass:
            pending.append(batch)
            if len(pending) == accumulate:
                yield epoch, pending
                pending, empty = [], False
        if empty:
            raise RuntimeError(f"the training data gave no full update in epoch {epoch}")
        epoch, done = epoch + 1, 0


def copy_batch(micro_batches: list[Any]) -> list[Any]:
    """Return the micro-batches again, for a model that changes its inputs in place."""
    copied: list[Any] = tree_map(
        lambda value: value.clone() if isinstance(value, Tensor) else value, micro_batches
    )
    return copied


def make_update(
    task: Task,
    model: nn.Module,
    optimizer: Optimizer,
    gather: Callable[[Any], Any] | None = None,
) -> Callable[[list[Any]], Tensor]:
    """Return a function that does one update and returns its mean loss, still on the device.

    The gradient of k micro-batches is the mean of theirs, so that k micro-batches of n samples
    give the update of one batch of k·n.

    Args:
        task: what to train, model: its model, optimizer: its optimizer.
        gather: what makes a batch of a micro-batch that is only its row numbers.
    """
    parameters = _parameters(optimizer)
    if task.make_scaler is not None:
        return _scaled_update(task, _forward(task, model, gather), optimizer, task.make_scaler())
    share: Tensor | None = None  # of each micro-batch in the gradient
    forward, on_cuda = _forward(task, model, gather), task.device.type == "cuda"
    is_settled = False  # which kernels the optimizer uses

    def of_one_loss(batch: Any) -> Tensor:
        nonlocal share
        loss: Tensor = forward(batch)
        share = _backward(task, loss, share)
        return loss.detach()

    forward_backward: Callable[[Any], Tensor] = of_one_loss
    if is_of_parts(task.objective):
        forward_backward = _backward_of_parts(task, model, optimizer, gather)

    def forward_backward_on_cuda(batch: Any) -> Tensor:
        with own_dropout():  # the masks that stacked copies can be given; recomputed ones, too
            return forward_backward(batch)

    def update(micro_batches: list[Any]) -> Tensor:
        nonlocal is_settled
        work = forward_backward_on_cuda if on_cuda else forward_backward
        loss = work(micro_batches[0])
        if len(micro_batches) > 1:
            others = [work(batch) for batch in micro_batches[1:]]
            loss = torch.stack([loss, *others]).mean()
        if task.grad_clip is not None:
            nn.utils.clip_grad_norm_(parameters, task.grad_clip)
        if not is_settled:
            is_settled = unfuse_if_sparse(optimizer)
        optimizer.step()
        for parameter in parameters:  # zero_grad() does this and a dozen microseconds of profiling
            parameter.grad = None
        return loss

    return update


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _backward_of_parts(
    task: Task, model: nn.Module, optimizer: Optimizer, gather: Callable[[Any], Any] | None
) -> Callable[[Any], Tensor]:
    """Return micro-batch -> loss, of a step that returns one for each optimizer.

    All are losses of the same weights; each gives gradients to the parameters of its own optimizer
    and to no others. The loss that is shown is, where one part is tested and the others stay at
    their LRs, that part's own: a sum may not move at all, as that of a minimax game.
    """
    assert isinstance(task.objective, OwnStep)
    forward = _forward(task, model, gather, task.objective.of_parts)
    owned = [_parameters(part) for part in parts_of(optimizer)]

    def forward_backward(batch: Any) -> Tensor:
        loss, losses = forward(batch)
        for i, (own, theirs) in enumerate(zip(losses, owned, strict=True), start=1):
            _backward(task, own, None, inputs=theirs, retain_graph=i < len(losses))
        shown: Tensor = losses[task.lead] if task.others_stay else loss
        return shown.detach()

    return forward_backward


def _forward(
    task: Task,
    model: nn.Module,
    gather: Callable[[Any], Any] | None,
    objective: Callable[[nn.Module, Any], Any] | None = None,
) -> Callable[[Any], Any]:
    """Return micro-batch -> what an objective gives; by default the loss of the task's own."""
    if objective is None:
        of_task = task.objective
        objective = lambda model, batch: of_task(model, batch)[0]  # noqa: E731
    # What CUDA's documentation asks of steps that are captured, and so of those before them: with
    # casts kept, gradients of a weight used twice would be summed in bfloat16.
    keeps_casts = task.device.type != "cuda"

    def forward(batch: Any) -> Any:
        if gather is not None:
            batch = gather(batch)
        if not task.autocast:
            return objective(model, batch)
        with torch.autocast(task.device.type, task.autocast_dtype, cache_enabled=keeps_casts):
            return objective(model, batch)

    return forward


SKIPPED = 40  # steps in a row: a scale of 2^16 is by then far below that of any gradient


def _scaled_update(
    task: Task, forward: Callable[[Any], Tensor], optimizer: Optimizer, scaler: torch.amp.GradScaler
) -> Callable[[list[Any]], Tensor]:
    """Return the update with scaled gradients, as torch's documentation of AMP writes it.

    A step that the scaler skips, for its scale was too large, is taken again: every LR of a
    schedule is used for an update.
    """
    parameters = _parameters(optimizer)

    def update(micro_batches: list[Any]) -> Tensor:
        for _ in range(SKIPPED):
            losses = [forward(batch) for batch in micro_batches]
            torch.autograd.backward(scaler.scale(torch.stack(losses).mean()))
            scaler.unscale_(optimizer)
            if task.grad_clip is not None:
                nn.utils.clip_grad_norm_(parameters, task.grad_clip)
            scale = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            for parameter in parameters:
                parameter.grad = None
            loss = torch.stack(losses).detach().mean()
            if scaler.get_scale() >= scale or not loss.isfinite():
                break
        return loss

    return update


def _backward(task: Task, loss: Tensor, share: Tensor | None, **options: Any) -> Tensor:
    """Add a micro-batch's gradients to the parameters'; return its share, for the next one."""
    try:
        if share is None:  # made once: loss.backward() makes a new tensor of ones every time
            share = torch.full_like(loss, 1 / task.accumulate)
        torch.autograd.backward(loss, grad_tensors=share, **options)
    except Exception as error:
        wrong = wrong_loss(task.objective.loss, loss, task.trial)
        if wrong is None:
            raise
        raise wrong from error
    return share
