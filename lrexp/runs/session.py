"""A run while this process trains it: what it needs, what came of it so far, who hears of it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lrexp.engine.stop import Pause, Stop
from lrexp.errors import (
    FailedTrialsError,
    LrexpError,
)
from lrexp.records import (
    Ended,
    Failed,
    Interrupted,
    NoCheckpoint,
    Record,
    Reporter,
    Sink,
    Started,
    TrialId,
)
from lrexp.runs.plan import Plan
from lrexp.runs.spec import RunSpec
from lrexp.runs.stages import (
    Findings,
    StageRecord,
)
from lrexp.runs.trial_files import readable_error
from lrexp.runs.writer import RunWriter


@dataclass(frozen=True)
class RunOptions:
    """How a run is trained and followed; what it trains is in its `RunSpec`.

    Args:
        reporter: is told how it goes.
        jobs: worker processes; 1 is this process, None leaves it to the config's engine.
        stop: is asked at the end of every step whether to stop there.
        sinks: get every record as it comes; one that raises is dropped.
        force: whether to go on with a run that does not fit what is here.
        again: options of the command that resumes it, for the message of an interruption.
    """

    reporter: Reporter
    jobs: int | None = None
    stop: Stop | None = None
    sinks: Sequence[Sink] = ()
    force: bool = False
    again: str = ""


@dataclass
class Session:
    """A run while this process trains it.

    Args:
        spec: what was asked for.
        plan: made from it.
        options: how it is trained.
        writer: of the top-level files.
        pause: asks for checkpoints, and for an end of the training at one of them.
        records: of the stages that have begun.
    """

    spec: RunSpec
    plan: Plan
    options: RunOptions
    writer: RunWriter
    pause: Pause
    records: list[StageRecord]
    findings: Findings = field(default_factory=Findings)
    failures: dict[TrialId, LrexpError] = field(default_factory=dict)
    outcomes: dict[TrialId, str] = field(default_factory=dict)
    unsaved: dict[TrialId, str] = field(default_factory=dict)  # why there is no checkpoint

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.writer.directory

    def raise_failures(self) -> None:
        """Raise one FailedTrialsError that lists every failed trial, if there is one."""
        if self.failures:
            first, *_ = self.failures.values()
            lines = "\n".join(dict.fromkeys(map(str, self.failures.values())))
            of = f"{len(self.failures)} of {len(self.outcomes)} trials failed."
            raise FailedTrialsError(f"{lines}\n{of} The run is in {self.run}.", self.run) from first


def noted(session: Session) -> Sink:
    """Return the sink that keeps what the end of a run needs, and counts in status.json."""

    def note(record: Record) -> None:
        if isinstance(record, Started):
            session.outcomes.pop(record.trial, None)
            session.failures.pop(record.trial, None)
        elif isinstance(record, Ended | Failed):
            outcome = "failed"
            if isinstance(record, Failed):
                session.failures[record.trial] = readable_error(record.error, record.trial)
            else:
                kinds = {t.id: t for r in session.records for t in r.stage.trials}
                diverged = record.stopped_at is not None and kinds[record.trial].is_training
                outcome = "diverged" if diverged else "finished"
            session.outcomes[record.trial] = outcome
            session.writer.note_counts(Counter(session.outcomes.values()))
        elif isinstance(record, NoCheckpoint | Interrupted) and record.why is not None:
            session.unsaved |= dict.fromkeys(record.trials, record.why)

    return note


class GuardedSink:
    """A sink that a failure of its own ends, and nothing else."""

    def __init__(self, sink: Sink, reporter: Reporter) -> None:
        self._sink: Sink | None = sink
        self._reporter = reporter

    def __call__(self, record: Record) -> None:
        """Pass a record on."""
        if self._sink is not None:
            try:
                self._sink(record)
            except Exception as error:
                name = getattr(self._sink, "__qualname__", type(self._sink).__qualname__)
                what = f"{type(error).__name__}: {error}"
                self._sink = None
                text = f"The sink {name} gets no more records: {what}"
                self._reporter.say(text, "yellow")
                warnings.warn(text, RuntimeWarning, stacklevel=2)  # a console is shown to few
