"""What a schedule follows must be there: validation data, and classes where it is an accuracy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lrexp

REGRESSION = """\
model: mlp
data: {name: sine, args: {samples: 100}, batch_size: 20}
loss: mse_loss
optimizer: {name: SGD, lr: 0.1}
schedule: {name: plateau, monitor: val_accuracy}
train: {duration: 8st, eval_every: 4st}
compare: {metric: val_loss, variants: {a: {}}}
find_lr: {budget: 0, steps: 20, seeds: 1}
"""
WHAT = "needs targets that are classes (got 'val_accuracy'). Use val_loss or train_loss."


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("regression.yaml").write_text(REGRESSION)
    return "regression.yaml"


@pytest.mark.parametrize("command", ["compare", "validate"])
@pytest.mark.parametrize("name", ["plateau", "ReduceLROnPlateau"])
def test_an_accuracy_that_there_is_not_cannot_be_followed(
    lrexp: Callable, config: str, command: str, name: str
) -> None:
    answer = lrexp(command, config, "--set", f"schedule.name={name}")
    assert answer.code == 2
    assert answer.err == f"regression.yaml:5: schedule.monitor: {WHAT}\n"
    assert not Path("runs").exists()


def test_the_place_is_the_variants_own(lrexp: Callable, config: str) -> None:
    change = "compare.variants={a: {schedule: constant}, b: {}}"
    answer = lrexp("compare", config, "--set", change)
    assert (answer.code, answer.err) == (2, f"regression.yaml:5: schedule.monitor: {WHAT}\n")
    variants = "{b: {schedule: {name: plateau, monitor: val_accuracy}}}"
    changes = ("--set", "schedule=constant", "--set", f"compare.variants={variants}")
    answer = lrexp("compare", config, *changes)
    assert answer.code == 2
    assert f"compare.variants.b.schedule.monitor: {WHAT}" in answer.err


def test_both_who_ask_for_it_are_named(lrexp: Callable, config: str) -> None:
    answer = lrexp("compare", config, "--set", "compare.metric=val_accuracy")
    assert answer.code == 2
    assert f"schedule.monitor: {WHAT}" in answer.err
    assert f"compare.metric: {WHAT}" in answer.err


@pytest.mark.parametrize("monitor", ["val_loss", "train_loss"])
def test_a_loss_can_be_followed(lrexp: Callable, config: str, monitor: str) -> None:
    answer = lrexp("compare", config, "--set", f"schedule.monitor={monitor}", "--quiet")
    assert answer.code == 0, answer.err


def test_the_accuracy_of_classes_can_be_followed(lrexp: Callable, config: str) -> None:
    changes = ("--set", "data={name: digits, batch_size: 200}", "--set", "loss=cross_entropy")
    answer = lrexp("compare", config, *changes, "--quiet")
    assert answer.code == 0, answer.err


def test_a_range_test_follows_nothing(lrexp: Callable, config: str) -> None:
    answer = lrexp("find-lr", config, "--quiet")
    assert answer.code in {0, 4}, answer.err


def test_a_race_trains_under_the_schedule(lrexp: Callable, config: str) -> None:
    longer = ("--set", "train.duration=40st")
    answer = lrexp("find-lr", config, "--race", *longer)
    assert (answer.code, answer.err) == (2, f"regression.yaml:5: schedule.monitor: {WHAT}\n")
    assert not Path("runs").exists()
    metric = ("--set", "schedule=constant", "--set", "compare.metric=val_accuracy")
    answer = lrexp("find-lr", config, "--race", *longer, *metric, "--quiet")
    assert answer.code in {0, 4}, answer.err  # it does not rank by that


def test_python_objects_are_asked_too(tmp_path: Path) -> None:
    source: dict[str, Any] = {
        "data": {"batch_size": 8},
        "optimizer": {"name": "SGD", "lr": 0.1},
        "schedule": {"name": "plateau", "monitor": "val_accuracy"},
        "train": {"duration": 8},
    }
    sides = [(torch.randn(n, 3), torch.randn(n, 1)) for n in (40, 10)]
    with pytest.raises(lrexp.ConfigError) as caught:
        lrexp.compare(
            source, model=lambda: torch.nn.Linear(3, 1), data=tuple(sides), loss="mse_loss",
            runs_dir=tmp_path / "runs",
        )  # fmt: skip
    assert [problem.key for problem in caught.value.problems] == ["schedule.monitor"]
    assert str(caught.value).endswith(WHAT)
    assert not (tmp_path / "runs").exists()
