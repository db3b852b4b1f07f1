"""Titles of panels: where matplotlib would put them, without being asked to look for the place."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from matplotlib.text import Text

from lrexp.report.data.picture import Axis, Entry, Panel, Picture, step_axis
from lrexp.report.figure import draw
from lrexp.report.style import house_style


@pytest.mark.parametrize("epochs", [None, 10.0])
def test_titles_stand_clear_of_the_panel_and_of_its_epochs(epochs: float | None) -> None:
    panel = Panel(step_axis(100, steps_per_epoch=epochs), Axis((0, 1)), (), "training loss")
    with house_style():
        figure = draw(Picture("title", [panel]))
        figure.canvas.draw()
        [ax] = figure.axes
        below = ax.child_axes[0].xaxis.get_tightbbox() if epochs else ax.bbox
        # the title at the left is no public attribute
        [title] = [text for text in ax.findobj(Text) if text.get_text() == "training loss"]
        gap = title.get_window_extent().ymin - below.ymax
    assert 6 < gap < 16  # pixels; 8 points are 14, less what letters reach down


@pytest.mark.parametrize(("count", "length"), [(1, 90), (3, 12), (3, 36)])
def test_titles_of_panels_do_not_run_into_each_other(count: int, length: int) -> None:
    panel = Panel(step_axis(100, steps_per_epoch=10.0), Axis((0, 1)), (), "validation m" * 8)
    panel = replace(panel, title=panel.title[:length])
    with house_style():
        figure = draw(Picture("title", [panel] * count))
        figure.canvas.draw()
        shown = {panel.title[:9], "epoch"}
        titles = [
            t for ax in figure.axes for t in (*ax.findobj(Text),) if t.get_text()[:9] in shown
        ]
        boxes = sorted((t.get_window_extent().x0, t.get_window_extent().x1) for t in titles)
    assert len(boxes) >= count
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(boxes))
    assert boxes[-1][1] <= figure.bbox.width


def test_a_long_title_of_the_legend_takes_two_lines() -> None:
    panel = Panel(step_axis(100), Axis((0, 1)), (), "loss")
    said = "ranked by validation neg root mean squared error"
    picture = Picture("title", [panel], entries=[Entry("nothing", "a")], legend_title=said)
    [legend] = draw(picture).legends
    assert legend.get_title().get_text().split() == said.split()
