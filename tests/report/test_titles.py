"""Titles of panels: where matplotlib would put them, without being asked to look for the place."""

from __future__ import annotations

import pytest

from lrexp.report.figure import Heading, finish, new_figure
from lrexp.report.style import house_style, pad_x, panel_title, step_axis


@pytest.mark.parametrize("epochs", [None, 10.0])
@pytest.mark.parametrize("title_first", [True, False])
def test_titles_stand_clear_of_the_panel_and_of_its_epochs(
    epochs: float | None, title_first: bool
) -> None:
    with house_style():
        figure = new_figure()
        ax = figure.subplots()
        pad_x(ax, 0, 100)
        title = panel_title(ax, "training loss") if title_first else None
        step_axis(ax, steps_per_epoch=epochs)
        title = title or panel_title(ax, "training loss")
        finish(figure, Heading("title"), ())
        figure.canvas.draw()
        below = ax.child_axes[0].xaxis.get_tightbbox() if epochs else ax.bbox
        gap = title.get_window_extent().ymin - below.ymax
    assert 6 < gap < 16  # pixels; 8 points are 14, less what letters reach down
