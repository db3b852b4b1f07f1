"""What trainings of a race came to, read from the files of their trials."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lrexp.race.entrants import entrant_of
from lrexp.race.rungs import Raced, Rung

if TYPE_CHECKING:
    from lrexp.store import TrialRecord

TAIL = 10  # without validation data, the mean of the last 1/10 of the batch losses counts


def read_raced(run: Path, rung: Rung) -> Raced:
    """Return what the trials of a rung in a run directory came to."""
    from lrexp.store import TrialRecord

    folder = run / "trials"
    return raced_of(
        rung, [TrialRecord(name, s, folder / name / f"seed-{s}") for name, s in rung.trials]
    )


def raced_of(rung: Rung, trials: Iterable[TrialRecord]) -> Raced:
    """Return what these trials came to, in the order of `rung.trials`."""
    found = list(trials)
    shape = (len(rung.seeds), len(rung.lrs))
    start = np.array([start_loss(trial) for trial in found]).reshape(shape)
    losses = np.array([final_loss(trial) for trial in found]).reshape(shape).T
    # equal for all LRs of a seed, but for rounding where engines differ
    begin = tuple(float(value) for value in np.median(start, axis=1))
    return Raced(rung, begin, tuple(tuple(map(float, row)) for row in losses))


def trained_rungs(trials: Iterable[TrialRecord]) -> list[Raced]:
    """Return the horizons that a race has trained so far, short ones first.

    LRs without a result of every seed are left out: a run may be interrupted at any moment.
    """
    ended: dict[int, dict[float, dict[int, TrialRecord]]] = {}
    for trial in trials:
        entrant = entrant_of(trial.variant)
        if entrant is not None and trial.result is not None:
            ended.setdefault(entrant.horizon, {}).setdefault(entrant.lr, {})[trial.seed] = trial
    rungs = []
    for horizon, by_lr in sorted(ended.items()):
        seeds = tuple(sorted({seed for found in by_lr.values() for seed in found}))
        whole = {lr: by_lr[lr] for lr in sorted(by_lr) if len(by_lr[lr]) == len(seeds)}
        if whole:
            rung = Rung(horizon, tuple(whole), seeds)
            rungs.append(raced_of(rung, [whole[lr][s] for s in seeds for lr in whole]))
    return rungs


def start_loss(trial: TrialRecord) -> float:
    """Return the loss before training: of the validation data, or else of the first batch."""
    values = trial.evals.get("val_loss")
    if values is not None and len(values):
        return float(values[0])
    losses = trial.steps["loss"]
    return float(losses[0]) if len(losses) else math.nan


def final_loss(trial: TrialRecord) -> float:
    """Return the loss after training, of the same data; inf where it diverged."""
    result = trial.result or {}
    if result.get("outcome") != "finished":
        return math.inf
    if "val_loss" in trial.evals:
        value = result.get("final", {}).get("val_loss")
        return math.inf if value is None or not math.isfinite(value) else float(value)
    losses = trial.steps["loss"]
    mean = float(np.mean(losses[-max(1, len(losses) // TAIL) :])) if len(losses) else math.inf
    return mean if math.isfinite(mean) else math.inf
