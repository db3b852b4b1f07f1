"""Writing a run: `RunWriter` for the top-level files, `TrialWriter` for one trial's directory.

Every trial directory has one writer. Metrics are appended and flushed at once, so that the files
can be read while the run goes on; whole files are replaced.
"""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from lrexp.store.files import disk_errors, write_json, write_whole

STEPS_HEADER = ("step", "epoch", "lr", "loss")


class TrialWriter:
    """Appends the curves of one trial and writes its result; `close` it, or use it in a `with`."""

    def __init__(self, directory: Path, *, loss_digits: int = 9) -> None:
        self.directory = directory
        self._loss_digits = loss_digits  # 9 give a float32 back exactly, 17 a float64
        self._files: dict[str, IO[str]] = {}
        self._eval_columns: tuple[str, ...] = ()
        with disk_errors(directory):
            directory.mkdir(parents=True)
        self._append("steps.csv", ",".join(STEPS_HEADER) + "\n")

    def steps(
        self, first: int, epoch: Sequence[int], lr: Sequence[float], loss: Sequence[float]
    ) -> None:
        """Append one row per update: the LR used for it, the batch loss before it."""
        digits = self._loss_digits
        rows = zip(range(first, first + len(loss)), epoch, lr, loss, strict=True)
        self._append("steps.csv", "".join(f"{s},{e},{r!r},{x:.{digits}g}\n" for s, e, r, x in rows))

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Append one row of measures taken after `step` updates."""
        if not self._eval_columns:
            self._eval_columns = tuple(values)
            self._append("evals.csv", ",".join(("step", "epoch", *values)) + "\n")
        cells = ",".join(f"{values[name]:.12g}" for name in self._eval_columns)
        self._append("evals.csv", f"{step},{epoch:.6g},{cells}\n")

    def result(self, result: Mapping[str, Any]) -> None:
        """Write result.json; the trial is over."""
        write_json(self.directory / "result.json", result)

    def close(self) -> None:
        """Close the files; the directory stays readable either way."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def _append(self, name: str, text: str) -> None:
        path = self.directory / name
        with disk_errors(path):
            if name not in self._files:
                self._files[name] = path.open("a", encoding="utf-8", newline="\n")
            self._files[name].write(text)
            self._files[name].flush()


class RunWriter:
    """Writes the top-level files of one run directory."""

    def __init__(self, directory: Path, status: Mapping[str, Any]) -> None:
        self.directory = directory
        self._begun = time.time()
        self._status = {
            "status": "running",
            **status,
            "host": platform.node(),
            "pid": os.getpid(),
            "started": _timestamp(),
        }
        self.update_status()

    def text(self, name: str, text: str) -> None:
        """Write a text file such as resolved.yaml."""
        path = self.directory / name
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)

    def json(self, name: str, value: Any) -> None:
        """Write a JSON file such as environment.json."""
        write_json(self.directory / name, value)

    def update_status(self, status: str | None = None, **changes: Any) -> None:
        """Change status.json; `status` is running, complete, failed or interrupted."""
        self._status |= changes
        if status is not None:
            self._status["status"] = status
        self._status["updated"] = _timestamp()
        self._status["seconds"] = round(time.time() - self._begun, 3)
        write_json(self.directory / "status.json", self._status)

    def summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, and for a ranking summary.csv with one row per variant."""
        write_json(self.directory / "summary.json", summary)
        ranking = summary.get("ranking")
        if ranking:
            self.text("summary.csv", _ranking_csv(ranking, summary["seeds"], summary["metric"]))

    def trial_directory(self, variant: str, seed: int) -> Path:
        """Return where a trial's files go."""
        return self.directory / "trials" / variant / f"seed-{seed}"


def _ranking_csv(ranking: Sequence[Mapping[str, Any]], seeds: Sequence[int], metric: str) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head = ["rank", "variant", "metric", "mean", "sd", *(f"seed-{s}" for s in seeds)]
    writer.writerow([*head, "finished", "diverged", "failed", "diagnosis"])
    for row in ranking:
        outcomes = [row["outcomes"].get(kind, 0) for kind in ("finished", "diverged", "failed")]
        numbers = [_cell(value) for value in (row["mean"], row["sd"], *row["values"])]
        writer.writerow(
            [row["rank"], row["variant"], metric, *numbers, *outcomes, row["diagnosis"]["word"]]
        )
    return buffer.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.12g}"


def _timestamp() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
