"""The picture and the table of a race, from files alone."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from lrexp.analysis.race import Entrant
from lrexp.report.plots import draw_run
from lrexp.report.race import race_figure
from lrexp.report.style import house_style
from lrexp.report.tables import race_panel
from lrexp.runs.reader import load_run

from .looks import legend_texts, overlaps

LOSSES = {  # horizon -> LR -> final loss; None diverged
    40: {0.01: [1.8, 1.7], 0.04: [0.9, 1.0], 0.16: [0.7, 0.8], 0.64: [None, 1.9]},
    80: {0.03: [0.5, 0.5], 0.12: [0.3, 0.6]},
}


def write_race(path: Path, *, until: int = 99, summary: bool = True) -> Path:
    """Write the files of a race, or of its first trials."""
    path.mkdir()
    owner = {"status": "complete" if summary else "interrupted", "num_trials": 12}
    facts = {"command": "find-lr", "name": "digits-lr", "seeds": [0, 1], "variants": ["range_test"]}
    (path / "status.json").write_text(json.dumps(owner | facts))
    trials = [
        (horizon, lr, seed, loss)
        for horizon, by_lr in LOSSES.items()
        for lr, losses in by_lr.items()
        for seed, loss in enumerate(losses)
    ]
    for horizon, lr, seed, loss in trials[:until]:
        folder = path / "trials" / Entrant(horizon, lr).name / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "steps.csv").write_text("step,epoch,lr,loss\n0,0,0.1,2.2\n")
        (folder / "evals.csv").write_text(
            f"step,epoch,train_loss,val_loss\n0,0,nan,2.1\n1,1,1,{loss or 1e9}\n"
        )
        outcome = "diverged" if loss is None else "finished"
        final = {} if loss is None else {"val_loss": loss}
        (folder / "result.json").write_text(json.dumps({"outcome": outcome, "final": final}))
    if summary:
        (path / "summary.json").write_text(json.dumps(SUMMARY))
    return path


SUMMARY = {
    "suggested_lr": 0.05, "interval": [0.03, 0.08], "base_lr": 0.01, "max_lr": 0.1, "reason": None,
    "estimated_regret": 0.012, "seeds": [0, 1],
    "range_test": {"suggested_lr": 0.02, "interval": [0.01, 0.03], "steps": 280},
    "race": {
        "budget": 4.0, "budget_steps": 640, "steps": 640, "total_steps": 160,
        "rungs": [
            {"horizon": 40, "seeds": [0, 1], "start": [2.1, 2.1], "drift": 0.3, "lrs": [
                {"lr": 0.16, "losses": [0.7, 0.8], "diverged": 0, "regret": 0.0, "dropped": False},
                {"lr": 0.64, "losses": [None, 1.9], "diverged": 1, "regret": 0.9, "dropped": True},
            ]},
        ],
    },
}  # fmt: skip


def test_what_is_drawn(tmp_path: Path) -> None:
    run = load_run(write_race(tmp_path / "run"))
    with house_style():
        upper, lower = race_figure(run).axes
    assert upper.get_title(loc="left") == "validation loss after a short training"
    lines = {tuple(line.get_xdata()): line for line in reversed(upper.lines)}  # the first counts
    assert list(lines[0.01, 0.04, 0.16, 0.64].get_ydata()) == pytest.approx([1.75, 0.95, 0.75, 2.0])
    assert lines[0.04, 0.16].get_markerfacecolor() != "white"  # those that stay
    assert lines[0.01,].get_markerfacecolor() == "white"
    assert lines[0.64,].get_marker() == "X"
    texts = [text.get_text() for text in upper.texts]
    assert "suggested 0.05" in texts
    assert any(text.get_text().startswith("0.05") for text in lower.texts)


@pytest.mark.parametrize("until", [0, 99])
def test_it_is_drawn_as_soon_as_there_is_one(tmp_path: Path, until: int) -> None:
    run = load_run(write_race(tmp_path / "run", until=until, summary=False))
    drawn = {path.name for path in draw_run(run)}
    assert ("race.png" in drawn) == (until > 0)


@pytest.mark.parametrize(("until", "horizons"), [(1, 1), (3, 1), (9, 2)])
def test_it_is_drawn_at_any_moment(tmp_path: Path, until: int, horizons: int) -> None:
    run = load_run(write_race(tmp_path / "run", until=until, summary=False))
    with house_style():
        figure = race_figure(run)
    assert overlaps(figure) == []
    assert len(legend_texts(figure)) >= horizons


@pytest.mark.parametrize("failed", [[(40, 0.64, 0)], [(40, 0.64, 0), (40, 0.64, 1)]])
def test_a_trial_that_failed_is_no_diverged_one(
    tmp_path: Path, failed: list[tuple[int, float, int]]
) -> None:
    path = write_race(tmp_path / "run", summary=False)
    for horizon, lr, seed in failed:
        result = path / "trials" / Entrant(horizon, lr).name / f"seed-{seed}" / "result.json"
        result.write_text(json.dumps({"outcome": "failed", "error": "boom", "final": {}}))
    with house_style():
        figure = race_figure(load_run(path))
    upper = figure.axes[0]
    assert "X" not in {line.get_marker() for line in upper.lines if len(line.get_xdata())}
    assert "diverged" not in legend_texts(figure)
    drawn = {x for line in upper.lines for x in line.get_xdata()}
    assert {0.01, 0.04, 0.16} <= drawn
    assert 0.64 not in drawn


def test_the_table(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=100)
    console.print(race_panel(SUMMARY))
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    for text in (
        "640 steps, 4 × a full training", "0.03 to 0.08", "about 1.2%", "0.02 280 steps",
        "40 steps, 25% 0.16 0.75 0.0% best", "0.64 1.9 90.0% diverged with 1 of 2 seeds",
    ):  # fmt: skip
        assert text in shown
    longer = {"horizon": 80, "seeds": [0, 1], "start": [2.1, 2.1], "drift": 0.1, "lrs": [
        {"lr": 0.12, "losses": [0.5, 0.5], "diverged": 0, "regret": 0.0, "dropped": False},
    ]}  # fmt: skip
    race = {**SUMMARY["race"], "rungs": [*SUMMARY["race"]["rungs"], longer]}
    console.print(
        race_panel({**SUMMARY, "race": race, "estimated_regret": None, "note": "An end."})
    )
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    for text in ("0.0% stays", "80 steps, 50% 0.12 0.5 0.0% best", "note An end."):
        assert text in shown
    console.print(race_panel({**SUMMARY, "suggested_lr": None, "reason": "No LR learned."}))
    assert "No LR learned." in console.file.getvalue()  # type: ignore[attr-defined]
