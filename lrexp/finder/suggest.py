"""From the range tests of several seeds to one answer: an LR and its interval, or a refusal.

The answer is read off the combined curve; the seeds by themselves say how far to trust it. A
curve without a usable signal gets a reason instead of a number, with what to do next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lrexp.errors import ConfigError, did_you_mean
from lrexp.finder.curve import BANDWIDTH, CombinedCurve, Curve, combine
from lrexp.finder.landmarks import Landmarks, landmarks
from lrexp.finder.rules import RULES
from lrexp.finder.signal import no_signal

MAX_DISAGREEMENT = 2.0  # decades between the seeds
PEAK_MARGIN = 3.0  # max_lr stays this factor below the LR of the lowest loss
CYCLE = 4.0  # base_lr is at least this factor below max_lr


@dataclass(frozen=True)
class Suggestion:
    """What a range test says: LRs where `reason` is None, else why there are none.

    Args:
        suggested_lr: the LR to train with.
        interval: lowest and highest LR that the seeds support.
        base_lr: where the loss starts to fall: the lower end of a cyclic schedule.
        max_lr: below the edge of stability: its upper end, and the peak of a one-cycle schedule.
        rules: what every rule says, by name; None where a rule says nothing.
        reason: a sentence for the user when there is no suggestion.
        note: a sentence about a suggestion that could be better.
        per_seed: the rule's answer for each curve by itself, in their order.
    """

    suggested_lr: float | None
    interval: tuple[float, float] | None
    base_lr: float | None
    max_lr: float | None
    rules: dict[str, float | None]
    reason: str | None
    note: str | None = None
    per_seed: tuple[float | None, ...] = field(default=())


def suggest(curves: Sequence[Curve], rule: str = "auto") -> Suggestion:
    """Suggest an LR from the range tests of one ramp, run with one or more seeds.

    - `suggested_lr`: what `rule` reads off the combined curve.
    - `max_lr` = max(suggested_lr, LR of the lowest loss / 3).
    - `base_lr` = min(LR where the loss starts to fall, max_lr / 4, suggested_lr).
    - `interval`: from the lowest to the highest answer of the seeds and the combined curve,
      widened by the resolution of the curve (a factor of 10^0.2 = 1.6 each way) and cut to the
      usable range [base_lr, max_lr]. With one seed there is no spread to go by: it is that range.

    Args:
        curves: one for each seed.
        rule: a name in `RULES`.

    Raises:
        ConfigError: there is no such rule, or the curves do not share one ramp.

    Example:
        >>> import numpy as np
        >>> lr = np.logspace(-7, 1, 100)
        >>> flat = suggest([Curve(lr, np.full(100, 2.3))])
        >>> flat.suggested_lr, flat.reason[:22]
        (None, 'The loss stayed flat f')
    """
    if rule not in RULES:
        raise ConfigError.single("rule", "is no rule", rule, did_you_mean(rule, RULES))
    combined = combine(curves)
    reason = no_signal(combined, curves)
    if reason:
        return _refusal(reason, dict.fromkeys(RULES), (None,) * len(curves))
    answers = {name: read(combined) for name, read in RULES.items()}
    suggested = answers[rule]
    per_seed = tuple(_alone(c, rule) for c in curves) if len(curves) > 1 else (suggested,)
    reason = _unreadable(rule, suggested) or _disagreement(per_seed)
    if reason or suggested is None:
        return _refusal(reason, answers, per_seed)
    marks = landmarks(combined)
    base_lr, max_lr = _usable(combined, marks, suggested)
    return Suggestion(
        suggested_lr=suggested,
        interval=_interval(suggested, per_seed, base_lr, max_lr),
        base_lr=base_lr,
        max_lr=max_lr,
        rules=answers,
        reason=None,
        note=_note(combined, marks),
        per_seed=per_seed,
    )


def _refusal(
    reason: str | None, answers: dict[str, float | None], per_seed: tuple[float | None, ...]
) -> Suggestion:
    return Suggestion(None, None, None, None, answers, reason, per_seed=per_seed)


def _alone(curve: Curve, rule: str) -> float | None:
    combined = combine([curve])
    return None if no_signal(combined, [curve]) else RULES[rule](combined)


def _usable(curve: CombinedCurve, marks: Landmarks, suggested: float) -> tuple[float, float]:
    max_lr = max(suggested, float(curve.lr[marks.minimum]) / PEAK_MARGIN)
    return min(float(curve.lr[marks.fall]), max_lr / CYCLE, suggested), max_lr


def _interval(
    suggested: float, per_seed: Sequence[float | None], base_lr: float, max_lr: float
) -> tuple[float, float]:
    if len(per_seed) == 1:
        return base_lr, max_lr
    answers = [suggested, *(lr for lr in per_seed if lr is not None)]
    wider = 10**BANDWIDTH
    return max(base_lr, min(answers) / wider), min(max_lr, max(answers) * wider)


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


def _note(curve: CombinedCurve, marks: Landmarks) -> str | None:
    if marks.diverges or np.log10(curve.lr[-1] / curve.lr[marks.minimum]) > BANDWIDTH:
        return None
    return (
        f"The loss was still falling at the highest LR ({curve.lr[-1]:.2g}): the best one may lie "
        "above it. Raise find_lr.max_lr."
    )
