"""From the range tests of several seeds to one answer: an LR and its interval, or a refusal.

The answer is read off the combined curve; the seeds by themselves say how far to trust it. A
curve without a usable signal gets a reason instead of a number, with what to do next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from lrexp.analysis.range_curve import (
    BANDWIDTH,
    CombinedCurve,
    Curve,
    Landmarks,
    combine,
    landmarks,
)
from lrexp.analysis.rules import BELOW_EDGE, auto, readings, stability_edge
from lrexp.analysis.signal import (
    MIN_POINTS,
    ended_infinite,
    is_buried,
    no_signal,
    paired_control,
)
from lrexp.config.rule_names import RULES
from lrexp.errors import ConfigError, did_you_mean

MAX_DISAGREEMENT = 2.0  # decades between the seeds
LOWEST_MEAN = 0.5  # of the peak: schedules below that are treated as if they had it
PEAK = 2.0  # times the LR that suits a constant schedule: the peak of one that decays to zero
WIDER = 2.0  # how far the interval reaches beyond the answers of the seeds, each way

ONLY_PAIRED = (
    "A weak signal: the fall shows clearly only once what makes one batch harder than another is "
    "taken off. A race (lrexp find-lr --race) would verify it."
)

DOUBTFUL = (
    "Most seeds show no fall by themselves, nor does a closer look: a guess. A race (lrexp find-lr "
    "--race) would verify it."
)

OTHERS_DIVERGE = (
    "The loss is not finite while the other parts train without this one: lower their LRs."
)

CYCLE = 4.0  # base_lr is at least this factor below max_lr


@dataclass(frozen=True)
class Suggestion:
    """What a range test says: LRs where `reason` is None, else why there are none.

    Args:
        suggested_lr: the LR to train with.
        interval: lowest and highest LR that the seeds support.
        base_lr: where the loss starts to fall: the lower end of a cyclic schedule.
        max_lr: its upper end, and the highest peak of a one-cycle schedule.
        rules: what every rule says, by name; None where a rule says nothing.
        reason: a sentence for the user when there is no suggestion.
        note: sentences on what a suggestion holds for, and whether it could be better.
        per_seed: the rule's answer for each curve by itself, in their order.
        mean_frac: what was said of the schedule.
        readings: the three LRs whose median `auto` is based on, for a constant schedule.
        edge: the edge of stability, where it counts as much as these.
    """

    suggested_lr: float | None
    interval: tuple[float, float] | None
    base_lr: float | None
    max_lr: float | None
    rules: dict[str, float | None]
    reason: str | None
    note: str | None = None
    per_seed: tuple[float | None, ...] = field(default=())
    mean_frac: float = 1.0
    readings: dict[str, float] | None = None
    edge: float | None = None

    @property
    def peak_share(self) -> float:
        """What the LR for a constant schedule is divided by to give the peak of the one used."""
        return max(self.mean_frac, LOWEST_MEAN)


def suggest(
    curves: Sequence[Curve],
    rule: str = "auto",
    mean_frac: float = 1.0,
    control: Sequence[ArrayLike] | None = None,
    causes: Sequence[str] = (),
    *,
    others_train: bool = False,
) -> Suggestion:
    """Suggest an LR from the range tests of one ramp, run with one or more seeds.

    - `suggested_lr`: what `rule` reads off the combined curve. Of `auto` it is the peak of the
      schedule that is to be used: `auto(curve) / max(mean_frac, 1/2)`. What trains is the area
      under the schedule, so one with half the mean takes twice the peak.
    - `interval`: from the lowest to the highest answer of the seeds and the combined curve, widened
      by a factor of 2 each way: about the width of the LRs that train nearly as well.
    - `max_lr` = max(2 · auto(curve), suggested_lr).
    - Where the fall shows only in the paired control (see `control`), the edge of stability counts
      as much as what little fell: `√(auto(curve) · edge / 20)` instead of `auto(curve)`.
    - `base_lr` = min(LR where the loss starts to fall, max_lr / 4, lower end of the interval).

    Args:
        curves: one for each seed.
        rule: a name in `RULES`.
        mean_frac: the mean LR of the schedule that is to be used as a share of its peak, in (0, 1]:
            1 for a constant LR, about 1/2 for cosine, linear and one-cycle.
        control: for each curve the losses of the untrained model on the same batches. Where the
            curves show no fall, it is looked for once more in the differences; see
            `paired_control`.
        causes: why losses were not finite, of the seeds where the LR is not to blame.
        others_train: the test is of one optimizer of several, and the control is what the others
            do alone; see `paired_control`.

    Raises:
        ConfigError: there is no such rule, `mean_frac` is out of range, or the curves do not share
            one ramp.

    Example:
        >>> import numpy as np
        >>> lr = np.logspace(-7, 1, 100)
        >>> flat = suggest([Curve(lr, np.full(100, 2.3))])
        >>> flat.suggested_lr, flat.reason[:22]
        (None, 'The loss stayed flat f')
    """
    if rule not in RULES:
        raise ConfigError.single("rule", "is no rule", rule, did_you_mean(rule, RULES))
    if not 0 < mean_frac <= 1:
        remedy = "Give 1 for a constant LR."
        raise ConfigError.single("mean_frac", "must be above 0 and at most 1", mean_frac, remedy)
    if causes and 2 * len(causes) >= len(curves):
        why = f"The test ended at a loss that is not finite. {causes[0]}"
        none = (None,) * len(curves)
        return Suggestion(
            *(None,) * 4, dict.fromkeys(RULES), why, per_seed=none, mean_frac=mean_frac
        )
    blew_up = sum(curve.num_finite < len(curve.loss) for curve in curves) - len(causes)
    curves, combined, reason, edge, note = _looked_at(curves, control, others_train)
    answers: dict[str, float | None] = dict.fromkeys(RULES)
    per_seed: tuple[float | None, ...] = (None,) * len(curves)
    if not reason:
        answers = {name: _read(name, combined, mean_frac, edge) for name in RULES}
        alone = tuple(_alone(c, rule, mean_frac, sure=note == ONLY_PAIRED) for c in curves)
        per_seed = alone if len(curves) > 1 else (answers[rule],)
        reason = _unreadable(rule, answers[rule]) or _disagreement(per_seed)
    suggested = answers[rule]
    if reason or suggested is None:
        nothing = (None,) * 4
        return Suggestion(*nothing, answers, reason, per_seed=per_seed, mean_frac=mean_frac)
    said = [suggested, *(lr for lr in per_seed if lr is not None)]
    interval = min(said) / WIDER, max(said) * WIDER
    marks = landmarks(combined)
    max_lr = max(PEAK * (_constant(combined, edge) or 0.0), suggested)
    notes = [
        note,
        _of_schedule(rule, suggested, mean_frac),
        _of_end(combined, marks, blew_up),
        *causes,
    ]
    return Suggestion(
        suggested_lr=suggested,
        interval=interval,
        base_lr=min(float(combined.lr[marks.fall]), max_lr / CYCLE, interval[0]),
        max_lr=max_lr,
        rules=answers,
        reason=None,
        note=" ".join(filter(None, notes)) or None,
        per_seed=per_seed,
        mean_frac=mean_frac,
        readings=readings(combined),
        edge=edge,
    )


def _looked_at(
    curves: Sequence[Curve], control: Sequence[ArrayLike] | None, others_train: bool
) -> tuple[Sequence[Curve], CombinedCurve, str | None, float | None, str | None]:
    """Return the curves to read, as one too, a reason against it, and what a paired control adds.

    That is the edge of stability, which only the first look shows, and a note.
    """
    combined = combine(curves)
    if others_train and control is not None:
        paired = paired_control(curves, control, others_train=True)
        if paired is None:
            return curves, combined, OTHERS_DIVERGE, None, None
        return paired, combine(paired), _adds_nothing(paired), None, None
    if is_buried(curves) and (paired := paired_control(curves, control)):
        read = combine(paired)
        edge = combined.lr[-1] if ended_infinite(curves) else stability_edge(combined)
        return paired, read, _only_begun(read, curves), edge, ONLY_PAIRED
    note = DOUBTFUL if control is not None and is_buried(curves) else None
    exact = [curve.without_rounding() for curve in curves]
    return curves, combined, no_signal(combine(exact), exact), None, note


def _adds_nothing(paired: Sequence[Curve]) -> str | None:
    """Return a reason where the training of one part did not lower its loss."""
    exact = [curve.without_rounding() for curve in paired]
    read = combine(exact)
    reason = no_signal(read, exact)
    if reason is None or len(read.lr) < MIN_POINTS:
        return reason
    return (
        f"At no LR from {read.lr[0]:.2g} to {read.lr[-1]:.2g} did this part lower the loss below "
        "what it is while the other parts train without it: nothing diverged, and that the loss "
        "falls or rises is their doing. Test all parts together (leave out find_lr.part), lower "
        "the LRs of the others, or take more steps (find_lr.steps)."
    )


def _only_begun(curve: CombinedCurve, curves: Sequence[Curve]) -> str | None:
    """Return a reason where even the highest LRs are low: a fall without its other side."""
    if landmarks(curve).diverges or ended_infinite(curves):
        return None
    return (
        f"The loss only begins to fall at the highest LR ({curve.lr[-1]:.2g}), by less than its "
        "noise: raise find_lr.max_lr."
    )


def _read(rule: str, curve: CombinedCurve, mean_frac: float, edge: float | None) -> float | None:
    if rule != "auto":  # the others are what others defined, and know of no schedule
        return RULES[rule](curve)
    lr = _constant(curve, edge)
    return lr / max(mean_frac, LOWEST_MEAN) if lr is not None else None


def _constant(curve: CombinedCurve, edge: float | None) -> float | None:
    """Return what `auto` says for a constant LR, and the edge of stability if there is one."""
    lr = auto(curve)
    return math.sqrt(lr * BELOW_EDGE * edge) if lr is not None and edge is not None else lr


def _alone(curve: Curve, rule: str, mean_frac: float, *, sure: bool) -> float | None:
    """Return the answer of one seed; `sure` where all of them together were found to fall."""
    combined = combine([curve])
    if not sure and no_signal(combined, [curve]):
        return None
    return _read(rule, combined, mean_frac, None)  # an edge they share would hide that they differ


def _disagreement(per_seed: Sequence[float | None]) -> str | None:
    answers = [lr for lr in per_seed if lr is not None]
    if not answers or math.log10(max(answers) / min(answers)) <= MAX_DISAGREEMENT:
        return None
    return (
        f"The seeds disagree by more than two decades ({min(answers):.2g} to {max(answers):.2g}): "
        "run more steps or seeds (find_lr.steps, find_lr.seeds), or a larger batch."
    )


def _unreadable(rule: str, suggested: float | None) -> str | None:
    if suggested is not None:
        return None
    return (
        f"The rule {rule!r} finds nothing to read on this curve: use the rule auto, "
        "or widen the range (find_lr.min_lr, find_lr.max_lr)."
    )


def _of_schedule(rule: str, suggested: float, mean_frac: float) -> str | None:
    if rule != "auto" or mean_frac == 1:
        return None
    constant = suggested * max(mean_frac, LOWEST_MEAN)
    return (
        f"The peak for your schedule, whose mean is {mean_frac:.0%} of it; "
        f"as a constant LR {constant:.3g}."
    )


def _of_end(curve: CombinedCurve, marks: Landmarks, blew_up: int) -> str | None:
    if 2 * blew_up >= curve.seeds:
        edge = f"{curve.lr[-1]:.2g}"
        return f"Above {edge} the loss is not finite ({blew_up} of {curve.seeds} seeds)."
    if marks.diverges or np.log10(curve.lr[-1] / curve.lr[marks.minimum]) > BANDWIDTH:
        return None
    return (
        f"The loss was still falling at the highest LR ({curve.lr[-1]:.2g}): the best one may lie "
        "above it. Raise find_lr.max_lr."
    )
