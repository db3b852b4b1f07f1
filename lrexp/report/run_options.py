"""The options of a run from what its caller gave: functions are checked, and their errors named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lrexp.errors import ConfigError, LrexpError, user_error
from lrexp.report.page import write_live
from lrexp.report.plots import draw_nothing, draw_unless_off, is_off
from lrexp.report.progress import ConsoleReporter
from lrexp.report.run import Run
from lrexp.runs import reader
from lrexp.runs.reader import Draw

if TYPE_CHECKING:
    from lrexp.engine.stop import Stop
    from lrexp.records import Sink
    from lrexp.runs.choosing import RunOptions


def run_options(
    console: Console, draw: Any, stop: Any, sinks: Any, report: bool = False, **others: Any
) -> RunOptions:
    """Return how a run is trained; ConfigError for what is no function and should be one."""
    from lrexp.runs.choosing import RunOptions

    return RunOptions(
        ConsoleReporter(console),
        draw=_drawing(draw),
        page=write_live if report and not is_off() else None,
        stop=_stopping(stop),
        sinks=_listening(sinks),
        **others,
    )


def _drawing(draw: Any) -> Draw:
    """Return what draws a run; what a function of the caller's raises says where."""
    if draw is None:
        return draw_nothing
    if not callable(draw):
        what, remedy = "must be a function of the run", "Give one, or None for no pictures."
        raise ConfigError.single("draw", what, draw, remedy)
    if draw is draw_unless_off:
        return draw

    def drawn(run: reader.Run) -> None:
        try:
            draw(Run.of(run))
        except LrexpError:
            raise
        except Exception as error:
            raise user_error(error, "draw") from error

    return drawn


def _stopping(stop: Any) -> Stop | None:
    if stop is not None and not callable(stop):
        what, remedy = "must be a function without arguments", "E.g. the is_set of an Event."
        raise ConfigError.single("stop", what, stop, remedy)
    asked: Stop | None = stop
    return asked


def _listening(sinks: Any) -> Sequence[Sink]:
    found = [sinks] if callable(sinks) or not isinstance(sinks, Sequence) else list(sinks)
    if wrong := [sink for sink in found if not callable(sink)]:
        what, remedy = "must be functions of a record", "Give a list, e.g. [print]."
        raise ConfigError.single("sinks", what, wrong[0], remedy)
    return found
