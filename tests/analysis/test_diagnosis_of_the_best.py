"""The best variant of a bad lot is not praised."""

from __future__ import annotations

import numpy as np

from lrexp.analysis.diagnosis import diagnose


def test_the_best_variant_that_ended_above_its_start_is_unstable() -> None:
    noise = np.random.default_rng(0).normal(0, 0.08, 264)
    losses = np.full(264, 2.43) + noise
    losses[0] = 2.35
    losses[1:30] += 3.0
    evals = {
        "step": [0, 132, 264],
        "train_loss": [np.nan, 2.5, 2.43],
        "val_loss": [2.32, 2.44, 2.456],
    }
    found = diagnose(losses, evals, best_final=2.43)
    assert found.word == "unstable"
    assert "lower the LR" in found.sentence
