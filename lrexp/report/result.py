"""What find_lr returns: the suggestion and the curves of a range test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrexp.analysis.range_curve import Curve
from lrexp.analysis.signal import paired_control
from lrexp.analysis.suggest import Suggestion
from lrexp.report.run import Run
from lrexp.runs import reader
from lrexp.runs.files import as_written
from lrexp.runs.reader import control_losses, curves_of, finished_tests, others_train

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class RangeTest:
    """What an LR range test found: the suggestion, and the curve of every seed."""

    suggestion: Suggestion
    curves: tuple[Curve, ...]
    run: Run | None = None
    shown: tuple[Curve, ...] = ()  # those the suggestion was read off, where they are others

    @property
    def suggested_lr(self) -> float | None:
        """The suggested LR; None when the curve has no usable signal (see `reason`)."""
        return self.suggestion.suggested_lr

    @property
    def interval(self) -> tuple[float, float] | None:
        """The usable range around the suggestion."""
        return self.suggestion.interval

    @property
    def base_lr(self) -> float | None:
        """The lower LR for cyclic and one-cycle schedules."""
        return self.suggestion.base_lr

    @property
    def max_lr(self) -> float | None:
        """The upper LR for cyclic and one-cycle schedules."""
        return self.suggestion.max_lr

    @property
    def rules(self) -> dict[str, float | None]:
        """Every rule's suggestion by its name."""
        return dict(self.suggestion.rules)

    @property
    def reason(self) -> str | None:
        """Why there is no suggestion; None when there is one."""
        return self.suggestion.reason

    @property
    def per_seed(self) -> tuple[float | None, ...]:
        """What the rule reads off the curve of each seed; None where it finds no signal."""
        return self.suggestion.per_seed

    @property
    def note(self) -> str | None:
        """What the suggestion holds for, and whether it could be better; None without a note."""
        note = (self.run.summary or {}).get("note") if self.run else None
        return self.suggestion.note if note is None else str(note)

    @property
    def race(self) -> dict[str, Any] | None:
        """What trainings of several LRs came to, as summary.json has it; None without any."""
        race: dict[str, Any] | None = (self.run.summary or {}).get("race") if self.run else None
        return race

    @property
    def within(self) -> float | None:
        """The LRs of the interval ended within this share of the best loss; None if not known."""
        return (self.run.summary or {}).get("within") if self.run else None

    @property
    def spent(self) -> dict[str, Any]:
        """What it took: `seconds` of training, `steps`, and `trainings`, whole ones."""
        return dict((self.run.summary or {}).get("spent") or {}) if self.run else {}

    @property
    def tried(self) -> list[dict[str, Any]]:
        """Every LR that was trained: `lr`, `seed`, `steps`, `loss` and `outcome`."""
        return list((self.run.summary or {}).get("tried") or ()) if self.run else []

    def __repr__(self) -> str:
        words = [f"suggested_lr={self.suggested_lr!r:.6}"]
        if self.interval is not None:
            words.append("interval=({:.3g}, {:.3g})".format(*self.interval))
        if self.reason is not None:
            words.append(f"reason={self.reason!r}")
        words.append(f"{len(self.curves)} curves")
        if self.run is not None:
            words.append(f"path={str(self.run.path)!r}")
        return f"RangeTest({', '.join(words)})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the answer, and the picture of it."""
        from matplotlib.figure import Figure
        from rich.text import Text

        from lrexp.report.display import html_of

        if self.run is not None:
            return self.run._repr_html_()
        figure = Figure(figsize=(10, 5), layout="constrained")
        self.plot(figure.add_subplot())
        return html_of(Text(repr(self)), figure)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw loss over LR with the suggestion marked; return the Axes."""
        from lrexp.report.plots import plot_range_test

        return plot_range_test(self.shown or self.curves, self.suggestion, ax=ax)


def range_test(run: reader.Run) -> RangeTest:
    """Return what the range tests of a finished run suggest, as its summary.json says."""
    tests = finished_tests(run)
    curves = curves_of(tests)
    summary = run.summary or {}
    with as_written(str(run.path)):
        found = Suggestion(
            suggested_lr=summary["suggested_lr"],
            interval=_pair(summary["interval"]),
            base_lr=summary["base_lr"],
            max_lr=summary["max_lr"],
            rules=summary["rules"],
            reason=summary["reason"],
            note=summary.get("note"),
            per_seed=tuple(summary.get("per_seed", ())),
            mean_frac=float(summary.get("mean_frac", 1.0)),
            readings=summary.get("readings"),
            edge=summary.get("stability_edge"),
        )
        if not 0 < found.mean_frac <= 1:
            raise ValueError(f"mean_frac is {found.mean_frac}, and a share lies in (0, 1]")
    shown = tuple(
        paired_control(curves, control_losses(run, tests), others_train=others_train(run)) or ()
    )
    return RangeTest(found, tuple(curves), Run.of(run), shown)


def _pair(interval: Any) -> tuple[float, float] | None:
    return None if interval is None else (float(interval[0]), float(interval[1]))
