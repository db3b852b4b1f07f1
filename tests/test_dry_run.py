"""What `--dry-run` says is what a run then does; it writes nothing and trains nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import lrexp as library

CONFIG = """\
name: dry
model: {name: mlp, args: {hidden: [8]}}
data: {name: digits, batch_size: 64}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1}
train: {duration: 1ep}
compare: {seeds: 3, grid: {optimizer.lr: [0.1, 0.01]}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize("options", [(), ("--engine", "vectorized"), ("--engine", "sequential")])
def test_a_run_does_what_was_said(
    options: tuple[str, ...], config: Path, lrexp: Callable, tmp_path: Path
) -> None:
    said = lrexp("compare", config, *options, "--dry-run", "--json")
    assert said.code == 0, said.err
    assert sorted(tmp_path.iterdir()) == [config]
    ahead = json.loads(said.out)
    assert lrexp("compare", config, *options, "--out", "run", "--quiet").code == 0
    (stage,) = json.loads((tmp_path / "run/engine.json").read_text())["stages"]
    assert ahead["groups"] == stage["units"]
    assert ahead["reasons"] == stage["reasons"]
    trials = library.load_run(tmp_path / "run").trials
    assert ahead["steps"] == sum(len(trial.steps["loss"]) for trial in trials)
    assert (ahead["executor"], ahead["slots"], ahead["devices"]) == ("local", 1, ["cpu"])
    assert (ahead["bytes_per_stack"] is None) == ("vectorized" not in options)


def test_the_lines_of_a_terminal(config: Path, lrexp: Callable) -> None:
    answer = lrexp("compare", config, "--engine", "vectorized", "--dry-run")
    lines = answer.out.splitlines()
    assert lines[0] == "compare dry: 6 trials (2 variants × 3 seeds), 132 steps"
    assert lines[1:4] == [
        "  groups    1 stack of 6 trials",
        "  engine    6 trials in one stack: as asked for",
        "  executor  local, in this process, on cpu",
    ]
    assert lines[4].startswith("  memory    about ")
    assert lines[5].startswith("  time      about ")  # the proof of a stack has timed it


def test_time_is_known_where_it_was_measured(config: Path, lrexp: Callable) -> None:
    words = ("compare", config, "--engine", "sequential", "--jobs", "2", "--dry-run")
    assert "time      unknown" in lrexp(*words).out
    assert lrexp("compare", config, "--dry-run", "--quiet").code == 0  # engine: auto measures
    answer = lrexp(*words)
    assert "time      about " in answer.out
    assert "executor  local, 2 groups at once" in answer.out


def test_a_clusters_room_is_its_own(config: Path, lrexp: Callable) -> None:
    pytest.importorskip("ray", reason="the extra lrexp[ray] is not installed")
    words = ("compare", config, "--engine", "sequential", "--executor", "ray", "--dry-run")
    assert "ray, as many groups at once as there is room for" in lrexp(*words).out
    assert "ray, 3 groups at once" in lrexp(*words, "--set", "executor.slots=3").out


def test_a_search_knows_its_range_tests(config: Path, lrexp: Callable) -> None:
    answer = lrexp("find-lr", config, "--dry-run")
    assert answer.out.startswith("find-lr dry: 3 trials (1 variant × 3 seeds), 300 steps\n")
    assert "what comes after the range tests depends on their results" in answer.out


def test_from_python() -> None:
    x = torch.randn(200, 4)
    ahead = library.dry_run(
        {"optimizer": {"name": "SGD", "lr": 0.1}, "train": {"duration": 5}, "name": "mine"},
        model=lambda: nn.Linear(4, 1),
        data=(x, x.sum(1, keepdim=True)),
        loss="mse_loss",
        engine="sequential",
    )
    assert str(ahead).startswith("compare mine: 3 trials (3 variants × 1 seed), 15 steps")
    assert ahead.seconds is None  # nobody knows what else takes as long as these objects


def test_what_is_wrong_is_told_as_by_the_run(config: Path, lrexp: Callable) -> None:
    words = ("compare", config, "--set", "optimizer.lr=-1")
    ahead, run = lrexp(*words, "--dry-run"), lrexp(*words)
    assert (ahead.code, ahead.err) == (run.code, run.err)
    assert ahead.code == 2
