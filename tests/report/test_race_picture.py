"""How a race is drawn, and the table of one, from files alone."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from lrexp.report.data.tried import race_picture
from lrexp.report.figure import draw
from lrexp.report.plots import draw_run
from lrexp.report.style import house_style
from lrexp.report.tables import race_panel
from lrexp.runs.reader import load_run

from .looks import overlaps
from .synthetic import RACE_SUMMARY, write_race


def test_what_ended_well_is_full_and_what_diverged_is_crossed(tmp_path: Path) -> None:
    with house_style():
        upper, lower = draw(race_picture(load_run(write_race(tmp_path / "run")))).axes
    lines = {tuple(line.get_xdata()): line for line in reversed(upper.lines)}  # the first counts
    assert lines[0.03, 0.12].get_markerfacecolor() != "white"
    assert lines[0.64,].get_marker() == "X"
    assert "suggested 0.05" in [text.get_text() for text in upper.texts]
    assert any(text.get_text().startswith("before training 2.1") for text in upper.texts)
    assert any(text.get_text().startswith("0.05") for text in lower.texts)


@pytest.mark.parametrize("until", [0, 99])
def test_it_is_drawn_as_soon_as_there_is_one(tmp_path: Path, until: int) -> None:
    run = load_run(write_race(tmp_path / "run", until=until, summary=False))
    drawn = {path.name for path in draw_run(run)}
    assert ("race.png" in drawn) == (until > 0)


@pytest.mark.parametrize("until", [1, 3, 9])
def test_it_is_drawn_at_any_moment(tmp_path: Path, until: int) -> None:
    run = load_run(write_race(tmp_path / "run", until=until, summary=False))
    with house_style():
        assert overlaps(draw(race_picture(run))) == []


def test_the_table(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=100)
    console.print(race_panel(RACE_SUMMARY))
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    for text in (
        "spent 12 s, 920 steps, 5.8 × a whole training", "0.03 to 0.08 probably within 2 %",
        "0.02 280 steps", "40 steps, 25% 0.16 0.75 best", "0.32 0.9 +20.0%",
        "0.64 2 diverged with 1 of 2 seeds",
    ):  # fmt: skip
        assert text in shown
    assert "regret" not in shown
    console.print(race_panel({**RACE_SUMMARY, "within": None, "note": "An end."}))
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    for text in ("around the best LR tried", "note An end."):
        assert text in shown
    console.print(race_panel({**RACE_SUMMARY, "suggested_lr": None, "reason": "No LR learned."}))
    assert "No LR learned." in console.file.getvalue()  # type: ignore[attr-defined]
