"""The list of runs: which there are, how far they are, what they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

from lrexp.report.cells import cell, column, least_width, new_table, words_column
from lrexp.report.screen import visible
from lrexp.report.text import lr_text
from lrexp.store.create import slug
from lrexp.store.listing import RunEntry

STATUS_STYLES = {"complete": "green", "running": "cyan", "failed": "red", "damaged": "red"}


def runs_table(runs: Sequence[RunEntry], now: datetime | None = None) -> RenderableType:
    """Return a list of runs: the folder, which has name and command in it, status, best, age.

    Args:
        runs: as `list_runs` gives them.
        now: the time from which ages are counted; with a time zone.
    """
    return _Runs(runs, now or datetime.now(timezone.utc))


@dataclass(frozen=True)
class _Runs:
    """Takes one line for each run where the console is wide enough, else two."""

    runs: Sequence[RunEntry]
    now: datetime

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table."""
        table = _one_line_each(self.runs, self.now)
        fits = least_width(table, console, options) <= options.max_width
        yield table if fits else _two_lines_each(self.runs, self.now)


def _one_line_each(runs: Sequence[RunEntry], now: datetime) -> Table:
    folder = Column(Text("folder"), no_wrap=True)
    table = new_table(folder, "status", words_column("best", 22), column("age"))
    for run in runs:
        age = Text(age_text(run.started, now))
        table.add_row(_folder(run), _status(run), cell(best_text(run)), age)
    return table


def _folder(run: RunEntry) -> Text:
    """Return the folder, whole, to be copied; and what its name does not tell of the run."""
    text = Text(visible(run.path.name))
    if slug(run.name) in text.plain and run.command in text.plain:
        return text
    return text.append("  ").append_text(cell(f"{run.name} {run.command}", "dim"))


def _two_lines_each(runs: Sequence[RunEntry], now: datetime) -> Table:
    best = words_column("best\nage", 20)
    table = new_table(words_column("run\nfolder", 50), "command\nstatus", best)
    for run in runs:
        table.add_row(
            cell(run.name, "bold").append(f"\n{visible(run.path.name)}", "not bold"),
            cell(run.command).append("\n").append_text(_status(run)),
            cell(best_text(run)).append(f"\n{age_text(run.started, now)}", "dim"),
        )
    return table


def _status(run: RunEntry) -> Text:
    return cell(run.status, STATUS_STYLES.get(run.status, "yellow"))


def best_text(run: RunEntry) -> str:
    """Return the best variant of a comparison, the suggested LR of a range test."""
    if run.best_variant is not None:
        return run.best_variant
    if run.suggested_lr is not None:
        return f"lr {lr_text(run.suggested_lr)}"
    ended_without = run.command == "find-lr" and run.status == "complete"
    return "no suggestion" if ended_without else "–"


def age_text(started: datetime | None, now: datetime) -> str:
    """Return how long ago something was: `40 s`, `12 min`, `5 h`, `3 d`.

    Example:
        >>> from datetime import timedelta
        >>> now = datetime(2026, 11, 21, tzinfo=timezone.utc)
        >>> age_text(now - timedelta(hours=5, minutes=59), now)
        '5 h'
    """
    if started is None:
        return "–"
    seconds = max(0.0, (now - started).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
