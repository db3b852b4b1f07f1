"""Globals that a model's code changes; the module is one of the user's own for lrexp."""

from __future__ import annotations

import random

COUNTS = [0]
calls = 0
RANDOM = random.Random(0)


class Registry:
    seen = {"calls": 0}  # noqa: RUF012


def count() -> int:
    global calls  # noqa: PLW0603
    calls += 1
    return calls


def count_inside() -> int:
    def inner() -> int:
        COUNTS[0] += 1
        return COUNTS[0]

    return inner()


def count_in_a_class() -> int:
    Registry.seen["calls"] += 1
    return Registry.seen["calls"]


def draw() -> float:
    return RANDOM.random()
