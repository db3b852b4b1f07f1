"""The same training on a GPU; skipped where there is none."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from lrexp.analysis.stopping import DivergenceStop
from lrexp.engine.rng import preserved_rng
from lrexp.engine.sequential import run_sequentially
from lrexp.engine.task import Task
from lrexp.records import Evaluation, Steps, TrialId
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.objectives import of_pairs
from lrexp.workloads.optimizers import make_optimizer

pytestmark = pytest.mark.cuda


def task_on(device: torch.device, dtype: torch.dtype, dropout: float = 0.0) -> Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(128, 6, generator=generator)
    y = torch.randint(0, 3, (128,), generator=generator)
    data = data_from_objects(((x, y), (x[:40], y[:40])), batch_size=16).to(device, dtype)
    torch.manual_seed(0)
    initial = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = copy.deepcopy(initial).to(device, dtype)
        return model, make_optimizer(torch.optim.SGD, model, lr=0.1, args={"momentum": 0.9})

    return Task(
        trial=TrialId("a", 0),
        build=build,
        objective=of_pairs(functional.cross_entropy),
        train=data.train,
        val=data.val,
        schedule=Schedule(lr=lambda step: 0.1 / (1 + step)),
        base_lr=0.1,
        total_steps=30,
        eval_every=10,
        stop=DivergenceStop(),
        device=device,
    )


def losses(task: Task) -> list[float]:
    return [x for r in run_sequentially([task]) if isinstance(r, Steps) for x in r.loss]


def test_a_gpu_trains_as_the_cpu_does() -> None:
    on_gpu = losses(task_on(torch.device("cuda", 0), torch.float64))
    on_cpu = losses(task_on(torch.device("cpu"), torch.float64))
    assert on_gpu == pytest.approx(on_cpu, rel=1e-9)


def test_dropout_masks_on_a_gpu_are_fixed_by_seed_and_step() -> None:
    device = torch.device("cuda", 0)
    first = losses(task_on(device, torch.float32, dropout=0.5))
    torch.rand(5, device=device)
    often = replace(task_on(device, torch.float32, dropout=0.5), eval_every=1)
    assert losses(often) == first


def test_bfloat16_on_a_gpu_is_close_and_evaluations_are_finite() -> None:
    task = replace(task_on(torch.device("cuda", 0), torch.float32), autocast=True)
    records = list(run_sequentially([task]))
    exact = losses(task_on(torch.device("cuda", 0), torch.float32))
    rounded = [x for r in records if isinstance(r, Steps) for x in r.loss]
    assert rounded == pytest.approx(exact, rel=0.05)
    assert all(r.values["val_loss"] > 0 for r in records if isinstance(r, Evaluation))


def test_the_gpus_generator_is_given_back() -> None:
    before = torch.cuda.get_rng_state(0)
    with preserved_rng(torch.device("cuda", 0)):
        torch.rand(3, device="cuda:0")
    assert torch.equal(torch.cuda.get_rng_state(0), before)
