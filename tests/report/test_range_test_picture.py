"""How the pictures of a range test look, asked through their axes."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrexp.analysis.range_curve import Curve
from lrexp.analysis.suggest import suggest
from lrexp.report.data.range_test import range_test_loss_picture, range_test_picture
from lrexp.report.figure import draw as drawn
from lrexp.report.plots import plot_range_test
from lrexp.report.style import ACCENT, house_style
from lrexp.runs.reader import Run, load_run

from .looks import legend_texts, notes, overlaps, raw
from .synthetic import write_find_lr, write_status, write_trial


def draw(path: Path) -> Figure:
    with house_style():
        return drawn(range_test_picture(load_run(path)))


def spans(ax: Axes) -> list[tuple[float, float]]:
    """Return the shaded ranges of LR."""
    boxes = [patch.get_extents().transformed(ax.transData.inverted()) for patch in ax.patches]
    return [(round(box.x0, 9), round(box.x1, 9)) for box in boxes]


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A range test of three seeds with a suggestion."""
    return load_run(write_find_lr(tmp_path_factory.mktemp("tested") / "run", seeds=3))


@pytest.fixture(scope="module")
def picture(tested: Run) -> Figure:
    return draw(tested.path)


def test_the_rows_share_the_log_axis_of_the_curves(picture: Figure) -> None:
    upper, lower = picture.axes
    assert upper.get_xscale() == lower.get_xscale() == "log"
    assert len([line for line in raw(upper) if len(line.get_xdata()) > 2]) == 3
    assert len(upper.collections) == 1  # the band of the seeds
    picture.draw_without_rendering()
    labels = [text.get_text() for text in lower.get_xticklabels()]
    assert {"1e-6", "1e-4", "0.01", "1"} <= set(labels)
    assert (upper.get_xlabel(), lower.get_xlabel()) == ("", "learning rate")


def test_the_suggestion_its_interval_and_the_range_are_marked(picture: Figure) -> None:
    upper = picture.axes[0]
    assert spans(upper) == [(0.0047, 0.21), (0.031, 0.068)]
    [line] = [line for line in upper.lines if line.get_color() == ACCENT]
    assert list(line.get_xdata()) == [0.047, 0.047]
    assert notes(upper) == ["suggested 0.047"]
    assert "base to max LR\nfor cyclic schedules" in legend_texts(picture)
    assert overlaps(picture) == []


def test_every_rule_has_a_mark_of_its_own_on_the_curve_and_a_row_below(tmp_path: Path) -> None:
    rules = {"steepest": 0.03, "minimum": 0.03, "valley": 0.047, "slide": None}
    upper, lower = draw(write_find_lr(tmp_path / "run", rules=rules)).axes
    names = [text.get_text() for text in lower.get_yticklabels()]
    assert names == ["suggested", "base to max", "steepest", "minimum", "valley"]
    marks = [line for line in upper.lines if line.get_label() in rules]
    assert len({line.get_marker() for line in marks}) == 3
    low, high = upper.get_ylim()
    assert all(low < float(line.get_ydata()[0]) < high for line in marks)


def test_without_a_suggestion_the_reason_is_written(tmp_path: Path) -> None:
    figure = draw(write_find_lr(tmp_path / "run", signal=False))
    [ax] = figure.axes
    [note] = notes(ax)
    assert note.replace("\n", " ").startswith("No suggestion. The loss never falls")
    assert spans(ax) == []
    assert overlaps(figure) == []


@pytest.mark.parametrize("losses", [[], [np.nan], [2.0], [2.0, np.inf], [2.0, 2.0, 2.0]])
def test_very_short_tests_are_drawn(tmp_path: Path, losses: list[float]) -> None:
    path = tmp_path / "run"
    write_status(path, command="find-lr", variants=["range_test"], seeds=[0, 1])
    lr = np.geomspace(1e-3, 1e-1, 3)[: len(losses)]
    for seed in (0, 1):
        write_trial(path / f"trials/range_test/seed-{seed}", np.array(losses), lr)
    run = load_run(path)
    with house_style():
        for picture in (range_test_picture, range_test_loss_picture):
            figure = drawn(picture(run))
            figure.draw_without_rendering()
            assert np.isfinite([ax.get_ylim() for ax in figure.axes]).all()


def test_a_notebook_gets_the_axes_with_the_curves() -> None:
    lr = np.geomspace(1e-7, 10, 100)
    loss = 2.3 - 1.9 / (1 + (3e-2 / lr) ** 1.6) + lr**3
    curves = [Curve(lr, loss), Curve(lr, loss + 0.01)]
    suggestion = suggest(curves)
    assert suggestion.suggested_lr is not None
    ax = plot_range_test(curves, suggestion)
    assert len(ax.figure.axes) == 2  # and the rows of the rules
    assert ax.get_ylabel() == "loss"
    assert [line.get_xdata()[0] for line in ax.lines if line.get_color() == ACCENT] == [
        suggestion.suggested_lr
    ]
    ax.figure.draw_without_rendering()
    assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1

    _, own = plt.subplots()
    assert plot_range_test(curves, suggestion, ax=own) is own
    assert len(own.figure.axes) == 1
    bare = plot_range_test(curves)
    assert notes(bare) == []
