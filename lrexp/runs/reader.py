"""Reading a run directory: finished, still running, or left behind by a crash.

Metrics are read when they are asked for. A row counts once its line is ended, so a writer that is
in the middle of a row, or died there, leaves no half number behind.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lrexp.analysis.race import Raced, Rung, candidate_of
from lrexp.analysis.range_curve import Curve
from lrexp.errors import NOTHING, ConfigError, Problem, RunError
from lrexp.records import KINDS, Kind, Trial, TrialId
from lrexp.runs.files import as_written, find_bytes, find_json, find_text, trial_path
from lrexp.runs.listing import read_status

Draw: TypeAlias = Callable[["Run"], object]  # what draws a run that has just ended
_Facts: TypeAlias = tuple[Kind, int | None, float | None]  # kind, steps that were planned, LR
STEPS_COLUMNS = ("step", "epoch", "lr", "loss")
EVALS_COLUMNS = ("step", "epoch", "train_loss")
MAX_CURVE_BYTES = 2**31  # of a CSV: sixty million steps


@dataclass(frozen=True)
class TrialRecord:
    """The files of one trial, read at the first use and then kept.

    Example:
        >>> trial = load_run("runs/digits-lr").trials[0]  # doctest: +SKIP
        >>> trial.steps["loss"][-1], trial.result["outcome"]  # doctest: +SKIP
        (0.0831, 'finished')
    """

    variant: str
    seed: int
    path: Path
    kind: Kind = "compare"
    total_steps: int | None = None  # that were planned; None where the run does not say so
    lr: float | None = None  # of a race: the base LR

    @cached_property
    def steps(self) -> dict[str, np.ndarray]:
        """Columns of steps.csv, `step` as integers; no rows where nothing was written yet."""
        return read_columns(self.path / "steps.csv", STEPS_COLUMNS)

    @cached_property
    def evals(self) -> dict[str, np.ndarray]:
        """Columns of evals.csv: nan where a measure was not taken, no rows without evaluations."""
        return read_columns(self.path / "evals.csv", EVALS_COLUMNS)

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """The contents of result.json; None while the trial goes on, or where it never ended."""
        return find_json(self.path / "result.json")


@dataclass(frozen=True)
class Run:
    """A run directory as it was at the moment of reading; see `load_run`."""

    path: Path
    name: str
    command: str  # "compare" | "find-lr"
    config: dict[str, Any]  # resolved.yaml; empty where it was not written yet
    status: dict[str, Any]  # status.json, but `interrupted` where the process is gone
    trials: tuple[TrialRecord, ...]  # those that have begun, by variant, then by seed
    summary: dict[str, Any] | None  # None until every trial has ended

    @cached_property
    def variants(self) -> dict[str, tuple[TrialRecord, ...]]:
        """The trials of every variant, in the order of the config; empty where none has begun."""
        named = self.status.get("variants")
        planned = [n for n in named if isinstance(n, str)] if isinstance(named, list) else []
        found: dict[str, list[TrialRecord]] = {name: [] for name in planned}
        for trial in self.trials:
            found.setdefault(trial.variant, []).append(trial)
        return {name: tuple(trials) for name, trials in found.items()}

    def __repr__(self) -> str:
        summary = self.summary or {}
        words = [repr(self.name), self.command, str(self.status.get("status", "open"))]
        words.append(f"{len(self.variants)} variants, {len(self.trials)} trials")
        if summary.get("ranking"):
            words.append(f"best={summary['ranking'][0].get('variant')!r}")
        if "suggested_lr" in summary:
            words.append(f"suggested_lr={summary['suggested_lr']!r}")
        return f"Run({', '.join(words)}, path={str(self.path)!r})"

    def of_kind(self, kind: Kind) -> tuple[TrialRecord, ...]:
        """Return the trials of a kind that have begun."""
        return tuple(trial for trial in self.trials if trial.kind == kind)


def load_run(path: str | Path) -> Run:
    """Return a run as its directory shows it; curves are read when they are asked for.

    Raises:
        ConfigError: the path is not a run directory.
        RunError: a file of the run is damaged.
    """
    path = Path(path)
    _check_run_directory(path)
    status = read_status(path)
    return Run(
        path=path,
        name=str(status.get("name", path.name)),
        command=str(status.get("command", "compare")),
        config=_read_config(path),
        status=status,
        trials=tuple(_trials(path, status)),
        summary=_summary(path),
    )


def read_columns(path: Path, expected: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the columns of a CSV of numbers; empty ones for `expected` where it has no header.

    An empty cell is nan. A last line without an end is left out: it may be half of a number.

    Raises:
        RunError: a line is not a row of numbers, or it is no file that can be read.
    """
    data = find_bytes(path, MAX_CURVE_BYTES) or b""
    data = data[: data.rfind(b"\n") + 1].replace(b"\r\n", b"\n")
    header, _, body = data.partition(b"\n")
    names = _names(path, header) if header else list(expected)
    table = _parse(path, _fill_empty_cells(body), len(names))  # (rows, columns)
    columns = {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(names)}
    return columns | {"step": columns["step"].astype(np.int64)}


def _names(path: Path, header: bytes) -> list[str]:
    names = header.decode("utf-8-sig", errors="replace").split(",")
    if "step" not in names:
        raise RunError(f"{path}: is damaged: its first line names no column `step`. Restore it.")
    return names


def _parse(path: Path, body: bytes, num_columns: int) -> np.ndarray:
    if not body.strip():
        return np.empty((0, num_columns))
    try:
        table = np.loadtxt(io.BytesIO(body), delimiter=",", comments=None, ndmin=2)
        if table.shape[1] != num_columns:
            raise ValueError(f"{table.shape[1]} columns under a header of {num_columns}")
    except ValueError as error:
        raise RunError(f"{path}: is damaged: {error}. Delete the broken line.") from error
    return table


def _fill_empty_cells(body: bytes) -> bytes:
    if b",," in body:
        body = body.replace(b",,", b",nan,").replace(b",,", b",nan,")  # `,,,` needs it twice
    return body.replace(b",\n", b",nan\n") if b",\n" in body else body


def _check_run_directory(path: Path) -> None:
    if (path / "status.json").is_file():
        return
    if not path.is_dir():
        what, remedy = "is not a run directory: there is no such folder", "See `lrexp runs`."
    elif any((child / "status.json").is_file() for child in path.iterdir()):
        what, remedy = "holds runs and is none itself", f"Name one; see `lrexp runs {path}`."
    else:
        what = "is not a run directory: it has no status.json"
        remedy = "Give a folder that compare or find-lr wrote; see `lrexp runs`."
    raise ConfigError([Problem("", what, NOTHING, remedy, str(path))])


def _trials(path: Path, status: dict[str, Any]) -> Iterable[TrialRecord]:
    """Yield the trials that have begun: those the status names in its order, then any others.

    What the status names leads nowhere else: a run may be a stranger's.
    """
    root, known = path / "trials", _known_trials(path)
    on_disk = sorted(child.name for child in root.iterdir()) if root.is_dir() else []
    named = status.get("variants")
    there = set(on_disk)
    planned = [n for n in named if n in there] if isinstance(named, list) else []
    for variant in dict.fromkeys([*planned, *on_disk]):
        folders = (root / variant).glob("seed-*")
        seeds = [int(f.name[5:]) for f in folders if f.name[5:].isdecimal() and f.is_dir()]
        for seed in sorted(seeds):
            folder = trial_path(path, variant, seed)
            facts = known.get(f"{variant}/seed-{seed}") or _facts_of_name(variant, status)
            yield TrialRecord(variant, seed, folder, *facts)


def _known_trials(path: Path) -> dict[str, _Facts]:
    """Return what engine.json says of each trial, by its name; nothing of an older run."""
    stages = (find_json(path / "engine.json") or {}).get("stages", [])
    with as_written(str(path / "engine.json")):
        trials = [trial for stage in stages for trial in planned_trials(stage)]
    return {trial.id.name: (trial.kind, trial.total_steps, trial.lr) for trial in trials}


def planned_trials(stage: Mapping[str, Any]) -> list[Trial]:
    """Return the trials of a stage of engine.json; ValueError and such where it is damaged."""
    kind = stage["kind"]
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r}")
    trials = []
    for plain in stage["trials"]:
        lr = float(plain["lr"]) if kind == "race" else None
        trial = Trial(TrialId.of(str(plain["name"])), kind, int(plain["total_steps"]), lr)
        if trial.total_steps < 1 or not (lr is None or 0 < lr < math.inf):
            raise ValueError(f"{trial.id.name} has no length or no LR")
        trials.append(trial)
    return trials


def _facts_of_name(variant: str, status: dict[str, Any]) -> _Facts:
    """Return what a trial's folder says of it in a run of an older lrexp."""
    if status.get("command") != "find-lr":
        return "compare", None, None
    if (candidate := candidate_of(variant)) is not None:
        return "race", candidate.horizon, candidate.lr
    known: dict[str, Kind] = {CONTROL: "paired_control", RANGE_TEST: "range_test"}
    return known.get(variant, "compare"), None, None


def _summary(path: Path) -> dict[str, Any] | None:
    summary = find_json(path / "summary.json")
    ranking = (summary or {}).get("ranking", [])
    if not isinstance(ranking, list) or not all(isinstance(row, dict) for row in ranking):
        raise RunError(f"{path / 'summary.json'}: is damaged: its ranking is no list. Delete it.")
    return summary


def _read_config(path: Path) -> dict[str, Any]:
    from lrexp.config.reader import MAX_BYTES, read_yaml  # bounded: a run may be a stranger's

    path = path / "resolved.yaml"
    text = find_text(path, MAX_BYTES)
    if text is None:
        return {}
    try:
        config, _ = read_yaml(text, str(path))
    except ConfigError as error:
        raise RunError(f"{path}: is damaged: {error}") from error
    return config if isinstance(config, dict) else {}


DONE = ("finished", "diverged")  # outcomes; a trial that failed has no loss
RANGE_TEST = "range_test"
CONTROL = "untrained"  # the same batches once more, without learning


def finished_tests(run: Run) -> list[TrialRecord]:
    """Return the range tests of a run that have ended."""
    tests = run.variants.get(RANGE_TEST, ())
    return [test for test in tests if (test.result or {}).get("outcome") == "finished"]


def cause_of(trial: TrialRecord) -> str:
    """Return why a loss of a trial was not finite, where the LR is not to blame; else ""."""
    cause = (trial.result or {}).get("cause")
    return cause[:MOST_CAUSE] if isinstance(cause, str) else ""


def curves_of(tests: Iterable[TrialRecord]) -> list[Curve]:
    """Return the curve of each range test."""
    return [Curve(test.steps["lr"], test.steps["loss"]) for test in tests]


def others_train(run: Run) -> bool:
    """Return whether a range test is of one part of several, while the others train at theirs."""
    section = run.config.get("find_lr")
    return isinstance(section, Mapping) and section.get("part") is not None


def control_losses(run: Run, tests: Iterable[TrialRecord]) -> list[NDArray[np.float64]] | None:
    """Return the losses of the untrained model for each test, None without a paired control."""
    found = {t.seed: t.steps["loss"] for t in run.variants.get(CONTROL, ()) if t.result}
    seeds = [test.seed for test in tests]
    return [found[seed] for seed in seeds] if seeds and found.keys() >= set(seeds) else None


MOST_CAUSE = 500  # characters that are shown of a cause
TAIL = 10  # without validation data, the mean of the last 1/10 of the batch losses counts


def raced_of(trials: Iterable[TrialRecord]) -> list[Raced]:
    """Return what trainings of LRs came to, one for each horizon, short ones first.

    A seed that has no result counts as not trained: a run may be interrupted at any moment, and a
    trial that failed has no loss.
    """
    ended: dict[int, dict[tuple[float, int], TrialRecord]] = {}
    for trial in trials:
        if trial.kind == "race" and (trial.result or {}).get("outcome") in DONE:
            assert trial.total_steps is not None
            assert trial.lr is not None
            ended.setdefault(trial.total_steps, {})[trial.lr, trial.seed] = trial
    return [_raced(horizon, found) for horizon, found in sorted(ended.items())]


def _raced(horizon: int, found: Mapping[tuple[float, int], TrialRecord]) -> Raced:
    lrs, seeds = (tuple(sorted(set(keys))) for keys in zip(*found, strict=True))
    start: dict[int, list[float]] = {}  # equal for all LRs of a seed, but for rounding
    for (_, seed), trial in found.items():
        start.setdefault(seed, []).append(start_loss(trial))

    def table(read: Callable[[TrialRecord], float]) -> tuple[tuple[float, ...], ...]:
        return tuple(
            tuple(read(found[lr, s]) if (lr, s) in found else math.nan for s in seeds) for lr in lrs
        )

    return Raced(
        Rung(horizon, lrs, seeds),
        tuple(float(np.median(start[seed])) for seed in seeds),
        table(final_loss),
        table(lambda trial: _best(trial)[0]),
        table(lambda trial: _best(trial)[1]),
    )


def _best(trial: TrialRecord) -> tuple[float, float]:
    """Return the lowest evaluation and the step of it; the end where there is no other."""
    values, steps = trial.evals.get("val_loss"), trial.evals["step"]
    if values is None or not np.isfinite(values).any():
        return final_loss(trial), float(trial.total_steps or len(trial.steps["loss"]))
    where = int(np.nanargmin(np.where(np.isfinite(values), values, np.nan)))
    return float(values[where]), float(steps[where])


def start_loss(trial: TrialRecord) -> float:
    """Return the loss before training: of the validation data, or else of the first batch."""
    values = trial.evals.get("val_loss")
    if values is not None and len(values):
        return float(values[0])
    losses = trial.steps["loss"]
    return float(losses[0]) if len(losses) else math.nan


def final_loss(trial: TrialRecord) -> float:
    """Return the loss after training, of the same data; inf where it diverged."""
    result = trial.result or {}
    if result.get("outcome") != "finished":
        return math.inf
    if "val_loss" in trial.evals:
        value = result.get("final", {}).get("val_loss")
        return math.inf if value is None or not math.isfinite(value) else float(value)
    losses = trial.steps["loss"]
    mean = float(np.mean(losses[-max(1, len(losses) // TAIL) :])) if len(losses) else math.inf
    return mean if math.isfinite(mean) else math.inf
