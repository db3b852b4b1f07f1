"""K trials as `lrexp compare` trains them: engine, LR schedule, stop rule, rows in steps.csv.

The config differs from the loops by hand in one thing, a cosine schedule, whose LR is computed
and set at every step; there they are constant. What the terminal would show is left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nets import Workload

from lrexp.config.load import load_config
from lrexp.engine.choice import Choice, choose
from lrexp.engine.engines import ENGINES
from lrexp.engine.rng import preserved_rng
from lrexp.engine.stop import Pause
from lrexp.engine.task import Task
from lrexp.records import Ended, Failed, Group, Record, Started, Steps, Trial, TrialId
from lrexp.runs.checkpoint import Remaining
from lrexp.runs.executor import LocalProcesses
from lrexp.runs.follow import followed
from lrexp.runs.plan import make_plan
from lrexp.runs.spec import describe_run, make_spec, run_facts
from lrexp.runs.stages import Stage, StageRecord, write_stages
from lrexp.runs.trial_files import TrialFiles
from lrexp.runs.writer import RunWriter

TRUST = ("nets",)


@dataclass(frozen=True)
class Piece:
    """Some steps of a trial: they were done between two moments at which records arrived."""

    begun: float
    ended: float
    steps: int

    def share_after(self, start: float) -> float:
        """Return the share of its time that lies after `start`, which is before its end."""
        return 1.0 if self.begun >= start else (self.ended - start) / (self.ended - self.begun)


@dataclass
class Watch:
    """An observer that notes what was done, and when the records of it arrived."""

    losses: dict[TrialId, list[float]] = field(default_factory=dict)
    pieces: dict[TrialId, list[Piece]] = field(default_factory=dict)
    begun: float = 0.0
    ended: float = 0.0
    groups: Sequence[tuple[TrialId, ...]] = ()  # what a worker trains in one go

    def __call__(self, record: Record) -> None:
        now = time.perf_counter()
        if isinstance(record, Started):
            self.begun = self.begun or now
            self.losses[record.trial] = []
            self.pieces[record.trial] = [Piece(now, now, 0)]
        elif isinstance(record, Steps):
            self.losses[record.trial] += record.loss
            pieces = self.pieces[record.trial]
            pieces.append(Piece(pieces[-1].ended, now, len(record.loss)))
        elif isinstance(record, Ended):
            self.ended = now
        elif isinstance(record, Failed):
            raise record.error

    def steady(self, jobs: int) -> tuple[float, int]:
        """Return seconds and steps from when the last of the workers had its first result on.

        Building, compiling and the start of processes are before that. The time at the end, when
        some workers have nothing more to do, is not left out. Of steps that arrived later but
        were begun before, the share counts that the time after it has in theirs.
        """
        groups = self.groups or [tuple(self.pieces)]
        firsts = sorted(min(self.pieces[trial][1].ended for trial in group) for group in groups)
        start = firsts[:jobs][-1]
        if len(max(self.pieces.values(), key=len)) < 4:  # too short to tell, as in the quick mode
            return self.ended - self.begun, sum(map(len, self.losses.values()))
        steps = sum(
            piece.steps * piece.share_after(start)
            for pieces in self.pieces.values()
            for piece in pieces
            if piece.ended > start
        )
        return self.ended - start, round(steps)


def config_of(work: Workload, copies: int, steps: int, device: torch.device) -> dict[str, Any]:
    """Return the config of a comparison of K learning rates."""
    lrs = work.lrs(copies)
    return {
        "name": "throughput",
        "device": str(device),
        "model": {"name": f"nets:{work.model}"},
        "data": {
            "name": "nets:data",
            "args": {"of": work.name},
            "batch_size": work.batch_size,
            "val_fraction": 0,
        },
        "loss": "cross_entropy",
        "optimizer": {"name": work.optimizer, "lr": work.lr, "args": work.args},
        "schedule": "cosine",
        "train": {"duration": steps, "eval_every": steps},
        "compare": {
            "metric": "train_loss",
            "variants": {f"copy-{i}": {"optimizer.lr": lr} for i, lr in enumerate(lrs)},
        },
    }


def train_with(engine: str, work: Workload, copies: int, steps: int, device: torch.device) -> Watch:
    """Train with one engine in this process."""
    plan = make_plan(load_config(config_of(work, copies, steps, device), trust=TRUST))
    watch, tasks = Watch(), list(plan.tasks([0]))
    with recorded(tasks) as files:
        _pass_on(ENGINES[engine](tasks), files, watch)
    return watch


def choice_for(work: Workload, copies: int, steps: int, device: torch.device) -> Choice:
    """Return what lrexp chooses for a run of so many steps: groups, worker processes, reasons."""
    plan = make_plan(load_config(config_of(work, copies, steps, device), trust=TRUST))
    with preserved_rng(device):
        return choose(list(plan.tasks([0])))


def train_chosen(
    choice: Choice, work: Workload, copies: int, steps: int, device: torch.device
) -> Watch:
    """Train as was chosen, for so many steps."""
    if choice.jobs > 1:
        return train_in_workers(choice.groups, choice.jobs, work, copies, steps, device)
    plan = make_plan(load_config(config_of(work, copies, steps, device), trust=TRUST))
    tasks = {task.trial: task for task in plan.tasks([0])}
    watch = Watch()
    with recorded(tasks.values()) as files:
        for group in choice.groups:
            _pass_on(ENGINES[group.engine]([tasks[t] for t in group.trials]), files, watch)
    return watch


def train_auto(work: Workload, copies: int, steps: int, device: torch.device) -> Watch:
    """Choose, and train as was chosen."""
    return train_chosen(choice_for(work, copies, steps, device), work, copies, steps, device)


def train_in_workers(
    groups: Sequence[Group] | None,
    jobs: int,
    work: Workload,
    copies: int,
    steps: int,
    device: torch.device,
) -> Watch:
    """Train groups in worker processes; None is a group for each trial."""
    spec = make_spec("compare", config_of(work, copies, steps, device), trust=TRUST)
    plan = spec.plan()
    trials = spec.first_trials(plan)
    groups = groups or [Group("sequential", (trial.id,)) for trial in trials]
    watch = Watch(groups=[group.trials for group in groups])
    choice = Choice(tuple(groups), jobs)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        write_stages(run, [StageRecord(Stage("compare", trials), choice)])
        describe_run(run, spec, plan, choice)
        RunWriter(run, run_facts(spec, plan, trials))
        workers, left = LocalProcesses(jobs, spec), Remaining(choice.groups)
        records = followed(workers, run, trials, groups, left=left, pause=Pause())
        with closing(records):
            _pass_on(records, watch)
    return watch


def train_in_processes(
    work: Workload, copies: int, steps: int, device: torch.device, jobs: int
) -> Watch:
    """Train one trial after the other in each of `jobs` worker processes."""
    return train_in_workers(None, jobs, work, copies, steps, device)


def available(jobs: int) -> dict[str, Callable[[Workload, int, int, torch.device], Watch]]:
    """Return the engines that this lrexp has, by their names in the table."""

    def with_engine(name: str) -> Callable[[Workload, int, int, torch.device], Watch]:
        return lambda *arguments: train_with(name, *arguments)

    found = {name: with_engine(name) for name in ENGINES}
    found["processes"] = lambda *arguments: train_in_processes(*arguments, jobs)
    found["auto"] = train_auto
    return found


def files_of(run: Path, tasks: Iterable[Task]) -> TrialFiles:
    """Return what writes the folders of these trials, as a process that trains them does."""
    trials = [Trial(task.trial, "compare", task.total_steps) for task in tasks]
    return TrialFiles(run, trials, Remaining(()))


@contextmanager
def recorded(tasks: Iterable[Task]) -> Iterator[TrialFiles]:
    """Give what writes the folders of these trials into a directory that is removed."""
    with tempfile.TemporaryDirectory() as folder, closing(files_of(Path(folder), tasks)) as files:
        yield files


def _pass_on(records: Iterable[Record], *sinks: Callable[[Record], None]) -> None:
    for record in records:
        for sink in sinks:
            sink(record)
