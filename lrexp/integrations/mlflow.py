"""MLflow: a run is a parent, its trials are nested runs, in a database of SQLite in the run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lrexp

_BATCH = 500  # of the 1,000 metrics that a request may have


@lrexp.register_tracker("mlflow")
class MLflow:
    """Writes metrics and parameters by the client of MLflow.

    Args:
        folder: of the run.
        uri: of the tracking server or database; by default `mlflow.db` in that folder.
        experiment: by default the experiment's name.
    """

    def __init__(
        self, folder: Path, *, uri: str | None = None, experiment: str | None = None
    ) -> None:
        from mlflow import MlflowClient

        if uri is None:
            folder.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        self._client, self._experiment = MlflowClient(uri), experiment
        self.place = f"mlflow ui --backend-store-uri {uri}"
        self._runs: dict[Any, str] = {}
        self._waiting: dict[Any, list[Any]] = {}
        self._from: dict[Any, int] = {}

    @staticmethod
    def why_not() -> str | None:
        """Return what to do where the package is missing."""
        return None if find_spec("mlflow") else "pip install 'lrexp[mlflow]'."

    def begin(self, trial: Any, step: int) -> None:
        """Find or make the run of a trial, below that of its run directory."""
        experiment = self._experiment_id(self._experiment or trial.experiment)
        parent = self._run(experiment, trial.run, {})
        run = self._run(experiment, trial.id.name, {"mlflow.parentRunId": parent})
        if step == 0 and self._last_step(run) is not None:  # it begins again
            self._client.delete_run(run)
            run = self._run(experiment, trial.id.name, {"mlflow.parentRunId": parent})
        self._runs[trial.id] = run
        last = self._last_step(run)
        self._from[trial.id] = 0 if last is None else last + 1

    def log(self, trial: Any, step: int, values: Mapping[str, float]) -> None:
        """Add points, but for those it has already of steps before an interruption."""
        from mlflow.entities import Metric

        if step < self._from[trial.id]:
            return
        now, waiting = int(time.time() * 1000), self._waiting.setdefault(trial.id, [])
        waiting += [Metric(tag, value, now, step) for tag, value in values.items()]
        if len(waiting) >= _BATCH:
            self._flush(trial.id)

    def end(self, trial: Any, last: Mapping[str, float]) -> None:
        """Add parameters, and end the run."""
        self._flush(trial.id)
        run = self._runs.pop(trial.id)
        for name, value in trial.settings.items():
            self._client.log_param(run, name, value)
        self._client.set_terminated(run)

    def close(self) -> None:
        """Write what waits of interrupted trials."""
        for trial in list(self._waiting):
            self._flush(trial)

    def _flush(self, trial: Any) -> None:
        waiting = self._waiting.pop(trial, [])
        for first in range(0, len(waiting), _BATCH):
            self._client.log_batch(self._runs[trial], waiting[first : first + _BATCH])

    def _experiment_id(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        made = self._client.create_experiment(name) if found is None else found.experiment_id
        return str(made)

    def _run(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        """Return the run of a name below a parent; it is made where there is none."""
        quoted = name.replace("'", "")
        wanted = [f"attributes.run_name = '{quoted}'"]
        wanted += [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        found = self._client.search_runs([experiment], " and ".join(wanted), max_results=1)
        if found:
            return str(found[0].info.run_id)
        made = self._client.create_run(experiment, run_name=quoted, tags=dict(tags))
        return str(made.info.run_id)

    def _last_step(self, run: str) -> int | None:
        history = self._client.get_metric_history(run, "train/loss")
        return max((point.step for point in history), default=None)
