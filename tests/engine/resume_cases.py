"""Trainings of every kind to stop and to continue."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from engine.resuming import (
    Tasks,
    assert_continues,
    assert_goes_on,
)
from engine.small_tasks import OPTIMIZERS, made, make_task

from lrexp.analysis.stopping import RangeTestStop, ramp
from lrexp.engine.task import Task
from lrexp.schedules.schedule import Schedule

STEPS = 30
BOTH = ["sequential", "vectorized"]


def short(*args: Any, **options: Any) -> Task:
    return make_task(*args, **{"total_steps": STEPS, "eval_every": 7, **options})


def pair(net: str, optimizer: str = "SGD, momentum", **options: Any) -> list[Task]:
    """Two trials that differ in their LR; the sequential engine trains them one by one."""
    return [short(net, optimizer, variant=str(s), scale=s, **options) for s in (1.0, 0.3)]


def scheduled(name: str, optimizer: str = "SGD, momentum", cycle: bool = False) -> list[Task]:
    lr = OPTIMIZERS[optimizer][1]
    schedules = [made(name, lr, cycle), made("cosine", lr)]
    return [short("MLP", optimizer, s, variant=str(i)) for i, s in enumerate(schedules)]


def seeds() -> list[Task]:
    return [short("dropout", variant=v, seed=s, scale=x) for s in (0, 3) for v, x in (("a", 1.0), ("b", 0.2))]  # fmt: skip


def diverging(net: str = "MLP") -> list[Task]:
    """One trial after the other diverges, until a single one is left."""

    def until(last: int) -> Schedule:
        return Schedule(lr=lambda step: 0.01 if step < last else math.nan)

    lasts = (3, 9, 16, 26, 99)
    return [short(net, schedule=until(n), variant=str(n), seed=n % 2) for n in lasts]


def range_test() -> list[Task]:
    return [
        short("MLP", "SGD", ramp(1e-3, top, STEPS), variant=str(top), stop=RangeTestStop(2.0, 0.0), eval_every=0, val=None)
        for top in (1.0, 1e6)
    ]  # fmt: skip


CASES: dict[str, Callable[[], Sequence[Task]]] = {
    "SGD with momentum": lambda: pair("MLP"),
    "SGD with dampening": lambda: pair("MLP", "SGD, dampening"),
    "AdamW, dropout": lambda: pair("dropout", "AdamW"),
    "Adam, amsgrad, float32": lambda: pair("MLP", "Adam, amsgrad", dtype=torch.float32),
    "RMSprop, batch norm": lambda: pair("CNN", "RMSprop, centered"),
    "Adagrad": lambda: pair("MLP", "Adagrad"),
    "RAdam, transformer": lambda: pair("transformer", "RAdam"),
    "bfloat16": lambda: pair("MLP", "AdamW", autocast=True, dtype=torch.float32),
    "accumulation, clipping": lambda: pair("dropout", accumulate=4, grad_clip=0.1),
    "parameter groups": lambda: pair("CNN", "AdamW", groups=[{"match": "head", "lr_scale": 10.0}]),
    "no evaluation": lambda: pair("MLP", eval_every=0, val=None),
    "evaluated at every step": lambda: pair("CNN", eval_every=1),
    "adaptive cycle": lambda: scheduled("adaptive_cycle"),
    "plateau": lambda: scheduled("plateau"),
    "momentum that cycles": lambda: scheduled("one_cycle", cycle=True),
    "betas that cycle": lambda: scheduled("cyclic", "AdamW", cycle=True),
    "several seeds": seeds,
    "diverging": diverging,
    "range test": range_test,
}


def at_some(step: int) -> bool:
    return step % 9 == 4


def goes_on_somewhere(engine: str, tasks: Tasks) -> None:
    """A stack makes its programs anew each time: it goes on once, and is not trained without."""
    if engine == "sequential":
        assert_continues(engine, tasks, at_some)
    else:
        assert_goes_on(engine, tasks, lambda step: step == 13)
