"""What is seen while trials run: bars on a terminal, plain lines elsewhere, or nothing.

Progress is a sink of records; it writes to stderr, so that stdout holds results only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import MappingProxyType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lrexp.errors import UserCodeError, WorkerDiedError
from lrexp.records import (
    Ended,
    Evaluation,
    Failed,
    NoCheckpoint,
    Record,
    Sink,
    Started,
    Steps,
    TrialId,
)

PLAIN_SECONDS = 10.0  # between two plain lines of running trials
MAX_BARS = 8  # of running trials: an engine or many processes may train dozens at once
_NOBODY_READS = (OSError, ValueError, SystemExit)  # rich exits where a pipe is closed


@contextmanager
def observe(
    total_steps: Mapping[TrialId, int],
    console: Console,
    *,
    begun: Mapping[TrialId, int] | None = None,
    quiet: bool = False,
) -> Iterator[Sink]:
    """Give a sink that fits the console; when nobody reads any more, it shows nothing.

    Args:
        total_steps: lists the trials to come.
        console: where it shows them.
        begun: the steps done before of trials that go on from a checkpoint.
        quiet: show nothing.
    """
    if quiet:
        yield lambda record: None
    elif console.is_terminal:
        progress = _bars(console)
        with suppress(*_NOBODY_READS):
            progress.start()
        try:
            yield _WhileRead(Bars(progress, total_steps, begun or {}))
        finally:
            with suppress(*_NOBODY_READS):
                progress.stop()
    else:
        yield _WhileRead(Lines(console, total_steps, begun or {}))


class _WhileRead:
    """Passes records on until that fails: a terminal or a pipe was closed, and training goes on."""

    def __init__(self, sink: Sink) -> None:
        self._sink: Sink | None = sink

    def __call__(self, record: Record) -> None:
        """Show one record."""
        if self._sink is not None:
            try:
                self._sink(record)
            except _NOBODY_READS:
                self._sink = None


@dataclass(frozen=True)
class ConsoleReporter:
    """Tells a console how a run goes: a `Reporter`."""

    console: Console

    def say(self, text: str, style: str = "") -> None:
        """Print a message, its brackets and numbers as they are."""
        self.console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)

    def waiting(self, doing: str) -> AbstractContextManager[object]:
        """Return what shows on a terminal that something without steps is going on."""
        return waiting(self.console, doing)

    def following(
        self, total_steps: Mapping[TrialId, int], begun: Mapping[TrialId, int]
    ) -> AbstractContextManager[Sink]:
        """Return what gives a sink that shows progress."""
        return observe(total_steps, self.console, begun=begun)


def waiting(console: Console, doing: str) -> AbstractContextManager[object]:
    """Return what shows on a terminal that something without steps is going on."""
    return console.status(doing) if console.is_terminal else nullcontext()


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:>7,.0f}/{task.total:,.0f}"),
        TextColumn("{task.fields[facts]}", style="dim"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class Bars:
    """One bar for all trials and one for each that runs, up to `MAX_BARS`."""

    def __init__(
        self,
        progress: Progress,
        total_steps: Mapping[TrialId, int],
        begun: Mapping[TrialId, int] = MappingProxyType({}),
    ) -> None:
        self._progress, self._totals, self._begun = progress, total_steps, dict(begun)
        self._all = progress.add_task(
            f"[bold]{len(total_steps)} trials", total=sum(total_steps.values()), facts="steps"
        )
        self._done = dict.fromkeys(total_steps, 0)  # steps that count as done
        self._tasks: dict[TrialId, TaskID] = {}
        self._facts: dict[TrialId, _Facts] = {}
        self._told: set[str] = set()

    def __call__(self, record: Record) -> None:
        """Move the bars."""
        trial = record.trial
        if isinstance(record, Started):  # for the first time, or once more from its beginning
            if record.again:
                self._progress.console.print(_again(record), highlight=False)
            self._facts[trial] = facts = _Facts(self._begun.pop(trial, 0))
            self._remove(trial)
            self._show(trial, facts.steps)
            self._count(trial, facts.steps)
        elif isinstance(record, Steps):
            facts = self._facts[trial]
            facts.add(record)
            self._show(trial, facts.steps)
            if trial in self._tasks:
                self._progress.update(self._tasks[trial], completed=facts.steps, facts=str(facts))
            self._count(trial, facts.steps)
        elif isinstance(record, Evaluation):
            self._facts[trial].evaluated(record.values)
        elif isinstance(record, (Ended, Failed)):
            facts = self._facts.pop(trial)
            self._remove(trial)
            self._count(trial, self._totals[trial])
            self._progress.console.print(_ending(record, facts), highlight=False)
        elif isinstance(record, NoCheckpoint) and (text := _unsaved(record)) not in self._told:
            self._told.add(text)
            self._progress.console.print(text, highlight=False)

    def _show(self, trial: TrialId, steps: int) -> None:
        """Give a trial a bar, if it has none and there is room."""
        if trial not in self._tasks and len(self._tasks) < MAX_BARS:
            self._tasks[trial] = self._progress.add_task(
                f"{escape(_shortened(trial.variant))} [dim]seed {trial.seed}",
                total=self._totals[trial],
                completed=steps,
                facts="",
            )

    def _remove(self, trial: TrialId) -> None:
        if trial in self._tasks:
            self._progress.remove_task(self._tasks.pop(trial))

    def _count(self, trial: TrialId, steps: int) -> None:
        """Move the bar of all trials to where it stands with `steps` of this one."""
        self._progress.advance(self._all, steps - self._done[trial])
        self._done[trial] = steps
        hidden = len(self._facts) - len(self._tasks)
        facts = f"steps, {hidden} more running" if hidden else "steps"
        self._progress.update(self._all, facts=facts)


class Lines:
    """A line when a trial ends, and now and then while a long one, or many, run."""

    def __init__(
        self,
        console: Console,
        total_steps: Mapping[TrialId, int],
        begun: Mapping[TrialId, int] = MappingProxyType({}),
    ) -> None:
        self._console, self._totals, self._begun = console, total_steps, dict(begun)
        self._facts: dict[TrialId, _Facts] = {}
        self._told: set[str] = set()
        self._shown = time.monotonic()

    def __call__(self, record: Record) -> None:
        """Print a line where one is due."""
        trial = record.trial
        if isinstance(record, Started):
            if record.again:
                self._print(_again(record))
            if not self._facts:  # a short trial needs no line but its last
                self._shown = time.monotonic()
            self._facts[trial] = _Facts(self._begun.pop(trial, 0))
        elif isinstance(record, Steps):
            self._facts[trial].add(record)
            if time.monotonic() - self._shown > PLAIN_SECONDS:
                self._shown = time.monotonic()
                done, total = record.first + len(record.loss), self._totals[trial]
                left = self._facts[trial].seconds_left(total)
                others = len(self._facts) - 1
                self._print(
                    f"{escape(trial.variant)} seed {trial.seed}: step {done:,}/{total:,} "
                    f"{self._facts[trial]}, {left:.0f} s left"
                    + (f"; {others} more running" if others else "")
                )
        elif isinstance(record, Evaluation):
            self._facts[trial].evaluated(record.values)
        elif isinstance(record, (Ended, Failed)):
            self._print(_ending(record, self._facts.pop(trial)))
        elif isinstance(record, NoCheckpoint) and (text := _unsaved(record)) not in self._told:
            self._told.add(text)
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


class _Facts:
    """Loss, LR and speed of one running trial."""

    def __init__(self, steps: int = 0) -> None:
        self._begun, self._first = time.monotonic(), steps
        self.loss, self.lr, self.steps = math.nan, math.nan, steps
        self.last: tuple[str, float] | None = None  # what was evaluated last

    def evaluated(self, values: Mapping[str, float]) -> None:
        self.last = next(((n, v) for n, v in values.items() if n == "val_loss"), self.last)

    def add(self, chunk: Steps) -> None:
        if chunk.loss:
            self.loss, self.lr = chunk.loss[-1], chunk.lr[-1]
            self.steps = chunk.first + len(chunk.loss)

    @property
    def speed(self) -> float:
        return (self.steps - self._first) / max(time.monotonic() - self._begun, 1e-9)

    def seconds_left(self, total: int) -> float:
        return (total - self.steps) / max(self.speed, 1e-9)

    def __str__(self) -> str:
        return f"loss {self.loss:<8.4g} lr {self.lr:<8.3g} {self.speed:,.0f} steps/s"


def _ending(record: Ended | Failed, facts: _Facts) -> str:
    name = f"{escape(record.trial.variant)} seed {record.trial.seed}"
    if isinstance(record, Failed):
        return f"[red]failed[/]   {name}: {escape(_kind(record.error))}"
    speed = record.steps / max(record.seconds, 1e-9)
    if record.stopped_at is not None:
        return f"[yellow]stopped[/]  {name} at step {record.stopped_at:,}, loss {facts.loss:.4g}"
    measure, value = facts.last or ("last batch loss", facts.loss)
    return f"[green]done[/]     {name}: {measure} {value:.4g}, {speed:,.0f} steps/s"


def _kind(error: BaseException) -> str:
    """Return what went wrong in a word or two."""
    if isinstance(error, WorkerDiedError):
        return "its process died"
    return (isinstance(error, UserCodeError) and error.kind) or type(error).__name__


def _again(record: Started) -> str:
    trial = record.trial
    why = escape(record.again or "")
    return f"[yellow]again[/]    {escape(trial.variant)} seed {trial.seed}: {why}"


def _unsaved(record: NoCheckpoint) -> str:
    """Return that there are no checkpoints, once for a variant: its seeds run the same code."""
    names = list(dict.fromkeys(escape(_shortened(trial.variant)) for trial in record.trials))
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"[yellow]note[/]     no checkpoints for {names[0]}{more}: {escape(record.why)}"


def _shortened(name: str, width: int = 28) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"
