"""Reading a run directory: finished, still running, or left behind by a crash.

Metrics are read when they are asked for. A row counts once its line is ended, so a writer that is
in the middle of a row, or died there, leaves no half number behind.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lrexp.errors import NOTHING, ConfigError, Problem, RunError
from lrexp.store.files import find_bytes, find_json, find_text, trial_path
from lrexp.store.status import read_status

STEPS_COLUMNS = ("step", "epoch", "lr", "loss")
EVALS_COLUMNS = ("step", "epoch", "train_loss")
MAX_CURVE_BYTES = 2**31  # of a CSV: sixty million steps


@dataclass(frozen=True)
class TrialRecord:
    """The files of one trial, read at the first use and then kept.

    Example:
        >>> trial = load_run("runs/20261121-210301-digits-lr-compare-3f9c").trials[0]
        >>> trial.steps["loss"][-1], trial.result["outcome"]
        (0.0831, 'finished')
    """

    variant: str
    seed: int
    path: Path

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

    @property
    def variants(self) -> dict[str, tuple[TrialRecord, ...]]:
        """The trials of every variant, in the order of the config; empty where none has begun."""
        named = self.status.get("variants")
        planned = [n for n in named if isinstance(n, str)] if isinstance(named, list) else []
        names = dict.fromkeys([*planned, *(trial.variant for trial in self.trials)])
        return {name: tuple(t for t in self.trials if t.variant == name) for name in names}


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
    root = path / "trials"
    on_disk = sorted(child.name for child in root.iterdir()) if root.is_dir() else []
    named = status.get("variants")
    planned = [name for name in named if name in on_disk] if isinstance(named, list) else []
    for variant in dict.fromkeys([*planned, *on_disk]):
        folders = (root / variant).glob("seed-*")
        seeds = [int(f.name[5:]) for f in folders if f.name[5:].isdecimal() and f.is_dir()]
        for seed in sorted(seeds):
            yield TrialRecord(variant, seed, trial_path(path, variant, seed))


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
