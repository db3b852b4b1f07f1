"""Where a race begins: at what the range test suggests, or else below the edge of stability.

A range test of a model that learns slowly shows no fall, only where the loss blows up. The LRs
worth a longer training lie below that; whether they learn anything, the race has to show. So it has
to decide between seeds that disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lrexp.finder import Curve, Suggestion, combine
from lrexp.finder.curve import RESOLUTION
from lrexp.finder.edge import BELOW_EDGE, deviation, stability_edge

# Measured: see tests/benchmarks/README.md.
ROOM = 0.1  # of where it begins: so low must the range test have begun, else the edge is none
LEAST_GAIN = 0.25  # of the deviation of a batch loss: an LR that lowers the loss by less is luck


@dataclass(frozen=True)
class Outset:
    """What a race begins with.

    Args:
        lr: where it looks first.
        least_gain: by how much an LR must lower the loss to count as one that learns.
        note: a sentence for the user where the range test has no answer.
    """

    lr: float
    least_gain: float = 0.0
    note: str | None = None


def outset(curves: Sequence[Curve], suggestion: Suggestion) -> Outset | None:
    """Return where a race begins after these range tests, None where it would be a blind guess.

    Args:
        curves: of the range tests, one for each seed.
        suggestion: what they suggest.

    Example:
        >>> import numpy as np
        >>> from lrexp.finder import suggest
        >>> lr = np.logspace(-7, 1, 100)
        >>> curve = Curve(lr, 2.0 + np.maximum(lr - 0.1, 0) ** 2)  # nothing falls, it blows up
        >>> found = outset([curve], suggest([curve]))
        >>> round(found.lr, 3)
        0.006
    """
    if suggestion.suggested_lr is not None:
        return Outset(suggestion.suggested_lr)
    together = suggestion.rules["auto"]
    if together is not None:  # there is a fall, but the seeds disagree about it, or another rule
        because = str(suggestion.reason).partition(":")[0]
        note = f"{because}: the race looked around {together:.2g}, what `auto` reads off all seeds."
        return Outset(together, note=note)
    combined = combine(curves)
    edge = stability_edge(combined)
    if edge is None or edge * BELOW_EDGE * ROOM < combined.lr[0]:
        return None
    note = (
        f"The range test saw no fall, only that the loss rises above LR {edge:.2g}: the race "
        "looked below that."
    )
    least = max(LEAST_GAIN * deviation(combined), RESOLUTION * abs(float(combined.loss[0])))
    return Outset(edge * BELOW_EDGE / suggestion.peak_share, least, note)
