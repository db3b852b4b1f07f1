"""What a training did, in a word and a sentence with what to try next.

The words, from worst to best: diverged, unstable, too slow, plateaued, overfitting, converging
well; the first whose verdict applies is given. The verdicts themselves are in `verdicts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lrexp.analysis.trace import Evals, column, final_loss, trace
from lrexp.analysis.verdicts import (
    converging_well,
    diverged,
    not_finite,
    overfitting,
    plateaued,
    too_slow,
    unstable,
    way_left,
)
from lrexp.errors import ConfigError

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

    Example:
        >>> diagnose([1.0, 2.0, float("nan")], total_steps=230).sentence
        'Training loss became non-finite at step 2 of 230: lower the LR; 10× is a good first try.'
    """
    y = np.asarray(losses, dtype=np.float64)
    total = len(y) if total_steps is None else total_steps
    if outcome == "failed":
        return Diagnosis("failed", f"An exception ended it at step {len(y)} of {total}.")
    sentence = not_finite(y, evals, total)
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
        "converging well": converging_well(t),
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
