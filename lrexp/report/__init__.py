"""Tables and pictures, made from run directories alone.

What is drawn or printed is read from files, so that it looks the same while a run goes on, after
it ended, and after a crash.
"""

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
from lrexp.report.tables import runs_table, schedule_table, suggestion_panel

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
