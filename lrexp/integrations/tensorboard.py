"""TensorBoard: a folder of event files for each trial, and its settings for the page of hparams."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lrexp


@lrexp.register_tracker("tensorboard")
class TensorBoard:
    """Writes `<variant>/seed-<n>` below a folder, by default `tensorboard` in the run.

    Args:
        folder: of the run.
        dir: in its place, for the trials of several runs side by side.
    """

    def __init__(self, folder: Path, *, dir: str | None = None) -> None:  # noqa: A002
        self._folder = folder if dir is None else Path(dir) / folder.parent.name
        self.place = f"tensorboard --logdir {self._folder}"
        self._writers: dict[Any, Any] = {}

    @staticmethod
    def why_not() -> str | None:
        """Return what to do where the package is missing."""
        return None if find_spec("tensorboard") else "pip install 'lrexp[tensorboard]'."

    def begin(self, trial: Any, step: int) -> None:
        """Open the files of a trial; readers drop what older files have from `step` on."""
        from torch.utils.tensorboard import SummaryWriter

        purged = step if step > 0 else None
        folder = self._folder / trial.id.name
        self._writers[trial.id] = SummaryWriter(str(folder), purge_step=purged)

    def log(self, trial: Any, step: int, values: Mapping[str, float]) -> None:
        """Add a point for each tag."""
        for tag, value in values.items():
            self._writers[trial.id].add_scalar(tag, value, step)

    def end(self, trial: Any, last: Mapping[str, float]) -> None:
        """Add settings, with what ranks the variants as their metric."""
        from torch.utils.tensorboard.summary import hparams

        writer = self._writers.pop(trial.id)
        metric = {"hparam/metric": last[trial.metric]} if trial.metric in last else {}
        # not add_hparams, which makes another folder for each trial
        for summary in hparams(  # type: ignore[no-untyped-call]
            dict(trial.settings), dict.fromkeys(metric)
        ):
            writer.file_writer.add_summary(summary)
        for tag, value in metric.items():
            writer.add_scalar(tag, value, 0)
        writer.close()

    def close(self) -> None:
        """Close what was interrupted."""
        for writer in self._writers.values():
            writer.close()
