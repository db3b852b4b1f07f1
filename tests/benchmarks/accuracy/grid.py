"""The dense grid of fully trained LRs, and the range tests: computed once, kept in files.

One file per (workload, optimizer, schedule) under `grid/`, one per (workload, optimizer) under
`range/`; what is there is not computed again, so an interrupted run goes on where it was, and
rules are judged in seconds.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accuracy import truth
from accuracy.training import (
    CROSSED,
    CROSSED_SCHEDULES,
    MIDDLE,
    plan_of,
    range_tests,
    train,
    variant_of,
)
from accuracy.workloads import Workload
from lrexp.analysis.range_curve import Curve
from lrexp.records import TrialId

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Protocol:
    """How densely LRs are tried, and with which seeds.

    Args:
        per_decade: LRs of the grid.
        decades: that it spans, half of them below the middle of an optimizer and half above.
        judges: seeds that every LR is trained with.
        groups: seeds of the suggestions, as many independent ones as there are groups.
    """

    per_decade: int = 6
    decades: int = 5
    judges: tuple[int, ...] = (0, 1, 2, 3)
    groups: tuple[tuple[int, ...], ...] = tuple((s, s + 1, s + 2) for s in range(100, 150, 10))

    def lrs(self, work: Workload, optimizer: str) -> Array:
        """Return the grid, (lrs,)."""
        shift = work.shift.get(optimizer, work.shift.get(optimizer.removesuffix("W"), 0.0))
        middle = MIDDLE[optimizer] + shift
        ends = middle - self.decades / 2, middle + self.decades / 2
        return np.logspace(*ends, round(self.decades * self.per_decade) + 1)


LONG_PROTOCOL = Protocol(
    judges=(0, 1, 2), groups=((100, 101, 102), (110, 111, 112), (120, 121, 122))
)
QUICK = Protocol(per_decade=1, decades=4, judges=(0,), groups=((100, 101, 102), (110, 111, 112)))


@dataclass(frozen=True)
class Cell:
    """A workload under one optimizer and one schedule."""

    work: Workload
    optimizer: str
    schedule: str

    @property
    def name(self) -> str:
        return f"{self.work.name}, {self.optimizer}, {self.schedule}"

    @property
    def file(self) -> str:
        return f"{slug(self.work.name)}--{self.optimizer}--{self.schedule}.npz"


@dataclass(frozen=True, eq=False)
class Measured:
    """What every LR of a cell came to.

    Args:
        lrs: (lrs,); lowest: validation loss of the best evaluation, (lrs, seeds), None if it was
            not kept; val: validation loss after training, inf where it diverged, (lrs, seeds).
        train: mean batch loss of the last tenth, (lrs, seeds); start: validation loss before
            training, (seeds,).
    """

    lrs: Array
    val: Array
    train: Array
    start: Array
    lowest: Array | None = None


def cells(works: list[Workload]) -> Iterator[Cell]:
    for work in works:
        every = [(optimizer, schedule) for optimizer in CROSSED for schedule in CROSSED_SCHEDULES]
        for optimizer, schedule in [work.only] if work.only else every:
            yield Cell(work, optimizer, schedule)


def slug(name: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name.lower())


def measured(cell: Cell, protocol: Protocol, cache: Path) -> Measured:
    """Return the grid of a cell, from its file or computed."""
    work, lrs = cell.work, protocol.lrs(cell.work, cell.optimizer)
    key = _key(work, protocol.judges, lrs)
    if work.only:
        return _of_long_half(cell, key, lrs, protocol.judges)
    found = kept(cache / "grid" / cell.file, key, lambda: _train_grid(cell, lrs, protocol.judges))
    return Measured(**{name: found[name] for name in ("lrs", "val", "train", "start")})


def truth_file(cell: Cell) -> Path:
    return truth.FOLDER / f"{slug(cell.work.name)}.json"


def _of_long_half(cell: Cell, key: str, lrs: Array, seeds: tuple[int, ...]) -> Measured:
    file = truth_file(cell)
    if not file.exists():
        truth.write(file, key, _train_grid(cell, lrs, seeds))
    return Measured(**truth.read(file, key))


def _train_grid(cell: Cell, lrs: Array, seeds: tuple[int, ...]) -> dict[str, Array]:
    variants = {f"lr-{i}": variant_of(cell.schedule, float(lr)) for i, lr in enumerate(lrs)}
    plans = plan_of(cell.work, cell.optimizer, variants)
    found = train(plans, seeds, cell.work.engine)
    rows = [[found[TrialId(name, seed)] for seed in seeds] for name in variants]
    return {
        "lrs": lrs,
        "val": np.array([[outcome.val[1] for outcome in row] for row in rows]),
        "lowest": np.array([[outcome.lowest for outcome in row] for row in rows]),
        "train": np.array([[outcome.tail(cell.work.steps) for outcome in row] for row in rows]),
        "start": np.array([outcome.val[0] for outcome in rows[0]]),
    }


def curves(work: Workload, optimizer: str, protocol: Protocol, cache: Path) -> list[list[Curve]]:
    """Return lrexp's range tests: for every group of suggestion seeds a curve per seed."""
    made = _range_tests(work, optimizer, protocol, cache)
    each = iter(zip(made["lr"], made["loss"], strict=True))
    return [[_curve(*next(each)) for _ in group] for group in protocol.groups]


def curve_seconds(work: Workload, optimizer: str, protocol: Protocol, cache: Path) -> float:
    """Return how long the range tests of one group took."""
    return float(_range_tests(work, optimizer, protocol, cache)["seconds"]) / len(protocol.groups)


def _range_tests(work: Workload, optimizer: str, protocol: Protocol, cache: Path) -> dict[str, Any]:
    seeds = [seed for group in protocol.groups for seed in group]

    def compute() -> dict[str, Array]:
        begun = time.perf_counter()
        found = range_tests(work, optimizer, seeds, work.engine)
        seconds = np.array(time.perf_counter() - begun)
        longest = max(len(outcome.lrs) for outcome in found.values())
        made = {name: np.full((len(seeds), longest), np.nan) for name in ("lr", "loss")}
        for i, seed in enumerate(seeds):
            made["lr"][i, : len(found[seed].lrs)] = found[seed].lrs
            made["loss"][i, : len(found[seed].losses)] = found[seed].losses
        return made | {"seconds": seconds}

    file = cache / "range" / f"{slug(work.name)}--{optimizer}.npz"
    return kept(file, f"{_key(work, tuple(seeds), np.empty(0))} timed", compute)


def control(work: Workload, protocol: Protocol, cache: Path) -> list[list[Array]]:
    """Return the losses of the untrained model on the batches of the range tests, (steps,) each."""
    seeds = [seed for group in protocol.groups for seed in group]
    still = replace(
        work, find_lr={**work.find_lr, "min_lr": 1e-30, "max_lr": 1.001e-30, "stop_factor": 1e9}
    )

    def compute() -> dict[str, Array]:
        found = range_tests(still, "SGD", seeds, work.engine)
        return {"loss": np.array([found[seed].losses for seed in seeds])}

    file = cache / "untrained" / f"{slug(work.name)}.npz"
    each = iter(kept(file, _key(work, tuple(seeds), np.empty(0)), compute)["loss"])
    return [[next(each) for _ in group] for group in protocol.groups]


def _curve(lr: Array, loss: Array) -> Curve:
    done = np.isfinite(lr)  # a loss may be NaN
    return Curve(lr[done], loss[done])


def kept(file: Path, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the arrays in a file; where it does not exist or has another key, compute them."""
    if file.exists():
        with np.load(file) as saved:
            if str(saved["key"]) == key:
                return {name: saved[name] for name in saved.files}
    made = compute()
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part.npz")
    np.savez(part, key=np.array(key), **made)
    part.replace(file)  # never half a file
    return made


def _key(work: Workload, seeds: tuple[int, ...], lrs: Array) -> str:
    ends = [f"{lr:.4g}" for lr in lrs[[0, -1]]] if len(lrs) else []
    return repr((work.version, work.steps, work.batch_size, seeds, len(lrs), ends))


def clipped(loss: Array, start: Array) -> Array:
    """Return the mean loss over seeds, (lrs,): each at most that of its untrained model."""
    known = np.where(np.isfinite(loss), loss, math.inf)
    return np.minimum(known, start).mean(axis=1)
