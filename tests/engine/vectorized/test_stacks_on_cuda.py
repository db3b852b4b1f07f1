"""Stacks on a GPU, captured as CUDA graphs: equal to trials one by one there, and on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lrexp.analysis.stopping import DivergenceStop
from lrexp.engine.sequential import run_sequentially
from lrexp.engine.task import Task
from lrexp.engine.vectorized import stack as stacks
from lrexp.engine.vectorized.fallback import run_vectorized
from lrexp.records import Evaluation, Record, Started, Steps, TrialId
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.objectives import of_pairs
from lrexp.workloads.optimizers import make_optimizer

pytestmark = pytest.mark.cuda


def net(dropout: float, batch_norm: bool) -> nn.Module:
    torch.manual_seed(11)
    norm = nn.BatchNorm1d(16) if batch_norm else nn.LayerNorm(16)
    return nn.Sequential(
        nn.Linear(6, 16), norm, nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 3)
    ).double()


def make_tasks(
    device: str,
    optimizer: str = "SGD",
    dropout: float = 0.0,
    seeds: Sequence[int] = (0,),
    **changes: Any,
) -> list[Task]:
    initial = net(dropout, batch_norm=True)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(128, 6, generator=generator)
    y = (x[:, :3].sum(1) > 0).long() + (x[:, 3] > 0).long()
    data = data_from_objects(((x[:96], y[:96]), (x[96:], y[96:])), batch_size=16)
    data = data.to(device, torch.float64)
    args = {"momentum": 0.9} if optimizer == "SGD" else {}

    def make(lr: float, seed: int) -> Task:
        def build() -> tuple[nn.Module, torch.optim.Optimizer]:
            copied = copy.deepcopy(initial).to(device)
            cls = getattr(torch.optim, optimizer)
            return copied, make_optimizer(cls, copied, lr=lr, args=args)

        options: dict[str, Any] = {"total_steps": 300, "eval_every": 60} | changes
        return Task(
            trial=TrialId(f"lr {lr}", seed), build=build, objective=of_pairs(functional.cross_entropy),
            train=data.train, val=data.val, schedule=Schedule(lambda step: lr / (1 + step / 100)),
            base_lr=lr, stop=DivergenceStop(), device=torch.device(device), **options,
        )  # fmt: skip

    lrs = (0.05, 0.01, 0.002) if optimizer == "SGD" else (1e-3, 3e-4, 1e-4)
    return [make(lr, seed) for seed in seeds for lr in lrs]


def numbers(records: Sequence[Record]) -> dict[TrialId, list[float]]:
    found: dict[TrialId, list[float]] = {}
    for record in records:
        assert not isinstance(record, Started) or record.again is None
        if isinstance(record, Steps):
            found.setdefault(record.trial, []).extend(record.loss)
        elif isinstance(record, Evaluation) and record.step:
            found.setdefault(record.trial, []).append(record.values["val_loss"])
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "AdamW"},
        {"dropout": 0.3},
        {"dropout": 0.3, "seeds": (0, 1)},
        {"accumulate": 2, "grad_clip": 0.5},
    ],
    ids=["SGD", "AdamW", "dropout", "dropout, two seeds", "accumulation and clipping"],
)
def test_a_stack_equals_its_trials_one_by_one(options: dict[str, Any]) -> None:
    stacked = numbers(list(run_vectorized(make_tasks("cuda:0", **options))))
    alone = numbers(list(run_sequentially(make_tasks("cuda:0", **options))))
    assert stacked.keys() == alone.keys()
    for trial, expected in alone.items():
        assert stacked[trial] == pytest.approx(expected, rel=1e-8)


def test_a_stack_without_dropout_equals_the_one_on_the_cpu() -> None:
    on_gpu = numbers(list(run_vectorized(make_tasks("cuda:0"))))
    for trial, expected in numbers(list(run_vectorized(make_tasks("cpu")))).items():
        assert on_gpu[trial] == pytest.approx(expected, rel=1e-8)


def test_updates_are_replayed_and_a_capture_that_fails_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    captured: list[Any] = []
    capture = stacks.CapturedStep

    def counted(*args: Any, **options: Any) -> Any:
        captured.append(capture(*args, **options))
        return captured[-1]

    monkeypatch.setattr(stacks, "CapturedStep", counted)
    replayed = numbers(list(run_vectorized(make_tasks("cuda:0"))))
    assert len(captured) == 1

    def fails(*args: Any, **options: Any) -> Any:
        raise RuntimeError("no capture today")

    monkeypatch.setattr(stacks, "CapturedStep", fails)
    eager = numbers(list(run_vectorized(make_tasks("cuda:0"))))
    for trial, expected in eager.items():
        assert replayed[trial] == pytest.approx(expected, rel=1e-12)


def test_a_copy_that_explodes_changes_no_bit_of_the_others() -> None:
    tasks = make_tasks("cuda:0", total_steps=40, eval_every=0)
    sane = numbers(list(run_vectorized(tasks)))
    wild = make_tasks("cuda:0", total_steps=40, eval_every=0)
    wild[1] = copy.copy(wild[1])
    object.__setattr__(wild[1], "schedule", Schedule(lambda step: float("nan")))
    mixed = numbers(list(run_vectorized(wild)))
    for task in (tasks[0], tasks[2]):
        assert mixed[task.trial] == sane[task.trial]
