"""Diagnoses against 96 curves of real trainings that were labelled by hand.

The labels were written from pictures of the curves, before any diagnosis of them was looked at;
where two words are as good, the second is under `or`. `kept` marks four comparisons that no rule
was mended by. `tests/benchmarks/labelled_curves.py` trained them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lrexp
from lrexp.analysis.diagnosis import Diagnosis, diagnose, final_loss
from lrexp.analysis.tried import tried

HERE = Path(__file__).parent
RIGHT = 0.95
FAR = 2.0  # times: an LR beyond is not the same


@dataclass(frozen=True)
class Labelled:
    """A curve, what it is called by hand and by us, and the LRs that ended lower than it."""

    name: str
    words: tuple[str, ...]
    is_kept: bool
    found: Diagnosis
    lr: float
    best_lr: float


def numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


def evals_of(curve: dict[str, Any]) -> dict[str, Any]:
    losses = {name: numbers(curve[name]) for name in ("val_loss", "train_loss")}
    return {"step": curve["step"], **losses}


def end_of(curve: dict[str, Any]) -> float | None:
    return (
        final_loss(numbers(curve["losses"]), evals_of(curve))
        if curve["stopped_at"] is None
        else None
    )


@cache
def labelled() -> list[Labelled]:
    with (HERE / "labelled_curves.csv").open(encoding="utf-8", newline="") as file:
        labels = {(row["comparison"], float(row["lr"])): row for row in csv.DictReader(file)}
    curves = json.loads((HERE / "labelled_curves.json").read_text(encoding="utf-8"))
    names = list(dict.fromkeys(curve["of"] for curve in curves))
    together = [[curve for curve in curves if curve["of"] == name] for name in names]
    return [one for comparison in together for one in diagnosed(comparison, labels)]


def diagnosed(comparison: list[dict[str, Any]], labels: dict[Any, Any]) -> Iterator[Labelled]:
    ends = {curve["lr"]: end_of(curve) for curve in comparison}
    known = {lr: end for lr, end in ends.items() if end is not None}
    best = min(known, key=known.__getitem__)
    for curve in comparison:
        row, stopped = labels[curve["of"], curve["lr"]], curve["stopped_at"]
        found = diagnose(
            numbers(curve["losses"]),
            evals_of(curve),
            "finished" if stopped is None else "diverged",
            stopped_at=stopped,
            total_steps=curve["total"],
            best_final=known[best],
            seen=tried(curve["lr"], ends),
        )
        words = tuple(word for word in (row["label"], row["or"]) if word)
        name = f"{curve['of']}, {curve['lr']:g}"
        yield Labelled(name, words, row["kept"] == "unseen", found, curve["lr"], best)


@pytest.mark.parametrize("is_kept", [False, True])
def test_diagnoses_are_what_a_person_says_of_the_curve(is_kept: bool) -> None:
    of_these = [one for one in labelled() if one.is_kept == is_kept]
    assert len(of_these) == (24 if is_kept else 72)
    wrong = [
        (one.name, one.words, one.found) for one in of_these if one.found.word not in one.words
    ]
    assert len(wrong) <= (1 - RIGHT) * len(of_these), wrong


def test_every_word_is_among_the_labels_and_none_of_them_makes_up_half() -> None:
    words = [one.words[0] for one in labelled()]
    for word in ("diverged", "unstable", "too slow", "plateaued", "overfitting", "converging well"):
        assert 2 <= words.count(word) < len(words) / 2, word


def test_no_advice_goes_against_the_other_lrs_of_the_table() -> None:
    for one in labelled():
        said = one.found.sentence
        up = "raise the LR" in said or "3×)" in said
        down = "lower the LR" in said or "a third" in said or "lower it" in said
        assert not (up and one.best_lr < one.lr / FAR), (one.name, said)
        assert not (down and one.best_lr > one.lr * FAR), (one.name, said)


def test_what_ended_behind_is_told_which_way_the_best_lr_lies() -> None:
    of_these = [one for one in labelled() if one.found.word in ("too slow", "plateaued")]
    told = [one for one in of_these if not 1 / FAR < one.best_lr / one.lr < FAR]
    assert len(told) > 20
    for one in told:
        way = "higher" if one.best_lr > one.lr else "lower"
        assert "the best LR tried is" in one.found.sentence, one
        assert f"× {way}" in one.found.sentence, one


def test_a_comparison_tells_its_diagnoses_of_the_other_lrs(tmp_path: Path) -> None:
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    data = (inputs, inputs.sum(1, keepdim=True))
    config = {
        "data": {"name": "given", "batch_size": 16},
        "optimizer": {"name": "SGD", "lr": 0.1},
        "train": {"duration": 40},
        "engine": "sequential",
        "compare": {
            "seeds": 1,
            "variants": {
                "low": {"optimizer.lr": 1e-5},
                "middle": {"optimizer.lr": 0.1},
                "other": {"optimizer.lr": 1e-5, "schedule": "linear"},
            },
        },
    }
    run = lrexp.compare(
        config,
        model=lambda: nn.Linear(4, 1),
        data=(data, data),
        loss=nn.functional.mse_loss,
        runs_dir=tmp_path,
        draw=None,
    )
    said = {row["variant"]: row["diagnosis"]["sentence"] for row in run.summary["ranking"]}
    assert "raise the LR (the best LR tried is 10000× higher)" in said["low"]
    assert "best LR tried" not in said["other"]  # nothing that differs in the LR alone
