"""Runs as Python users have them: what was read of the directory, with table, picture and HTML."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from lrexp.errors import ConfigError, did_you_mean
from lrexp.runs import reader

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_ENDS = ("final", "best")
# The picture that decides is the first of these that a run has.
_DECIDING = ("race", "range_test", "heatmap", "verdicts", "lr_sensitivity", "loss")


class Run(reader.Run):
    """A run directory as it was at the moment of reading; see `load_run`.

    Example:
        >>> run = lrexp.load_run("runs/...")              # doctest: +SKIP
        >>> run.table()[["variant", "mean", "best"]]      # doctest: +SKIP
        >>> run.plot("verdicts")                          # doctest: +SKIP
    """

    @classmethod
    def of(cls, run: reader.Run) -> Run:
        """Return a run with the methods of this class."""
        return cls(**{field.name: getattr(run, field.name) for field in fields(run)})

    def table(self) -> pd.DataFrame:
        """Return a row for each variant, best first; of a range test, a row for each rule.

        A comparison has mean and sd of its metric, verdict and diagnosis, of each metric the mean
        of last and best values and the best epoch, outcomes, each seed's value, and the settings
        that differ. Of a run that goes on, or was interrupted: how far each variant has come.
        """
        import pandas as pd

        from lrexp.report.show import progress_of

        summary = self.summary
        if summary is None:
            rows = [{"variant": n, **row} for n, row in progress_of(self)["variants"].items()]
            return pd.json_normalize(rows)
        if self.command == "find-lr":
            rules = summary["rules"]
            return pd.DataFrame({"rule": list(rules), "lr": [*map(_number, rules.values())]})
        ranking = summary["ranking"]
        changed = dict.fromkeys(key for row in ranking for key in row.get("settings") or {})
        usual = {key: _usual(self.config, key) for key in changed}
        return pd.DataFrame(
            [{**_row(row), **usual, **(row.get("settings") or {})} for row in ranking]
        )

    def plot(self, name: str | None = None) -> Figure:
        """Return a picture of the run as a matplotlib figure.

        Args:
            name: of the picture, as its file in plots/ is called without `.png`; None is the one
                that decides: differences between variants where there are verdicts, say.

        Raises:
            ConfigError: the run has no such picture.
        """
        from lrexp.report.data import pictures
        from lrexp.report.figure import draw
        from lrexp.report.style import house_style

        found = pictures(self)
        name = next(n for n in _DECIDING if n in found) if name is None else name
        if name not in found:
            raise ConfigError.single(
                "name", "is no picture of this run", name, did_you_mean(name, found)
            )
        with house_style():
            return draw(found[name])

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the table, and the picture that decides."""
        from lrexp.report.display import html_of
        from lrexp.report.show import shown_run

        return html_of(shown_run(self), self.plot() if self.trials else None)


def load_run(path: str | Path) -> Run:
    """Return a run as its directory shows it; curves are read when they are asked for.

    Raises:
        ConfigError: the path is not a run directory.
        RunError: a file of the run is damaged.

    Example:
        >>> lrexp.load_run("runs/...").trials[0].steps["loss"]      # doctest: +SKIP
    """
    return Run.of(reader.load_run(path))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a variant of summary.json in columns, one for each metric, outcome and seed."""
    found = {key: row.get(key) for key in ("variant", "mean", "sd", "verdict")}
    found["diagnosis"] = (row.get("diagnosis") or {}).get("word")
    for name, values in (row.get("metrics") or {}).items():
        found |= {f"{name}_{which}": (values.get(which) or {}).get("mean") for which in _ENDS}
        epochs = [epoch for epoch in values.get("best_epoch") or () if epoch is not None]
        found[f"{name}_best_epoch"] = median(epochs) if epochs else None
    seeds = {f"value_{number}": _number(v) for number, v in enumerate(row.get("values") or ())}
    return found | (row.get("outcomes") or {}) | seeds


def _usual(config: Any, key: str) -> Any:
    """Return the value at a dotted key of a config; None where it has none."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
