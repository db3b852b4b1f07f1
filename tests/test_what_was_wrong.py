"""Answers of find-lr that were once wrong, on the data of who met them, made smaller."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Prices from a table: the range test says a tenth of what is best, a high LR fails.
HOUSES = """\
import torch
from torch import nn

def data():
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(1500, 11, generator=draw)
    curve = x[:, 0] + 0.5 * x[:, 1] * x[:, 2] + 0.3 * torch.sin(3 * x[:, 3])
    y = (curve + 0.15 * torch.randn(1500, generator=draw)).exp()
    y = ((y - y.mean()) / y.std())[:, None]
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])

def net():
    sizes = (11, 64, 64, 1)
    layers = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])
"""
CONFIG = """\
name: houses
model: {name: "houses:net"}
data: {name: "houses:data", batch_size: 64}
loss: mse_loss
optimizer: {name: AdamW, lr: 0.0241}
schedule: {name: cosine, warmup: 5%}
engine: sequential
train: {duration: 8ep}
find_lr: {seeds: 1}
"""


@pytest.mark.parametrize("budget", ["1x", "7x"])
def test_no_interval_holds_an_lr_that_failed_or_leaves_what_was_tried(
    budget: str, lrexp: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "houses.py").write_text(HOUSES)
    (tmp_path / "houses.yaml").write_text(CONFIG)
    answer = lrexp("find-lr", "houses.yaml", "--budget", budget, "--json", "--out", "run")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    low, high = told["interval"]
    tried = [one["lr"] for one in told["tried"]]
    assert min(tried) * 0.995 <= low <= told["suggested_lr"] <= high <= max(tried) * 1.005
    rows = [row for rung in told["race"]["rungs"] for row in rung["lrs"]]
    assert not [
        row["lr"] for row in rows if row["failed"] and low * 1.005 < row["lr"] < high * 0.995
    ]
    assert not {"estimated_regret"} & told.keys()
    assert told["extrapolated"] == (budget == "1x")
    if budget == "7x":  # what it states of the interval is true of every LR in it that was tried
        best = min(row["mean"] for row in rows)
        inside = [row["mean"] for row in rows if low <= row["lr"] <= high]
        assert told["within"] is None or max(inside) <= best * (1 + told["within"])


# 200 noisy rows: the best LR after a quarter of the training is far too high for all of it.
NOISY = """\
import torch

def data():
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(500, 20, generator=draw)
    y = (x[:, 0] + x[:, 1] > 0).long()
    wrong = torch.rand(500, generator=draw) < 0.1
    y = torch.where(wrong, 1 - y, y)
    return (x[:200], y[:200]), (x[200:], y[200:])
"""


def test_overfitting_is_told_and_the_answer_does_not_overfit(
    lrexp: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    (tmp_path / "noisy.yaml").write_text(
        "model: {name: mlp, args: {hidden: [64]}}\ndata: {name: 'noisy:data', batch_size: 16}\n"
        "loss: cross_entropy\noptimizer: {name: Adam, lr: 0.01}\nengine: sequential\n"
        "train: {duration: 50ep}\nfind_lr: {seeds: 1}\n"
    )
    answer = lrexp("find-lr", "noisy.yaml", "--budget", "6x", "--json", "--out", "run")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    alone = lrexp("find-lr", "noisy.yaml", "--range-test", "--json", "--out", "alone")
    assert told["suggested_lr"] < json.loads(alone.out)["suggested_lr"] / 2
    assert "Overfitting:" in told["note"]
    assert "is better if you stop at epoch 25" in told["note"]
