"""The floor of noise: by how much a setting differs from itself.

Within a seed, equal variants are equal up to rounding (one by one on a CPU, to the bit), so a
paired A against A is as good as 0 by construction and says nothing. What can be measured, from
trainings that are there anyway, is A against A with another seed: the size of the differences that
one training each would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np


@dataclass(frozen=True)
class Floor:
    """Differences between two seeds of one variant, over all pairs of seeds."""

    mean: float
    highest: float
    num_seeds: int


def floor_of_noise(values: Sequence[float]) -> Floor | None:
    """Return how much the seeds of one variant differ from each other; None below two.

    Args:
        values: the final metric of every seed that finished.

    Example:
        >>> floor_of_noise([1.0, 1.5, 3.0])
        Floor(mean=1.3333333333333333, highest=2.0, num_seeds=3)
    """
    gaps = [abs(a - b) for a, b in combinations(values, 2)]
    return Floor(float(np.mean(gaps)), max(gaps), len(values)) if gaps else None
