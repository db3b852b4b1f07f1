"""From the rows of a run to the lines of a picture.

Raw losses are thinned with their peaks kept. The smoothed loss of every seed is taken without lag,
and the seeds of a variant become one line, their median, in a band from the lowest to the highest.
A seed that diverged is no part of either: it would end the line, or flatter it by being left out
unseen, so it stays a line of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrexp.analysis.decimate import thin
from lrexp.analysis.smooth import zero_lag
from lrexp.store.read import Run, TrialRecord

Array = NDArray[np.float64]

HUGE = 1e30  # far above any picture, and safe to calculate with
FEW_POINTS = 40  # of a line, that are marked one by one
NUM_POINTS = 3_000  # of a drawn line: about four for each pixel column of a panel


@dataclass(frozen=True, eq=False)
class Line:
    """Points to be joined; `y` is finite."""

    x: Array
    y: Array


@dataclass(frozen=True, eq=False)
class Spread:
    """Several seeds as one line: the median, and the lowest and highest around it."""

    x: Array
    middle: Array
    low: Array
    high: Array
    seeds: int


@dataclass(frozen=True, eq=False)
class LossCurves:
    """The training loss of one variant; `x` counts updates."""

    kept_raw: tuple[Line, ...]  # one for each seed that did not diverge
    smooth: Spread | None  # of the same seeds
    diverged_raw: tuple[Line, ...]  # one for each seed that did
    diverged: tuple[Line, ...]  # smoothed
    diverged_at: tuple[int, ...]  # their last steps


def loss_curves(trials: Sequence[TrialRecord]) -> LossCurves:
    """Return the training loss of the trials of one variant."""
    begun = [trial for trial in trials if len(trial.steps["step"])]
    lost = [trial for trial in begun if outcome(trial) == "diverged"]
    kept = [_training(trial) for trial in begun if outcome(trial) != "diverged"]
    blown = [_training(trial) for trial in lost]
    longest = max((len(line.x) for line in kept + blown), default=0)
    return LossCurves(
        kept_raw=tuple(thinned(line) for line in kept),
        smooth=spread([smoothed(line, longest) for line in kept]),
        diverged_raw=tuple(thinned(line) for line in blown),
        diverged=tuple(_smoothed_blow_up(line, longest) for line in blown),
        diverged_at=tuple(_stopped_at(trial) for trial in lost),
    )


def measure_curves(trials: Sequence[TrialRecord], measure: str) -> tuple[Spread | None, list[Line]]:
    """Return an evaluated measure: seeds that did not diverge as one, the others each by itself."""
    kept: list[Line] = []
    lost: list[Line] = []
    for trial in trials:
        if measure in trial.evals:
            line = _finite(trial.evals["step"], trial.evals[measure])
            (lost if outcome(trial) == "diverged" else kept).append(line)
    return spread(kept), [line for line in lost if len(line.x)]


def spread(lines: Sequence[Line]) -> Spread | None:
    """Return lines that begin together as one; where some end early, the others go on."""
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return None
    longest = max(lines, key=lambda line: len(line.x))
    rows = np.full((len(lines), len(longest.x)), np.nan)  # (seeds, points)
    for row, line in zip(rows, lines, strict=True):
        row[: len(line.y)] = line.y
    # every column has a number: the longest line has one everywhere
    low, middle, high = np.nanmin(rows, 0), np.nanmedian(rows, 0), np.nanmax(rows, 0)
    return Spread(longest.x, middle, low, high, len(lines))


def smoothed(line: Line, num_steps: int) -> Line:
    """Return a line without its noise, of at most `NUM_POINTS` points.

    The smoothing looks a fortieth of `num_steps`, the length of the longest seed, to each side
    (more where that is under five steps). Long lines are averaged over blocks first: what a block
    hides, the smoothing would have hidden.
    """
    block = max(1, math.ceil(num_steps / NUM_POINTS))
    span = max(num_steps / 40, min(5.0, num_steps / 8))
    starts = np.arange(0, len(line.x), block)
    if not len(starts):
        return line
    sizes = np.diff([*starts, len(line.x)])
    x, y = (np.add.reduceat(values, starts) / sizes for values in (line.x, line.y))
    return Line(x, zero_lag(y, span=span / block))


def _smoothed_blow_up(line: Line, num_steps: int) -> Line:
    """Smooth in a scale that is linear near the start and logarithmic far above it.

    Else the last values, larger by orders of magnitude, would reach back over the steps before.
    """
    if len(line.y) <= FEW_POINTS:
        return line  # a few steps of growth are all there is to see
    scale = float(np.abs(line.y[:3]).mean()) or 1.0
    shape = smoothed(Line(line.x, np.arcsinh(np.clip(line.y, -HUGE, HUGE) / scale)), num_steps)
    return Line(shape.x, scale * np.sinh(shape.y))


def outcome(trial: TrialRecord) -> str:
    """Return finished, diverged or failed; `open` while the trial goes on or was interrupted."""
    return str((trial.result or {}).get("outcome", "open"))


def steps_per_epoch(trials: Sequence[TrialRecord]) -> float | None:
    """Return the updates in one epoch, as the rows show it; None where they do not."""
    for trial in trials:
        second = np.flatnonzero(trial.steps["epoch"] == 1)
        if len(second):
            return float(trial.steps["step"][second[0]])
        epoch = trial.evals["epoch"]
        if len(epoch) and epoch[-1] > 0:
            return float(np.round(trial.evals["step"][-1] / epoch[-1], 3))
    return None


def lr_traces(trials: Sequence[TrialRecord]) -> list[Line]:
    """Return the LR of every update, one line for each seed whose LRs differ from those before."""
    traces: list[Line] = []
    for trial in sorted(trials, key=lambda trial: -len(trial.steps["step"])):
        line = _finite(trial.steps["step"], trial.steps["lr"])
        known = any(np.array_equal(line.y, other.y[: len(line.y)]) for other in traces)
        if len(line.x) and not known:
            traces.append(line)
    return [thinned(line) for line in traces]


def shared_epoch(run: Run) -> tuple[float | None, bool]:
    """Return the updates in an epoch, and whether every variant has that number.

    Where they differ, as with different batch sizes, curves are compared over epochs.
    """
    found = [steps_per_epoch(trials) for trials in run.variants.values()]
    known = [value for value in found if value is not None]
    return (known[0] if known else None), len(set(known)) <= 1


def _training(trial: TrialRecord) -> Line:
    return _finite(trial.steps["step"], trial.steps["loss"])


def _finite(x: NDArray[np.generic], y: Array) -> Line:
    finite = np.isfinite(y)
    return Line(x[finite].astype(np.float64), y[finite])


def thinned(line: Line) -> Line:
    """Return a line of at most `NUM_POINTS` points, its peaks among them."""
    return Line(*thin(line.x, line.y, NUM_POINTS))


def _stopped_at(trial: TrialRecord) -> int:
    said = (trial.result or {}).get("stopped_at")
    return int(trial.steps["step"][-1]) if said is None else int(said)
