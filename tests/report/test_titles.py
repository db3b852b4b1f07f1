"""Titles of panels: where matplotlib would put them, without being asked to look for the place."""

from __future__ import annotations

import pytest
from matplotlib.text import Text

from lrexp.report.data.picture import Axis, Panel, Picture, step_axis
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
