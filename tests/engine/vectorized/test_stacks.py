"""Stacks that lose copies, that raise, that cannot be: each trial gets what it would get alone.

Up to rounding: kernels take the rows of all copies together. Stacks of the same rows are bit-equal.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine.resuming import Always, checkpoints
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from lrexp.analysis.stopping import DivergenceStop
from lrexp.engine.family import families
from lrexp.engine.sequential import run_sequentially
from lrexp.engine.stop import Pace
from lrexp.engine.task import Task
from lrexp.engine.vectorized.fallback import run_vectorized
from lrexp.records import Ended, Evaluation, Failed, Record, Started, Steps, TrialId
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.objectives import of_pairs
from lrexp.workloads.optimizers import make_optimizer
from lrexp.workloads.seeds import permutation

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
            objective=of_pairs(functional.cross_entropy),
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
            rows.append((record.step, record.epoch, *sorted(record.values.items())))
        elif isinstance(record, Ended):
            rows.append((record.steps, record.stopped_at))
    return found


# Other copies may change the rounding of one's numbers: measured after 30 steps, in single
# precision, with kernels of SSE, AVX2 and AVX-512, at most 2.4e-7 of them.
ROUNDING = 5e-6


def assert_close(stacked: Curves, alone: Curves, rel: float = 1e-4) -> None:
    """Compare all rows: measured numbers up to rounding, places, LRs and ends exactly."""
    assert stacked.keys() == alone.keys()
    for trial, rows in alone.items():
        assert [exact(row) for row in stacked[trial]] == [exact(row) for row in rows]
        mine, own = ([x for row in of for x in measured(row)] for of in (stacked[trial], rows))
        assert mine == pytest.approx(own, rel=rel, nan_ok=True), trial


def is_evaluation(row: Any) -> bool:
    return isinstance(row[-1], tuple)


def exact(row: Any) -> Any:
    return (*row[:2], *(name for name, _ in row[2:])) if is_evaluation(row) else row[:2]


def measured(row: Any) -> list[float]:
    return [value for _, value in row[2:]] if is_evaluation(row) else list(row[2:])


def only(curves: Curves, *variants: str, named: Sequence[str] = ()) -> Curves:
    """Return these trials, under other names if there are."""
    names = dict(zip(variants, named or variants, strict=True))
    return {
        replace(t, variant=names[t.variant]): rows
        for t, rows in curves.items()
        if t.variant in names
    }


EXPLODES = 1e30


def test_a_copy_that_explodes_changes_nothing_of_the_others() -> None:
    sane = curves(list(run_vectorized(make_tasks([0.1, 0.2, 0.3, 0.4]))))
    mixed = curves(list(run_vectorized(make_tasks([0.1, EXPLODES, 0.3, EXPLODES]))))
    assert_close(only(mixed, "v0", "v2"), only(sane, "v0", "v2"), ROUNDING)
    for i in (1, 3):
        steps, stopped_at = mixed[TrialId(f"v{i}", 0)][-1]
        assert stopped_at is not None
        assert steps == stopped_at + 1


@pytest.mark.parametrize(("drop_every", "dropped_at"), [(1, 1), (4, 4), (500, 6)])
def test_dropping_copies_changes_nothing_of_the_others(drop_every: int, dropped_at: int) -> None:
    lrs = [0.1, EXPLODES, 0.3, EXPLODES, EXPLODES]
    pace = Pace(chunk_steps=1, drop_every=drop_every)
    tasks = make_tasks(lrs, seeds=(0, 1), pace=pace, pause=Always())
    records = list(run_vectorized(tasks))
    found, alone = (
        curves(records),
        curves(list(run_vectorized(make_tasks([0.1, 0.3], seeds=(0, 1))))),
    )
    assert_close(only(found, "v0", "v2", named=["v0", "v1"]), alone, ROUNDING)
    ended = max(found[TrialId(f"v{i}", seed)][-1][0] for i in (1, 3, 4) for seed in (0, 1))
    steps = range(dropped_at, 30, dropped_at)
    dropped = next(step for step in steps if step >= ended)  # ten rows, and four once it is done
    sizes = {c.step: len(c.state["columns"]) for c in checkpoints(records)}
    assert sizes == {step: 10 if step < dropped else 4 for step in range(2, 30)}


def test_stacks_of_the_same_rows_are_equal_to_the_bit() -> None:
    tasks = make_tasks([0.1, EXPLODES, 0.3], seeds=(0, 1))
    once, again = (curves(list(run_vectorized(tasks))) for _ in range(2))
    assert str(once) == str(again)


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
    assert str(curves(records)) == str(curves(list(run_sequentially(tasks))))


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


class Moving(nn.Module):
    """A loss that scales itself by an average over the calls so far."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        loss = functional.cross_entropy(output, target)
        self.scale.mul_(0.9).add_(0.1 * loss.detach())
        return loss / self.scale


def test_a_loss_that_keeps_what_it_changes_in_a_buffer_is_stacked() -> None:
    def tasks() -> list[Task]:
        return [replace(task, objective=of_pairs(Moving())) for task in make_tasks([0.1, 0.5])]

    records = list(run_vectorized(tasks()))
    assert not any(record.again for record in records if isinstance(record, Started))
    assert_close(curves(records), curves(list(run_sequentially(tasks()))))


def test_a_loss_with_class_weights_is_stacked() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]))
    stacked = curves(list(run_vectorized(make_tasks([0.1, 0.5], objective=of_pairs(loss)))))
    assert_close(
        stacked, curves(list(run_sequentially(make_tasks([0.1, 0.5], objective=of_pairs(loss)))))
    )


def test_what_never_changes_is_kept_once() -> None:
    model = net()
    model[0].requires_grad_(False)
    tasks = make_tasks([0.1, 0.2, 0.3], model=model)
    records = list(run_vectorized([replace(task, pause=Always(stop_at=1)) for task in tasks]))
    (checkpoint,) = checkpoints(records)
    stacked = checkpoint.state["stack"]["stacked"]
    assert "model.1.running_mean" in stacked
    assert not {"model.0.weight", "model.0.bias"} & stacked.keys()
    (group,) = checkpoint.state["stack"]["groups"]
    assert group["flat"].shape == (3, 9 + 9 + 9 * 3 + 3)  # what is trained, and no more
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


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("kind", "threads"),
    [
        ("images", 1),
        ("features", 2),
        pytest.param("images", 2, marks=pytest.mark.long),
        pytest.param("features", 1, marks=pytest.mark.long),
    ],
    indirect=["threads"],
)
def test_the_number_of_copies_changes_nothing_not_even_for_one(kind: str, threads: int) -> None:
    model, data = (conv_net(), images()) if kind == "images" else (net(), classes())
    first: list[Any] = []
    for count in (1, 2, 5):
        tasks = make_tasks([0.1] * count, model=model, data=(data, data), grad_clip=0.5)
        for trial, rows in curves(list(run_vectorized(tasks))).items():
            first = first or rows
            assert_close({trial: rows}, {trial: first}, ROUNDING)


def test_the_last_copy_that_is_left_goes_on_as_among_others() -> None:
    tasks = make_tasks(
        [0.1, EXPLODES, EXPLODES, EXPLODES], model=conv_net(), data=(images(), images())
    )
    sane = make_tasks([0.1, 0.2, 0.3, 0.4], model=conv_net(), data=(images(), images()))
    left, among = (only(curves(list(run_vectorized(t))), "v0") for t in (tasks, sane))
    assert_close(left, among, ROUNDING)


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

        # not evaluated: BatchNorm takes the bias before it out of the losses, so RMSprop makes steps
        # of its rounding errors, which show where running means, some steps behind, are used
        tasks = [with_momentum(task) for task in make_tasks([0.01, 0.02], val=None, eval_every=0)]
        assert_close(curves(list(run_vectorized(tasks))), curves(list(run_sequentially(tasks))))


def test_batch_norm_keeps_its_statistics_in_single_precision_under_autocast() -> None:
    tasks = make_tasks([0.1, 0.2], autocast=True)
    mine = curves(list(run_vectorized(tasks)))
    for trial, rows in curves(list(run_sequentially(tasks))).items():
        assert [row[2] for row in mine[trial][1:7]] == pytest.approx(
            [r[2] for r in rows[1:7]], rel=0.01
        )
    paused = [replace(task, pause=Always(stop_at=1)) for task in tasks]
    (checkpoint,) = checkpoints(list(run_vectorized(paused)))
    stacked = checkpoint.state["stack"]["stacked"]
    assert {stacked[f"model.1.running_{name}"].dtype for name in ("mean", "var")} == {torch.float32}


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
    ("python state", lambda: Counts(6, 3), torch.optim.SGD, "not those of a trial on its own"),
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
    assert str(curves(records)) == str(
        curves(list(run_sequentially(tasks)))
    )  # one by one, and right


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
