"""The smaller tables that commands print: suggestions, schedules, runs, LRs that were tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from lrexp.report.text import (
    cell,
    column,
    count_text,
    least_width,
    lr_text,
    new_table,
    number_text,
    visible,
    words_column,
)
from lrexp.runs.files import as_written
from lrexp.runs.listing import RunEntry
from lrexp.runs.writer import slug

if TYPE_CHECKING:
    import numpy as np

STATUS_STYLES = {"complete": "green", "running": "cyan", "failed": "red", "damaged": "red"}


def runs_table(runs: Sequence[RunEntry], now: datetime | None = None) -> RenderableType:
    """Return a list of runs: the folder, which has name and command in it, status, best, age.

    Args:
        runs: as `list_runs` gives them.
        now: the time from which ages are counted; with a time zone.
    """
    now = now or datetime.now(timezone.utc)
    return _Fitting(_one_line_each(runs, now), _two_lines_each(runs, now))


@dataclass(frozen=True)
class _Fitting:
    """A table where nothing in it would be cut, else what takes two lines for each of its rows."""

    table: Table
    narrower: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fits = least_width(self.table, console, options) <= options.max_width
        yield self.table if fits else self.narrower


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
    text = cell(run.status, STATUS_STYLES.get(run.status, "yellow"))
    if run.trials_ended is not None and run.num_trials:
        text.append(f" {run.trials_ended:,}/{run.num_trials:,}")
    return text


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
    facts = [
        *_answer(summary, "the curve has no signal"),
        *_lr_range("interval", summary.get("interval")),
        *_cyclic_range(summary),
        *_note(summary),
    ]
    rules = {name: lr for name, lr in (summary.get("rules") or {}).items() if lr}
    facts += [("", Text())] if rules else []
    for name, lr in rules.items():
        facts.append((cell(name), _with_aside(lr_text(lr), _origin(summary) * (name == "auto"))))
    seeds = count_text(len(summary.get("seeds") or ()), "seed")
    aside = ", ".join(filter(None, [seeds, spent_text(summary)]))
    return _panel("LR range test", aside, facts)


_Facts: TypeAlias = list[tuple[str | Text, Text]]  # a name and what it stands for


def _panel(title: str, aside: str, facts: _Facts) -> Panel:
    lines = Table.grid(Column(no_wrap=True, style="dim"), Column(overflow="fold"), padding=(0, 2))
    for fact in facts:
        lines.add_row(*fact)
    heading = Text.assemble((title, "bold"), (f" · {aside}", "dim"))
    return Panel(lines, title=heading, expand=False, padding=(1, 2))


def _with_aside(text: str, aside: str) -> Text:
    return Text(text).append(f"  {aside}" if aside else "", "dim")


def _answer(summary: Mapping[str, Any], usual_reason: str) -> _Facts:
    """Return the suggested LR, or why there is none."""
    lr = summary.get("suggested_lr")
    if lr is not None:
        return [("suggested LR", Text(lr_text(lr), "bold green"))]
    reason = Text(str(summary.get("reason") or usual_reason))
    return [("suggested LR", Text("none", "bold yellow")), ("because", reason)]


def _lr_range(name: str, ends: Sequence[float] | None, aside: str = "") -> _Facts:
    return [(name, _with_aside(f"{lr_text(ends[0])} to {lr_text(ends[1])}", aside))] if ends else []


def _cyclic_range(summary: Mapping[str, Any]) -> _Facts:
    base, top = summary.get("base_lr"), summary.get("max_lr")
    return _lr_range(
        "base to max LR", (base, top) if base and top else None, "for cyclic schedules"
    )


def _note(summary: Mapping[str, Any]) -> _Facts:
    return [("note", Text(str(summary["note"])))] if summary.get("note") else []


def _origin(summary: Mapping[str, Any]) -> str:
    """Return how `auto` came to its LR: its readings, and what they were combined with."""
    from lrexp.analysis.rules import BELOW_EDGE  # here: a list of runs needs no numpy
    from lrexp.analysis.suggest import LOWEST_MEAN

    readings = summary.get("readings")
    if not readings:
        return ""
    text = "median of " + ", ".join(f"{lr_text(lr)} ({name})" for name, lr in readings.items())
    edge = summary.get("stability_edge")
    if edge:
        below = f"{lr_text(BELOW_EDGE * edge)} (edge of stability / {1 / BELOW_EDGE:.0f})"
        text = f"geometric mean of {below} and the {text}"
    share = max(float(summary.get("mean_frac") or 1.0), LOWEST_MEAN)
    return text + (f"; / {share:.2g} for the schedule" if share < 1 else "")


def schedule_table(traces: Mapping[str, np.ndarray]) -> RenderableType:
    """Return the LRs of schedules in numbers: first, highest and where, last.

    Args:
        traces: by variant, one LR for each step, (steps,).
    """
    heads = ("steps", "first LR", "peak LR", "at step", "last LR")
    table = new_table("variant", *(column(head) for head in heads))
    two_lines = []
    for name, lr in traces.items():
        steps, first, peak, at, last = numbers = _lr_numbers(lr)
        table.add_row(cell(name), *numbers)
        text = f"\n  {first} → {last} in {steps} steps, peak {peak} at {at}"
        two_lines.append(cell(name, "bold").append(text, "not bold"))
    return _Fitting(table, Group(*two_lines))


def _lr_numbers(lr: np.ndarray) -> tuple[str, str, str, str, str]:
    if not len(lr):
        return ("0", "–", "–", "–", "–")
    peak = int(lr.argmax())
    first, highest, last = (lr_text(float(lr[step])) for step in (0, peak, -1))
    return (f"{len(lr):,}", first, highest, f"{peak:,}", last)


def race_panel(summary: Mapping[str, Any]) -> RenderableType:
    """Return what summary.json says of LRs that were tried: the answer, then a line for each.

    Example:
        >>> from rich.console import Console                                # doctest: +SKIP
        >>> Console().print(race_panel(load_run("runs/...").summary))       # doctest: +SKIP

    Raises:
        RunError: it holds something else than find-lr writes.
    """
    with as_written("summary.json"):
        return _tried(visible(summary))


def _tried(summary: Mapping[str, Any]) -> RenderableType:
    race = summary["race"]
    facts = _answer(summary, "no LR learned")
    aside = within_text(summary.get("within"), is_short=bool(summary.get("extrapolated")))
    facts += _lr_range("interval", summary.get("interval"), aside)
    facts += _cyclic_range(summary)
    tested = summary.get("range_test") or {}
    if tested.get("suggested_lr"):
        steps = count_text(tested["steps"], "step")
        facts.append(("range test", _with_aside(lr_text(tested["suggested_lr"]), steps)))
    facts += _note(summary)
    return Group(_panel("Learning rate", spent_text(summary), facts), _trainings(race))


def spent_text(summary: Mapping[str, Any]) -> str:
    """Return what find-lr spent.

    Example:
        >>> spent_text({"spent": {"seconds": 3.21, "steps": 1500, "trainings": 6.25}})
        'spent 3.2 s, 1,500 steps, 6.2 × a whole training'
    """
    spent = summary.get("spent")
    if not spent:
        return ""
    words = [f"spent {spent['seconds']:.2g} s" if spent["seconds"] < 10 else
             f"spent {spent['seconds']:,.0f} s", count_text(spent["steps"], "step")]  # fmt: skip
    if spent.get("trainings"):
        words.append(f"{spent['trainings']:.2g} × a whole training")
    return ", ".join(words)


def within_text(within: float | None, *, is_short: bool = False) -> str:
    """Return what the LRs of an interval have in common.

    Example:
        >>> within_text(0.01), within_text(None)
        ('within 1 % of the best', 'around the best LR tried')
    """
    if within is None:
        return "around the best LR tried"
    return f"{'probably ' if is_short else ''}within {100 * within:g} % of the best"


def _trainings(race: Mapping[str, Any]) -> Table:
    table = new_table(
        column("trained for"), column("LR"), column("loss"), column("more"), words_column("")
    )
    for rung in race["rungs"]:
        share = rung["horizon"] / race["total_steps"]
        length = Text(f"{count_text(rung['horizon'], 'step')}, {share:.0%}")
        best = min(row["mean"] for row in rung["lrs"])
        for row in rung["lrs"]:
            known = [loss for loss in row["losses"] if loss is not None]
            loss = number_text(row["mean"], 4) if known else "–"
            table.add_row(length, lr_text(row["lr"]), loss, _more(row, best), _word(row, best))
            length = Text("")
    return table


def _more(row: Mapping[str, Any], best: float) -> str:
    """Return by how much a loss is above the best one, as people compare losses."""
    if row["failed"] or row["mean"] == best or not best > 0:
        return ""
    more = row["mean"] / best - 1
    return f"+{more:.1%}" if more < 1 else f"× {1 + more:.1f}"


def _word(row: Mapping[str, Any], best: float) -> Text:
    lost, known = row["diverged"], row["losses"]
    if lost:
        share = "" if lost == len(known) else f" with {lost} of {count_text(len(known), 'seed')}"
        return Text(f"diverged{share}", "red")
    if row["failed"]:
        return Text("ended above its start", "yellow")
    return Text("best", "green") if row["mean"] == best else Text("")
