"""Who draws the pictures of a run, and when nobody does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stopping import After

import lrexp as library

SMALL: dict[str, Any] = {
    "name": "small",
    "model": "linear",
    "data": {"name": "linear", "batch_size": 8, "args": {"samples": 40}},
    "loss": "mse_loss",
    "optimizer": {"name": "SGD", "lr": 0.1},
    "train": {"duration": 3},
    "find_lr": {"budget": 0, "steps": 12, "seeds": 1},
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
    assert "Plots: lrexp plot without draws them" in without.out
    for off in ("0", "False"):
        monkeypatch.setenv("LREXP_PLOTS", off)
        assert lrexp(command, config, "--out", f"off-{off}").code == answer.code
        assert drawn(f"off-{off}") == set()

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

    with pytest.raises(library.UserCodeError, match=r"^draw raised an exception: .*Error: compare"):
        library.compare(config, out=tmp_path / "run", draw=broken)
    assert library.load_run(tmp_path / "run").status["status"] == "failed"
    seen: list[library.Run] = []
    library.resume(tmp_path / "run", draw=seen.append)
    assert len(seen) == 1
    assert library.load_run(tmp_path / "run").status["status"] == "complete"


@pytest.mark.parametrize("name", ["draw", "stop"])
def test_what_is_no_function_is_refused_before_anything_runs(
    name: str, config: Path, tmp_path: Path
) -> None:
    hook: dict[str, Any] = {name: "no"}
    for call in (library.compare, library.find_lr):
        with pytest.raises(library.ConfigError, match=rf"^{name}: must be a function.*got 'no'"):
            call(config, runs_dir=tmp_path / "runs", **hook)
    assert not (tmp_path / "runs").exists()


@pytest.mark.pictures
def test_pictures_of_a_part_of_a_run_are_not_shown_as_those_of_the_whole(
    lrexp: Callable, config: Path
) -> None:
    assert lrexp("compare", config, "--out", "run", stop=After(1)).code == 130
    assert lrexp("plot", "run").code == 0
    answer = lrexp("resume", "run", "--no-plots")
    assert answer.code == 0
    assert "Plots: lrexp plot run draws them" in answer.out
    assert lrexp("plot", "run").code == 0
    assert "Plots: run/plots" in lrexp("resume", "run").out
