"""Who draws the pictures of a run, and when nobody does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lrexp as library

SMALL: dict[str, Any] = {
    "name": "small",
    "model": "linear",
    "data": {"name": "linear", "batch_size": 8, "args": {"samples": 40}},
    "loss": "mse_loss",
    "optimizer": {"name": "SGD", "lr": 0.1},
    "train": {"duration": 3},
    "find_lr": {"steps": 12, "seeds": 1},
}
PICTURES = {"compare": {"loss.png", "lr.png", "lr_sensitivity.png"}, "find-lr": {"range_test.png", "loss.png", "lr.png"}}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(SMALL))
    return path


def drawn(run: str | Path) -> set[str]:
    return {path.name for path in Path(run).glob("plots/*")}


@pytest.mark.pictures
@pytest.mark.parametrize("command", PICTURES)
def test_no_plots_leaves_the_pictures_to_plot(
    command: str, lrexp: Callable, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = lrexp(command, config, "--out", "run")
    assert "Plots: run/plots" in answer.out
    assert drawn("run") == PICTURES[command]

    without = lrexp(command, config, "--out", "without", "--no-plots")
    assert (without.code, drawn("without")) == (answer.code, set())
    assert "Plots:" not in without.out
    monkeypatch.setenv("LREXP_PLOTS", "0")
    assert lrexp(command, config, "--out", "off").code == answer.code
    assert drawn("off") == set()

    assert lrexp("plot", "without").code == 0  # asked for by name, whatever the environment says
    assert drawn("without") == PICTURES[command]


def test_a_drawing_of_ones_own(config: Path, tmp_path: Path) -> None:
    seen: list[library.Run] = []
    run = library.compare(config, out=tmp_path / "run", draw=seen.append)
    (given,) = seen
    assert given.summary is not None
    assert given.summary == run.summary
    assert drawn(run.path) == set()

    library.find_lr(config, out=tmp_path / "test", draw=seen.append)
    assert [one.command for one in seen] == ["compare", "find-lr"]


@pytest.mark.pictures
def test_a_run_without_pictures_is_the_same_otherwise(config: Path, tmp_path: Path) -> None:
    runs = [
        library.compare(config, out=tmp_path / name, **given)
        for name, given in (("drawn", {}), ("bare", {"draw": None}))
    ]
    assert [drawn(run.path) for run in runs] == [PICTURES["compare"], set()]
    assert runs[0].summary == runs[1].summary


def test_what_a_drawing_raises_is_raised_and_resume_draws_again(
    config: Path, tmp_path: Path
) -> None:
    def broken(run: library.Run) -> None:
        raise ZeroDivisionError(run.command)

    with pytest.raises(ZeroDivisionError, match="compare"):
        library.compare(config, out=tmp_path / "run", draw=broken)
    assert library.load_run(tmp_path / "run").status["status"] == "failed"
    seen: list[library.Run] = []
    library.resume(tmp_path / "run", draw=seen.append)
    assert len(seen) == 1
    assert library.load_run(tmp_path / "run").status["status"] == "complete"
