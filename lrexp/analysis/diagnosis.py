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
from numpy.typing import ArrayLike

from lrexp.analysis.loss_trace import ROUNDING, Array, Trace, from_to, trace
from lrexp.analysis.tried import Tried, higher, lower, other
from lrexp.errors import ConfigError

Evals = Mapping[str, ArrayLike]  # column -> values, nan where absent


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
RELAPSED = 0.4  # of the way down, lost again on the way: unstable, wherever it ended
FEW = 6  # evaluations: fewer say nothing about the way
LITTLE = 0.05  # of the way that the best variant made: a val_loss that fell by less did not fall
LOWER_MUCH = "lower the LR; 10× is a good first try."
LOWER = "lower the LR by 2 to 5×, or add warmup or gradient clipping."


def way_left(t: Trace, val: ArrayLike, end: float | None, best_final: float | None) -> float | None:
    """Return the share of the way from the start to `best_final` that is left, None if unknown."""
    if best_final is None or end is None:
        return None
    evaluated = np.asarray(val, dtype=np.float64)
    start = float(evaluated[0]) if len(evaluated) else t.start  # `end` is of the same kind
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


def diverged(t: Trace, stopped_at: int | None, total: int, seen: Tried | None = None) -> str | None:
    """Return how far the loss rose, where it was stopped for that or never came back."""
    what, levels = t.levels(-1) or ("Training loss", from_to(t.start, t.end))
    rose = f"{what} rose from {levels}"
    if stopped_at is not None and stopped_at < total - 1:
        return f"{rose} and was stopped at step {stopped_at} of {total}: {lower(seen, LOWER_MUCH)}"
    if stopped_at is not None or t.end_typical > t.start + FAR_ABOVE * max(abs(t.start), t.range):
        return f"{rose} and did not come back: {lower(seen, LOWER_MUCH)}"
    return None


def unstable(
    t: Trace,
    behind: float | None,
    val: ArrayLike = (),
    best_final: float | None = None,
    seen: Tried | None = None,
) -> str | None:
    """Return what rose: on the way, in the end, or back from the lowest."""
    advice = lower(seen, LOWER)
    ended_well = t.moved and not _is_behind(t, behind)
    if ended_well:  # then a rise in the first tenth was a transient
        late = t.highest_step > 0.1 * t.num_steps
        limit = max(t.range, 4.0 * t.error, 0.5 * abs(t.start)) if late else math.inf
    else:
        limit = max(6.0 * t.late_noise, 0.25 * t.range, 0.25 * abs(t.start))
    if t.highest - t.start > limit:
        rose = f"Training loss rose from {t.start:.3g} to {t.highest:.3g}"
        at = f"around step {t.highest_step}"
        return f"{rose} {at} and ended at {t.end:.3g}: {advice}"
    # beyond doubt, or by its own size: scatter that large is itself unstable
    rounding = ROUNDING * abs(t.start)
    doubt = max(0.1 * t.range, min(4.0 * t.error, abs(t.start)), rounding)
    beyond_doubt = -t.drop > doubt
    if beyond_doubt or _ended_above(t, val, best_final):
        return f"Training loss ended above its start ({from_to(t.start, t.end)}): {advice}"
    if t.end - t.lowest > max(0.3 * t.range, 4.0 * t.error, rounding):
        fell = f"Training loss fell from {t.start:.3g} to {t.lowest:.3g}"
        return f"{fell} and rose again to {t.end:.3g}: {advice}"
    return _relapsed(t, advice, ended_well=ended_well)


def _relapsed(t: Trace, advice: str, *, ended_well: bool) -> str | None:
    """Return how much of its way it lost again; early on, it is a transient if it ended well."""
    early = ended_well and t.relapse.step <= 0.1 * t.num_steps
    doubt = max(8.0 * t.relapse.error, ROUNDING * abs(t.start))
    if early or t.relapse.rise <= max(RELAPSED * t.range, doubt):
        return None
    rose = f"rose again from {t.relapse.low:.3g} to {t.relapse.low + t.relapse.rise:.3g}"
    at = f"around step {t.relapse.step}"
    return f"Training loss, averaged, {rose} {at} and ended at {t.end:.3g}: {advice}"


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


def lost_again(
    t: Trace, evals: Evals | None, best_final: float | None = None, seen: Tried | None = None
) -> str | None:
    """Return what both evaluated losses lost on the way; one alone may be noise, or overfitting."""
    rises = []
    for name in ("train_loss", "val_loss"):
        steps, values = column(evals, name)
        if len(values) < FEW:
            return None
        so_far = np.minimum.accumulate(np.r_[t.start, values])[1:]
        at = int(np.argmax(values - so_far))
        way = max(t.start - values.min(), LITTLE * abs(t.start))
        if best_final is not None:
            way = max(way, BEHIND * (t.start - best_final))
        if values[at] - so_far[at] < RELAPSED * way or at < 0.1 * len(values):
            return None
        levels = from_to(float(so_far[at]), float(values[at]))
        rises.append(f"{name} from {levels} around step {steps[at]:.0f}")
    return f"The loss fell and rose again on the way ({'; '.join(rises)}): {lower(seen, LOWER)}"


def overfitting(evals: Evals | None, best_final: float | None = None) -> str | None:
    """Return where val_loss turned, if it rose by a tenth of its drop while training did not."""
    steps, val = column(evals, "val_loss")
    if len(val) < 4:
        return None
    lowest = int(np.argmin(val))
    last_two = val[lowest + 1 :][-2:]  # one high evaluation may be noise
    rise = ROSE * float(val[0] - val[lowest])
    way = 0.0 if best_final is None else LITTLE * float(val[0] - best_final)
    if val[0] - val[lowest] < way:
        return None  # it never learned
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


def too_slow(t: Trace, behind: float | None, seen: Tried | None = None) -> str | None:
    """Return how little the loss moved."""
    if seen is not None and seen.is_below and _is_behind(t, behind):
        return None  # lower LRs went further: it is stuck, not slow
    if not t.moved:
        words = (
            "raise the LR, 10× is a good first try; if it is high already, lower it, for the model "
            "may have died at once."
        )
        still = f"Training loss did not move ({t.start:.3g} to {t.end:.3g})"
        return f"{still}: {higher(seen, words)}"
    if behind is not None and behind > BARELY and t.drop >= 0:
        fell = f"Training loss went only from {t.start:.3g} to {t.end:.3g}{_compared(behind)}"
        words = "raise the LR (10× is a good first try), or lower it if it is high already."
        return f"{fell}: {higher(seen, words)}"
    # where single batches hide the fall, its pace says nothing
    fell_all_along = t.still_falling or t.pace > EARLY or not t.clear
    straight = t.still_falling and t.steady and _half_left(t)
    if not (straight or (fell_all_along and _is_behind(t, behind))):
        return None
    what, levels = t.levels(1) or ("", "")
    fell = f"{what} fell all along, but only from {levels}"
    if not what:
        fell = f"Training loss did not fall ({from_to(t.start, t.end)})"
    words = "raise the LR (10× is a good first try) or train longer."
    return f"{fell}{_compared(behind)}: {higher(seen, words)}"


def plateaued(t: Trace, behind: float | None, seen: Tried | None = None) -> str | None:
    """Return where the loss stopped, far from where it could be."""
    if not _is_behind(t, behind):
        return None
    what, levels = t.levels(1) or ("", "")
    fell = f"{what} fell from {levels} early and then stopped"
    if not what:
        fell = f"Training loss did not fall ({from_to(t.start, t.end)})"
    return f"{fell}{_compared(behind)}: {other(seen)}"


def converging_well(t: Trace, evals: Evals | None = None, seen: Tried | None = None) -> str:
    """Return the drop, and whether there is more to gain; a val_loss that rose speaks against."""
    what, levels = t.levels(1) or ("", "")
    if not what:
        return f"Training loss ended where it began ({from_to(t.start, t.end)})."
    fell = f"{what} fell from {levels}"
    val = column(evals, "val_loss")[1]
    if len(val) > 1 and val[-1] - val.min() > ROSE * (val[0] - val.min()) > 0:
        rose = f"val_loss rose in the end ({val.min():.3g} to {val[-1]:.3g})"
        may_lower = seen is None or seen.may_lower
        advice = "lower the LR, or let a schedule lower it" if may_lower else "stop earlier"
        return f"{fell}, but {rose}: {advice}."
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


OF_PARTS = "trained against each other"
WORDS = (
    "diverged", "unstable", "too slow", "plateaued", "overfitting", "converging well", OF_PARTS,
)  # fmt: skip


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
    seen: Tried | None = None,
    cause: str = "",
    of_parts: bool = False,
) -> Diagnosis:
    """Say what one training did.

    - diverged: the outcome says so, a loss is not finite, or the end is far above the start.
    - unstable: it ended above its start, lost much of what it had gained (in the end or on the
      way), or rose far above its start on the way (in the first tenth, only if it did not end
      well after that).
    - too slow: it hardly moved; or it ended behind, having fallen all along; or it fell in nearly
      a straight line, with more than half of a positive loss left.
    - plateaued: it ended behind, having made its way early and stopped falling; or a lower LR went
      further.
    - overfitting: val_loss rises from its lowest while the training loss does not.
    - converging well: none of these.
    - trained against each other: parts with losses of their own, as of a GAN, that did not diverge.

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
        seen: what variants that differ in the LR alone came to: no advice goes against it.
        cause: why a loss was not finite, where the LR is not to blame.
        of_parts: each optimizer has a loss of its own.

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
    if of_parts and (stop is None or not diverged(t, stop, total)):
        return Diagnosis(OF_PARTS, _of_parts(t))
    found = {
        "diverged": diverged(t, stop, total, seen),
        "unstable": unstable(t, behind, val, best_final, seen)
        or lost_again(t, evals, best_final, seen),
        "overfitting": overfitting(evals, best_final),
        "too slow": too_slow(t, behind, seen),
        "plateaued": plateaued(t, behind, seen),
        "converging well": converging_well(t, evals, seen),
    }
    return next(Diagnosis(word, sentence) for word, sentence in found.items() if sentence)


def _of_parts(t: Trace) -> str:
    return (
        f"The loss that is shown went from {from_to(t.start, t.end)}. Each part lowers a loss of "
        "its own and changes those of the others, so that neither a fall nor a rise says how well "
        "it trains: judge by a metric of what is made."
    )


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
