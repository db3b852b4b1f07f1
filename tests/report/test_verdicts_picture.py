"""verdicts.png, lr_sensitivity.png and the verdict lines, looked at through what they show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.cells import cell_len
from rich.console import Console

from lrexp.report.differences import differences_figure
from lrexp.report.plots import draw_run
from lrexp.report.ranking import ranking_table
from lrexp.report.sensitivity import sensitivity_figure
from lrexp.report.style import house_style
from lrexp.runs.reader import Run

from .looks import legend_texts, notes, overlaps, words_of
from .verdict_runs import LOST, write_verdicts

SEEDS = 8


def around(mean: float, spread: float = 0.02) -> list[float]:
    return (mean + spread * np.linspace(-1, 1, SEEDS)).tolist()


def alternating(mean: float) -> list[float]:
    return [value + 0.1 * (-1) ** i for i, value in enumerate(around(mean))]


def drawn(make: Any, run: Run) -> Figure:
    with house_style():
        figure = make(run)
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
    finals = {
        "base": around(1.0),
        "good": around(0.8, 0.03),
        "same": alternating(1.0),
        "half_lost": [LOST] * 7 + [0.5],
    }
    settings = {name: {"schedule.warmup": i} for i, name in enumerate(finals)}
    return write_verdicts(tmp_path_factory.mktemp("schedules") / "run", finals, settings)


def test_the_differences_are_drawn_seed_by_seed(schedules: Run) -> None:
    ax = drawn(differences_figure, schedules).axes[0]
    rows = {c["variant"]: c for c in schedules.summary["comparisons"]}
    dots = [line for line in ax.lines if line.get_alpha() == 0.45]
    assert [len(line.get_xdata()) for line in dots] == [8, 8, 1]
    assert list(dots[0].get_xdata()) == pytest.approx(rows["good"]["differences"])
    crosses = [line for line in ax.lines if line.get_marker() == "X"]
    assert [list(line.get_xdata()) for line in crosses] == [[1.0]]  # at the edge of the worse
    texts = notes(ax)
    assert texts[:2] == ["good", "good is better, p = 0.023"]
    assert texts[2] == "same"
    assert texts[3].startswith("no difference detected, p = ")
    assert texts[4:] == ["half_lost", "base is better, p = 0.031, diverged in 7 of 8"]


def test_the_picture_says_how_to_read_it(schedules: Run) -> None:
    figure = drawn(differences_figure, schedules)
    title, _, source, caption = words_of(figure)
    assert title == "digits-lr: differences to base, seed by seed, 8 seeds"
    assert "Left of 0 the variant is better." in caption + source
    assert "p is Holm's for 3 comparisons." in caption + source
    assert [text.split("\n")[0] for text in legend_texts(figure)] == [
        "each seed", "their mean", "95 % interval of the mean", "A against A",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [2, 6, 19, 40])
def test_many_variants_fit(tmp_path: Path, count: int) -> None:
    finals = {f"variant-number-{i}": around(1.0 + i**2 / 10)[:4] for i in range(count)}
    settings = {name: {"schedule.warmup": i} for i, name in enumerate(finals)}
    run = write_verdicts(tmp_path / "run", finals, settings)
    figure = drawn(differences_figure, run)
    names = [text for text in notes(figure.axes[0]) if text.startswith("variant")]
    assert len(names) == min(count - 1, 18)
    assert figure.axes[0].get_title(loc="left") == "too few seeds to tell (n < 6)"


LRS = [0.001, 0.01, 0.1, 1.0, 10.0]


def over_lr(path: Path, rows: dict[str, list[float]], **compare: Any) -> Run:
    """Write a comparison over LRs; every row is a schedule with a mean value for each LR."""
    finals, settings = {}, {}
    for schedule, means in rows.items():
        for lr, mean in zip(LRS, means, strict=True):
            name = f"{schedule}-{lr:g}"
            finals[name] = [LOST, *around(1.0)[1:]] if mean == LOST else around(mean)
            settings[name] = {"optimizer.lr": lr, "schedule": schedule}
    return write_verdicts(path, finals, settings, reference="best", **compare)


def test_the_curve_over_lr(tmp_path: Path) -> None:
    run = over_lr(tmp_path / "run", {"constant": [2.0, 1.0, 0.5, 0.55, LOST]})
    figure = drawn(sensitivity_figure, run)
    ax = figure.axes[0]
    mean = next(line for line in ax.lines if len(line.get_xdata()) == 5)
    assert list(mean.get_xdata()) == LRS
    assert list(mean.get_ydata())[:4] == pytest.approx([2.0, 1.0, 0.5, 0.55])
    assert np.isnan(mean.get_ydata()[4])
    dots = [line for line in ax.lines if line.get_alpha() == 0.3]
    assert [len(line.get_xdata()) for line in dots] == [8, 8, 8, 8, 7]
    (span,) = ax.patches
    assert span.get_x() == pytest.approx(run.summary["lr_sensitivity"][0]["basin"]["low"])
    assert span.get_x() + span.get_width() == pytest.approx(1.0)  # next to it a seed diverged
    assert "1 of 8" in notes(ax)
    assert "before training" in notes(ax)
    assert ax.get_xscale() == "log"
    assert legend_texts(figure)[0] == "mean of the seeds\nbest 0.1, good over 1.2 decades"


@pytest.mark.parametrize("metric", ["val_loss", "val_accuracy"])
def test_several_curves_have_a_basin_each(tmp_path: Path, metric: str) -> None:
    rows = {"constant": [0.2, 0.4, 0.8, 0.82, LOST], "cosine": [0.3, 0.5, 0.9, 0.2, 0.15]}
    run = over_lr(tmp_path / "run", rows, metric=metric)
    figure = drawn(sensitivity_figure, run)
    bars = [line for line in figure.axes[0].lines if line.get_alpha() == 0.6]
    assert len(bars) == 2
    names = [text.split("\n")[0] for text in legend_texts(figure)[:2]]
    assert sorted(names) == ["schedule constant", "schedule cosine"]


def test_a_value_far_above_the_start_leaves_the_picture_and_is_counted(tmp_path: Path) -> None:
    run = over_lr(tmp_path / "run", {"constant": [2.0, 1.0, 0.5, 40.0, 900.0]})
    ax = drawn(sensitivity_figure, run).axes[0]
    assert ax.get_ylim()[1] < 5
    assert notes(ax).count("8 of 8 beyond") == 2


def test_all_lost_is_drawn_too(tmp_path: Path) -> None:
    run = over_lr(tmp_path / "run", {"constant": [LOST] * 5})
    assert "no LR without divergence" in legend_texts(drawn(sensitivity_figure, run))[0]
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
    assert "Warning: The best LR, 0.001, is the lowest that was compared" in shown(end)
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
