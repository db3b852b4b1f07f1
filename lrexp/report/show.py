"""A run on the screen, from its files alone: finished, running or interrupted. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from lrexp.records import column_of
from lrexp.report.ranking import ranking_table
from lrexp.report.tables import race_panel, suggestion_panel
from lrexp.report.text import cell, count_text, measure_text, new_table, number_text, shown_of
from lrexp.runs.reader import Run, TrialRecord, load_run

LOOK_SECONDS = 1.0  # between two looks at a run that goes on
_TAIL = 200  # bytes that hold the last row of a curve
_STYLES = {"complete": "green", "running": "cyan", "interrupted": "yellow", "failed": "red"}


def shown_run(run: Run) -> RenderableType:
    """Return the tables and verdicts of a run that has ended, else how far it has come.

    Example:
        >>> rich.print(shown_run(lrexp.load_run("runs/...")))  # doctest: +SKIP
    """
    if run.summary is None:
        return _Progress.of(run).table()
    if run.command == "compare":
        return ranking_table(run.summary)
    return (race_panel if run.summary.get("race") else suggestion_panel)(run.summary)


def progress_of(run: Run) -> dict[str, Any]:
    """Return how far a run has come, as `show --json` prints it of one without a summary."""
    found = _Progress.of(run)
    return {
        "status": run.status["status"],
        "counts": dict(run.status.get("counts") or {}),
        "trials": {"done": found.done, "of": found.total},
        "steps": {"done": found.steps, "of": found.most_steps},
        "seconds_left": found.seconds_left,
        "variants": {row.name: row.to_plain() for row in found.rows},
    }


def follow(path: Path, console: Console, sleep: Callable[[float], object] = time.sleep) -> Run:
    """Show a run until it is not running any more, and return it."""
    run = load_run(path)
    with Live(shown_run(run), console=console, auto_refresh=False, transient=True) as live:
        while run.status["status"] == "running":
            sleep(LOOK_SECONDS)
            run = load_run(path)
            live.update(shown_run(run), refresh=True)
    return run


@dataclass(frozen=True)
class _Row:
    """How far the seeds of a variant have come."""

    name: str
    done: int  # seeds
    of: int
    steps: int  # of all seeds
    most_steps: int
    metric: float | None  # median over seeds of the last evaluation
    lost: int

    def to_plain(self) -> dict[str, Any]:
        return {
            "seeds": {"done": self.done, "of": self.of},
            "steps": {"done": self.steps, "of": self.most_steps},
            "last": self.metric,
            "lost": self.lost,
        }


@dataclass(frozen=True)
class _Progress:
    run: Run
    rows: Sequence[_Row]
    metric: str

    @classmethod
    def of(cls, run: Run) -> _Progress:
        asked = (run.config.get("compare") or {}).get("metric") or "val_loss"
        metric = column_of(str(asked)) if run.command == "compare" else "loss"
        lengths: Mapping[str, Any] = run.status.get("total_steps") or {}
        seeds = len(run.status.get("seeds") or ()) or 1
        rows = [
            _row(name, trials, max(seeds, len(trials)), int(lengths.get(name) or 0), metric)
            for name, trials in run.variants.items()
        ]
        return cls(run, rows, metric)

    @property
    def done(self) -> int:
        return sum(row.done for row in self.rows)

    @property
    def total(self) -> int:
        return max(int(self.run.status.get("num_trials") or 0), sum(row.of for row in self.rows))

    @property
    def steps(self) -> int:
        return sum(row.steps for row in self.rows)

    @property
    def most_steps(self) -> int:
        return sum(row.most_steps for row in self.rows)

    @property
    def seconds_left(self) -> float | None:
        """By the steps so far; None where it does not run, or has gone on after a pause."""
        status = self.run.status
        if status["status"] != "running" or not self.steps or status.get("resumed"):
            return None
        try:
            started = datetime.fromisoformat(str(status.get("started")))
        except ValueError:
            return None
        gone = (datetime.now(timezone.utc) - started).total_seconds()
        return max(0.0, gone * (self.most_steps - self.steps) / self.steps)

    def table(self) -> RenderableType:
        """Return a bar for the run and a row for each variant."""
        status = str(self.run.status["status"])
        head = Text(self.run.name, "bold").append(f" · {self.run.command} · ", "not bold dim")
        head.append(status, _STYLES.get(status, "")).append(
            f" · {self.done} of {count_text(self.total, 'trial')}", "not bold dim"
        )
        if self.seconds_left is not None:
            head.append(f" · about {time_text(self.seconds_left)} left", "not bold dim")
        parts: list[RenderableType] = [Padding(head, (1, 0, 1, 2)), self._rows()]
        if status == "interrupted":
            parts.append(Padding(Text(f"Next:  lrexp resume {self.run.path}"), (0, 0, 1, 0)))
        return Group(*parts)

    def _rows(self) -> Table:
        table = new_table(
            "variant",
            Column(Text("steps"), no_wrap=True),
            Column(Text("seeds"), justify="right", no_wrap=True),
            Column(Text(measure_text(self.metric)), justify="right", no_wrap=True),
        )
        shown = shown_of(len(self.rows))
        for place, i in enumerate(shown):
            if place and i != shown[place - 1] + 1:
                table.add_row("…", Text(f"{len(self.rows) - len(shown)} more", "dim"))
            row = self.rows[i]
            bar = ProgressBar(total=max(row.most_steps, 1), completed=row.steps, width=20)
            lost = f" ({row.lost} lost)" if row.lost else ""
            last = "" if row.metric is None else number_text(row.metric)
            table.add_row(cell(row.name), bar, Text(f"{row.done} of {row.of}{lost}"), Text(last))
        return table


def _row(name: str, trials: Sequence[TrialRecord], seeds: int, length: int, metric: str) -> _Row:
    done = [trial for trial in trials if trial.result is not None]
    lasts = [value for trial in trials if (value := _last(trial, metric)) is not None]
    going = sum(_steps_of(trial) for trial in trials if trial.result is None)
    return _Row(
        name=name,
        done=len(done),
        of=seeds,
        steps=len(done) * length + going,
        most_steps=seeds * length,
        metric=float(np.median(lasts)) if lasts else None,
        lost=sum((trial.result or {}).get("outcome") != "finished" for trial in done),
    )


def _last(trial: TrialRecord, metric: str) -> float | None:
    values = trial.evals.get(metric)
    known = [] if values is None else values[np.isfinite(values)]
    return float(known[-1]) if len(known) else None


def _steps_of(trial: TrialRecord) -> int:
    """Return the steps that a trial has taken, by the last whole row of its curve."""
    try:
        with (trial.path / "steps.csv").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL))
            rows = file.read().split(b"\n")[:-1]  # what follows the last one is being written
        return int(rows[-1].partition(b",")[0]) + 1
    except (OSError, ValueError, IndexError):  # nothing was written yet
        return 0


def time_text(seconds: float) -> str:
    """Return `40 s`, `12 min`, `5.0 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
