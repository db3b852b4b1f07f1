"""Runs that are stopped at a step, copies of runs, and what must not depend on an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

_OF_THIS_MACHINE = {"seconds", "steps_per_second"}
_OF_THIS_RUN = {"status.json", "order.json", "environment.json"}


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


def contents(run: Path) -> dict[str, Any]:
    """Return what must not depend on an interruption: curves, results, the race, the summary."""
    found: dict[str, Any] = {}
    for path in sorted([*run.rglob("*.csv"), *run.rglob("*.json")]):
        name = str(path.relative_to(run))
        if name in _OF_THIS_RUN:
            continue
        found[name] = path.read_bytes()
        if path.name == "result.json":
            result = json.loads(found[name])
            found[name] = {k: v for k, v in result.items() if k not in _OF_THIS_MACHINE}
    return found


def status(run: Path) -> dict[str, Any]:
    """Return what status.json says."""
    value: dict[str, Any] = json.loads((run / "status.json").read_text())
    return value
