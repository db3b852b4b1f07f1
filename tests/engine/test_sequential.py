"""The training loop against loops written by hand with torch alone."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lrexp.analysis.stopping import DivergenceStop
from lrexp.engine.sequential import run_sequentially
from lrexp.engine.stop import Pace
from lrexp.engine.task import Task
from lrexp.records import Ended, Evaluation, Failed, Started, Steps, TrialId
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.objectives import of_pairs
from lrexp.workloads.optimizers import make_optimizer

CPU = torch.device("cpu")


def constant(lr: float) -> Schedule:
    return Schedule(lr=lambda step: lr)


def decaying(lr: float) -> Schedule:
    return Schedule(lr=lambda step: lr / (1 + step))


def regression_data(samples: int = 96, val: int = 40) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(samples + val, 5, generator=generator)
    y = x @ torch.arange(1.0, 6.0).unsqueeze(1) + 0.1 * torch.randn(
        samples + val, 1, generator=generator
    )
    return (x[:samples], y[:samples]), (x[samples:], y[samples:])


def net(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(11)
    return nn.Sequential(
        nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1)
    )


def make_task(
    model: nn.Module | None = None,
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD,
    args: dict[str, Any] | None = None,
    schedule: Any = None,
    lr: float = 0.01,
    variant: str = "a",
    batch_size: int = 16,
    **changes: Any,
) -> Task:
    initial = net() if model is None else model
    data = data_from_objects(regression_data(), batch_size=batch_size).to(CPU, torch.float32)

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        copied = copy.deepcopy(initial)
        return copied, make_optimizer(optimizer, copied, lr=lr, args=args or {})

    task = Task(
        trial=TrialId(variant, 0),
        build=build,
        objective=of_pairs(functional.mse_loss),
        train=data.train,
        val=data.val,
        schedule=constant(lr) if schedule is None else schedule,
        base_lr=lr,
        total_steps=20,
        eval_every=6,
        stop=DivergenceStop(),
        device=CPU,
    )
    return replace(task, **changes)


def losses(records: list[Any]) -> list[float]:
    return [x for record in records if isinstance(record, Steps) for x in record.loss]


def evaluations(records: list[Any]) -> list[dict[str, float]]:
    return [record.values for record in records if isinstance(record, Evaluation)]


def run(task: Task) -> list[Any]:
    return list(run_sequentially([task]))


def by_hand(
    task: Task, optimizer: Callable[[Any], torch.optim.Optimizer], schedule: Schedule
) -> list[float]:
    """The loop of every tutorial, on the task's batches."""
    model, _ = task.build()
    opt = optimizer(model.parameters())
    seen: list[float] = []
    epoch = 0
    while len(seen) < task.total_steps:
        for x, y in task.train.epoch(0, epoch):
            if len(seen) == task.total_steps:
                break
            for group in opt.param_groups:
                group["lr"] = schedule(len(seen))
            opt.zero_grad()
            loss = functional.mse_loss(model(x), y)
            loss.backward()
            opt.step()
            seen.append(loss.item())
        epoch += 1
    return seen


@pytest.mark.parametrize(
    ("optimizer", "args"),
    [
        (torch.optim.SGD, {}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (torch.optim.Adam, {"betas": (0.8, 0.99)}),
        (torch.optim.AdamW, {"weight_decay": 0.1}),
        (torch.optim.RMSprop, {"alpha": 0.9}),
    ],
)
def test_equals_a_loop_written_by_hand(
    optimizer: type[torch.optim.Optimizer], args: dict[str, Any]
) -> None:
    schedule = decaying(0.02)
    task = make_task(optimizer=optimizer, args=args, schedule=schedule, lr=0.02)
    expected = by_hand(task, lambda p: optimizer(p, lr=0.02, **args), schedule)
    assert losses(run(task)) == pytest.approx(expected, rel=2e-5)


def test_records_come_in_order_and_log_the_lr_that_was_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[float] = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD,
        "step",
        lambda self, *a: (used.append(self.param_groups[0]["lr"]), step(self, *a))[1],
    )
    records = run(make_task(schedule=decaying(0.01)))
    assert isinstance(records[0], Started)
    assert isinstance(records[-1], Ended)
    chunks = [r for r in records if isinstance(r, Steps)]
    assert [s for c in chunks for s in range(c.first, c.first + len(c.loss))] == list(range(20))
    assert [lr for c in chunks for lr in c.lr] == pytest.approx(used)
    assert [lr for c in chunks for lr in c.lr] == [0.01 / (1 + s) for s in range(20)]
    assert [e for c in chunks for e in c.epoch] == [s // 6 for s in range(20)]
    assert [r.step for r in records if isinstance(r, Evaluation)] == [0, 6, 12, 18, 20]


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_the_size_of_chunks_changes_nothing(chunk: int) -> None:
    model, data = net().double(), data_from_objects(regression_data(), batch_size=16)
    data = data.to(CPU, torch.float64)
    task = make_task(model=model, lr=0.1, train=data.train, val=data.val, total_steps=60)
    whole = run(task)
    cut = run(replace(task, pace=Pace(chunk_steps=chunk)))
    assert losses(cut) == losses(whole)
    for a, b in zip(evaluations(cut), evaluations(whole), strict=True):
        assert a == pytest.approx(b, rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_a_diverged_trial_ends_at_its_first_bad_step_and_the_next_one_runs(
    chunk: int,
) -> None:
    pace = Pace(chunk_steps=chunk)
    bad = make_task(model=nn.Linear(5, 1), lr=1e20, variant="bad", eval_every=0, pace=pace)
    good = make_task(variant="good", pace=pace)
    records = list(run_sequentially([bad, good]))
    ends = {r.trial.variant: r for r in records if isinstance(r, Ended)}
    of_bad = [r for r in records if r.trial.variant == "bad"]
    assert ends["bad"].stopped_at == len(losses(of_bad)) - 1
    assert not math.isfinite(losses(of_bad)[-1])
    assert all(math.isfinite(x) for x in losses(of_bad)[:-1])
    assert ends["good"].stopped_at is None
    assert losses([r for r in records if r.trial.variant == "good"]) == losses(run(good))


def test_an_exception_fails_its_trial_alone() -> None:
    class Explodes(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("boom")

    records = list(
        run_sequentially([make_task(model=Explodes(5, 1), variant="bad"), make_task(variant="ok")])
    )
    failed = [r for r in records if isinstance(r, Failed)]
    assert [(r.trial.variant, str(r.error)) for r in failed] == [("bad", "boom")]
    assert [r.trial.variant for r in records if isinstance(r, Ended)] == ["ok"]


def test_the_updates_before_an_exception_are_recorded() -> None:
    class ExplodesLater(nn.Linear):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ExplodesLater.calls += 1
            if ExplodesLater.calls > 8:
                raise ValueError("boom")
            return super().forward(x)

    records = run(make_task(model=ExplodesLater(5, 1), eval_every=0))
    assert len(losses(records)) == 8
    assert isinstance(records[-1], Failed)


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_a_divergence_before_an_exception_is_what_ended_the_trial(chunk: int) -> None:
    class Diverges(nn.Linear):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Diverges.calls += 1
            if Diverges.calls > 8:
                raise ValueError("nan reached the user's own check")
            return super().forward(x) * (math.nan if Diverges.calls > 5 else 1.0)

    pace = Pace(chunk_steps=chunk)
    records = run(make_task(model=Diverges(5, 1), eval_every=0, pace=pace))
    assert isinstance(records[-1], Ended)
    assert records[-1].stopped_at == 5
    assert len(losses(records)) == 6


def test_equal_settings_give_equal_bits_and_dropout_masks_do_not_depend_on_evaluations() -> None:
    model = net(dropout=0.5)
    first = losses(run(make_task(model=model, variant="a")))
    torch.rand(7)  # the state of the global generator must not matter
    second = losses(run(make_task(model=model, variant="b", eval_every=1)))
    assert first == second
    other_seed = replace(make_task(model=model), trial=TrialId("a", 1))
    assert losses(run(other_seed)) != first


def test_micro_batches_make_the_update_of_one_large_batch() -> None:
    model = nn.Linear(5, 1)
    small = run(make_task(model=model, batch_size=8, accumulate=4, total_steps=3, eval_every=0))
    large = run(make_task(model=model, batch_size=32, total_steps=3, eval_every=0))
    assert losses(small) == pytest.approx(losses(large), rel=1e-6)


def test_gradients_are_clipped_as_torch_clips_them() -> None:
    model = nn.Linear(5, 1)
    task = make_task(model=model, total_steps=2, grad_clip=0.5, eval_every=0, lr=0.1)
    (x0, y0), (x1, y1) = list(task.train.epoch(0, 0))[:2]
    twin = copy.deepcopy(model)
    expected = []
    for x, y in ((x0, y0), (x1, y1)):
        loss = functional.mse_loss(twin(x), y)
        grads = torch.autograd.grad(loss, list(twin.parameters()))
        norm = torch.sqrt(sum((g**2).sum() for g in grads))
        assert norm > 0.5
        with torch.no_grad():
            for parameter, grad in zip(twin.parameters(), grads, strict=True):
                parameter.sub_(0.1 * grad * 0.5 / norm)
        expected.append(loss.item())
    assert losses(run(task)) == pytest.approx(expected, rel=1e-5)


def test_evaluation_is_the_mean_over_all_samples_and_changes_nothing() -> None:
    model = net()
    task = make_task(model=model, total_steps=6, eval_every=6)
    at_start, at_end = [r for r in run(task) if isinstance(r, Evaluation)]
    x, y = regression_data()[1]
    with torch.no_grad():
        expected = functional.mse_loss(copy.deepcopy(model).eval()(x), y).item()
    assert at_start.values["val_loss"] == pytest.approx(expected, rel=1e-5)
    assert math.isnan(at_start.values["train_loss"])
    assert at_end.values["train_loss"] == pytest.approx(sum(losses(run(task))) / 6)
    assert at_end.epoch == 1.0
    often = replace(task, eval_every=1)  # BatchNorm statistics and mode must survive evaluations
    assert losses(run(often)) == losses(run(task))


def test_parameter_groups_keep_their_ratio_under_a_schedule() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 1))
    optimizer = make_optimizer(
        torch.optim.SGD, model, lr=0.1, args={}, groups=[{"match": "1\\.", "lr_scale": 10.0}]
    )
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1.0]
    seen: list[list[float]] = []
    optimizer.register_step_pre_hook(
        lambda opt, *_: seen.append([g["lr"] for g in opt.param_groups])
    )
    task = make_task(lr=0.1, schedule=decaying(0.1), total_steps=3, eval_every=0)
    run(replace(task, build=lambda: (model, optimizer)))
    assert seen == [pytest.approx([0.1 / k, 1.0 / k]) for k in (1, 2, 3)]


def test_the_momentum_of_a_schedule_is_set_before_each_update() -> None:
    model = nn.Linear(5, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    seen: list[float] = []
    optimizer.register_step_pre_hook(lambda opt, *_: seen.append(opt.param_groups[0]["betas"][0]))
    cycling = Schedule(lr=lambda s: 0.1, momentum=lambda s: 0.95 - 0.1 * s)
    task = make_task(lr=0.1, schedule=cycling, total_steps=3, eval_every=0)
    run(replace(task, build=lambda: (model, optimizer)))
    assert seen == pytest.approx([0.95, 0.85, 0.75])


class Halving:
    """A controller that halves the LR whenever it observes something."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.observed: list[tuple[int, float]] = []

    def init(self) -> int:
        return 0

    def lr(self, state: int, step: int) -> float:
        return 0.01 / 2**state

    def observe(self, state: int, step: int, value: float) -> int:
        self.observed.append((step, value))
        return state + 1


def test_a_controller_of_the_training_loss_sees_every_step() -> None:
    controller = Halving("loss")
    records = run(make_task(schedule=controller, total_steps=5, eval_every=0))
    assert controller.observed == list(enumerate(losses(records)))
    lrs = [lr for r in records if isinstance(r, Steps) for lr in r.lr]
    assert lrs == [0.01 / 2**s for s in range(5)]


@pytest.mark.parametrize("monitor", ["val_loss", "train_loss"])
def test_a_controller_of_evaluations_sees_those(monitor: str) -> None:
    controller = Halving(monitor)
    records = run(make_task(schedule=controller, total_steps=9, eval_every=3))
    evaluations = [r for r in records if isinstance(r, Evaluation) and r.step]
    assert controller.observed == [(r.step - 1, r.values[monitor]) for r in evaluations]
    lrs = [lr for r in records if isinstance(r, Steps) for lr in r.lr]
    assert lrs == [0.01 / 2 ** (s // 3) for s in range(9)]


def test_bfloat16_autocast_trains_close_to_float32() -> None:
    exact = losses(run(make_task(eval_every=0)))
    rounded = losses(run(make_task(eval_every=0, autocast=True)))
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.05)


def test_losses_are_read_back_in_chunks_and_chunks_are_bounded() -> None:
    pace = Pace(chunk_steps=40, chunk_seconds=1e9)
    records = run(make_task(model=nn.Linear(5, 1), total_steps=100, eval_every=0, pace=pace))
    # no read-back per step, and no growth with the steps
    assert [len(r.loss) for r in records if isinstance(r, Steps)] == [40, 40, 20]
    often = replace(pace, chunk_seconds=0.0)
    records = run(make_task(model=nn.Linear(5, 1), total_steps=5, eval_every=0, pace=often))
    assert [len(r.loss) for r in records if isinstance(r, Steps)] == [1] * 5


def test_a_model_that_draws_random_numbers_while_it_is_evaluated_changes_no_training() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 0.1 * torch.rand(len(x), 1)

    model = Noisy(5, 1)
    seldom = losses(run(make_task(model=model, eval_every=0)))
    assert losses(run(make_task(model=model, eval_every=1))) == seldom


@pytest.mark.parametrize(
    ("train_factor", "val_factor", "stopped_at"),
    [(1.0, 1e4, None), (1e4, 1.0, None), (1e4, 1e4, 19)],
)
def test_a_training_ends_as_diverged_where_both_losses_are_far_above_the_start(
    train_factor: float, val_factor: float, stopped_at: int | None
) -> None:
    """The losses jump at the last step by what the output is multiplied with."""

    class Jumps(nn.Linear):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Jumps.calls += self.training
            late = Jumps.calls > 19
            factor = (train_factor if self.training else val_factor) if late else 1.0
            return super().forward(x) * factor

    task = make_task(model=Jumps(5, 1), lr=1e-9, eval_every=1, total_steps=20)
    (end,) = [r for r in run(task) if isinstance(r, Ended)]
    assert end.stopped_at == stopped_at


def test_dropout_is_a_function_of_seed_and_step() -> None:
    """Every step has masks of its own; all variants of a seed have the same ones."""

    def masks(seed: int, lr: float) -> list[tuple[bool, ...]]:
        seen: list[tuple[bool, ...]] = []

        class Seen(nn.Dropout):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                mask = super().forward(torch.ones_like(x))
                if self.training:
                    seen.append(tuple((mask > 0).flatten().tolist()))
                return x * mask

        model = net()
        model[3] = Seen(0.5)
        run(make_task(model=model, lr=lr, trial=TrialId("a", seed), total_steps=8))
        return seen[-8:]

    first = masks(seed=0, lr=0.01)
    assert len(set(first)) == 8  # of 256 numbers each
    assert masks(seed=0, lr=0.002) == first
    assert not set(masks(seed=1, lr=0.01)) & set(first)


def test_noise_of_python_and_numpy_is_a_function_of_the_seed() -> None:
    def noise(seed: int) -> list[float]:
        seen: list[float] = []

        class Noisy(nn.Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if self.training:
                    seen.extend((random.random(), float(np.random.rand())))  # noqa: NPY002
                return super().forward(x)

        run(make_task(model=Noisy(5, 1), trial=TrialId("a", seed), total_steps=4))
        return seen[-8:]

    assert noise(0) == noise(0)
    assert len({*noise(0), *noise(1), *noise(2)}) == 24
