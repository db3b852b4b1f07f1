"""Weights & Biases, trackio and SwanLab, which have one interface: init, log, finish.

Nothing leaves this machine unless `mode: online` says so. A trial is written when it ends, from its
files: these packages have one run at a time in a process, and a stack trains many trials at once.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lrexp

_SYNC = {
    "wandb": "wandb sync {folder}/wandb/offline-run-*",
    "trackio": "trackio show",
    "swanlab": "swanlab watch {folder}",
}


class WandbLike:
    """Tells one of these packages of every trial: its variant is the group, its seed a run.

    Args:
        package: its name.
        folder: of the run, for files.
        project: by default the experiment's name.
        mode: `offline`, or what else the package knows.
    """

    def __init__(
        self, package: str, folder: Path, *, project: str | None = None, mode: str = "offline"
    ) -> None:
        self._package, self._folder = package, folder
        self._project, self._mode = project, mode
        self.place = _SYNC[package].format(folder=folder)

    def begin(self, trial: Any, step: int) -> None:
        """Wait for the end."""

    def log(self, trial: Any, step: int, values: Mapping[str, float]) -> None:
        """Wait for the end."""

    def end(self, trial: Any, last: Mapping[str, float]) -> None:
        """Write the trial."""
        package = importlib.import_module(self._package)
        self._folder.mkdir(parents=True, exist_ok=True)
        wanted = {
            "project": self._project or trial.experiment,
            "group": trial.id.variant,
            "name": f"{trial.run}/{trial.id.name}",
            "experiment_name": f"{trial.run}/{trial.id.name}",  # swanlab's word
            "config": dict(trial.settings),
            "mode": self._mode,
            "dir": str(self._folder),
            "logdir": str(self._folder),
        }
        known = inspect.signature(package.init).parameters
        package.init(**{name: value for name, value in wanted.items() if name in known})
        for step, values in trial.values().items():
            package.log(values, step=step)
        package.finish()

    def close(self) -> None:
        """Do nothing: every trial is closed already."""


def _register(package: str) -> None:
    make: Any = partial(WandbLike, package)
    missing = f"pip install 'lrexp[{package}]'."
    make.why_not = lambda: None if find_spec(package) else missing
    lrexp.register_tracker(package)(make)


for _package in _SYNC:
    _register(_package)
