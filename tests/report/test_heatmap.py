"""The heat map of a grid over two numbers: what it shows, and that it is drawn."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from lrexp.report.data import pictures
from lrexp.report.data.heatmap import grid_of
from lrexp.report.data.picture import Axis, Cells
from lrexp.report.figure import draw
from lrexp.report.style import house_style
from lrexp.runs.reader import Run

from .verdict_runs import LOST, write_verdicts

LR, DECAY = "optimizer.lr", "optimizer.args.weight_decay"


def over_two(path: Path, table: Any, keys: Any = (LR, DECAY), xs: Any = None, **more: Any) -> Run:
    """Write a comparison over two settings; `table` has the seeds' values by (row, column)."""
    xs = xs or [10.0**i for i in range(-3, -3 + len(table[0]))]
    ys = [0.0, 0.1, 0.2, 0.3][: len(table)]
    places = itertools.product(range(len(table)), range(len(xs)))
    cells = {f"v{row}{column}": (row, column) for row, column in places}
    finals = {name: table[row][column] for name, (row, column) in cells.items()}
    settings = {
        name: {keys[0]: xs[column], keys[1]: ys[row]} for name, (row, column) in cells.items()
    }
    return write_verdicts(path, finals, settings, **more)


TABLE = [
    [[0.5, 0.7], [0.2, 0.4], [0.9, LOST]],
    [[0.4, 0.4], [0.1, 0.3], [LOST, LOST]],
]


def shown(run: Run) -> tuple[Cells, Axis, Axis]:
    [panel] = pictures(run)["heatmap"].panels
    [cells] = panel.marks
    assert isinstance(cells, Cells)
    return cells, panel.x, panel.y


def test_cells_hold_the_means_and_what_was_lost(tmp_path: Path) -> None:
    cells, x, y = shown(over_two(tmp_path, TABLE))
    np.testing.assert_allclose(cells.values, [[0.6, 0.3, np.nan], [0.4, 0.2, np.nan]])
    assert cells.texts == [["0.600", "0.300", "0.900"], ["0.400", "0.200", ""]]
    assert cells.notes == [["", "", "1 of 2 diverged"], ["", "", "diverged"]]
    assert cells.best == (1, 1)
    assert (cells.limits, cells.darkest) == (pytest.approx((0.2, 0.6)), "highest")
    assert cells.x == pytest.approx([10**-3.5, 10**-2.5, 10**-1.5, 10**-0.5])
    assert cells.y == pytest.approx([-0.05, 0.05, 0.15])
    assert (x.scale, x.labels, x.title) == ("log", ("0.001", "0.01", "0.1"), "learning rate")
    assert (y.scale, y.labels, y.title) == ("linear", ("0", "0.1"), DECAY)


def test_of_what_is_to_be_high_the_highest_is_best(tmp_path: Path) -> None:
    table = [[[0.5, 0.7], [0.8, 0.9]], [[0.4, 0.4], [0.2, 0.2]]]
    cells, *_ = shown(over_two(tmp_path, table, metric="val_accuracy"))
    assert (cells.best, cells.darkest) == ((0, 1), "lowest")


def test_colours_end_at_the_value_before_training(tmp_path: Path) -> None:
    table = [[[0.5, 0.5], [400.0, 400.0]], [[1.0, 1.0], [2.0, 2.0]]]
    run = over_two(tmp_path, table, start=2.3)
    cells, *_ = shown(run)
    assert cells.limits == (0.5, 2.3)
    assert "worse than before training" in pictures(run)["heatmap"].caption


def test_values_that_lie_unevenly_have_cells_of_one_size(tmp_path: Path) -> None:
    cells, x, _ = shown(over_two(tmp_path, TABLE, xs=[0.001, 0.01, 1e4]))
    assert np.diff(cells.x) == pytest.approx([1, 1, 1])
    assert (x.scale, x.labels) == ("linear", ("0.001", "0.01", "10000"))


# settings of the variants | the two numbers
GRIDS: list[tuple[list[dict[str, Any]], Any]] = [
    ([{"a": x, "b": y} for x in (2, 1) for y in (0.1, 3)], {"a": [1, 2], "b": [0.1, 3]}),
    ([{"a": x, "b": y} for x in (2, 1) for y in ("sgd", "adam")], None),
    ([{"a": x, "b": y} for x in (2, 1) for y in (True, False)], None),
    ([{"a": x, "b": y, "c": 1} for x in (2, 1) for y in (0.1, 3)], None),
    ([{"a": x, "b": x} for x in (2, 1)], None),
    ([{"a": x, "b": 1} for x in (2, 1)], None),
    ([{"a": x} for x in (2, 1)], None),
    ([{"a": 1, "b": 2}, {"a": 1, "c": 2}, {"a": 2, "b": 1}, {}], None),
    ([], None),
]


@pytest.mark.parametrize(("settings", "grid"), GRIDS, ids=range(len(GRIDS)))
def test_it_takes_two_numbers_and_all_their_pairs(settings: Any, grid: Any) -> None:
    summary = {"ranking": [{"settings": own} for own in settings]}
    run = Run(Path(), "", "compare", {}, {}, (), summary)
    assert grid_of(run) == grid


def test_it_is_drawn_in_its_colours(tmp_path: Path) -> None:
    run = over_two(tmp_path, TABLE)
    with house_style():
        figure = draw(pictures(run)["heatmap"])
        ax, bar = figure.axes
        [mesh] = ax.collections
        mesh.update_scalarmappable()
        best, worst = mesh.get_facecolors()[4], mesh.get_facecolors()[0]
        written = {text.get_text() for text in ax.texts}
    viridis = mpl.colormaps["viridis"]
    assert best == pytest.approx(viridis(1.0))
    assert worst == pytest.approx(viridis(0.0))
    assert {"0.200", "0.900\n1 of 2\ndiverged", "diverged"} <= written
    assert bar.get_ylabel() == "validation loss at the end"
