"""What commands print besides the ranking: a suggestion, a list of schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lrexp.finder.edge import BELOW_EDGE
from lrexp.finder.suggest import LOWEST_MEAN
from lrexp.report.cells import cell, column, least_width, new_table
from lrexp.report.damage import as_written
from lrexp.report.screen import visible
from lrexp.report.text import count_text, lr_text


def suggestion_panel(summary: Mapping[str, Any]) -> RenderableType:
    """Return what summary.json of a range test says: the LR, its interval, every rule's LR.

    Example:
        >>> from rich.console import Console                                     # doctest: +SKIP
        >>> Console().print(suggestion_panel(load_run("runs/...").summary))       # doctest: +SKIP

    Raises:
        RunError: it holds something else than a range test writes.
    """
    with as_written("summary.json"):
        return _suggestion(visible(summary))


def _suggestion(summary: Mapping[str, Any]) -> RenderableType:
    lr, interval = summary.get("suggested_lr"), summary.get("interval")
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True, style="dim")
    lines.add_column(overflow="fold")
    if lr is None:
        lines.add_row("suggested LR", Text("none", "bold yellow"))
        lines.add_row("because", Text(str(summary.get("reason") or "the curve has no signal")))
    else:
        lines.add_row("suggested LR", Text(lr_text(lr), "bold green"))
    if interval:
        lines.add_row("interval", Text(f"{lr_text(interval[0])} to {lr_text(interval[1])}"))
    if summary.get("base_lr") and summary.get("max_lr"):
        text = f"{lr_text(summary['base_lr'])} to {lr_text(summary['max_lr'])}"
        lines.add_row("base to max LR", Text(text).append("  for cyclic schedules", "dim"))
    if summary.get("note"):
        lines.add_row("note", Text(str(summary["note"])))
    rules = {name: rule_lr for name, rule_lr in (summary.get("rules") or {}).items() if rule_lr}
    if rules:
        lines.add_row()
    for name, rule_lr in rules.items():
        origin = _origin(summary) if name == "auto" else ""
        lines.add_row(cell(name), Text(lr_text(rule_lr)).append(origin, "dim"))
    seeds = count_text(len(summary.get("seeds") or ()), "seed")
    title = Text.assemble(("LR range test", "bold"), (f" · {seeds}", "dim"))
    return Panel(lines, title=title, expand=False, padding=(1, 2))


def _origin(summary: Mapping[str, Any]) -> str:
    """Return how `auto` came to its LR: its readings, and what they were combined with."""
    readings = summary.get("readings")
    if not readings:
        return ""
    text = "median of " + ", ".join(f"{lr_text(lr)} ({name})" for name, lr in readings.items())
    edge = summary.get("stability_edge")
    if edge:
        below = f"{lr_text(BELOW_EDGE * edge)} (edge of stability / {1 / BELOW_EDGE:.0f})"
        text = f"geometric mean of {below} and the {text}"
    share = max(float(summary.get("mean_frac") or 1.0), LOWEST_MEAN)
    return f"  {text}" + (f"; / {share:.2g} for the schedule" if share < 1 else "")


def schedule_table(traces: Mapping[str, np.ndarray]) -> RenderableType:
    """Return the LRs of schedules in numbers: first, highest and where, last.

    Args:
        traces: by variant, one LR for each step, (steps,).
    """
    return _Schedules(traces)


@dataclass(frozen=True)
class _Schedules:
    """Takes two lines for each schedule where a table would be cut."""

    traces: Mapping[str, np.ndarray]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table."""
        heads = ("steps", "first LR", "peak LR", "at step", "last LR")
        table = new_table("variant", *(column(head) for head in heads))
        for name, lr in self.traces.items():
            table.add_row(cell(name), *_lr_numbers(lr))
        if least_width(table, console, options) <= options.max_width:
            yield table
            return
        for name, lr in self.traces.items():
            steps, first, peak, at, last = _lr_numbers(lr)
            text = f"\n  {first} → {last} in {steps} steps, peak {peak} at {at}"
            yield cell(name, "bold").append(text, "not bold")


def _lr_numbers(lr: np.ndarray) -> tuple[str, str, str, str, str]:
    if not len(lr):
        return ("0", "–", "–", "–", "–")
    peak = int(np.argmax(lr))
    first, highest, last = (lr_text(float(lr[step])) for step in (0, peak, -1))
    return (f"{len(lr):,}", first, highest, f"{peak:,}", last)
