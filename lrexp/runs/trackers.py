"""Experiment trackers: what they are told, while training and from files afterwards.

`TrackerSink` turns records into numbers with Hugging Face's tags (`train/loss`,
`train/learning_rate`, `eval/loss`), and a tracker writes them. Those of packages are in
`lrexp.integrations`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lrexp.config.config import Config
from lrexp.errors import ConfigError, Problem, did_you_mean
from lrexp.records import (
    Ended,
    Evaluation,
    Failed,
    Record,
    Reporter,
    Started,
    Steps,
    TrialId,
    column_of,
)
from lrexp.runs.reader import Run, TrialRecord, load_run
from lrexp.schedules.signatures import check_arguments

TRACKERS: dict[str, Callable[..., Tracker]] = {}
INTEGRATED = {  # name -> the module that registers it
    "tensorboard": "lrexp.integrations.tensorboard",
    "wandb": "lrexp.integrations.wandb_like",
    "trackio": "lrexp.integrations.wandb_like",
    "swanlab": "lrexp.integrations.wandb_like",
    "mlflow": "lrexp.integrations.mlflow",
}
_SECTIONS = ("model", "data", "loss", "optimizer", "schedule", "train", "precision")
_Factory = TypeVar("_Factory", bound=Callable[..., "Tracker"])


@dataclass(frozen=True)
class TrackedTrial:
    """A trial as trackers know it.

    Args:
        experiment: name of the experiment, the project of its runs.
        run: name of the run directory.
        id: variant and seed; the variant groups its seeds.
        settings: of the training, by dotted keys of the config, and `seed`.
        metric: the tag of what ranks the variants.
        values: what the files have of it, asked for when it has ended: step -> tag -> number.
    """

    experiment: str
    run: str
    id: TrialId
    settings: Mapping[str, Any]
    metric: str
    values: Callable[[], dict[int, dict[str, float]]]


class Tracker(Protocol):
    """Where numbers go; it is made with the folder of the run and its own options."""

    place: str  # where people find them afterwards

    def begin(self, trial: TrackedTrial, step: int) -> None:
        """Take numbers of a trial from `step` on; those it has from there on are void."""

    def log(self, trial: TrackedTrial, step: int, values: Mapping[str, float]) -> None:
        """Take numbers by their tags."""

    def end(self, trial: TrackedTrial, last: Mapping[str, float]) -> None:
        """Take the end of a trial, with the last number of each tag of its evaluations."""

    def close(self) -> None:
        """Finish what was begun."""


def register_tracker(name: str) -> Callable[[_Factory], _Factory]:
    """Register what makes a tracker, under the name that `log:` and `--log` give it.

    It is called as `make(folder, **options)`: a folder of the run for files, and the keys that
    stand beside `name` in the config.

    Example:
        >>> @register_tracker("mine")
        ... class Mine:
        ...     def __init__(self, folder, *, project="lrexp"): ...
        ...     def begin(self, trial, step): ...
        ...     def log(self, trial, step, values): ...
        ...     def end(self, trial, last): ...
        ...     def close(self): ...
        >>> del TRACKERS["mine"]
    """

    def register(make: _Factory) -> _Factory:
        TRACKERS[name] = make
        return make

    return register


class TrackerSink:
    """A sink that tells a tracker of every record; the tracker is made with the first one."""

    def __init__(self, section: Mapping[str, Any], run: Path, folder: Path | None = None) -> None:
        self._section, self._run, self._folder = section, run, folder
        self._tracker: Tracker | None = None
        self._open: dict[TrialId, TrackedTrial] = {}
        self._last: dict[TrialId, dict[str, float]] = {}
        self.__qualname__ = f"tracker {section['name']}"  # as messages call a sink

    @property
    def place(self) -> str | None:
        """Where people find the numbers; None before there are any."""
        return None if self._tracker is None else self._tracker.place

    def __call__(self, record: Record) -> None:
        """Pass a record on."""
        trial = record.trial
        if isinstance(record, Started) and record.again:
            self._open.pop(trial, None)
        elif isinstance(record, Steps):
            opened = self._opened(trial, record.first)
            for number, values in enumerate(_of_steps(record)):
                self._made().log(opened, record.first + number, values)
        elif isinstance(record, Evaluation):
            values = _of_evaluation(record.values)
            self._made().log(self._opened(trial, record.step), record.step, values)
            self._last.setdefault(trial, {}).update(values)
        elif isinstance(record, Ended | Failed) and trial in self._open:
            self._made().end(self._open.pop(trial), self._last.pop(trial, {}))

    def close(self) -> None:
        """Let the tracker finish."""
        if self._tracker is not None:
            self._tracker.close()

    def _made(self) -> Tracker:
        if self._tracker is None:
            name = self._section["name"]
            options = {key: value for key, value in self._section.items() if key != "name"}
            self._tracker = TRACKERS[name](self._folder or self._run / name, **options)
        return self._tracker

    def _opened(self, trial: TrialId, step: int) -> TrackedTrial:
        if trial not in self._open:
            self._open[trial] = tracked(load_run(self._run), trial)
            self._made().begin(self._open[trial], step)
        return self._open[trial]


def trackers_of(
    config: Config, log: Sequence[str | Mapping[str, Any]] | None, run: Path
) -> list[TrackerSink]:
    """Return the trackers that a config asks for, or those that are given in their place.

    Raises:
        ConfigError: as `check_trackers`.
    """
    sections = [section.model_dump() for section in config.experiment.log]
    if log is not None:
        sections = sections_of(log)
    try:
        check_trackers(sections)
    except ConfigError as error:
        raise error.placed(config.document.place_of) from None
    return [TrackerSink(section, run) for section in sections]


def tell_where(tracker: TrackerSink, reporter: Reporter) -> None:
    """Finish a tracker and say where its numbers are; a failure is no failure of the run."""
    try:
        tracker.close()
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        reporter.say(f"The {tracker.__qualname__} failed: {what}", "yellow")
    if tracker.place is not None:
        reporter.say(f"Logged: {tracker.place}")


def check_trackers(sections: Iterable[Mapping[str, Any]]) -> None:
    """Refuse trackers that are unknown, whose package is missing, or with options they do not have.

    Raises:
        ConfigError: all that is wrong, by their places in `log`.
    """
    problems: list[Problem] = []
    for number, section in enumerate(sections):
        name, key = section["name"], f"log.{number}"
        if name not in TRACKERS and name in INTEGRATED:
            importlib.import_module(INTEGRATED[name])
        if name not in TRACKERS:
            known = did_you_mean(name, {*TRACKERS, *INTEGRATED})
            problems.append(Problem(key, "is not the name of a tracker", name, known))
            continue
        make = TRACKERS[name]
        if why := getattr(make, "why_not", lambda: None)():
            problems.append(Problem(key, "cannot be used here", name, why))
            continue
        options = {option: value for option, value in section.items() if option != "name"}
        filled = {"folder": "the run"}
        found = check_arguments(make, options, title=f"the tracker {name}", filled=filled)
        problems += ConfigError(found).under(key).problems if found else []
    if problems:
        raise ConfigError(problems)


def export_run(run: Run, name: str, folder: Path | None = None, **options: Any) -> str:
    """Tell a tracker all that a run has in its files, and return where it is then.

    Args:
        run: finished or not.
        name: of the tracker.
        folder: for files; None is a folder of the run.
        options: of the tracker, as beside `name` in `log:`.

    Raises:
        ConfigError: there is no such tracker, or its package is missing.
        RunError: a file of the run is damaged.
    """
    section = {"name": name, **options}
    check_trackers([section])
    sink = TrackerSink(section, run.path, folder)
    try:
        for trial in run.trials:
            for record in _records_of(trial):
                sink(record)
    finally:
        sink.close()
    if sink.place is None:
        raise ConfigError.single("RUN", "has no steps yet", str(run.path), "Train it first.")
    return sink.place


def tracked(run: Run, trial: TrialId) -> TrackedTrial:
    """Return what trackers are told of a trial, from the files of its run."""
    compare = run.config.get("compare") or {}
    changes = (compare.get("variants") or {}).get(trial.variant) or {}
    flat = dict(_flat({key: run.config[key] for key in _SECTIONS if key in run.config}))
    for key, value in changes.items():
        flat = {k: v for k, v in flat.items() if k != key and not k.startswith(f"{key}.")}
        flat |= dict(_flat({key: value}))
    metric = column_of(str(compare.get("metric") or "val_loss"))

    def values() -> dict[int, dict[str, float]]:
        found = [t for t in load_run(run.path).trials if (t.variant, t.seed) == _key(trial)]
        return _all_values(found[0]) if found else {}

    settings = {**flat, "seed": trial.seed}
    return TrackedTrial(run.name, run.path.name, trial, settings, _tag(metric), values)


def _key(trial: TrialId) -> tuple[str, int]:
    return trial.variant, trial.seed


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the numbers and texts of a tree by their dotted keys; lists are texts."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            plain = isinstance(value, bool | int | float | str)
            yield f"{prefix}{key}", value if plain else str(value)


def _tag(column: str) -> str:
    return column if column == "train_loss" else f"eval/{column.removeprefix('val_')}"


def _of_steps(record: Steps) -> Iterable[dict[str, float]]:
    for number, (lr, loss) in enumerate(zip(record.lr, record.loss, strict=True)):
        more = {f"train/{name}": column[number] for name, column in record.more.items()}
        yield {"train/loss": loss, "train/learning_rate": lr, **more}


def _of_evaluation(values: Mapping[str, float]) -> dict[str, float]:
    """Return measures by tags; the mean of batch losses is in `train/loss` already."""
    kept = {name: value for name, value in values.items() if name != "train_loss"}
    return {_tag(name): value for name, value in kept.items() if not math.isnan(value)}


def _records_of(trial: TrialRecord) -> Iterable[Record]:
    """Yield the records that a trial's files stand for, each evaluation after its steps."""
    id_, steps, evals = TrialId(trial.variant, trial.seed), trial.steps, trial.evals
    names = [n for n in steps if n not in ("step", "epoch", "lr", "loss")]
    ends = sorted({0, len(steps["step"]), *map(int, evals["step"])})
    yield Started(id_)
    done = 0
    for end in ends:
        rows = slice(done, min(end, len(steps["step"])))
        if rows.stop > rows.start:
            columns = {n: steps[n][rows].tolist() for n in ("epoch", "lr", "loss", *names)}
            more = {name: columns[name] for name in names}
            epochs = [int(epoch) for epoch in columns["epoch"]]
            yield Steps(id_, rows.start, epochs, columns["lr"], columns["loss"], more)
        done = max(done, rows.stop)
        for row in (evals["step"] == end).nonzero()[0]:
            measures = [name for name in evals if name not in ("step", "epoch")]
            values = {name: float(evals[name][row]) for name in measures}
            yield Evaluation(id_, end, float(evals["epoch"][row]), values)
    if trial.result is not None:
        yield Ended(id_, len(steps["step"]), None, float(trial.result.get("seconds") or 0.0))


def _all_values(trial: TrialRecord) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for record in _records_of(trial):
        if isinstance(record, Steps):
            for number, values in enumerate(_of_steps(record)):
                found.setdefault(record.first + number, {}).update(values)
        elif isinstance(record, Evaluation):
            found.setdefault(record.step, {}).update(_of_evaluation(record.values))
    return found


def sections_of(log: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return trackers as mappings with a `name`, in the order given.

    Example:
        >>> sections_of(["tensorboard", {"name": "wandb", "project": "x"}])
        [{'name': 'tensorboard'}, {'name': 'wandb', 'project': 'x'}]
    """
    return [{"name": entry} if isinstance(entry, str) else dict(entry) for entry in log]
