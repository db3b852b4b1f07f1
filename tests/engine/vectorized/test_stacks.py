"""Stacks that lose copies, that raise, that cannot be: each trial gets what it would get alone."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from lrexp.data import data_from_objects, permutation
from lrexp.engine import (
    Ended,
    Evaluation,
    Failed,
    Record,
    Started,
    Steps,
    Task,
    TrialId,
    make_optimizer,
    run_sequentially,
    run_vectorized,
)
from lrexp.engine.vectorized import families
from lrexp.engine.vectorized import loop as stack_loop
from lrexp.engine.vectorized.batch_norm import explicit_batch_norm
from lrexp.engine.vectorized.stack import Stack
from lrexp.finder import DivergenceStop
from lrexp.schedules import Schedule

CPU = torch.device("cpu")


def classes(samples: int = 96) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(samples, 6, generator=generator)
    return x, (x[:, :3].sum(1) > 0).long() + (x[:, 3] > 0).long()


def net() -> nn.Module:
    torch.manual_seed(11)
    return nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 3))


def make_tasks(
    lrs: Sequence[float],
    model: nn.Module | None = None,
    data: Any = None,
    seeds: Sequence[int] = (0,),
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD,
    **changes: Any,
) -> list[Task]:
    """A task for each LR and seed; the copies of all seeds start from the same weights."""
    initial = net() if model is None else model
    given = data or (classes(), classes(40))
    loaded = data_from_objects(given, batch_size=16).to(CPU, torch.float32)

    def make(index: int, lr: float, seed: int) -> Task:
        def build() -> tuple[nn.Module, torch.optim.Optimizer]:
            copied = copy.deepcopy(initial)
            return copied, make_optimizer(optimizer, copied, lr=lr, args={})

        task = Task(
            trial=TrialId(f"v{index}", seed),
            build=build,
            loss=functional.cross_entropy,
            train=loaded.train,
            val=loaded.val,
            schedule=Schedule(lambda step: lr),
            base_lr=lr,
            total_steps=30,
            eval_every=6,
            stop=DivergenceStop(patience=5),
            device=CPU,
        )
        return replace(task, **changes)

    return [make(i, lr, seed) for seed in seeds for i, lr in enumerate(lrs)]


Curves = dict[TrialId, list[Any]]


def curves(records: Sequence[Record]) -> Curves:
    """What each trial gave, without the time it took."""
    found: Curves = {}
    for record in records:
        rows = found.setdefault(record.trial, [])
        if isinstance(record, Started):
            rows.clear()
        elif isinstance(record, Steps):
            rows += zip(record.epoch, record.lr, record.loss, strict=True)
        elif isinstance(record, Evaluation):
            rows.append((record.step, record.epoch, str(record.values)))
        elif isinstance(record, Ended):
            rows.append((record.steps, record.stopped_at))
    return found


def assert_close(stacked: Curves, alone: Curves) -> None:
    assert stacked.keys() == alone.keys()
    for trial, rows in alone.items():
        mine = [row[2] for row in stacked[trial] if len(row) == 3 and not isinstance(row[2], str)]
        own = [row[2] for row in rows if len(row) == 3 and not isinstance(row[2], str)]
        assert mine == pytest.approx(own, rel=1e-4, nan_ok=True)
        assert stacked[trial][-1] == rows[-1]


EXPLODES = 1e30


def test_a_copy_that_explodes_changes_no_bit_of_the_others() -> None:
    sane = curves(list(run_vectorized(make_tasks([0.1, 0.2, 0.3, 0.4]))))
    mixed = curves(list(run_vectorized(make_tasks([0.1, EXPLODES, 0.3, EXPLODES]))))
    for i in (0, 2):
        assert mixed[TrialId(f"v{i}", 0)] == sane[TrialId(f"v{i}", 0)]
    for i in (1, 3):
        steps, stopped_at = mixed[TrialId(f"v{i}", 0)][-1]
        assert stopped_at is not None
        assert steps == stopped_at + 1


@pytest.mark.parametrize("drop_every", [1, 4, 500])
def test_dropping_copies_changes_no_bit_of_the_others(
    drop_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    keep = Stack.keep
    monkeypatch.setattr(
        Stack, "keep", lambda self, rows: (kept.append(len(rows)), keep(self, rows))[1]
    )
    monkeypatch.setattr(stack_loop, "DROP_EVERY", drop_every)
    lrs = [0.1, EXPLODES, 0.3, EXPLODES, EXPLODES]
    found = curves(list(run_vectorized(make_tasks(lrs, seeds=(0, 1)))))
    alone = curves(list(run_vectorized(make_tasks([0.1, 0.3], seeds=(0, 1)))))
    assert kept == [4]  # of ten, once
    for seed in (0, 1):
        assert found[TrialId("v0", seed)] == alone[TrialId("v0", seed)]
        assert found[TrialId("v2", seed)] == alone[TrialId("v1", seed)]


def test_a_stack_whose_copies_all_explode_ends() -> None:
    tasks = make_tasks([EXPLODES, EXPLODES])
    assert_close(curves(list(run_vectorized(tasks))), curves(list(run_sequentially(tasks))))


def test_the_seconds_of_the_trials_are_their_share_of_the_time() -> None:
    ended = [r for r in run_vectorized(make_tasks([0.1, 0.2, 0.3])) if isinstance(r, Ended)]
    assert len({round(record.seconds, 9) for record in ended}) == 1
    assert all(record.seconds > 0 for record in ended)


def test_a_stack_that_raises_is_trained_one_by_one() -> None:
    x, y = classes()
    late = permutation(0, 0, len(x))[60]
    y[late] = 7  # no output belongs to it
    tasks = make_tasks([0.1, 0.2], data=((x, y), None))
    records = list(run_vectorized(tasks))
    again = [record for record in records if isinstance(record, Started) and record.again]
    failed = [record for record in records if isinstance(record, Failed)]
    assert [record.trial for record in again] == [task.trial for task in tasks]
    assert "not as part of a stack: it raised" in str(again[0].again)
    assert [record.trial for record in failed] == [task.trial for task in tasks]
    assert isinstance(failed[0].error, IndexError)  # as torch says it to one on its own
    assert curves(records) == curves(list(run_sequentially(tasks)))


def test_batches_of_changing_shapes_each_get_a_program() -> None:
    def collate(samples: list[Any]) -> Any:
        x, y = torch.stack([s[0] for s in samples]), torch.tensor([s[1] for s in samples])
        width = 4 if x[0, 0] > 0.5 else 6  # as padding to the longest would give
        return functional.pad(x[:, :width], (0, 6 - width)).unsqueeze(1).expand(-1, width, -1), y

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(x).mean(1)
            return out

    class Samples(Dataset[Any]):
        def __len__(self) -> int:
            return 64

        def __getitem__(self, index: int) -> Any:
            return torch.full((6,), index / 64), index % 3

    loader = torch.utils.data.DataLoader(Samples(), batch_size=16, collate_fn=collate)
    tasks = make_tasks([0.1, 0.2], model=Pooled(), data=(loader, loader), seeds=(0, 1))
    stacked = curves(list(run_vectorized(tasks)))
    assert_close(stacked, curves(list(run_sequentially(tasks))))


def test_a_loss_that_changes_is_no_case_for_a_stack() -> None:
    class Moving(nn.Module):
        scale: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.ones(()))

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            loss = functional.cross_entropy(output, target)
            self.scale.mul_(0.9).add_(0.1 * loss.detach())
            return loss / self.scale

    (family,) = families(make_tasks([0.1, 0.5], loss=Moving()))
    assert "its loss changes" in str(family.reason)


def test_a_loss_with_class_weights_is_stacked() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]))
    stacked = curves(list(run_vectorized(make_tasks([0.1, 0.5], loss=loss))))
    assert_close(stacked, curves(list(run_sequentially(make_tasks([0.1, 0.5], loss=loss)))))


def test_what_never_changes_is_kept_once() -> None:
    model = net()
    model[0].requires_grad_(False)
    tasks = make_tasks([0.1, 0.2, 0.3], model=model)
    (family,) = families(tasks)
    assert family.facts is not None
    stack = Stack(tasks, family.facts)
    assert set(stack.copies.shared) == {"model.0.weight", "model.0.bias"}
    assert "model.1.running_mean" in stack.copies.stacked
    assert_close(curves(list(run_vectorized(tasks))), curves(list(run_sequentially(tasks))))


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(96, 3, 8, 8, generator=generator)
    return x, (x.mean((1, 2, 3)) > 0).long()


def conv_net() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 7, 3, padding=1), nn.BatchNorm2d(7), nn.ReLU(),
        nn.Conv2d(7, 9, 3, padding=1), nn.BatchNorm2d(9), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 3),
    )  # fmt: skip


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["images", "features"])
def test_bits_do_not_depend_on_the_number_of_copies_not_even_for_one(
    kind: str, threads: int
) -> None:
    model, data = (conv_net(), images()) if kind == "images" else (net(), classes())
    found = {}
    for count in (1, 2, 3, 5):
        lrs = [0.1] * count
        tasks = make_tasks(lrs, model=model, data=(data, data), grad_clip=0.5)
        for trial, rows in curves(list(run_vectorized(tasks))).items():
            found[count, trial.variant] = rows
    assert len({str(rows) for rows in found.values()}) == 1


def test_the_last_copy_that_is_left_keeps_its_bits() -> None:
    tasks = make_tasks(
        [0.1, EXPLODES, EXPLODES, EXPLODES], model=conv_net(), data=(images(), images())
    )
    sane = make_tasks([0.1, 0.2, 0.3, 0.4], model=conv_net(), data=(images(), images()))
    left, among = (curves(list(run_vectorized(t)))[TrialId("v0", 0)] for t in (tasks, sane))
    assert left == among


def test_a_stack_whose_copies_have_all_stopped_ends_at_once() -> None:
    tasks = make_tasks([EXPLODES, EXPLODES], total_steps=100_000, eval_every=0)
    assert all(r.steps < 5_000 for r in run_vectorized(tasks) if isinstance(r, Ended))


def test_momentum_that_is_0_for_a_while_is_as_torch_has_it() -> None:
    def momentum(step: int) -> float:
        return 0.0 if 5 <= step < 9 else 0.9

    for cls, args in (
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (torch.optim.RMSprop, {"momentum": 0.9}),
    ):

        def with_momentum(task: Task, cls: Any = cls, args: Any = args) -> Task:
            def build() -> tuple[nn.Module, torch.optim.Optimizer]:
                model = net()
                return model, make_optimizer(cls, model, lr=task.base_lr, args=args)

            lr = task.base_lr
            return replace(task, build=build, schedule=Schedule(lambda step: lr, momentum))

        tasks = [with_momentum(task) for task in make_tasks([0.01, 0.02])]
        assert_close(curves(list(run_vectorized(tasks))), curves(list(run_sequentially(tasks))))


def test_batch_norm_keeps_its_statistics_in_single_precision_under_autocast() -> None:
    tasks = make_tasks([0.1, 0.2], autocast=True)
    for trial, rows in curves(list(run_sequentially(tasks))).items():
        mine = curves(list(run_vectorized(tasks)))[trial]
        assert [row[2] for row in mine[1:7]] == pytest.approx([r[2] for r in rows[1:7]], rel=0.01)
    x = (torch.randn(64, 9) + 2).bfloat16()
    norms = nn.BatchNorm1d(9), nn.BatchNorm1d(9)
    with explicit_batch_norm():
        ours = norms[0](x)
    theirs = norms[1](x)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(norms[0].running_mean, norms[1].running_mean)
    torch.testing.assert_close(norms[0].running_var, norms[1].running_var)
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_noise_of_python_in_evaluations_is_no_case_for_a_stack() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + (0.0 if self.training else random.random())

    (family,) = families(make_tasks([0.1, 0.2], model=Noisy(6, 3)))
    assert "random numbers of Python" in str(family.reason)


class Decides(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out * 2 if out.sum() > 0 else out


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(x.unsqueeze(1))[0][:, -1])
        return out


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(20, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.bag(x.long().clamp(0, 19)))
        return out


class Unused(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.spare = nn.Parameter(torch.zeros(3))


class Counts(nn.Linear):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) / self.calls


REFUSED: list[tuple[str, Callable[[], nn.Module], type[torch.optim.Optimizer], str]] = [
    ("branches", lambda: Decides(6, 3), torch.optim.SGD, "decides by the values of tensors"),
    ("lstm", Recurrent, torch.optim.SGD, "no batched form of lstm"),
    ("embedding bag", Bag, torch.optim.SGD, "embedding_bag copy by copy"),
    ("unused parameter", lambda: Unused(6, 3), torch.optim.SGD, "does not depend on spare"),
    ("python state", lambda: Counts(6, 3), torch.optim.SGD, "calls"),
    ("optimizer", net, torch.optim.Adadelta, "no stacked form of the optimizer Adadelta"),
]


@pytest.mark.parametrize(
    ("model", "optimizer", "why"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_cannot_be_stacked_is_refused_with_the_reason(
    model: Callable[[], nn.Module], optimizer: type[torch.optim.Optimizer], why: str
) -> None:
    torch.manual_seed(0)
    tasks = make_tasks([0.1, 0.2], model=model(), optimizer=optimizer)
    records = list(run_vectorized(tasks))
    again = [record.again for record in records if isinstance(record, Started) and record.again]
    assert len(again) == 2
    assert why in again[0]
    assert curves(records) == curves(list(run_sequentially(tasks)))  # one by one, and right


def test_tasks_of_other_forms_have_stacks_of_their_own() -> None:
    tasks = [
        *make_tasks([0.1, 0.2]),
        *(replace(t, kind="other", trial=TrialId("b", 0)) for t in make_tasks([0.1])),
        *(
            replace(t, trial=TrialId("c", 0))
            for t in make_tasks([0.1], optimizer=torch.optim.AdamW)
        ),
        *(replace(t, trial=TrialId("d", 0)) for t in make_tasks([0.1], total_steps=12)),
    ]
    found = [[task.trial.variant for task in family.tasks] for family in families(tasks)]
    assert found == [["v0", "v1"], ["b"], ["c"], ["d"]]


@pytest.mark.parametrize(
    ("size", "expected"), [(10, [5]), (4, [2, 3]), (2, [1, 2, 2]), (1, [1] * 5)]
)
def test_blocks_are_as_equal_as_can_be(size: int, expected: list[int]) -> None:
    (family,) = families(make_tasks([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert [len(block) for block in family.blocks(size)] == expected


def test_a_model_with_noise_of_its_own_is_stacked_seed_by_seed() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 0.1 * torch.randn_like(x))

    torch.manual_seed(0)
    tasks = make_tasks([0.1, 0.2], model=Noisy(6, 3), seeds=(0, 1))
    (family,) = families(tasks)
    assert [[t.trial.seed for t in block] for block in family.blocks(10)] == [[0, 0], [1, 1]]
    stacked = curves(list(run_vectorized(tasks)))
    assert_close(stacked, curves(list(run_sequentially(tasks))))
    assert not math.isnan(stacked[TrialId("v0", 0)][1][2])
