"""The best variant of a bad lot is not praised."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

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


NOISE = np.random.default_rng(0).normal(0, 0.02, 199)


@pytest.mark.parametrize(
    ("losses", "val", "what"),
    [  # the first batch was an easy one: the others fell from a level above it
        (np.r_[0.671, np.linspace(0.74, 0.690, 199) + NOISE], [0.72, 0.70, 0.692], "Training loss"),
        (np.r_[0.671, np.linspace(0.74, 0.690, 199) + NOISE], [0.72, 0.691, 0.692],
         "Training loss, averaged over each quarter,"),
        (np.full(199, 0.7), [0.71, 0.70, 0.6999, 0.6998], "The evaluated loss"),
        (np.linspace(0.71, 0.69, 99), [], "Training loss"),
    ],
)  # fmt: skip
def test_the_numbers_of_a_fall_fell(losses: Any, val: Any, what: str) -> None:
    evals = {"val_loss": val, "step": np.arange(len(val))} if val else None
    found = diagnose(losses, evals, best_final=0.65)
    said = re.match(r"(.*) fell (all along, but only )?from ([\d.]+) to ([\d.]+)", found.sentence)
    assert said is not None, found
    assert said[1] == what
    assert float(said[3]) > float(said[4])


def test_a_loss_that_rises_against_other_parts_is_no_instability() -> None:
    rising = np.linspace(0.7, 1.4, 100)
    assert diagnose(rising).word == "unstable"
    found = diagnose(rising, of_parts=True)
    assert found.word == "trained against each other"
    assert "0.7 to 1.37" in found.sentence
    assert "lower the LR" not in found.sentence
    assert diagnose(np.r_[rising, np.nan], of_parts=True).word == "diverged"
