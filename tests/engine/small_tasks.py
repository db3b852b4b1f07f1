"""Small tasks of every kind for comparing engines: networks, optimizers, schedules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrexp.analysis.stopping import DivergenceStop
from lrexp.engine.task import Task
from lrexp.records import TrialId
from lrexp.schedules.build import SCHEDULES, build_schedule
from lrexp.workloads.answers import Answers
from lrexp.workloads.batches import Data
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.objectives import of_pairs
from lrexp.workloads.optimizers import has_momentum, make_optimizer

CPU = torch.device("cpu")
STEPS, PER_EPOCH, BATCH, CLASSES = 30, 6, 8, 3

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], float, dict[str, Any]]] = {
    "SGD": (torch.optim.SGD, 0.05, {}),
    "SGD, momentum": (torch.optim.SGD, 0.02, {"momentum": 0.9}),
    "SGD, nesterov": (torch.optim.SGD, 0.02, {"momentum": 0.8, "nesterov": True}),
    "SGD, dampening": (torch.optim.SGD, 0.05, {"momentum": 0.9, "dampening": 0.5}),
    "SGD, decay": (torch.optim.SGD, 0.02, {"momentum": 0.9, "weight_decay": 0.01}),
    "SGD, maximize": (torch.optim.SGD, 0.001, {"maximize": True, "weight_decay": 0.01}),
    "Adam": (torch.optim.Adam, 0.002, {}),
    "Adam, decay": (torch.optim.Adam, 0.002, {"weight_decay": 0.05, "betas": (0.8, 0.95)}),
    "Adam, amsgrad": (torch.optim.Adam, 0.002, {"amsgrad": True}),
    "AdamW": (torch.optim.AdamW, 0.002, {"weight_decay": 0.1, "eps": 1e-6}),
    "AdamW, amsgrad": (torch.optim.AdamW, 0.002, {"amsgrad": True}),
    "RAdam": (torch.optim.RAdam, 0.01, {}),
    "RAdam, decay": (torch.optim.RAdam, 0.01, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "RMSprop": (torch.optim.RMSprop, 0.001, {"weight_decay": 0.01}),
    "RMSprop, centered": (torch.optim.RMSprop, 0.001, {"centered": True, "momentum": 0.5}),
    "Adagrad": (torch.optim.Adagrad, 0.01, {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    "Adagrad, decay": (torch.optim.Adagrad, 0.01, {"weight_decay": 0.01}),
}  # fmt: skip

PARAMETERS: dict[str, dict[str, Any]] = {
    "cosine_restarts": {"cycle": 10},
    "step": {"size": 12},
    "multi_step": {"milestones": [10, 20]},
    "multistep": {"milestones": [10, 20]},
    "warmup_stable_decay": {"num_decay_steps": 12},
    "combined": {
        "parts": [
            {"start": 0, "end": 15, "schedule": {"name": "linear", "warmup": 5}},
            {"start": 15, "end": 30, "schedule": "cosine"},
        ]
    },
    "plateau": {"patience": 0, "threshold": 0.3},
    "adaptive_cycle": {"window_size": 6, "patience": 9},
    "lambda": {"function": lambda step: 1 / (1 + 0.1 * step)},
    "cyclic": {"step_size_up": 7},
}


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x.view(-1, 1, 4, 4))).relu()
        return self.head(x.mean((2, 3)))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.view(-1, 4, 4)).mean(1))


NETS: dict[str, Callable[[], nn.Module]] = {
    "MLP": lambda: nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, CLASSES)),
    "CNN": Convolutional,
    "dropout": lambda: nn.Sequential(
        nn.Dropout(0.1), nn.Linear(16, 8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, CLASSES)
    ),
    "transformer": Transformer,
}


@cache
def data(dtype: torch.dtype) -> Data:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(PER_EPOCH * BATCH + 21, 16, generator=generator, dtype=torch.float64)
    y = (x[:, :CLASSES] + 0.5 * x[:, CLASSES : 2 * CLASSES]).argmax(1)
    split = PER_EPOCH * BATCH
    return data_from_objects(((x[:split], y[:split]), (x[split:], y[split:])), batch_size=BATCH).to(
        CPU, dtype
    )


@cache
def initial(net: str, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETS[net]().double()


def make_task(
    net: str = "MLP",
    optimizer: str = "SGD, momentum",
    schedule: Any = None,
    scale: float = 1.0,
    variant: str = "a",
    seed: int = 0,
    groups: Sequence[Mapping[str, Any]] = (),
    dtype: torch.dtype = torch.float64,
    args: dict[str, Any] | None = None,
    **changes: Any,
) -> Task:
    cls, usual_lr, usual_args = OPTIMIZERS[optimizer]
    lr = usual_lr * scale

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = copy.deepcopy(initial(net, seed)).to(dtype)
        all_args = usual_args | (args or {})
        return model, make_optimizer(cls, model, lr=lr, args=all_args, groups=groups)

    split = data(dtype)
    task = Task(
        trial=TrialId(variant, seed),
        build=build,
        objective=of_pairs(functional.cross_entropy),
        count_correct=Answers("classes").count_correct,
        train=split.train,
        val=split.val,
        schedule=made("cosine", lr) if schedule is None else schedule,
        base_lr=lr,
        total_steps=STEPS,
        eval_every=10,
        stop=DivergenceStop(),
        device=CPU,
        kind=net,
    )
    return replace(task, **changes)


def made(name: str, lr: float, cycle_momentum: bool = False) -> Any:
    parameters = PARAMETERS.get(name, {})
    if name in ("one_cycle", "cyclic"):
        parameters = parameters | {"cycle_momentum": cycle_momentum}
    return build_schedule(
        name, parameters, lr=lr, total_steps=STEPS, to_steps=int, steps_per_epoch=PER_EPOCH
    )


def with_schedules(net: str, optimizer: str, names: Iterable[str] = tuple(SCHEDULES)) -> list[Task]:
    """A task for every schedule, each with an LR of its own; evaluated where one asks for that."""
    cls, lr, _ = OPTIMIZERS[optimizer]
    scales = {name: 1 - 0.6 * i / len(SCHEDULES) for i, name in enumerate(SCHEDULES)}
    schedules = {n: made(n, lr * scales[n], has_momentum(cls)) for n in names}
    evaluated = any(getattr(s, "monitor", "loss") != "loss" for s in schedules.values())
    changes = {} if evaluated or net == "MLP" else {"eval_every": 0, "val": None}
    return [
        make_task(net, optimizer, schedule, scales[name], variant=name, **changes)
        for name, schedule in schedules.items()
    ]
