"""A step as a CUDA graph: its kernels are recorded once and launched together from then on.

A small training step is a hundred kernels of a few microseconds, each launched by a few dozen
microseconds of Python. Replaying a graph launches all of them at once. What it costs is freedom:
a replay repeats the same kernels on the same addresses with the same numbers as arguments, so
shapes, addresses and the path through the Python code must not change.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs, whole-network capture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from lrexp.data.randomness import random_state_kept

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
