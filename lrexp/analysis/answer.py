"""What the trainings of a search say together: an LR and an interval, or why there is none.

The interval holds LRs that were tried, or lies between such: none that failed, and none beyond. It
says within how much of the best loss they ended. Where the trainings were shorter than the whole,
it is moved as far as the answer, and an end that rests on that says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lrexp.analysis.race import Array, Raced
from lrexp.analysis.search import Search, learned, middle_of, predicted

TOLERANCES = (0.01, 0.02, 0.05, 0.1, 0.2)  # of the best loss, that an interval may state
MEASURED = 0.5  # of the stated tolerance: what LRs in the interval have kept to when tried
MEASURED_ONCE = 0.25  # the same where one seed was trained
ONE_SEED = 0.1  # of the loss: what an interval states at least where one seed was trained
LEAST_LRS = 3  # that an interval shall hold, if a tolerance allows
PARTS = 0.02  # of the loss: by so much must the best evaluation be lower to be worth a word
NOT_BELOW = 1e-3  # of the loss of a constant guess: an LR that is no better than that is luck


@dataclass(frozen=True)
class Verdict:
    """The answer of a search: LRs where `reason` is None, else why there are none.

    Args:
        lr: for a whole training.
        interval: of LRs whose losses were within the stated share of the best.
        within: that share; None where no LR but the best ended so near.
        is_extrapolated: the trainings were shorter than the whole.
        reason: a sentence for the user when there is no answer.
        notes: sentences on what is not known.
    """

    lr: float | None
    interval: tuple[float, float] | None = None
    within: float | None = None
    is_extrapolated: bool = False
    reason: str | None = None
    notes: tuple[str, ...] = ()


def verdict(search: Search, done: Sequence[Raced]) -> Verdict:
    """Return what all horizons say together.

    Args:
        search: what was decided.
        done: the horizons, short ones first.
    """
    if not done:
        return Verdict(None, reason="The schedule cannot have any LR near the range test's.")
    taught = [raced for raced in done if learned(search, raced)]
    if not taught:
        return Verdict(None, reason=_nothing_learned(search, done[-1]))
    last = taught[-1]
    is_short = last.rung.horizon < search.total_steps
    not_below, notes = _not_below_guess(search, last), []
    is_end = _end(last) is not None  # LRs beyond it might learn more
    if not_below and (search.is_guess or not (is_short or is_end)):
        return Verdict(None, reason=not_below)
    answer = predicted(search, taught, search.total_steps)
    if is_short:
        answer_at, doubt = answer.middle, answer.doubt
    else:
        answer_at, doubt = middle_of(search, last), 0.0
    low, high, within = _as_good(last)
    bottom, top = _usable(taught)
    here = middle_of(search, last)
    shift = answer_at - here
    low, high = low + shift - doubt, high + shift + doubt
    answer_at = min(max(answer_at, bottom), top)
    low, high = min(max(low, bottom), answer_at), max(min(high, top), answer_at)
    notes += [not_below] if not_below else []
    notes += [text for text in (_end(last), _parts(search, last)) if text]
    if is_short:
        notes.append(_extrapolated(search, taught, shift))
    return Verdict(
        lr=float(f"{10**answer_at:.3g}"),
        interval=(_rounded(low, min, answer_at), _rounded(high, max, answer_at)),
        within=within,
        is_extrapolated=is_short,
        notes=tuple(notes),
    )


def _rounded(x: float, outermost: Callable[[float, float], float], answer: float) -> float:
    """Return an end of an interval with three digits; the answer stays inside."""
    value, lr = float(f"{10**x:.3g}"), float(f"{10**answer:.3g}")
    return outermost(value, lr)


def _as_good(raced: Raced) -> tuple[float, float, float | None]:
    """Return the ends of the LRs around the best that ended nearly as low, and how nearly."""
    x, means, failed = np.log10(raced.rung.lrs), raced.means, raced.failed
    best = int(np.argmin(means))
    ends = (best, best)
    if _end(raced) is not None:  # a better LR may lie beyond, and nothing is near it for sure
        return float(x[best]), float(x[best]), None
    share = MEASURED if len(raced.rung.seeds) > 1 else MEASURED_ONCE
    for stated in (t for t in TOLERANCES if t >= _noise(raced)):
        level = means[best] + share * stated * abs(means[best])
        ends = _around(best, (means <= level) & ~failed)
        if ends[1] - ends[0] + 1 >= min(LEAST_LRS, len(x)):
            return float(x[ends[0]]), float(x[ends[1]]), stated
    if ends[1] > ends[0]:
        return float(x[ends[0]]), float(x[ends[1]]), TOLERANCES[-1]
    return float(x[best]), float(x[best]), None


def _noise(raced: Raced) -> float:
    """Return which share of the best loss seeds alone may account for.

    That is two standard errors of an LR's loss against those of the others, seed by seed; with one
    seed, which cannot tell, `ONE_SEED`.
    """
    losses = np.asarray(raced.losses, dtype=np.float64)
    whole = losses[np.isfinite(losses).all(axis=1)]
    if losses.shape[1] < 2 or len(whole) < 2:
        return ONE_SEED
    near = whole[np.argsort(whole.mean(axis=1))[:LEAST_LRS]]
    gaps = near - near.mean(axis=0)
    residual = gaps - gaps.mean(axis=1)[:, None]
    free = (len(near) - 1) * (losses.shape[1] - 1)
    sd = math.sqrt(float((residual**2).sum()) / free)
    best = abs(float(raced.means.min()))
    return 2 * sd / math.sqrt(losses.shape[1]) / best if best > 0 else math.inf


def _around(best: int, good: Array) -> tuple[int, int]:
    """Return the first and the last of the good ones that are next to each other around `best`."""
    low = high = best
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(good) - 1 and good[high + 1]:
        high += 1
    return low, high


def _usable(done: Sequence[Raced]) -> tuple[float, float]:
    """Return the lowest and the highest LR that was tried without failing, log10.

    The highest lies below the lowest LR above the best that failed with any horizon.
    """
    best = done[-1].rung.lrs[int(np.argmin(done[-1].means))]
    tried = [(lr, bool(f)) for r in done for lr, f in zip(r.rung.lrs, r.failed, strict=True)]
    below = [lr for lr, failed in tried if failed and lr > best]
    above = [lr for lr, failed in tried if failed and lr < best]
    good = [
        lr
        for lr, failed in tried
        if not failed and max(above, default=0.0) < lr < min(below, default=math.inf)
    ]
    good.append(best)
    return math.log10(min(good)), math.log10(max(good))


def _end(raced: Raced) -> str | None:
    """Return a sentence where the best LR is the lowest or the highest of all."""
    best, lrs = int(np.argmin(raced.means)), raced.rung.lrs
    if 0 < best < len(lrs) - 1 or len(lrs) == 1:
        return None
    end, beyond = ("lowest", "below") if best == 0 else ("highest", "above")
    return (
        f"The best LR tried, {lrs[best]:.3g}, is the {end} of all: a better one may lie {beyond} "
        "it. A larger --budget tries more."
    )


def _parts(search: Search, raced: Raced) -> str | None:
    """Return a sentence where another LR is best if training stops earlier."""
    if not raced.best or not raced.best_at:
        return None
    whole = np.isfinite(np.asarray(raced.losses)).all(axis=1)
    rows = np.flatnonzero(whole)
    if not len(rows):
        return None
    best = np.asarray(raced.best)[rows].mean(axis=1)
    ends, stops = rows[int(np.argmin(raced.means[rows]))], rows[int(np.argmin(best))]
    end, lowest = float(raced.means[ends]), float(best.min())
    at = float(np.median(np.asarray(raced.best_at)[stops]))
    if at >= raced.rung.horizon or end - lowest <= PARTS * abs(end):
        return None
    lrs, each = raced.rung.lrs, search.steps_per_epoch
    when = f"epoch {at / each:.3g}" if each else f"step {at:.0f}"
    first = f"{lrs[ends]:.3g} ends best ({end:.4g})"
    if ends == stops:
        return f"Overfitting: {first}, and is better at {when} ({lowest:.4g})."
    return f"Overfitting: {first}; {lrs[stops]:.3g} is better if you stop at {when} ({lowest:.4g})."


def _extrapolated(search: Search, done: Sequence[Raced], shift: float) -> str:
    horizons = " and ".join(f"{raced.rung.horizon:,}" for raced in done)
    factor = 10**shift
    moved = "kept" if abs(shift) < 0.01 else f"multiplied by {factor:.2g}"
    return (
        f"Extrapolated from trainings of {horizons} steps to {search.total_steps:,}: the best LR "
        f"of the longest was {moved}."
    )


def _not_below_guess(search: Search, raced: Raced) -> str | None:
    """Return a sentence where no LR learned more than how often each answer is right."""
    best, guess = float(raced.means.min()), search.guess
    if guess is None or best < guess - NOT_BELOW * abs(guess):
        return None
    return (
        f"The best of these losses, {best:.4g}, is not below {guess:.4g}, which guessing the same "
        "each time gets: the data may hold nothing to learn, or the trainings were too short."
    )


def _nothing_learned(search: Search, last: Raced) -> str:
    low, high = last.rung.lrs[0], last.rung.lrs[-1]
    tried = f"No LR from {low:.2g} to {high:.2g} lowered the loss"
    if search.is_guess:
        return (
            f"{tried} by more than luck would in {last.rung.horizon} steps, nor did the range test "
            "show a fall. Train longer (train.duration, --budget), and check the targets and "
            "that the parameters get gradients."
        )
    return (
        f"{tried} in {last.rung.horizon} steps, though "
        "the range test fell: what it learned does not carry over to the validation data. Check "
        "the targets and the split, or train longer (train.duration, --budget)."
    )
