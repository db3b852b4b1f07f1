"""Captured steps: on a GPU against eager ones; without one, all but the capture itself."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lrexp.analysis.stopping import DivergenceStop
from lrexp.engine.cuda_graphs.capturable import (
    FEWEST_STEPS,
    Watch,
    why_not_capturable,
    why_not_model,
    why_not_optimizer,
)
from lrexp.engine.cuda_graphs.capture import (
    EAGER_UPDATES,
    CapturedStep,
    Graphs,
    Rows,
    prepare_update,
)
from lrexp.engine.read_back import Losses, Slots
from lrexp.engine.rng import Reseed
from lrexp.engine.sequential import run_sequentially
from lrexp.engine.stop import Pace
from lrexp.engine.task import Task
from lrexp.records import Ended, Evaluation, Failed, Steps, TrialId
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.objectives import of_pairs
from lrexp.workloads.optimizers import make_optimizer

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
SGD, Adam, AdamW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW


def exact_decay(step: int) -> float:
    """LRs that float32 holds exactly, as captured kernels read them."""
    return 0.125 * (1 - step / 128)


def mlp(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)
    )


def make_task(
    device: torch.device,
    initial: nn.Module | None = None,
    optimizer: type[torch.optim.Optimizer] = SGD,
    args: dict[str, Any] | None = None,
    models: list[nn.Module] | None = None,
    **changes: Any,
) -> Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(160, 6, generator=generator)
    y = torch.randint(0, 3, (160,), generator=generator)
    data = data_from_objects(((x, y), (x[:40], y[:40])), batch_size=16).to(device)
    initial = mlp() if initial is None else initial

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = copy.deepcopy(initial).to(device)
        if models is not None:
            models.append(model)
        return model, make_optimizer(optimizer, model, lr=0.125, args=args or {})

    task = Task(
        trial=TrialId("a", 0),
        build=build,
        objective=of_pairs(functional.cross_entropy),
        train=data.train,
        val=data.val,
        schedule=Schedule(lr=exact_decay),
        base_lr=0.125,
        total_steps=60,
        eval_every=20,
        stop=DivergenceStop(),
        device=device,
    )
    return replace(task, **changes)


def run(task: Task, graphs: Graphs | None = None) -> list[Any]:
    records = list(run_sequentially([task], graphs))
    assert not [r.error for r in records if isinstance(r, Failed)]
    return records


def losses(records: list[Any]) -> list[float]:
    return [x for record in records if isinstance(record, Steps) for x in record.loss]


def run_eagerly(task: Task) -> list[Any]:
    return run(task, Graphs(why_not=lambda *_: "this is a test"))


# --- without a GPU: a graph that runs the step again --------------------------------------------


class FakeGraph:
    """Replays by calling the step; its outputs are static, and nothing but a replay fills them."""

    def __init__(self, step: Callable[[], torch.Tensor], output: torch.Tensor) -> None:
        self.step, self.output, self.replays = step, output, 0

    def replay(self) -> None:
        self.replays += 1
        self.output.copy_(self.step())


class Fake:
    """Captures on the CPU; `decided` and the replays of all graphs are seen."""

    def __init__(self, capture: Callable[..., Any] | None = None) -> None:
        self.decided: list[str | None] = []
        self.made: list[FakeGraph] = []
        self.graphs = Graphs(lambda *_: None, capture or self.capture, self.decided.append)

    def capture(self, step: Any, device: torch.device, pool: Any = None) -> tuple[Any, Any]:
        output = torch.full((), float("nan"))
        self.made.append(FakeGraph(step, output))
        return self.made[-1], output

    @property
    def replays(self) -> list[int]:
        return [graph.replays for graph in self.made]


# The output of a graph is overwritten by the next replay, so on a GPU each loss is copied to a slot
# of its own. Here losses are read back after each step instead.
AT_ONCE = Pace(chunk_steps=1)


def test_a_call_copies_what_is_new_replays_and_returns_the_static_output() -> None:
    x, y, total = torch.zeros(3), torch.ones(3), torch.zeros(())

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return total.add_((x * y).sum()).clone()

    captured = CapturedStep(step, [x, y], [total], record=Fake().capture)
    assert total == 0  # the warm-up is undone
    out = captured(torch.full((3,), 2.0), y)
    assert out.item() == 6.0
    y.fill_(3.0)  # written in place: nothing to copy
    assert captured() is out
    assert out.item() == 6.0 + 18.0
    with pytest.raises(ValueError, match="captured for"):
        captured(torch.ones(1), y)


def test_a_warm_up_leaves_generators_and_state_as_they_were() -> None:
    weight = nn.Parameter(torch.zeros(2))

    def step(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            weight.add_(torch.rand(2) + random.random())
        return weight.sum().detach()

    before = torch.get_rng_state(), random.getstate()
    CapturedStep(step, [torch.zeros(())], [weight], record=Fake().capture)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert weight.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("optimizer", "args"), [(SGD, {"momentum": 0.5}), (AdamW, {})])
def test_replays_continue_the_eager_updates(
    optimizer: Any, args: dict[str, Any], accumulate: int
) -> None:
    task = make_task(CPU, optimizer=optimizer, args=args, accumulate=accumulate, grad_clip=0.5)
    task, fake = replace(task, pace=AT_ONCE), Fake()
    eager, captured = run_eagerly(task), run(task, fake.graphs)
    assert fake.decided == [None]
    assert fake.replays == [60 - EAGER_UPDATES]
    assert losses(captured) == losses(eager)
    lrs = [x for r in captured if isinstance(r, Steps) for x in r.lr]
    assert lrs == [exact_decay(step) for step in range(60)]


def test_a_learning_rate_is_a_tensor_and_groups_keep_their_ratio() -> None:
    model = mlp()
    optimizer = make_optimizer(
        SGD, model, lr=0.125, args={}, groups=[{"match": "4", "lr_scale": 2.0}]
    )
    task, fake = make_task(CPU, build=lambda: (model, optimizer)), Fake()
    run(task, fake.graphs)
    assert fake.decided == [None]
    last = exact_decay(59)
    assert [group["lr"].dtype for group in optimizer.param_groups] == [torch.float32] * 2
    assert [group["lr"].item() for group in optimizer.param_groups] == [last, 2 * last]


class Batches:
    """Pairs in dicts, of 16 samples but for every fourth batch."""

    batches_per_epoch, workers = 10, 0

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(epoch)
        for i in range(10):
            n = 8 if i % 4 == 3 else 16
            x = torch.randn(n, 6, generator=generator).to(self._device)
            yield {"x": x}, torch.arange(n, device=self._device) % 3


class TakesDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.inner(batch["x"])


def of_changing_shapes(device: torch.device) -> Task:
    return make_task(device, TakesDict(), train=Batches(device), val=None, eval_every=0)


def test_batches_of_another_shape_are_done_eagerly() -> None:
    task, fake = replace(of_changing_shapes(CPU), pace=AT_ONCE), Fake()
    assert losses(run(task, fake.graphs)) == losses(run_eagerly(task))
    # Of 16 samples are 48 updates: three came before, and the fourth had a shape not seen yet.
    assert fake.replays == [45]


def test_batches_of_ever_new_shapes_are_given_up() -> None:
    class Growing(Batches):
        def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Any]:
            for n in range(2, 40):
                yield {"x": torch.ones(n, 6)}, torch.arange(n) % 3

    task = make_task(CPU, TakesDict(), train=Growing(CPU), val=None, eval_every=0, total_steps=30)
    fake = Fake()
    assert losses(run(task, fake.graphs)) == losses(run_eagerly(task))
    assert fake.decided == ["its batches have many shapes"]


def failing_capture(step: Any, device: torch.device, pool: Any = None) -> Any:
    step_of_a_capture[0] = True
    try:
        step()
    finally:
        step_of_a_capture[0] = False
    raise RuntimeError("operation not permitted when stream is capturing")


step_of_a_capture = [False]


class RemembersInCapture(nn.Linear):
    """Leaves a trace in attributes, where the host's code runs for a capture only."""

    trace = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if step_of_a_capture[0]:
            self.trace = x
            self.shift = self.shift + 1
        return super().forward(x) + self.shift


def test_a_failed_capture_leaves_nothing_behind() -> None:
    """The fake executes what it captures, so the numbers of tensors are not looked at here."""
    model = RemembersInCapture(6, 3)
    model.register_buffer("shift", torch.zeros(3))
    shift = model.shift
    optimizer = make_optimizer(Adam, model, lr=0.125, args={})
    task = make_task(CPU, build=lambda: (model, optimizer), kind="of this test")
    fake = Fake(failing_capture)
    run(task, fake.graphs)
    assert "not permitted when stream is capturing" in str(fake.decided[0])
    assert model.trace is None
    assert model.shift is shift
    assert all(parameter.grad is None for parameter in model.parameters())
    assert optimizer.param_groups[0]["lr"] == exact_decay(59)
    assert optimizer.param_groups[0]["capturable"] is False
    run(make_task(CPU, kind="of this test"), fake.graphs)
    assert fake.decided[1:] == ["capturing such a task failed before"]


class Replaces(nn.Linear):
    """Replaces a buffer, but not before it is captured."""

    calls = 0

    def __init__(self) -> None:
        super().__init__(6, 3)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if step_of_a_capture[0]:
            self.mean = self.mean + 1
        return super().forward(x)


def test_a_capture_that_replaced_a_buffer_is_thrown_away() -> None:
    def capture(step: Any, device: torch.device, pool: Any = None) -> Any:
        step_of_a_capture[0] = True
        step()
        step_of_a_capture[0] = False
        return object(), torch.zeros(())

    model, fake = Replaces(), Fake(capture)
    optimizer = make_optimizer(SGD, model, lr=0.125, args={})
    run(make_task(CPU, build=lambda: (model, optimizer)), fake.graphs)
    assert "became another tensor" in str(fake.decided[0])
    assert model.mean.item() == 0


def counting_loss() -> Any:
    calls: list[int] = []

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return functional.cross_entropy(output, target)

    return loss


class Module(nn.Linear):
    """A model that does something in every forward."""

    def __init__(self, what: Callable[[Any], object]) -> None:
        super().__init__(6, 3)
        self.register_buffer("mean", torch.zeros(()))
        self.calls, self.memory, self.what = 0, None, [what]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.what[0](self)
        return super().forward(x)


@pytest.mark.parametrize(
    ("what", "loss", "expected"),
    [
        (lambda m: None, functional.cross_entropy, None),
        (lambda m: m.mean.add_(1), functional.cross_entropy, None),
        (lambda m: setattr(m, "calls", m.calls + 1), functional.cross_entropy, "`calls`"),
        (lambda m: setattr(m, "memory", m.mean + 1), functional.cross_entropy, "`memory`"),
        (lambda m: setattr(m, "mean", m.mean + 1), functional.cross_entropy, "replaces a buffer"),
        (lambda m: random.random(), functional.cross_entropy, "on the host"),
        (lambda m: np.random.rand(), functional.cross_entropy, "on the host"),  # noqa: NPY002
        (lambda m: torch.rand(1), functional.cross_entropy, "on the host"),
        (lambda m: None, counting_loss(), "`calls`"),
    ],
)
def test_python_code_that_does_something_else_in_every_step_is_not_captured(
    what: Any, loss: Any, expected: str | None
) -> None:
    fake = Fake()
    task = make_task(
        CPU, Module(what), objective=of_pairs(loss), val=None, eval_every=0, pace=AT_ONCE
    )
    assert losses(run(task, fake.graphs)) == losses(run_eagerly(task))
    (why,) = fake.decided
    assert why is None if expected is None else expected in str(why)


@pytest.mark.parametrize(
    ("known", "captured"),
    [(True, True), (lambda: True, True), (lambda: False, False), (False, None)],
)
def test_whoever_knows_the_model_decides(known: Any, captured: bool | None) -> None:
    task = make_task(CPU, Module(lambda m: setattr(m, "calls", m.calls + 1)))
    model, optimizer = task.build()
    fake = Fake()
    batches, update = prepare_update(task, model, optimizer, known, fake.graphs)
    if captured is None:
        assert batches is task.train
        return
    assert isinstance(batches, Rows)
    for rows in batches.epoch(0, 0):
        update([rows])
    assert fake.decided == [None if captured else "its Python code is not the same in every step"]
    assert fake.replays == ([10 - EAGER_UPDATES] if captured else [])


def test_rows_are_those_of_the_batches() -> None:
    train = make_task(CPU).train
    rows = Rows(train)  # type: ignore[arg-type]
    for start in (0, 3):
        pairs = zip(train.epoch(5, 2, start), rows.epoch(5, 2, start), strict=True)
        for (x, y), batch in pairs:
            gathered = rows.gather(batch)
            assert torch.equal(gathered[0], x)
            assert torch.equal(gathered[1], y)


def test_losses_held_on_a_device_are_copies() -> None:
    slots, loss = Slots(3, CPU), torch.zeros(())
    for value in (0.1, 0.2):
        slots.add(loss.fill_(value))
    assert slots.count == 2
    assert slots.read() == [torch.tensor(0.1).item(), torch.tensor(0.2).item()]
    slots.add(loss.fill_(0.3))
    assert slots.read() == [torch.tensor(0.3).item()]


# --- what is captured ---------------------------------------------------------------------------


def on_cuda_in_name(**changes: Any) -> Task:
    return replace(make_task(CPU), device=CUDA, **{"total_steps": 600, **changes})


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (on_cuda_in_name(), None),
        (make_task(CPU), "not train on a GPU"),
        (on_cuda_in_name(total_steps=FEWEST_STEPS - 1), "too short"),
        (on_cuda_in_name(schedule=Schedule(exact_decay, momentum=lambda s: 0.9)), "momentum"),
    ],
)
def test_which_tasks_are_captured(task: Task, expected: str | None) -> None:
    why = why_not_capturable(task, *task.build())
    assert why is None if expected is None else expected in str(why)


@pytest.mark.parametrize(
    ("optimizer", "args", "expected"),
    [
        (SGD, {}, None),
        (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, None),
        (Adam, {"amsgrad": True}, None),
        (AdamW, {}, None),
        (SGD, {"foreach": True}, "fused"),
        (AdamW, {"capturable": False}, "fused"),
        (torch.optim.Adagrad, {}, "another than"),
        (torch.optim.RMSprop, {}, "another than"),
    ],
)
def test_which_optimizers_are_captured(optimizer: Any, args: Any, expected: str | None) -> None:
    why = why_not_optimizer(make_optimizer(optimizer, mlp(), lr=0.1, args=args))
    assert why is None if expected is None else expected in str(why)


def test_optimizers_with_hooks_tensors_or_float64_are_not_captured() -> None:
    hooked = make_optimizer(SGD, mlp(), lr=0.1, args={})
    hooked.register_step_post_hook(lambda *_: None)
    assert "hooks" in str(why_not_optimizer(hooked))
    given = make_optimizer(SGD, mlp(), lr=0.1, args={})
    given.param_groups[0]["lr"] = torch.tensor(0.1)
    assert "tensors for numbers" in str(why_not_optimizer(given))
    double = make_optimizer(SGD, mlp().double(), lr=0.1, args={})
    assert "float64" in str(why_not_optimizer(double))


def hooked(register: Callable[[nn.Module], object]) -> nn.Module:
    model = mlp()
    register(model)
    return model


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (mlp(dropout=0.5), None),
        (nn.LSTM(3, 4, 2), None),
        (nn.Sequential(nn.LSTM(3, 4, 2, dropout=0.1)), "recurrent"),
        (hooked(lambda m: m[0].register_forward_hook(lambda *_: None)), "hooks"),
        (hooked(lambda m: m[0].register_full_backward_hook(lambda *_: None)), "hooks"),
        (hooked(lambda m: m[0].weight.register_hook(lambda g: None)), "parameters"),
        (nn.DataParallel(mlp()), "DataParallel"),
    ],
)
def test_which_models_are_captured(model: nn.Module, expected: str | None) -> None:
    why = why_not_model(model)
    assert why is None if expected is None else expected in str(why)


def test_a_model_that_cannot_be_looked_at_is_not_captured() -> None:
    class Opaque:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    model = mlp()
    model.opaque = {Opaque(): 1}
    watch = Watch(make_task(CPU), model)
    assert watch.what_changed() == "its attributes cannot be compared"


# --- on a GPU -----------------------------------------------------------------------------------


def on_gpu() -> tuple[Graphs, list[str | None]]:
    """Return how short trainings are captured, too, and what is decided of each."""
    decided: list[str | None] = []
    return Graphs(partial(why_not_capturable, fewest_steps=0), decided=decided.append), decided


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("optimizer", "args", "changes"),
    [
        (SGD, {}, {}),
        (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, {}),
        (SGD, {"momentum": 0.9}, {"grad_clip": 0.1}),
        (SGD, {"momentum": 0.9}, {"accumulate": 3}),
        (SGD, {"momentum": 0.9}, {"autocast": True}),
        (Adam, {"amsgrad": True}, {}),
        (AdamW, {"weight_decay": 0.1}, {}),
        (AdamW, {}, {"accumulate": 2, "grad_clip": 0.1}),
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_graph_trains_as_the_eager_update_does(
    optimizer: Any, args: Any, changes: Any, dropout: float
) -> None:
    graphs, decided = on_gpu()
    models: list[nn.Module] = []
    task = make_task(CUDA, mlp(dropout), optimizer, args, models, **changes)
    eager, captured = run_eagerly(task), run(task, graphs)
    assert decided == [None]
    assert losses(captured) == pytest.approx(losses(eager), rel=1e-6)
    one, other = (model.state_dict() for model in models)  # BatchNorm's buffers are among it
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.cuda
def test_a_graph_repeats_the_bits_of_eager_updates() -> None:
    graphs, decided = on_gpu()
    task = make_task(CUDA, mlp(dropout=0.5), SGD, {"momentum": 0.9})
    assert losses(run(task, graphs)) == losses(run_eagerly(task))
    assert decided == [None]


@pytest.mark.cuda
def test_masks_in_a_graph_are_fixed_by_seed_and_step() -> None:
    graphs, decided = on_gpu()
    task = make_task(CUDA, mlp(dropout=0.5))
    first = losses(run(task, graphs))
    torch.rand(5, device=CUDA)
    assert losses(run(replace(task, eval_every=1), graphs)) == first
    assert losses(run(replace(task, trial=TrialId("a", 1)), graphs)) != first
    assert len(set(first)) > 50  # every replay has masks and rows of its own
    assert decided == [None, None, None]


@pytest.mark.cuda
def test_a_constant_lr_is_used_and_changes_reach_the_kernels() -> None:
    """From step 30 on the LR is 0: nothing moves any more."""
    graphs, decided = on_gpu()
    frozen = Schedule(lr=lambda step: 0.125 if step < 30 else 0.0)
    models: list[nn.Module] = []
    start = nn.Linear(6, 3)
    task = make_task(CUDA, start, models=models, schedule=frozen)
    run(task, graphs)
    assert decided == [None]
    run_eagerly(replace(task, total_steps=30))
    torch.testing.assert_close(models[0].weight, models[1].weight)
    assert not torch.allclose(models[0].weight.cpu(), start.weight)


@pytest.mark.cuda
def test_batches_of_another_shape_are_done_eagerly_on_a_gpu() -> None:
    graphs, decided = on_gpu()
    task = of_changing_shapes(CUDA)
    expected = losses(run_eagerly(task))
    assert losses(run(task, graphs)) == pytest.approx(expected, rel=1e-6)
    assert decided == [None]


class Waits(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (1.0 + (x.sum().item() > 0))


class RaisesInCapture(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.cuda.is_current_stream_capturing():
            raise ValueError("not here")
        return x


class WaitsInCapture(nn.Module):
    """Escapes the look that is taken before, and makes the capture invalid."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.cuda.is_current_stream_capturing():
            return x * x.sum().item()
        return x


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Waits, "waits for the device"),
        (RaisesInCapture, "capturing it failed: ValueError: not here"),
        (WaitsInCapture, "capturing it failed"),
    ],
)
def test_what_cannot_be_captured_trains_eagerly_and_the_next_trial_is_captured(
    module: type[nn.Module], why: str
) -> None:
    graphs, decided = on_gpu()
    model = nn.Sequential(module(), mlp(dropout=0.5))
    task = make_task(CUDA, model, AdamW)
    expected = losses(run_eagerly(task))
    before = torch.cuda.get_rng_state(CUDA)
    records = run(task, graphs)
    assert why in str(decided[0])
    assert losses(records) == pytest.approx(expected, rel=1e-6)
    assert isinstance(records[-1], Ended)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.equal(torch.cuda.get_rng_state(CUDA), before)
    torch.rand(3, device=CUDA)  # the generator must not believe that it is captured
    after = make_task(CUDA, mlp(dropout=0.5), AdamW)
    assert losses(run(after, graphs)) == pytest.approx(losses(run_eagerly(after)), rel=1e-6)
    assert decided[1:] == [None]


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_no_update_waits_for_the_device() -> None:
    graphs, decided = on_gpu()
    task = make_task(CUDA, mlp(dropout=0.5), grad_clip=1.0)
    model, optimizer = task.build()
    batches, update = prepare_update(task, model, optimizer, None, graphs)
    held, reseed = Losses(task), Reseed(0, CUDA)

    def epoch(number: int) -> None:
        for step, rows in enumerate(batches.epoch(0, number)):
            reseed(10 * number + step)
            held.add(number, 0.1, update([rows]))

    epoch(0)
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        epoch(1)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    assert decided == [None]
    assert len(set(held.flush().loss)) == 20


@pytest.mark.cuda
def test_a_step_of_its_own_is_captured_after_a_warm_up_that_changes_nothing() -> None:
    total = torch.zeros(4, device=CUDA)
    before = torch.cuda.get_rng_state(CUDA)

    def step(x: torch.Tensor) -> torch.Tensor:
        total.add_(x + torch.rand(4, device=CUDA))
        return total.sum()

    captured = CapturedStep(step, [torch.zeros(4, device=CUDA)], [total])
    assert total.tolist() == [0.0] * 4
    assert torch.equal(torch.cuda.get_rng_state(CUDA), before)
    reseed = Reseed(3, CUDA)
    seen = []
    for number in (1, 1, 2):
        total.zero_()
        reseed(number)
        seen.append(captured(torch.ones(4, device=CUDA)).item())
    assert seen[0] == seen[1] != seen[2]
    reseed(1)
    assert seen[0] == pytest.approx((1 + torch.rand(4, device=CUDA)).sum().item())


@pytest.mark.cuda
def test_evaluations_between_replays_see_the_trained_weights() -> None:
    graphs, decided = on_gpu()
    task = make_task(CUDA, eval_every=10)
    both = [
        [r.values["val_loss"] for r in records if isinstance(r, Evaluation)]
        for records in (run_eagerly(task), run(task, graphs))
    ]
    assert both[1] == pytest.approx(both[0], rel=1e-5)
    assert len(set(both[1])) == 7
    assert decided == [None]
