"""The verdicts behind a diagnosis: each returns its sentence, or None where it does not apply.

They read a `Trace`, and `behind`: the share of the way from the start to the best variant's end
that this training left, which settles what a curve alone cannot tell, namely whether a flat end is
the floor or a place where the training got stuck.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from lrexp.analysis.trace import Array, Evals, Trace, column

FAR_ABOVE = 10.0  # times its own size that a loss must have risen to have diverged
ABOVE = 0.05  # of the way that the best variant made: an end so far above the start is unstable
BARELY = 0.9  # of the way still to go: too slow, whatever the curve's shape
BEHIND = 0.25  # share of the way left: more is behind
EARLY = 0.4  # of the steps: who made four fifths of the drop by then, and stopped, is stuck

LOWER_MUCH = "lower the LR; 10× is a good first try."
LOWER = "lower the LR by 2 to 5×, or add warmup or gradient clipping."


def way_left(t: Trace, val: ArrayLike, end: float | None, best_final: float | None) -> float | None:
    """Return the share of the way from the start to `best_final` that is left, None if unknown."""
    if best_final is None or end is None:
        return None
    evaluated = np.asarray(val, dtype=np.float64)
    start = max(t.start, float(evaluated[0])) if len(evaluated) else t.start
    way = start - best_final
    return min(1.0, max(0.0, (end - best_final) / way)) if way > 0 else 0.0


def not_finite(losses: Array, evals: Evals | None, total: int) -> str | None:
    """Return where the loss stopped being finite."""
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad) and bad[0] == 0:
        return "Training loss was non-finite before the first update: check data, model and loss."
    if len(bad):
        return f"Training loss became non-finite at step {bad[0]} of {total}: {LOWER_MUCH}"
    for name in ("val_loss", "train_loss"):  # nan means: not evaluated
        infinite = np.isinf(np.asarray((evals or {}).get(name, ()), dtype=float))
        if infinite.any() and infinite[0]:
            return f"{name} was infinite before the first update: check data, model and loss."
        if infinite.any():
            return f"{name} became infinite: {LOWER_MUCH}"
    return None


def diverged(t: Trace, stopped_at: int | None, total: int) -> str | None:
    """Return how far the loss rose, where it was stopped for that or never came back."""
    rose = f"Training loss rose from {t.start:.3g} to {t.end:.3g}"
    if stopped_at is not None and stopped_at < total - 1:
        return f"{rose} and was stopped at step {stopped_at} of {total}: {LOWER_MUCH}"
    if stopped_at is not None or t.end_typical > t.start + FAR_ABOVE * max(abs(t.start), t.range):
        return f"{rose} and did not come back: {LOWER_MUCH}"
    return None


def unstable(
    t: Trace, behind: float | None, val: ArrayLike = (), best_final: float | None = None
) -> str | None:
    """Return what rose: on the way, in the end, or back from the lowest."""
    ended_well = t.moved and not _is_behind(t, behind)
    if ended_well:  # then a rise in the first tenth was a transient
        late = t.highest_step > 0.1 * t.num_steps
        limit = max(t.range, 4.0 * t.error, 0.5 * abs(t.start)) if late else math.inf
    else:
        limit = max(6.0 * t.late_noise, 0.25 * t.range, 0.25 * abs(t.start))
    if t.highest - t.start > limit:
        rose = f"Training loss rose from {t.start:.3g} to {t.highest:.3g}"
        at = f"around step {t.highest_step}"
        return f"{rose} {at} and ended at {t.end:.3g}: {LOWER}"
    # beyond doubt, or by its own size: scatter that large is itself unstable
    beyond_doubt = -t.drop > max(0.1 * t.range, min(4.0 * t.error, abs(t.start)))
    if beyond_doubt or _ended_above(t, val, best_final):
        return f"Training loss ended above its start ({t.start:.3g} to {t.end:.3g}): {LOWER}"
    if t.end - t.lowest > max(0.3 * t.range, 4.0 * t.error):
        fell = f"Training loss fell from {t.start:.3g} to {t.lowest:.3g}"
        return f"{fell} and rose again to {t.end:.3g}: {LOWER}"
    return None


def _ended_above(t: Trace, val: ArrayLike, best_final: float | None) -> bool:
    """Return whether it ended above its start, compared to the way down that the best one made.

    Evaluations show it where the scatter of the batches hides it.
    """
    if best_final is None or t.drop > 0:
        return False
    limit = ABOVE * max(0.0, t.start - best_final)  # 0 where not even the best got below the start
    evaluated = np.asarray(val, dtype=np.float64)
    if len(evaluated) > 1:
        first, last = float(evaluated[0]), float(evaluated[-1])
        return last - first > max(limit, 0.01 * abs(first)) and -t.drop > limit
    return -t.drop > max(limit, 2.0 * t.error)


def overfitting(evals: Evals | None) -> str | None:
    """Return where val_loss turned, if it rose by a tenth of its drop while training did not."""
    steps, val = column(evals, "val_loss")
    if len(val) < 4:
        return None
    lowest = int(np.argmin(val))
    last_two = val[lowest + 1 :][-2:]  # one high evaluation may be noise
    rise = 0.1 * float(val[0] - val[lowest])
    if len(last_two) < 2 or rise <= 0 or last_two.min() < val[lowest] + rise:
        return None
    train_steps, train = column(evals, "train_loss")
    then = train[train_steps <= steps[lowest]]
    if len(then) and train[-1] > then[-1]:
        return None
    return (
        f"val_loss was lowest at step {steps[lowest]:.0f} ({val[lowest]:.3g}) and rose to "
        f"{val[-1]:.3g} while the training loss did not: stop there, or use more data, weight "
        "decay or dropout."
    )


def too_slow(t: Trace, behind: float | None) -> str | None:
    """Return how little the loss moved."""
    if not t.moved:
        return (
            f"Training loss did not move ({t.start:.3g} to {t.end:.3g}): raise the LR, 10× is a "
            "good first try; if it is high already, lower it, for the model may have died at once."
        )
    if behind is not None and behind > BARELY and t.drop >= 0:
        fell = f"Training loss went only from {t.start:.3g} to {t.end:.3g}{_compared(behind)}"
        return f"{fell}: raise the LR (10× is a good first try), or lower it if it is high already."
    # where single batches hide the fall, its pace says nothing
    fell_all_along = t.still_falling or t.pace > EARLY or not t.clear
    straight = t.still_falling and t.steady and _half_left(t)
    if not (straight or (fell_all_along and _is_behind(t, behind))):
        return None
    fell = f"Training loss fell all along, but only from {t.start:.3g} to {t.end:.3g}"
    return f"{fell}{_compared(behind)}: raise the LR (10× is a good first try) or train longer."


def plateaued(t: Trace, behind: float | None) -> str | None:
    """Return where the loss stopped, far from where it could be."""
    if not _is_behind(t, behind):
        return None
    fell = f"Training loss fell from {t.start:.3g} to {t.end:.3g} early and then stopped"
    return (
        f"{fell}{_compared(behind)}: try another LR (a third, or 3×), or a schedule that lowers it."
    )


def converging_well(t: Trace) -> str:
    """Return the drop, and whether there is more to gain."""
    fell = f"Training loss fell from {t.start:.3g} to {t.end:.3g}"
    if t.still_falling or t.short_and_falling:
        return f"{fell} and was still falling: a longer training would gain."
    return f"{fell} and levelled off."


def _is_behind(t: Trace, behind: float | None) -> bool:
    return behind > BEHIND if behind is not None else _half_left(t)


def _half_left(t: Trace) -> bool:
    return t.start > 0 and t.end > 0.5 * t.start


def _compared(behind: float | None) -> str:
    if not behind:
        return ""
    return f" ({100 * (1 - behind):.0f} % of the way that the best variant made)"
