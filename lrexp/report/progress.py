"""What is seen while trials run: bars on a terminal, plain lines elsewhere, or nothing.

Progress is a sink of records; it writes to stderr, so that stdout holds results only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass

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
MANY_TRIALS = 20  # of more, those that finish as they should have no line of their own
MAX_BARS = 8  # of running trials: an engine or many processes may train dozens at once
_NOBODY_READS = (OSError, ValueError, SystemExit)  # rich exits where a pipe is closed


@contextmanager
def observe(
    total_steps: Mapping[TrialId, int],
    console: Console,
    begun: Mapping[TrialId, int] | None = None,
) -> Iterator[Sink]:
    """Give a sink that fits the console; when nobody reads any more, it shows nothing.

    Args:
        total_steps: lists the trials to come.
        console: where it shows them.
        begun: the steps done before of trials that go on from a checkpoint.
    """
    if not console.is_terminal:
        yield _while_read(Lines(console, total_steps, begun))
        return
    progress = _bars(console)
    with suppress(*_NOBODY_READS):
        progress.start()
    try:
        yield _while_read(Bars(progress, total_steps, begun))
    finally:
        with suppress(*_NOBODY_READS):
            progress.stop()


def _while_read(sink: Sink) -> Sink:
    """Pass records on until that fails: a terminal or a pipe was closed, and training goes on."""
    is_read = True

    def show(record: Record) -> None:
        nonlocal is_read
        if is_read:
            try:
                sink(record)
            except _NOBODY_READS:
                is_read = False

    return show


@dataclass(frozen=True)
class ConsoleReporter:
    """Tells a console how a run goes: a `Reporter`."""

    console: Console

    def say(self, text: str, style: str = "") -> None:
        """Print a message, its brackets and numbers as they are."""
        self.console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)

    def waiting(self, doing: str) -> AbstractContextManager[object]:
        """Return what shows on a terminal that something without steps is going on."""
        return self.console.status(doing) if self.console.is_terminal else nullcontext()

    def following(
        self, total_steps: Mapping[TrialId, int], begun: Mapping[TrialId, int]
    ) -> AbstractContextManager[Sink]:
        """Return what gives a sink that shows progress."""
        return observe(total_steps, self.console, begun)


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
        begun: Mapping[TrialId, int] | None = None,
    ) -> None:
        self._progress, self._totals = progress, total_steps
        self._all = progress.add_task(
            f"[bold]{len(total_steps)} trials", total=sum(total_steps.values()), facts="steps"
        )
        self._done = dict.fromkeys(total_steps, 0)  # steps that count as done
        self._tasks: dict[TrialId, TaskID] = {}
        self._running = _Running(begun)

    def __call__(self, record: Record) -> None:
        """Move the bars."""
        trial = record.trial
        text = self._running.take(record, tells_done=len(self._totals) <= MANY_TRIALS)
        if isinstance(record, (Started, Ended, Failed)) and trial in self._tasks:
            self._progress.remove_task(self._tasks.pop(trial))
        if isinstance(record, (Started, Steps)):
            facts = self._running.facts[trial]
            self._show(trial, facts.steps, str(facts) if isinstance(record, Steps) else "")
            self._count(trial, facts.steps)
        elif isinstance(record, (Ended, Failed)):
            self._count(trial, self._totals[trial])
        if text:
            self._progress.console.print(text, highlight=False)

    def _show(self, trial: TrialId, steps: int, facts: str) -> None:
        """Move the bar of a trial; it gets one if it has none and there is room."""
        if trial not in self._tasks and len(self._tasks) < MAX_BARS:
            name = f"{escape(_shortened(trial.variant))} [dim]seed {trial.seed}"
            self._tasks[trial] = self._progress.add_task(name, total=self._totals[trial], facts="")
        if trial in self._tasks:
            self._progress.update(self._tasks[trial], completed=steps, facts=facts)

    def _count(self, trial: TrialId, steps: int) -> None:
        """Move the bar of all trials to where it stands with `steps` of this one."""
        self._progress.advance(self._all, steps - self._done[trial])
        self._done[trial] = steps
        hidden = len(self._running.facts) - len(self._tasks)
        facts = f"steps, {hidden} more running" if hidden else "steps"
        self._progress.update(self._all, facts=facts)


class Lines:
    """A line when a trial ends, and now and then while a long one, or many, run."""

    def __init__(
        self,
        console: Console,
        total_steps: Mapping[TrialId, int],
        begun: Mapping[TrialId, int] | None = None,
    ) -> None:
        self._console, self._totals, self._ended = console, total_steps, 0
        self._running = _Running(begun)
        self._shown = time.monotonic()

    def __call__(self, record: Record) -> None:
        """Print a line where one is due."""
        if isinstance(record, Started) and not self._running.facts:
            self._shown = time.monotonic()  # a short trial needs no line but its last
        many = len(self._totals) > MANY_TRIALS
        text = self._running.take(record, tells_done=not many)
        is_due = time.monotonic() - self._shown > PLAIN_SECONDS
        if isinstance(record, (Ended, Failed)):
            self._ended += 1
            if many and not text and (is_due or self._ended == len(self._totals)):
                self._shown = time.monotonic()
                text = f"[green]done[/]     {self._ended:,} of {len(self._totals):,} trials"
        if isinstance(record, Steps) and is_due:
            self._shown = time.monotonic()
            text = self._line(record.trial)
        if text:
            self._console.print(text, highlight=False, soft_wrap=True)

    def _line(self, trial: TrialId) -> str:
        facts, total = self._running.facts[trial], self._totals[trial]
        others = len(self._running.facts) - 1
        return (
            f"{_name(trial)}: step {facts.steps:,}/{total:,} {facts}, "
            f"{facts.seconds_left(total):.0f} s left"
            + (f"; {others} more running" if others else "")
        )


class _Running:
    """The facts of the trials that run, and what there is to say of a record."""

    def __init__(self, begun: Mapping[TrialId, int] | None) -> None:
        self._begun = dict(begun or {})  # steps that a trial's first start goes on from
        self._told: set[str] = set()
        self.facts: dict[TrialId, _Facts] = {}

    def take(self, record: Record, *, tells_done: bool = True) -> str:
        """Return what to print; that a trial finished as it should only where `tells_done`."""
        trial = record.trial
        if isinstance(record, Started):  # for the first time, or once more from its beginning
            self.facts[trial] = _Facts(self._begun.pop(trial, 0))
            why = escape(record.again or "")
            return f"[yellow]again[/]    {_name(trial)}: {why}" if why else ""
        if isinstance(record, Steps):
            self.facts[trial].add(record)
        elif isinstance(record, Evaluation):
            self.facts[trial].evaluated(record.values)
        elif isinstance(record, (Ended, Failed)):
            text = _ending(record, self.facts.pop(trial))
            as_it_should = isinstance(record, Ended) and record.stopped_at is None
            return "" if as_it_should and not tells_done else text
        elif isinstance(record, NoCheckpoint) and (text := _unsaved(record)) not in self._told:
            self._told.add(text)
            return text
        return ""


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
    name = _name(record.trial)
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


def _name(trial: TrialId) -> str:
    return f"{escape(trial.variant)} seed {trial.seed}"


def _unsaved(record: NoCheckpoint) -> str:
    """Return that there are no checkpoints, once for a variant: its seeds run the same code."""
    names = list(dict.fromkeys(escape(_shortened(trial.variant)) for trial in record.trials))
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"[yellow]note[/]     no checkpoints for {names[0]}{more}: {escape(record.why)}"


def _shortened(name: str, width: int = 28) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"
