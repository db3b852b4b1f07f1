"""A step as a CUDA graph: its kernels are recorded once and launched together from then on.

The sequential engine's update on a GPU is eager at first, then a replayed graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_flatten, tree_unflatten

from lrexp.engine.cuda_graphs.capturable import Watch, why_not_capturable, why_not_optimizer
from lrexp.engine.step import make_update
from lrexp.engine.task import Task
from lrexp.workloads.batches import Batches
from lrexp.workloads.optimizers import capturable_flags, use_tensor_lrs
from lrexp.workloads.seeds import random_state_kept
from lrexp.workloads.tensors import ResidentBatches

T = TypeVar("T")
_NEVER_ENDED: list[torch.cuda.CUDAGraph] = []  # see _clear_away_a_failed_capture


class CapturedStep(Generic[T]):
    """A function of static tensors, recorded as a CUDA graph and replayed with one launch.

    Random numbers: every replay takes the seed and offset that the device's default generator has
    at that moment. The graph's kernels read both from device memory, where `CUDAGraph.replay`
    puts them before the launch (`replay_prologue` in ATen's CUDAGeneratorImpl.cpp), and count
    their own offsets from there. So a generator seeded right before a replay gives the numbers
    that the same seed gives without a graph; captures and replays of other graphs cannot shift
    them. Seeding inside of `step` is an error of torch.

    Args:
        step: reads `inputs`, changes other tensors in place, and returns static outputs. It must
            not wait for the device, and may free and make tensors as it likes: those live in
            memory of the graph's own.
        inputs: the static tensors that `step` reads; calls overwrite them.
        state: tensors that `step` changes, put back after the warm-up. What is made lazily, such
            as an optimizer's state, must exist before: made in a capture it would be made anew by
            every replay.
        warmups: executions before the capture, which let libraries allocate their workspaces and
            choose their kernels. 0 where `step` has run inside `on_side_stream` before.
        pool: memory to share with another graph, as `torch.cuda.graph` takes it.
        record: makes the graph, as `capture` does, which None stands for.

    Raises:
        Exception: whatever the capture raises. Nothing was executed by then, `state` and the
            generators are as before, and the device can be used on.

    Example:
        >>> x = torch.zeros(4, device="cuda")                               # doctest: +SKIP
        >>> double = CapturedStep(lambda x: 2 * x, [x])                     # doctest: +SKIP
        >>> double(torch.ones(4, device="cuda")).tolist()                   # doctest: +SKIP
        [2.0, 2.0, 2.0, 2.0]
    """

    def __init__(
        self,
        step: Callable[..., T],
        inputs: Sequence[Tensor],
        state: Sequence[Tensor] = (),
        *,
        device: torch.device | None = None,
        warmups: int = 3,
        pool: Any = None,
        record: Callable[[Callable[[], T], torch.device, Any], tuple[Any, T]] | None = None,
    ) -> None:
        device = inputs[0].device if device is None else device
        self.inputs = tuple(inputs)
        self._step = step  # holds what the kernels read and nobody else may hold, such as constants
        if warmups:
            _warm_up(lambda: step(*self.inputs), state, device, warmups)
        self._graph, self.outputs = (record or capture)(lambda: step(*self.inputs), device, pool)

    def __call__(self, *inputs: Tensor) -> T:
        """Copy `inputs` into the static ones, replay, and return the static outputs.

        Nothing waits for the device. The next call overwrites the outputs: clone what is to stay.

        Args:
            inputs: of the static ones' shapes. One that is the static tensor itself, because it
                was written in place, is not copied; none at all stands for all of these.
        """
        if inputs:
            for static, new in zip(self.inputs, inputs, strict=True):
                if new is not static:
                    if new.shape != static.shape:  # copy_ would broadcast
                        raise ValueError(f"captured for {static.shape}, got {new.shape}")
                    static.copy_(new, non_blocking=True)
        self._graph.replay()
        return self.outputs


def capture(step: Callable[[], T], device: torch.device, pool: Any = None) -> tuple[Any, T]:
    """Record what `step` launches; return the graph and the outputs that its replays fill.

    Nothing is executed on the device. Python code is, once: generators of the host that it draws
    from are put back.
    """
    graph = torch.cuda.CUDAGraph()
    pool = torch.cuda.graph_pool_handle() if pool is None else pool
    with torch.cuda.device(device), random_state_kept():
        before = torch.cuda.current_stream(device)
        try:
            # thread_local: a loader's pinning thread may call CUDA while we record, which
            # "global" would answer with an error in both threads.
            with torch.cuda.graph(
                graph, pool=pool, stream=side_stream(device), capture_error_mode="thread_local"
            ):
                outputs = step()
        except BaseException:
            torch.cuda.set_stream(before)  # most releases of torch stay on the capture's
            _clear_away_a_failed_capture(graph, device, pool)
            raise
    return graph, outputs


@contextmanager
def on_side_stream(device: torch.device) -> Iterator[None]:
    """Run the block on the stream that captures use, after all that was launched before it.

    What runs before a capture has to run on the capture's own stream: autograd nodes and
    workspaces of libraries belong to the stream on which they were first used, and one that
    belongs to the default stream makes a capture fail.
    """
    if device.type != "cuda":
        yield
        return
    stream, current = side_stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(current)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        current.wait_stream(stream)


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream of a device on which this process warms up and captures."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _warm_up(
    step: Callable[[], object], state: Sequence[Tensor], device: torch.device, times: int
) -> None:
    saved = [tensor.detach().clone() for tensor in state]
    with _generator_kept(device), random_state_kept(), on_side_stream(device):
        for _ in range(times):
            step()
    with torch.no_grad():
        for tensor, value in zip(state, saved, strict=True):
            tensor.copy_(value)


@contextmanager
def _generator_kept(device: torch.device) -> Iterator[None]:
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices) if devices else nullcontext():
        yield


def _clear_away_a_failed_capture(
    graph: torch.cuda.CUDAGraph, device: torch.device, pool: Any
) -> None:
    """Make the device usable again where torch leaves it in the middle of a failed capture.

    When ending a capture raises, `CUDAGraph::capture_end` of most releases of torch goes no
    further (aten/src/ATen/cuda/CUDAGraph.cpp).
    """
    # The allocator believes that the capture goes on: the next empty_cache(), which every capture
    # begins with, would fail an assertion. It may also go on asking the graph, which has to live.
    for name in ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"):
        if end := getattr(torch._C, name, None):
            with suppress(RuntimeError):  # it had ended
                end(device.index or 0, pool)
    try:
        graph.pool()
    except RuntimeError:
        _NEVER_ENDED.append(graph)
    # So does the generator's state: the next random number raises "Offset increment outside graph
    # capture". A clone has the same seed and offset and is in no capture. It is taken only where
    # it must be, because other graphs hold on to the present state.
    generator = torch.cuda.default_generators[device.index or 0]
    state = generator.get_state()
    try:
        torch.rand((), device=device)
        generator.set_state(state)
    except RuntimeError:
        generator.graphsafe_set_state(generator.clone_state())


Capture: TypeAlias = Callable[[Callable[[], Any], torch.device, Any], tuple[Any, Any]]


def _told_nobody(why_eager: str | None) -> None:
    pass


@dataclass(frozen=True)
class Graphs:
    """What an engine is given to capture with.

    Args:
        why_not: (task, model, optimizer) -> why its updates stay eager, as far as that is known
            before the first one, or None.
        capture: as `captured_step.capture`.
        decided: told of each training that may have a graph how it goes on: None with one, or
            why without.
    """

    why_not: Callable[[Task, nn.Module, Optimizer], str | None] = why_not_capturable
    capture: Capture = capture
    decided: Callable[[str | None], None] = _told_nobody


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

    def gather(self, rows: Tensor) -> Any:
        """Return the batch of these rows."""
        return self.data.gather(rows)


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
        if why is None:  # sparse gradients have taken its fused kernel away
            why = why_not_optimizer(self._optimizer)
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
    if isinstance(task.objective.loss, nn.Module):
        modules += task.objective.loss.modules()
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
