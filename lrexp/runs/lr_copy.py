"""A copy of a config with the LR that a range test suggests: what `find-lr --write` makes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lrexp.errors import ConfigError
from lrexp.records import Reporter
from lrexp.runs.files import write_whole

if TYPE_CHECKING:
    from lrexp.config.config import Config


@dataclass(frozen=True)
class LrCopy:
    """A copy of the config that is to get the suggested LR.

    Args:
        path: of the file.
        force: whether it may replace one.

    Raises:
        ConfigError: at once, not after training: it cannot be written there.
    """

    path: Path
    force: bool

    def __post_init__(self) -> None:
        if self.path.exists() and not self.force:
            what, remedy = "exists already", "Give another file, or --force."
            raise ConfigError.single("--write", what, str(self.path), remedy)
        if not self.path.parent.is_dir():
            what, remedy = "lies in a folder that does not exist", "Make the folder."
            raise ConfigError.single("--write", what, str(self.path), remedy)

    @property
    def option(self) -> str:
        """The option of a command that writes it."""
        return f"--write {shlex.quote(str(self.path))}"

    def write(self, loaded: Config, suggested_lr: float | None, reporter: Reporter) -> None:
        """Write it, if there is a suggestion."""
        if suggested_lr is not None:
            from lrexp.config.document import with_lrs  # here, since `plot` needs no config

            experiment = loaded.experiment
            lrs = experiment.optimizer.lrs_at(suggested_lr, experiment.find_lr.part)
            text = with_lrs(loaded.document, {key: float(f"{lr:.3g}") for key, lr in lrs.items()})
            write_whole(self.path, text)
            _warn_of_own_lrs(loaded, reporter)


def _warn_of_own_lrs(config: Config, reporter: Reporter) -> None:
    """Say which variants will not use the LR that was written."""
    own = [
        name
        for name, changes in config.overrides.items()
        if {"optimizer", *config.experiment.optimizer.lrs} & changes.keys()
    ]
    if own and config.experiment.compare.variants is not None:
        reporter.say(
            f"Note: the variants {', '.join(own)} set an optimizer.lr of their own; the written "
            "one is for the others.",
            "yellow",
        )
