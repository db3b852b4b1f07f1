"""Trainings as `lrexp compare` records them, with the time that records and checkpoints took.

A case is one unit: a training, or a stack of them. It goes through engine and `TrialFiles` into a
real directory. Nothing inside lrexp is replaced: what is timed lies between the moments at which
the engine asks its pause, yields a record and is asked for the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import torch
from nets import WORKLOADS, Workload
from ours import config_of, files_of
from torch import nn

from lrexp.config.load import load_config
from lrexp.engine.engines import ENGINES
from lrexp.engine.stop import Pause
from lrexp.records import Checkpoint, Ended, Failed, Record, Started, Steps
from lrexp.runs.plan import Plan, make_plan


@dataclass(frozen=True)
class Case:
    """Copies of one network that are one unit, and so have one checkpoint.

    Args:
        name: as in the table.
        work: data and optimizer.
        widths: of the MLP; empty takes the workload's own network.
        copies: in a stack; 1 is the sequential engine.
    """

    name: str
    work: Workload
    widths: tuple[int, ...] = ()
    copies: int = 1

    @property
    def engine(self) -> str:
        """The engine that trains it."""
        return "sequential" if self.copies == 1 else "vectorized"

    def parameters(self) -> int:
        """Return the number of parameters of all copies."""
        model = mlp(self.widths) if self.widths else self.work.make_model()
        return self.copies * sum(p.numel() for p in model.parameters())

    def plan(self, steps: int) -> Plan:
        """Return the plan of a comparison of the copies' learning rates."""
        config = config_of(self.work, self.copies, steps, torch.device("cpu"))
        if self.widths:
            config["model"] = {"name": "recording:mlp", "args": {"widths": list(self.widths)}}
        return make_plan(load_config(config, trust=("nets", "recording")))


def mlp(widths: Sequence[int]) -> nn.Module:
    """Return linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


SMALL, MIDDLE = WORKLOADS["MLP 16-32-2"], WORKLOADS["MLP 784-128-128-10"]
ADAMW = replace(MIDDLE, optimizer="AdamW", args={}, lr=1e-3)
TINY, MILLION = (784, 12, 10), (784, 800, 400, 10)
UNITS = (
    Case("one, SGD with momentum", MIDDLE, TINY),
    Case("one, AdamW", ADAMW, MILLION),
    Case("one, AdamW", ADAMW, (784, 2048, 2048, 2048, 10)),
    Case("one, AdamW", ADAMW, (784, 5000, 5000, 5000, 5000, 5000, 10)),
    Case("64 in a stack, SGD with momentum", MIDDLE, TINY, copies=64),
    Case("8 in a stack, AdamW", ADAMW, MILLION, copies=8),
)
RUNS = (
    Case("MLP 16-32-2", SMALL),
    Case("MLP 784-128-128-10", MIDDLE),
    Case("MLP 784-800-400-10, AdamW", ADAMW, MILLION),
    Case("64 × MLP 16-32-2, a stack", SMALL, copies=64),
)


class TimedPause(Pause):
    """A pause with an interval of its own that notes how long each checkpoint took.

    Args:
        seconds: between checkpoints.
        count: of checkpoints after which the training ends; None for no such end.
        after: is called after each.
    """

    def __init__(
        self, seconds: float, count: int | None = None, after: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self._seconds, self._count, self._after = seconds, count, after
        self._begun = 0.0
        self.captured: list[float] = []  # seconds until there was a state
        self.taken: list[float] = []  # until it was on the disk

    def due(self) -> bool:
        """Return whether the interval is over; if it is, the time of a checkpoint begins."""
        self._begun = time.perf_counter()
        return self._begun - self._last > self._seconds

    def note(self, record: Record) -> None:
        """Note that the engine has yielded a checkpoint, which nobody has written yet."""
        if isinstance(record, Checkpoint):
            self.captured.append(time.perf_counter() - self._begun)

    def done(self, seconds: float = 0.0) -> None:
        """Note that a checkpoint was written."""
        self.taken.append(time.perf_counter() - self._begun)
        if len(self.captured) != len(self.taken):
            raise RuntimeError("there was no checkpoint")
        self._after()
        self.requested = len(self.taken) == self._count  # ends the training right here
        super().done(seconds)


@dataclass
class Recorded:
    """One training: its seconds, and what of them went into files."""

    seconds: float = 0.0
    cpu: float = 0.0  # seconds of this process on a core: without waiting for the disk, or others
    row_seconds: float = 0.0  # rows of steps.csv
    trial_seconds: float = 0.0  # directories when trials begin, results when they end
    rows: int = 0
    checkpoints: list[float] = field(default_factory=list)


def train(case: Case, steps: int, folder: Path | None, pause: TimedPause | None = None) -> Recorded:
    """Train into a directory; without one, records are thrown away."""
    tasks = [replace(task, pause=pause) for task in case.plan(steps).tasks([0])]
    found = Recorded(checkpoints=pause.taken if pause else [])
    begun, cpu = time.perf_counter(), time.process_time()
    records = _watched(ENGINES[case.engine](tasks), pause, found)
    if folder is None:
        for _ in records:
            pass
    else:
        with closing(files_of(folder, tasks)) as files:
            for record in records:
                files(record)
    found.seconds, found.cpu = time.perf_counter() - begun, time.process_time() - cpu
    if not (pause and pause.requested) and found.rows != steps * case.copies:
        raise RuntimeError(f"{case.name}: {found.rows} of {steps * case.copies} steps were done")
    return found


def _watched(
    records: Iterable[Record], pause: TimedPause | None, found: Recorded
) -> Iterator[Record]:
    """Pass records on, and add up how long it takes until the next one is asked for."""
    for record in records:
        if isinstance(record, Failed):
            raise record.error
        if pause:
            pause.note(record)
        begun = time.perf_counter()
        yield record
        taken = time.perf_counter() - begun
        if isinstance(record, Steps):
            found.row_seconds += taken
            found.rows += len(record.loss)
        elif isinstance(record, Started | Ended):
            found.trial_seconds += taken
