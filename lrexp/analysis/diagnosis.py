"""What a training did, in a word and a sentence with what to try next.

A training is reduced to a `Trace` first. Its start is the loss before the first update, which all
variants of a seed share; the other levels are means over stretches of the raw losses, each with the
standard error that the scatter of the losses gives it, so that "fell" and "rose" always mean: by
more than chance. Each verdict returns its sentence, or None where it does not apply; the first that
applies counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrexp.analysis.smoothing import anchored, despike
from lrexp.errors import ConfigError

Array = NDArray[np.float64]
Evals = Mapping[str, ArrayLike]  # column -> values, nan where absent
HUGE = 1e100
SHORT = 30  # steps: below, noise is no excuse for a mean that still falls


@dataclass(frozen=True)
class Trace:
    """Numbers of the finite part of a loss curve, in the unit of the loss."""

    start: float  # the first loss: that before training, where evaluations do not speak against it
    end: float  # mean of the last tenth
    end_typical: float  # median of the last tenth
    lowest: float  # of the smoothed loss
    highest: float  # of the smoothed loss, over short stretches, without spikes of one batch
    highest_step: int  # of the raw losses about there
    num_steps: int
    quarters: tuple[float, ...]  # mean of each quarter
    pace: float  # share of the steps until four fifths of the drop were made
    error: float  # standard error of `end − start`
    late_noise: float  # standard deviation of a loss in the second half
    quarter_error: float  # standard error of the difference of two late quarters
    evaluated_moved: bool  # whether the evaluations changed by more than their late scatter

    @property
    def drop(self) -> float:
        """By how much the loss fell from start to end."""
        return self.start - self.end

    @property
    def range(self) -> float:
        """From the start down to the lowest smoothed loss, at least 0."""
        return max(0.0, self.start - self.lowest)

    @property
    def clear(self) -> bool:
        """Whether the loss fell or rose by more than the noise of single batches."""
        quarters = abs(self.quarters[0] - self.quarters[-1]) > 4.0 * self.quarter_error
        return abs(self.drop) > 4.0 * self.error or quarters

    @property
    def moved(self) -> bool:
        """Whether anything happened at all; evaluations show it where the batches hide it."""
        return self.clear or self.evaluated_moved

    @property
    def still_falling(self) -> bool:
        """Whether the last quarter fell by more than noise, and more than a 20th of the drop."""
        late_drop = self.quarters[-2] - self.quarters[-1]
        return late_drop > max(0.05 * self.drop, 3.0 * self.quarter_error)

    @property
    def short_and_falling(self) -> bool:
        """Whether there are too few losses to tell by their noise that it stopped falling."""
        return self.num_steps < SHORT and self.quarters[-1] < self.quarters[-2]

    @property
    def steady(self) -> bool:
        """Whether it fell nearly in a straight line: over a third of the drop came at the end."""
        half = (self.quarters[0] + self.quarters[1] - self.quarters[2] - self.quarters[3]) / 2
        return half > 0.4 * self.drop  # 0.5 for a straight line


def trace(losses: ArrayLike, evaluated: ArrayLike = ()) -> Trace | None:
    """Measure a loss curve up to its first non-finite value; None where there is none before it.

    Args:
        losses: raw loss of every step, (steps,).
        evaluated: losses of the evaluations, (evaluations,): less noisy, they help to see movement.

    Example:
        >>> measured = trace([5.0, 4.0, 3.0, 2.0, 1.0])
        >>> measured.drop, measured.pace
        (4.0, 0.8)
    """
    y = np.asarray(losses, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(y))
    y = np.clip(y[: bad[0]] if len(bad) else y, -HUGE, HUGE)  # a square may overflow
    n = len(y)
    if not n:
        return None
    last = max(1, n // 10)
    late_noise = scatter(y[n // 2 :])
    start, end = float(y[0]), float(y[-last:].mean())
    quarters = _quarters(y)
    if end >= start and _ended_lowest(np.asarray(evaluated, dtype=np.float64)):
        start = max(start, quarters[0])  # the first batch was an easy one
    smooth = anchored(y, span=max(1.0, n / 20))
    peaks = anchored(despike(y), span=max(1.0, n / 100))
    fallen = np.flatnonzero(smooth <= start - 0.8 * (start - end))
    return Trace(
        start=start,
        end=end,
        end_typical=float(np.median(y[-last:])),
        lowest=float(smooth.min()),
        highest=float(peaks.max()),
        highest_step=_highest_step(y, int(peaks.argmax())),
        num_steps=n,
        quarters=quarters,
        pace=float(fallen[0]) / n if len(fallen) else 1.0,
        error=max(late_noise, scatter(y[: min(5, n // 20)])) * float(np.sqrt(1 + 1 / last)),
        late_noise=late_noise,
        quarter_error=late_noise * float(np.sqrt(2.0 / max(1, n // 4))),
        evaluated_moved=_has_moved(np.asarray(evaluated, dtype=np.float64)),
    )


def _quarters(y: Array) -> tuple[float, ...]:
    """Return the means of the four quarters; below four losses the last one stands in."""
    means = [float(part.mean()) for part in np.array_split(y, 4) if len(part)]
    return tuple(means + means[-1:] * (4 - len(means)))


def _ended_lowest(evaluated: Array) -> bool:
    return len(evaluated) > 1 and bool(evaluated[0] > evaluated[-1] == evaluated.min())


def _has_moved(evaluated: Array) -> bool:
    falls = -np.diff(evaluated)
    if len(falls) >= 3 and (falls > 0).all() and falls.sum() > 0.1 * abs(evaluated[0]):
        return True
    late = evaluated[len(evaluated) // 2 :]
    return len(late) >= 3 and abs(float(evaluated[0] - evaluated[-1])) > 4.0 * scatter(late)


def _highest_step(y: Array, about: int) -> int:
    """Return the step of the highest loss near the highest smoothed one."""
    reach = max(2, len(y) // 100)
    first = max(0, about - reach)
    return first + int(y[first : about + reach + 1].argmax())


def scatter(y: Array) -> float:
    """Return the standard deviation of the noise, from second differences (a slope has none)."""
    if len(y) < 3:
        return 0.0
    return float(np.sqrt(np.mean((y[2:] - 2 * y[1:-1] + y[:-2]) ** 2) / 6))


def column(evals: Evals | None, name: str) -> tuple[Array, Array]:
    """Return steps and finite values of a column of the evaluations; empty where it is absent."""
    if not evals or name not in evals:
        return np.empty(0), np.empty(0)
    values = np.asarray(evals[name], dtype=np.float64)
    steps = np.asarray(evals.get("step", np.arange(len(values))), dtype=np.float64)
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def final_loss(losses: ArrayLike, evals: Evals | None = None) -> float | None:
    """Return where a training ended: the last val_loss, else train_loss, else its last losses.

    The lowest of these over the variants of a comparison is `best_final` of `diagnose`.

    Args:
        losses: raw loss of every step, (steps,); without evaluations the mean of the last tenth
            counts.
        evals: columns by name, nan where absent.

    Returns:
        A finite loss, or None where the training ended without one.
    """
    for name in ("val_loss", "train_loss"):
        if evals and name in evals and np.isfinite(np.asarray(evals[name], dtype=float)).any():
            last = float(np.asarray(evals[name], dtype=float)[-1])
            return last if np.isfinite(last) else None
    measured = trace(losses)
    whole = np.asarray(losses, dtype=np.float64)
    return measured.end if measured and np.isfinite(whole).all() else None


FAR_ABOVE = 10.0  # times its own size that a loss must have risen to have diverged
ABOVE = 0.05  # of the way that the best variant made: an end so far above the start is unstable
BARELY = 0.9  # of the way still to go: too slow, whatever the curve's shape
BEHIND = 0.25  # share of the way left: more is behind
ROSE = 0.1  # of the drop of val_loss: a rise by more is told
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


def not_finite(losses: Array, evals: Evals | None, total: int, cause: str = "") -> str | None:
    """Return where the loss stopped being finite, and why if the LR is not to blame."""
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad) and bad[0] == 0:
        return "Training loss was non-finite before the first update: check data, model and loss."
    if len(bad):
        became = f"Training loss became non-finite at step {bad[0]} of {total}"
        return f"{became}. {cause}" if cause else f"{became}: {LOWER_MUCH}"
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
    rise = ROSE * float(val[0] - val[lowest])
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


def converging_well(t: Trace, evals: Evals | None = None) -> str:
    """Return the drop, and whether there is more to gain; a val_loss that rose speaks against."""
    fell = f"Training loss fell from {t.start:.3g} to {t.end:.3g}"
    val = column(evals, "val_loss")[1]
    if len(val) > 1 and val[-1] - val.min() > ROSE * (val[0] - val.min()) > 0:
        rose = f"val_loss rose in the end ({val.min():.3g} to {val[-1]:.3g})"
        return f"{fell}, but {rose}: lower the LR, or let a schedule lower it."
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


WORDS = ("diverged", "unstable", "too slow", "plateaued", "overfitting", "converging well")


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
    cause: str = "",
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

    Behind: more than a quarter of the way from the start to `best_final` was left, or, without one
    to compare with, more than half of a positive loss. Overfitting is asked before the two words
    that need it, for a val_loss that rises is no slowness.

    Args:
        losses: raw loss of every step, (steps,).
        evals: columns `step`, `train_loss`, `val_loss` (any may be missing); nan where absent.
        outcome: `finished`, `diverged` or `failed`.
        stopped_at: the step at which a rule stopped the training.
        total_steps: the length that was planned; that of `losses` if None.
        best_final: the lowest `final_loss` over the variants of the comparison.
        cause: why a loss was not finite, where the LR is not to blame.

    Example:
        >>> diagnose([1.0, 2.0, float("nan")], total_steps=230).sentence
        'Training loss became non-finite at step 2 of 230: lower the LR; 10× is a good first try.'
    """
    y = np.asarray(losses, dtype=np.float64)
    total = len(y) if total_steps is None else total_steps
    if outcome == "failed":
        return Diagnosis("failed", f"An exception ended it at step {len(y)} of {total}.")
    sentence = not_finite(y, evals, total, cause)
    if sentence:
        return Diagnosis("diverged", sentence)
    val, train = column(evals, "val_loss")[1], column(evals, "train_loss")[1]
    t = trace(y, val if len(val) else train)
    if t is None:
        return Diagnosis("too slow", "Not one step was made: raise train.duration.")
    behind = way_left(t, val, final_loss(y, evals), best_final)
    stop = (len(y) - 1 if stopped_at is None else stopped_at) if outcome == "diverged" else None
    found = {
        "diverged": diverged(t, stop, total),
        "unstable": unstable(t, behind, val, best_final),
        "overfitting": overfitting(evals),
        "too slow": too_slow(t, behind),
        "plateaued": plateaued(t, behind),
        "converging well": converging_well(t, evals),
    }
    return next(Diagnosis(word, sentence) for word, sentence in found.items() if sentence)


def combine_diagnoses(found: Sequence[Diagnosis], seeds: Sequence[int] | None = None) -> Diagnosis:
    """Return one diagnosis for several seeds: divergence if there is any, else the most common.

    The worse one wins a tie. The sentence is that of the first seed with the word; where the seeds
    differ, it says of how many it holds, and what the others did.

    Args:
        found: one for each seed, the most typical one first.
        seeds: their numbers: the sentence then names the one that it is about.

    Raises:
        ConfigError: there is none to combine.

    Example:
        >>> well, lost = Diagnosis("converging well", "It fell."), Diagnosis("diverged", "Blew up.")
        >>> combine_diagnoses([well, lost, well]).sentence
        'In 1 of 3 seeds: blew up. The other 2: converging well.'
    """
    if not found:
        raise ConfigError.single("found", "must not be empty", [], "Give one for every seed.")
    counts = Counter(one.word for one in found)
    worst_first = [word for word in ("failed", *WORDS) if counts[word]]
    most_common = max(worst_first, key=lambda word: counts[word])  # of a tie the first, the worse
    word = "diverged" if counts["diverged"] else most_common
    typical = next(i for i, one in enumerate(found) if one.word == word)
    sentence = found[typical].sentence
    example = seeds[typical] if seeds is not None and len(seeds) > 1 else None
    if len(worst_first) == 1:
        return Diagnosis(word, sentence if example is None else f"Seed {example}: {_low(sentence)}")
    share = f"In {counts[word]} of {len(found)} seeds"
    if example is not None:
        share += f" ({example})" if counts[word] == 1 else f", as in seed {example}"
    return Diagnosis(word, f"{share}: {_low(sentence)} {_others(counts, word)}")


def _low(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _others(counts: Counter[str], word: str) -> str:
    """Return what the other seeds did, worst first."""
    rest = {other: counts[other] for other in ("failed", *WORDS) if counts[other] and other != word}
    if len(rest) > 1:
        return f"The others: {', '.join(f'{count} {other}' for other, count in rest.items())}."
    [(other, count)] = rest.items()
    return f"The other{f' {count}' if count > 1 else ''}: {other}."
