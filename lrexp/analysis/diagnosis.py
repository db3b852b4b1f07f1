"""What a training did, in a word and a sentence with what to try next.

The words, from worst to best: diverged, unstable, too slow, plateaued, overfitting, converging
well. Each is a function of the curves; where the other variants ended (`best_final`) settles what a
curve alone cannot tell: whether a flat end is the floor or a place where the training got stuck.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lrexp.analysis.trace import Trace, column, final_loss, trace
from lrexp.errors import ConfigError

WORDS = ("diverged", "unstable", "too slow", "plateaued", "overfitting", "converging well")

FAR_ABOVE = 10.0  # times its own size that a loss must have risen to have diverged
BEHIND = 0.25  # of the way from the start to the best end: ending farther back is behind
EARLY = 0.4  # of the steps: who made four fifths of the drop by then, and stopped, is stuck

Evals = Mapping[str, ArrayLike]


@dataclass(frozen=True)
class Diagnosis:
    """One of `WORDS` (or `failed`), and a sentence that explains it with numbers of the curve."""

    word: str
    sentence: str


def diagnose(
    losses: ArrayLike,
    evals: Evals | None = None,
    outcome: str = "finished",
    *,
    stopped_at: int | None = None,
    total_steps: int | None = None,
    best_final: float | None = None,
) -> Diagnosis:
    """Say what one training did.

    - diverged: the outcome says so, a loss is not finite, or the end is far above the start.
    - unstable: it ended above its start, lost much of what it had gained, or rose far above its
      start on the way (in the first tenth, only if it did not end well after that).
    - too slow: it hardly moved; or it ended behind, having fallen all along; or it fell in nearly
      a straight line, with more than half of a positive loss left.
    - plateaued: it ended behind, having made its way early and stopped falling.
    - overfitting: val_loss rises from its lowest while the training loss does not.
    - converging well: none of these.

    Behind: a quarter or more of the way from the start to `best_final` was left, or, without one
    to compare with, more than half of a positive loss.

    Args:
        losses: raw loss of every step, (steps,).
        evals: columns `step`, `train_loss`, `val_loss` (any may be missing); nan where absent.
        outcome: `finished`, `diverged` or `failed`.
        stopped_at: the step at which a rule stopped the training.
        total_steps: the length that was planned; that of `losses` if None.
        best_final: the lowest `final_loss` over the variants of the comparison.

    Example:
        >>> diagnose([1.0, 2.0, float("nan")], total_steps=230).sentence
        'Loss became non-finite at step 2 of 230: lower the LR; 10× is a good first try.'
    """
    y = np.asarray(losses, dtype=np.float64)
    total = len(y) if total_steps is None else total_steps
    if outcome == "failed":
        return Diagnosis("failed", f"An exception ended it at step {len(y)} of {total}.")
    measured = trace(y, column(evals, "val_loss")[1])
    found = _diverged(y, evals, outcome, stopped_at, total, measured)
    if found or measured is None:
        return found or Diagnosis("too slow", "No step was made: raise train.duration.")
    behind = _behind(measured, evals, best_final, y)
    return (
        _unstable(measured, behind, len(y))
        or _overfitting(evals)
        or _slow(measured, behind)
        or _plateaued(measured, behind)
        or _well(measured)
    )


def combine_diagnoses(found: Sequence[Diagnosis]) -> Diagnosis:
    """Return one diagnosis for several seeds: divergence if there is any, else the most common.

    The worse one wins a tie. The sentence is that of the first seed with the word, after the
    counts where the seeds differ.

    Raises:
        ConfigError: there is none to combine.

    Example:
        >>> well, lost = Diagnosis("converging well", "Fell."), Diagnosis("diverged", "Blew up.")
        >>> combine_diagnoses([well, lost, well]).sentence
        '1 of 3 seeds diverged, 2 converging well. Blew up.'
    """
    if not found:
        raise ConfigError.single("found", "must not be empty", [], "Give one for every seed.")
    counts = Counter(one.word for one in found)
    order = {word: i for i, word in enumerate(("failed", *WORDS))}
    worst_first = sorted(counts, key=lambda word: order.get(word, len(order)))
    word = max(worst_first, key=lambda word: counts[word])  # the first, worse one of a tie
    word = "diverged" if counts["diverged"] else word
    sentence = next(one.sentence for one in found if one.word == word)
    if len(counts) == 1:
        return Diagnosis(word, sentence)
    others = ", ".join(f"{counts[other]} {other}" for other in worst_first if other != word)
    return Diagnosis(word, f"{counts[word]} of {len(found)} seeds {word}, {others}. {sentence}")


def _diverged(
    y: np.ndarray,
    evals: Evals | None,
    outcome: str,
    stopped_at: int | None,
    total: int,
    measured: Trace | None,
) -> Diagnosis | None:
    bad = np.flatnonzero(~np.isfinite(y))
    lower = "lower the LR; 10× is a good first try."
    if len(bad):
        if bad[0] == 0:
            return Diagnosis(
                "diverged",
                "Loss was non-finite before the first update: check data, model and loss.",
            )
        return Diagnosis("diverged", f"Loss became non-finite at step {bad[0]} of {total}: {lower}")
    if measured is None:
        return (
            Diagnosis("diverged", "It diverged at once: " + lower)
            if outcome != "finished"
            else None
        )
    rose = f"Loss rose from {measured.start:.3g} to {measured.end:.3g}"
    if outcome == "diverged":
        at = len(y) - 1 if stopped_at is None else stopped_at
        return Diagnosis("diverged", f"{rose} and was stopped at step {at} of {total}: {lower}")
    if not _all_finite(evals):
        return Diagnosis("diverged", f"An evaluated loss was non-finite: {lower}")
    size = max(abs(measured.start), measured.range)
    if measured.end_lowest > measured.start + FAR_ABOVE * size:
        return Diagnosis("diverged", f"{rose} and did not come back: {lower}")
    return None


def _all_finite(evals: Evals | None) -> bool:
    """Whether no loss after the first evaluation is inf (nan means: not evaluated)."""
    names = [name for name in ("val_loss", "train_loss") if evals and name in evals]
    return not any(np.isinf(np.asarray((evals or {})[name], dtype=float)).any() for name in names)


def _unstable(t: Trace, behind: float | None, num_steps: int) -> Diagnosis | None:
    lower = "lower the LR by 2 to 5×, or add warmup or gradient clipping."
    ended_well = t.moved and not _is_behind(t, behind)
    peak = t.highest - t.start
    if ended_well:  # then a rise in the first tenth was a transient
        limit = max(t.range, 4.0 * t.error, 0.5 * abs(t.start)) if t.highest_at > 0.1 else math.inf
    else:
        limit = max(6.0 * t.late_noise, 0.25 * t.range, 0.25 * abs(t.start))
    if peak > limit:
        at = f"around step {t.highest_at * num_steps:.0f}"
        return Diagnosis(
            "unstable",
            f"Loss rose from {t.start:.3g} to {t.highest:.3g} {at} and ended at {t.end:.3g}: {lower}",
        )
    if t.moved and -t.drop > max(0.1 * t.range, 4.0 * t.error):
        return Diagnosis(
            "unstable", f"Loss ended above its start ({t.start:.3g} to {t.end:.3g}): {lower}"
        )
    if t.end - t.lowest > max(0.3 * t.range, 4.0 * t.error):
        return Diagnosis(
            "unstable",
            f"Loss fell from {t.start:.3g} to {t.lowest:.3g} and rose again to {t.end:.3g}: {lower}",
        )
    return None


def _overfitting(evals: Evals | None) -> Diagnosis | None:
    steps, val = column(evals, "val_loss")
    if len(val) < 4:
        return None
    lowest = int(np.argmin(val))
    last_two = val[lowest + 1 :][-2:]
    rise = 0.1 * float(val[0] - val[lowest])
    if len(last_two) < 2 or rise <= 0 or last_two.min() < val[lowest] + rise:
        return None
    train_steps, train = column(evals, "train_loss")
    then = train[train_steps <= steps[lowest]]
    if len(then) and train[-1] > then[-1]:
        return None  # both rise: that is no overfitting
    return Diagnosis(
        "overfitting",
        f"val_loss was lowest at step {steps[lowest]:.0f} ({val[lowest]:.3g}) and rose to "
        f"{val[-1]:.3g} while the training loss went on falling: stop there, or use more data, "
        "weight decay or dropout.",
    )


def _behind(t: Trace, evals: Evals | None, best_final: float | None, y: np.ndarray) -> float | None:
    """Return how far it ended from the best end, as a share of the way there; None if unknown."""
    end = final_loss(y, evals)
    if best_final is None or end is None:
        return None
    _, val = column(evals, "val_loss")
    start = max(t.start, float(val[0])) if len(val) else t.start
    way = start - best_final
    return min(1.0, max(0.0, (end - best_final) / way)) if way > 0 else 0.0


def _is_behind(t: Trace, behind: float | None) -> bool:
    return behind > BEHIND if behind is not None else _half_left(t)


def _half_left(t: Trace) -> bool:
    return t.start > 0 and t.end > 0.5 * t.start


def _slow(t: Trace, behind: float | None) -> Diagnosis | None:
    if not t.moved:
        return Diagnosis(
            "too slow",
            f"Loss did not move ({t.start:.3g} to {t.end:.3g}): raise the LR, 10× is a good first "
            "try; if it is high already, lower it, for the model may have died at once.",
        )
    fell_all_along = t.still_falling or t.pace > EARLY
    straight = t.still_falling and t.steady and _half_left(t)
    if not (straight or (fell_all_along and _is_behind(t, behind))):
        return None
    return Diagnosis(
        "too slow",
        f"Loss fell all along, but only from {t.start:.3g} to {t.end:.3g}{_compared(behind)}: raise "
        "the LR (10× is a good first try) or train longer.",
    )


def _plateaued(t: Trace, behind: float | None) -> Diagnosis | None:
    if not _is_behind(t, behind):
        return None
    return Diagnosis(
        "plateaued",
        f"Loss fell from {t.start:.3g} to {t.end:.3g} early and then stopped{_compared(behind)}: "
        "try another LR (a third, or 3×), or a schedule that lowers it.",
    )


def _compared(behind: float | None) -> str:
    if not behind:
        return ""
    return f" ({100 * (1 - behind):.0f} % of the way that the best variant made)"


def _well(t: Trace) -> Diagnosis:
    ending = (
        "and was still falling: train longer to gain more."
        if t.still_falling
        else "and levelled off."
    )
    return Diagnosis("converging well", f"Loss fell from {t.start:.3g} to {t.end:.3g} {ending}")
