"""From the rows of a run to the lines of a picture.

Raw losses are thinned with their peaks kept. The smoothed loss of every seed is taken without lag,
and the seeds of a variant become one line, their median, in a band from the lowest to the highest.
A seed that diverged is no part of either: it would end the line, or flatter it by being left out
unseen, so it stays a line of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrexp.analysis.smoothing import anchored, thin, zero_lag
from lrexp.report.data.picture import Array
from lrexp.runs.reader import Run, TrialRecord

HUGE = 1e30  # far above any picture, and safe to calculate with
FEW_POINTS = 40  # of a line, that are marked one by one
Transform = Callable[[Array], Array]
END_REACH = 2.0  # spans that the last points of a smoothed curve look back
WIDE = 10.0  # a fall by this factor is smoothed as logarithms
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
    lines: tuple[Line, ...]  # of the seeds

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(self.lines)


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
        # the few steps of a short one are all there is
        diverged=tuple(x if len(x.y) <= FEW_POINTS else smoothed(x, longest) for x in blown),
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
    """Return lines that begin together as one, as far as all of them go.

    A median of fewer seeds from some step on would jump there. Seeds that have come less than half
    as far as the longest are left out.
    """
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return None
    furthest = max(line.x[-1] for line in lines)
    lines = [line for line in lines if 2 * line.x[-1] >= furthest]
    x = min(lines, key=lambda line: line.x[-1]).x
    rows = np.array([np.interp(x, line.x, line.y, np.nan, np.nan) for line in lines])
    # every column has a number: that of the shortest line; rows are (seeds, points)
    low, middle, high = np.nanmin(rows, 0), np.nanmedian(rows, 0), np.nanmax(rows, 0)
    return Spread(x, middle, low, high, tuple(lines))


def smoothed(line: Line, num_steps: int) -> Line:
    """Return a line without its noise, of at most `NUM_POINTS` points.

    The smoothing looks a fortieth of `num_steps`, the length of the longest seed, to each side
    (more where that is under five steps). Long lines are averaged over blocks first: what a block
    hides, the smoothing would have hidden. The first point is the first loss, which variants of
    one seed share. Meanwhile losses far above the start are compressed, or a single one of 1e9
    would bend the curve for many steps around it; positive losses that fall by an order of
    magnitude are smoothed as logarithms, or the first of them would hold the curve above the rest.
    """
    block = max(1, math.ceil(num_steps / NUM_POINTS))
    span = max(num_steps / 40, min(5.0, num_steps / 8))
    if not len(line.x):
        return line
    first = 1 if block > 1 else 0  # the first loss is no part of a block
    starts = np.union1d([0], np.arange(first, len(line.x), block))
    compress, expand = _compression(line.y)
    sizes = np.diff([*starts, len(line.x)])
    x, y = (np.add.reduceat(values, starts) / sizes for values in (line.x, compress(line.y)))
    y = _calm_at_its_end(anchored(y, span=span / block), y, span / block)
    return Line(x, expand(y))


def _calm_at_its_end(smooth: Array, y: Array, span: float) -> Array:
    """Return a smoothed curve that bends less with its last few losses.

    The noise of a line fitted at an end is about twice that of one in the middle. There the fit
    looks twice as far back, which leaves about 1.5 times; further back it would miss the fall.
    """
    reach = END_REACH * span
    if len(y) <= 2 * reach:
        return smooth
    from_end = np.arange(len(y))[::-1]
    share = np.clip(1.0 - from_end / (2 * span), 0.0, 1.0)
    return smooth + share * (zero_lag(y, reach) - smooth)


def _compression(losses: Array) -> tuple[Transform, Transform]:
    """Return the transformation under which losses are smoothed, and its inverse."""
    low, high = np.percentile(losses, [5, 95])
    if losses.min() > 0 and max(high, losses[0]) > WIDE * low:
        return np.log, np.exp
    # above the knee is blow-up: as far above the start as the lowest losses are below it, or twice
    start = float(np.median(losses[: max(3, len(losses) // 50)]))
    scale = max(start - float(np.percentile(losses, 1)), abs(start)) or 1.0
    knee = start + scale

    def compress(values: Array) -> Array:
        above = np.clip(values - knee, 0.0, HUGE) / scale
        return np.where(above > 0, knee + scale * np.log1p(above), values)

    def expand(values: Array) -> Array:
        return np.where(values > knee, knee + scale * np.expm1((values - knee) / scale), values)

    return compress, expand


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


def lr_traces(trials: Sequence[TrialRecord], column: str = "lr") -> list[Line]:
    """Return the LR of every update, one line for each seed whose LRs differ from those before."""
    traces: list[Line] = []
    for trial in sorted(trials, key=lambda trial: -len(trial.steps["step"])):
        if column not in trial.steps:
            continue
        line = _finite(trial.steps["step"], trial.steps[column])
        known = any(np.array_equal(line.y, other.y[: len(line.y)]) for other in traces)
        if len(line.x) and not known:
            traces.append(line)
    return [thinned(line) for line in traces]


def shared_epoch(run: Run) -> tuple[float | None, bool]:
    """Return the updates in an epoch, and whether every variant has that number.

    Where they differ, as with different batch sizes, curves are compared over epochs. A variant
    that never saw its second epoch does not tell: it is taken to have the number of the others.
    """
    begun = [trials for trials in run.variants.values() if trials]
    found = [steps_per_epoch(trials) for trials in begun]
    known = list(dict.fromkeys(length for length in found if length is not None))
    if len(known) > 1 and None in found:
        return None, True  # nothing but steps fits them all
    return (known[0] if known else None), len(known) <= 1


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
