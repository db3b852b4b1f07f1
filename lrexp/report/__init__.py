"""Tables and pictures, made from run directories alone.

What is drawn or printed is read from files, so that it looks the same while a run goes on, after
it ended, and after a crash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrexp.lazy import imported_from

if TYPE_CHECKING:
    from lrexp.report.notebook import plot_lr_schedule, plot_range_test
    from lrexp.report.plots import (
        Draw,
        draw_nothing,
        draw_overlay,
        draw_run,
        draw_schedules,
        draw_unless_off,
    )
    from lrexp.report.race_table import race_panel
    from lrexp.report.ranking import ranking_table
    from lrexp.report.runs import runs_table
    from lrexp.report.tables import schedule_table, suggestion_panel

__all__ = [
    "Draw",
    "draw_nothing",
    "draw_overlay",
    "draw_run",
    "draw_schedules",
    "draw_unless_off",
    "plot_lr_schedule",
    "plot_range_test",
    "race_panel",
    "ranking_table",
    "runs_table",
    "schedule_table",
    "suggestion_panel",
]

__getattr__ = imported_from(
    __name__,
    {
        "Draw": "lrexp.report.plots",
        "draw_nothing": "lrexp.report.plots",
        "draw_overlay": "lrexp.report.plots",
        "draw_run": "lrexp.report.plots",
        "draw_schedules": "lrexp.report.plots",
        "draw_unless_off": "lrexp.report.plots",
        "plot_lr_schedule": "lrexp.report.notebook",
        "plot_range_test": "lrexp.report.notebook",
        "race_panel": "lrexp.report.race_table",
        "ranking_table": "lrexp.report.ranking",
        "runs_table": "lrexp.report.runs",
        "schedule_table": "lrexp.report.tables",
        "suggestion_panel": "lrexp.report.tables",
    },
)
