"""verdicts.png, lr_sensitivity.png and the verdict lines, looked at through what they show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.cells import cell_len
from rich.console import Console

from lrexp.report.data.verdicts import differences_picture, sensitivity_picture
from lrexp.report.figure import draw
from lrexp.report.plots import draw_run
from lrexp.report.ranking import ranking_table
from lrexp.report.style import house_style
from lrexp.runs.reader import Run

from .looks import legend_texts, notes, overlaps
from .verdict_runs import LOST, around, four_schedules, over_lr, write_verdicts


def drawn(make: Any, run: Run) -> Figure:
    with house_style():
        figure = draw(make(run))
        assert overlaps(figure) == []
    return figure


def shown(run: Run, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(ranking_table(run.summary))
    text = console.file.getvalue()
    assert all(cell_len(line) <= width for line in text.splitlines())
    return " ".join(text.split())


@pytest.fixture(scope="module")
def schedules(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return four_schedules(tmp_path_factory.mktemp("schedules") / "run")


def test_the_differences_are_drawn_seed_by_seed(schedules: Run) -> None:
    figure = drawn(differences_picture, schedules)
    dots = [line for line in figure.axes[0].lines if line.get_alpha() == 0.45]
    assert [len(line.get_xdata()) for line in dots] == [8, 8, 1]
    assert notes(figure.axes[0])[:2] == ["good", "good is better, p = 0.023"]
    assert [text.split("\n")[0] for text in legend_texts(figure)] == [
        "each seed", "their mean", "95 % interval of the mean", "A against A",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [2, 6, 19, 40])
def test_many_variants_fit(tmp_path: Path, count: int) -> None:
    finals = {f"variant-number-{i}": around(1.0 + i**2 / 10)[:4] for i in range(count)}
    settings = {name: {"schedule.warmup": i} for i, name in enumerate(finals)}
    run = write_verdicts(tmp_path / "run", finals, settings)
    figure = drawn(differences_picture, run)
    names = [text for text in notes(figure.axes[0]) if text.startswith("variant")]
    assert len(names) == min(count - 1, 18)
    assert figure.axes[0].get_title(loc="left") == "too few seeds to tell (n < 6)"


@pytest.mark.parametrize(
    ("rows", "metric"),
    [
        ({"constant": [2.0, 1.0, 0.5, 0.55, LOST]}, "val_loss"),
        (
            {"constant": [0.2, 0.4, 0.8, 0.82, LOST], "cosine": [0.3, 0.5, 0.9, 0.2, 0.15]},
            "val_accuracy",
        ),
        ({"constant": [LOST] * 5}, "val_loss"),
    ],
)
def test_the_curves_over_lr_are_drawn(
    tmp_path: Path, rows: dict[str, list[float]], metric: str
) -> None:
    figure = drawn(sensitivity_picture, over_lr(tmp_path / "run", rows, metric=metric))
    [ax] = figure.axes
    assert ax.get_xscale() == "log"
    assert len([line for line in ax.lines if line.get_linewidth() == 2.2]) == len(rows)
    assert len(legend_texts(figure)) > len(rows)


def test_all_lost_is_told(tmp_path: Path) -> None:
    run = over_lr(tmp_path / "run", {"constant": [LOST] * 5})
    assert "LR: a seed diverged at every one of them." in shown(run)


def test_files_of_both(schedules: Run, tmp_path: Path) -> None:
    assert [p.name for p in draw_run(schedules, tmp_path / "a")] == [
        "loss.png", "lr.png", "verdicts.png",
    ]  # fmt: skip
    run = over_lr(tmp_path / "grid", {"constant": [2.0, 1.0, 0.5, 0.55, 1.0]})
    assert "lr_sensitivity.png" in [p.name for p in draw_run(run, tmp_path / "b")]


@pytest.mark.parametrize("width", [120, 80, 50])
def test_the_lines_on_screen(schedules: Run, width: int) -> None:
    text = shown(schedules, width)
    assert "Verdicts, against base: validation loss after 40 steps, p for 3 comparisons" in text
    assert "good good is better (Δ -0.2000 = -20 %, 95 % interval" in text
    assert (
        "half_lost base is better (half_lost diverged in 7 of 8, p = 0.031, n = 8, base wins 7)"
        in text
    )
    assert "A against A: two seeds of base differ by 0.017 on average, 0.04 at most" in text
    assert "half_lost in 1 of 8 seeds only" in text


def test_the_lines_on_an_lr(tmp_path: Path) -> None:
    run = over_lr(tmp_path / "run", {"constant": [2.0, 1.0, 0.55, 0.5, LOST]})
    text = shown(run)
    assert (
        "1 is best; 0.081 to 1 come within 5 % of the way to it (1.1 decades, 2 of the 5 tried)"
        in text
    )
    end = over_lr(tmp_path / "end", {"constant": [0.5, 1.0, 1.5, 2.0, 2.2]})
    assert (
        "Warning: The best LR is the lowest that was compared (0.001 with schedule=constant)"
        in shown(end)
    )
    assert "The best was chosen by these seeds: p for all 10 pairs" in shown(end)


def test_a_long_ranking_shows_its_two_ends(tmp_path: Path) -> None:
    finals = {f"v{i:02}": around(1.0 + i)[:7] for i in range(60)}
    settings = {name: {"schedule.warmup": i} for i, name in enumerate(finals)}
    run = write_verdicts(tmp_path / "run", finals, settings, reference="v00")
    text = shown(run, 120)
    assert "42 more, in summary.csv" in text
    assert " 15 v14 " in text
    assert " 58 v57 " in text
    assert " v20 " not in text
    assert len(text) < 6_000
