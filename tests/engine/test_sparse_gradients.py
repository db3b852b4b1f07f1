"""Sparse gradients, which fused kernels refuse: as with torch's plain optimizers, to the bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine.small_tasks import CPU
from engine.test_cuda_graph import Fake
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adagrad, Optimizer

import lrexp
from lrexp.analysis.stopping import RangeTestStop
from lrexp.engine.engines import ENGINES
from lrexp.engine.sequential import run_sequentially
from lrexp.engine.stop import Pace
from lrexp.engine.task import Task
from lrexp.records import Failed, Record, Steps, TrialId
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.objectives import of_pairs
from lrexp.workloads.optimizers import make_optimizer

# torch's own advice, given by its plain Adagrad
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
LR, STEPS, WORDS = 0.5, 12, 20


class Bag(nn.Module):
    """Sparse gradients for the words, dense ones for the head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.words, self.head = nn.Embedding(WORDS, 6, sparse=True), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.words(tokens).mean(1))


class Late(Bag):
    """The words have no gradient in the first steps."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        if self.calls <= 3:
            return self.head(torch.ones(len(tokens), 6))
        return super().forward(tokens)


def tokens() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, WORDS, (40, 5), generator=generator), torch.arange(40) % 3


def task_of(
    model: nn.Module,
    cls: type[Optimizer],
    args: dict[str, Any],
    groups: list[dict[str, Any]],
    variant: str = "a",
) -> tuple[Task, list[nn.Module]]:
    """Return a task and the list that its model, once built, is in."""
    built = []

    def build() -> tuple[nn.Module, Optimizer]:
        built.append(copy.deepcopy(model))
        return built[-1], make_optimizer(cls, built[-1], lr=LR, args=args, groups=groups)

    task = Task(
        trial=TrialId(variant, 0),
        build=build,
        objective=of_pairs(functional.cross_entropy),
        train=data_from_objects((tokens(), None), batch_size=8).train,
        schedule=Schedule(lambda _: LR),
        base_lr=LR,
        total_steps=STEPS,
        stop=RangeTestStop(1e9),
        device=CPU,
        kind="bag",
        pace=Pace(chunk_steps=1),
    )
    return task, built


def plainly(task: Task, model: nn.Module, optimizer: Optimizer) -> list[float]:
    """Train as torch's documentation does, and return the losses."""

    def batches() -> Iterator[Any]:
        for epoch in range(STEPS):
            yield from task.train.epoch(0, epoch)

    losses = []
    for _, (x, y) in zip(range(STEPS), batches(), strict=False):
        optimizer.zero_grad()
        loss, _ = task.objective(model, (x, y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def losses_of(records: list[Record], variant: str = "a") -> list[float]:
    failed = [record.error for record in records if isinstance(record, Failed)]
    assert not failed
    mine = [r for r in records if isinstance(r, Steps) and r.trial.variant == variant]
    return [loss for record in mine for loss in record.loss]


def by_graphs(tasks: list[Task]) -> list[Record]:
    fake = Fake()
    records = list(run_sequentially(tasks, fake.graphs))
    assert not fake.made  # a plain kernel reads a tensor LR with item(), which a capture forbids
    assert len(fake.decided) == len(tasks)
    return records


PATHS: dict[str, Callable[[list[Task]], list[Record]]] = {
    "sequential": lambda tasks: list(ENGINES["sequential"](tasks)),
    "vectorized": lambda tasks: list(ENGINES["vectorized"](tasks)),
    "graphs": by_graphs,
}
OPTIMIZERS: list[tuple[type[Optimizer], dict[str, Any]]] = [
    (SGD, {}),
    (SGD, {"momentum": 0.9}),
    (Adagrad, {"lr_decay": 0.1}),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("make", [Bag, Late])
@pytest.mark.parametrize(("cls", "args"), OPTIMIZERS)
@pytest.mark.parametrize(
    "groups", [[], [{"match": "words", "lr_scale": 2.0}]], ids=["one group", "two"]
)
def test_a_training_is_that_of_the_plain_optimizer(
    path: str,
    make: type[Bag],
    cls: type[Optimizer],
    args: dict[str, Any],
    groups: list[dict[str, Any]],
) -> None:
    if path == "graphs" and make is Late:
        pytest.skip("what has another gradient every time is not captured for other reasons")
    task, built = task_of(make(), cls, args, groups)
    twin = make()
    rest = [p for name, p in twin.named_parameters() if not (groups and "words" in name)]
    own = [{"params": twin.words.parameters(), "lr": 2 * LR}] if groups else []
    expected = plainly(task, twin, cls([{"params": rest}, *own], lr=LR, **args))  # type: ignore[call-arg]
    records = PATHS[path]([task, replace(task, trial=TrialId("b", 0))])
    for variant in "ab":
        mine = losses_of(records, variant)
        if make is Bag:
            assert mine == expected
        else:  # its first steps have dense gradients: fused, and so equal up to rounding
            assert mine == pytest.approx(expected, rel=1e-5)
    if make is Bag:
        for mine, theirs in zip(built[-1].parameters(), twin.parameters(), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize(("cls", "args"), OPTIMIZERS)
def test_the_finder_takes_sparse_gradients(cls: type[Optimizer], args: dict[str, Any]) -> None:
    model = Bag()
    finder = lrexp.LRFinder(
        model,
        cls(model.parameters(), lr=LR, **args),
        functional.cross_entropy,  # type: ignore[call-arg]
    )
    x, y = tokens()
    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)]
    (curve,) = finder.run(batches, min_lr=1e-3, max_lr=1.0, steps=STEPS, seeds=1).curves
    twin, expected = Bag(), []
    optimizer = cls(twin.parameters(), lr=LR, **args)  # type: ignore[call-arg]
    for step, lr in enumerate(curve.lr):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        batch, labels = batches[step % 5]
        loss = functional.cross_entropy(twin(batch), labels)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert list(curve.loss) == expected


def test_who_asks_for_the_fused_kernel_gets_it_and_its_refusal() -> None:
    task, _ = task_of(Bag(), SGD, {"fused": True}, [])
    records = list(run_sequentially([task]))
    assert isinstance(records[-1], Failed)
    assert "does not support sparse gradients" in str(records[-1].error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adagrad_is_fused_whatever_the_default_type(dtype: torch.dtype) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model, twin = nn.Linear(3, 1), nn.Linear(3, 1)
        twin.load_state_dict(model.state_dict())
        fused = make_optimizer(Adagrad, model, lr=0.1, args={})
        plain = Adagrad(twin.parameters(), lr=0.1)
        for _ in range(3):
            for module, optimizer in ((model, fused), (twin, plain)):
                optimizer.zero_grad()
                module(torch.ones(2, 3)).square().mean().backward()
                optimizer.step()
        assert fused.param_groups[0]["fused"] is True
        torch.testing.assert_close(model.weight, twin.weight)
    finally:
        torch.set_default_dtype(before)
