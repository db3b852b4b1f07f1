"""The verbs that only read: pictures of runs, and of schedules before any training.

Nothing here imports torch, but for the user's own code and what is torch's: files and functions of
the step need none of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrexp.errors import ConfigError
from lrexp.report import draw_overlay, draw_run, draw_schedules
from lrexp.store import load_run

if TYPE_CHECKING:
    import numpy as np

    from lrexp.changes import Overrides

DRAWN_FROM = ("schedule",)  # sections of a config; the data is checked where its size is needed


def plot(runs: Sequence[str | Path], *, out: str | Path | None = None) -> list[Path]:
    """Redraw the plots of one run, or overlay several; return the files.

    Raises:
        ConfigError: a path is not a run directory.
    """
    loaded = [load_run(path) for path in runs]
    if len(loaded) == 1:
        return draw_run(loaded[0], out=None if out is None else Path(out))
    return draw_overlay(loaded, Path(out) if out is not None else loaded[0].path.parent)


@dataclass(frozen=True)
class Traces:
    """LR traces (one value per step) by variant, and the picture of them."""

    lr: dict[str, np.ndarray]
    plot: str
    reactive: tuple[str, ...] = ()  # those that follow a loss


def schedule(
    config: str | Path | Mapping[str, Any],
    *,
    overrides: Overrides = (),
    trust: Sequence[str] = (),
    out: str | Path | None = None,
) -> Traces:
    """Draw the LR trace of every variant without training.

    A schedule that reacts to the loss is drawn as it would run if the loss never changed. Keys and
    types are checked in the whole config; whether names and arguments fit code, in the sections
    that are drawn from: the schedule, and the data where a duration is in epochs or tokens. The
    rest is for `validate` to check.

    Raises:
        ConfigError: the config is wrong, or `out` is no PNG file.
        UserCodeError: the user's own schedule or data raised.
    """
    from lrexp.changes import changes_of  # here, since `plot` needs no config
    from lrexp.config import load_config
    from lrexp.plan import plan_schedules

    loaded = load_config(config, changes_of(overrides), trust=trust, checked=DRAWN_FROM)
    planned = plan_schedules(loaded)
    traces = {name: of_variant.trace() for name, of_variant in planned.items()}
    reactive = [name for name, of_variant in planned.items() if of_variant.is_reactive]
    path = Path(out) if out is not None else Path(f"{loaded.experiment.name}-lr.png")
    if path.suffix != ".png":
        raise ConfigError.single("--out", "must end in .png", str(path), "Name a PNG file.")
    draw_schedules(traces, path, title=loaded.experiment.name, reactive=reactive)
    return Traces(traces, str(path), tuple(reactive))
