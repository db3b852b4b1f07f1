"""Runs that are stopped at a step, copies of runs, and what must not depend on an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

_TIMES = ("started", "updated", "seconds", "resumed")
_OF_THIS_RUN = {"status.json", "order.json", "environment.json", "report.html"}


class After:
    """A `stop` of `lrexp.compare`: the run stops at the end of the n-th step that is trained."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def copy_of(run: Path, place: Path) -> Path:
    """Copy a run that several tests read, for one that changes it."""
    return Path(shutil.copytree(run, place, symlinks=True))


def everything(run: Path) -> dict[str, Any]:
    """Return all that a run wrote, by file, without times and processes."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_dir() or name.startswith("plots/"):
            found[name] = None
        elif path.name == "result.json":
            found[name] = _without(path, "seconds", "steps_per_second")
        elif name == "summary.json":
            found[name] = _without_time_spent(path)
        elif name == "status.json":
            found[name] = _without(path, *_TIMES, "pid", "process_started")
        elif name == "environment.json":
            found[name] = _without(path, "command_line")
        elif name in ("order.json", "report.html"):  # the page names folder, command and times
            found[name] = None
        else:
            found[name] = path.read_bytes()
    return found


def _without_time_spent(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    value.get("spent", {}).pop("seconds", None)
    return value


def _without(path: Path, *keys: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return {key: item for key, item in value.items() if key not in keys}


def contents(run: Path) -> dict[str, Any]:
    """Return what must not depend on an interruption: curves, results, the race, the summary."""
    return {
        name: value
        for name, value in everything(run).items()
        if name.endswith((".csv", ".json")) and name not in _OF_THIS_RUN
    }


def status(run: Path) -> dict[str, Any]:
    """Return what status.json says."""
    value: dict[str, Any] = json.loads((run / "status.json").read_text())
    return value
