"""The sequential engine's update on a GPU: eager at first, then a replayed CUDA graph.

The first updates of a training are ordinary ones; they warm up what a capture needs warm. The
last of them is watched: a model that waits for the device, or whose Python code does something
else in every step, could not be replayed faithfully and stays eager for good, and so does one
whose capture fails. Either way the numbers are those of the eager update: the graph repeats its
kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_flatten, tree_unflatten

from lrexp.data import Batches
from lrexp.data.resident import ResidentBatches
from lrexp.engine.cuda_graphs.capturable import Watch
from lrexp.engine.cuda_graphs.captured_step import CapturedStep, on_side_stream
from lrexp.engine.cuda_graphs.graphs import Graphs
from lrexp.engine.optimizer import capturable_flags, use_tensor_lrs
from lrexp.engine.step import make_update
from lrexp.engine.task import Task

Update: TypeAlias = Callable[[list[Any]], Tensor]

EAGER_UPDATES = 3  # as many as torch's documentation warms up with
MOST_SHAPES = 8  # of batches, before one comes again: then there are too many
_FAILED_KINDS: set[str] = set()  # memory of a failed capture is lost: once for each kind of task


def prepare_update(
    task: Task,
    model: nn.Module,
    optimizer: Optimizer,
    capturable: bool | Callable[[], bool] | None = None,
    graphs: Graphs | None = None,
) -> tuple[Batches, Update]:
    """Return the batches to train on and the function that does one update with them.

    The batches go from one to the other as they are. The loss that an update returns may be
    overwritten by the next one.

    Args:
        task: what to train.
        model: its model, optimizer: and its optimizer, fresh.
        capturable: whether the model's Python code does the same in every step; None finds out.
        graphs: how it is captured; None is as a GPU does it.
    """
    graphs = graphs or Graphs()
    if capturable is False or graphs.why_not(task, model, optimizer) is not None:
        return task.train, make_update(task, model, optimizer)
    if isinstance(task.train, ResidentBatches):
        rows = Rows(task.train)
        update = make_update(task, model, optimizer, gather=rows.gather)
        batches = cast(Batches, rows)
    else:
        batches, update = task.train, make_update(task, model, optimizer)
    captured = CapturedUpdate(task, model, optimizer, update, capturable=capturable, graphs=graphs)
    return batches, captured


@dataclass(frozen=True, eq=False)
class Rows:
    """Resident data whose batches are row numbers; the update gathers them, inside its graph.

    So the host launches one small copy for a batch, whatever it consists of.
    """

    data: ResidentBatches

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Yield the rows of the training batches of one pass, each (batch_size,)."""
        size = self.data.batch_size
        order = self.data.order(seed, epoch)
        for first in range(start * size, self.data.batches_per_epoch * size, size):
            yield order.narrow(0, first, size)

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch of these rows."""
        return self.data.inputs.index_select(0, rows), self.data.targets.index_select(0, rows)


class CapturedUpdate:
    """Does updates: `EAGER_UPDATES` eager ones, then replays of a graph, if there can be one.

    Batches of another shape than the captured ones are done eagerly.

    Args:
        task: what is trained, model: the model, optimizer: its optimizer.
        eager: the update to capture.
        capturable, graphs: as `prepare_update` takes them.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        optimizer: Optimizer,
        eager: Update,
        *,
        capturable: bool | Callable[[], bool] | None,
        graphs: Graphs,
    ) -> None:
        self._task, self._model, self._optimizer = task, model, optimizer
        self._graphs = graphs
        self._eager, self._capturable = eager, capturable
        self._num_eager = 0
        self._shapes: set[Any] = set()  # of batches done eagerly: what they need is loaded
        self._graph: CapturedStep[Tensor] | None = None
        self._structure: Any = None
        self._why_eager: str | None = None  # once it is clear that there will be no graph

    def __call__(self, micro_batches: list[Any]) -> Tensor:
        """Do one update with its micro-batches; return its mean loss, valid until the next one."""
        if self._graph is not None:
            return self._replayed(self._graph, micro_batches)
        if self._why_eager is not None:
            return self._eager(micro_batches)
        self._num_eager += 1
        leaves, structure = tree_flatten(micro_batches)
        if (why := self._why_not_these(leaves)) is not None:
            self._stay_eager(why)
            return self._eager(micro_batches)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if self._num_eager > EAGER_UPDATES and shapes in self._shapes:
            return self._captured(micro_batches, leaves, structure)
        self._shapes.add(shapes)
        if self._num_eager == EAGER_UPDATES:
            return self._watched(micro_batches)
        with on_side_stream(self._task.device):
            return self._eager(micro_batches)

    @property
    def is_undecided(self) -> bool:
        """Return whether it is still open if there will be a graph."""
        return self._graph is None and self._why_eager is None

    def _stay_eager(self, why: str) -> None:
        self._why_eager = why
        self._graphs.decided(why)

    def _replayed(self, graph: CapturedStep[Tensor], micro_batches: list[Any]) -> Tensor:
        leaves, structure = micro_batches, self._structure
        if structure is not None:  # None: a list of tensors, as `Rows` gives
            leaves, structure = tree_flatten(micro_batches)
        if structure == self._structure and _fit(leaves, graph.inputs):
            return graph(*leaves)
        return self._eager(micro_batches)

    def _watched(self, micro_batches: list[Any]) -> Tensor:
        """Do the last eager update and find out whether the next ones can be replayed."""
        watch = Watch(self._task, self._model)
        with on_side_stream(self._task.device), watch.synchronisations():
            loss = self._eager(micro_batches)
        why = watch.why_it_waits()
        if why is None and self._capturable is None:
            why = watch.what_changed()
        if why is None and callable(self._capturable) and not self._capturable():
            why = "its Python code is not the same in every step"
        if why is not None:
            self._stay_eager(why)
        return loss

    def _captured(self, micro_batches: list[Any], leaves: list[Tensor], structure: Any) -> Tensor:
        """Capture the update and do it: capturing executes nothing."""
        static = [leaf.clone() for leaf in leaves]
        try:
            with undone_if_it_fails(self._task, self._model, self._optimizer):
                self._graph = self._capture(static, structure)
        except Exception as error:  # torch raises many kinds, and so does the model's code
            _FAILED_KINDS.add(self._task.kind)
            self._stay_eager(f"capturing it failed: {type(error).__name__}: {error}")
        if self._graph is None:  # outside of the except, whose traceback holds on to memory
            return self._eager(micro_batches)
        flat = len(leaves) == len(micro_batches) and all(
            isinstance(b, Tensor) for b in micro_batches
        )
        self._structure = None if flat else structure
        self._graphs.decided(None)
        return self._graph()

    def _why_not_these(self, leaves: list[Any]) -> str | None:
        if self._task.kind and self._task.kind in _FAILED_KINDS:
            return "capturing such a task failed before"
        if len(self._shapes) > MOST_SHAPES:
            return "its batches have many shapes"
        device = self._task.device.type
        if not all(isinstance(leaf, Tensor) and leaf.device.type == device for leaf in leaves):
            return "its batches hold something else than tensors on its device"
        return None

    def _capture(self, static: list[Tensor], structure: Any) -> CapturedStep[Tensor]:
        eager, model, optimizer = self._eager, self._model, self._optimizer
        buffers, state = _tensors(model, optimizer), _state_keys(optimizer)
        use_tensor_lrs(optimizer, self._task.device)
        with capturable_flags(optimizer):
            graph = CapturedStep(
                lambda *leaves: eager(tree_unflatten(leaves, structure)),
                static,
                device=self._task.device,
                warmups=0,
                record=self._graphs.capture,
            )
        # Tensors that were replaced would be read where they lie now, by replay after replay.
        now = _tensors(model, optimizer)
        if len(now) != len(buffers) or any(a is not b for a, b in zip(now, buffers, strict=True)):
            raise RuntimeError("a buffer or the optimizer's state became another tensor")
        if _state_keys(optimizer) != state:
            raise RuntimeError("the optimizer made state that it had not made before")
        return graph


def is_undecided(update: Update) -> bool:
    """Return whether an update of `prepare_update` may still turn into a graph."""
    return isinstance(update, CapturedUpdate) and update.is_undecided


@contextmanager
def undone_if_it_fails(task: Task, model: nn.Module, optimizer: Optimizer) -> Iterator[None]:
    """Put the attributes of modules and the optimizer back if the block raises.

    A failed capture executed nothing on the device, but the Python code ran: attributes may refer
    to tensors that will never be computed.
    """
    modules = list(model.modules())
    if isinstance(task.loss, nn.Module):
        modules += task.loss.modules()
    kept = [
        (own, dict(own))
        for module in modules
        for own in (vars(module), module._parameters, module._buffers)
    ]
    kept += [(group, dict(group)) for group in optimizer.param_groups]
    kept += [(state, dict(state)) for state in (optimizer.state, *optimizer.state.values())]
    gradients = [(p, p.grad) for p in model.parameters()]
    try:
        yield
    except BaseException:
        for own, before in kept:
            own.clear()
            own.update(before)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        raise


def _fit(leaves: list[Any], static: tuple[Tensor, ...]) -> bool:
    if len(leaves) != len(static):
        return False
    for new, old in zip(leaves, static, strict=True):
        if not isinstance(new, Tensor) or new.shape != old.shape or new.dtype is not old.dtype:
            return False
    return True


def _tensors(model: nn.Module, optimizer: Optimizer) -> list[Any]:
    of_optimizer = [value for state in optimizer.state.values() for value in state.values()]
    return [*model.parameters(), *model.buffers(), *of_optimizer]


def _state_keys(optimizer: Optimizer) -> list[tuple[int, list[str]]]:
    return [(id(parameter), list(state)) for parameter, state in optimizer.state.items()]
