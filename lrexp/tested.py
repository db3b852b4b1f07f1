"""The range tests of a run, read from the files of their trials."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lrexp.finder import Curve
from lrexp.finder.trials import RANGE_TEST, UNTRAINED
from lrexp.store.read import Run, TrialRecord


def finished_tests(run: Run) -> list[TrialRecord]:
    """Return the range tests of a run that have ended."""
    tests = run.variants.get(RANGE_TEST, ())
    return [test for test in tests if (test.result or {}).get("outcome") == "finished"]


def curves_of(tests: Iterable[TrialRecord]) -> list[Curve]:
    """Return the curve of each range test."""
    return [Curve(test.steps["lr"], test.steps["loss"]) for test in tests]


def untrained_losses(run: Run, tests: Iterable[TrialRecord]) -> list[NDArray[np.float64]] | None:
    """Return the losses of the untrained model for each test, None without a second look."""
    found = {t.seed: t.steps["loss"] for t in run.variants.get(UNTRAINED, ()) if t.result}
    seeds = [test.seed for test in tests]
    return [found[seed] for seed in seeds] if seeds and found.keys() >= set(seeds) else None
