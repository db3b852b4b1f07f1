"""What a picture is made of, whoever draws it: arrays, words and axes; no colour, font or size.

A picture has panels of marks, and a legend. The `kind` of a mark says what it stands for, such as
`loss.median`; a drawing has a look for each kind. So a PNG and a page show the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrexp.report.text import run_subtitle, shortened
from lrexp.runs.reader import Run

Array = NDArray[np.float64]
Within: TypeAlias = Literal["", "x", "y", "xy"]  # coordinates that are fractions of the panel
View: TypeAlias = tuple[float, float]  # the lowest and the highest value to show
Side: TypeAlias = Literal["left", "right", "center"]
NUM_COLORS, NUM_DASHES = 8, 4  # that a drawing has
LOG_RATIO = 30.0  # of the highest to the lowest value in view, above which an axis is logarithmic
NAME_WIDTH = 26  # characters of a name in a legend or beside a row


@dataclass(frozen=True)
class Look:
    """Which colour and which dashes tell a line from the others, by number."""

    color: int
    dash: int = 0
    shade: float | None = None  # from 0 to 1 on a scale of colours, in place of colour and dashes


def look(index: int) -> Look:
    """Return the look of line number `index`; the first 32 differ."""
    return Look(index % NUM_COLORS, index // NUM_COLORS % NUM_DASHES)


@dataclass(frozen=True)
class Scale:
    """What the shades of looks stand for: numbers from `low` to `high`."""

    title: str
    low: float
    high: float
    log: bool

    def look(self, value: float) -> Look:
        """Return the look of a number on the scale."""
        low, high, at = (np.log([self.low, self.high, value]) if self.log
                         else (self.low, self.high, value))  # fmt: skip
        return Look(0, shade=float((at - low) / (high - low)))


@dataclass(frozen=True, eq=False)
class Mark:
    """Points; whether a line joins them is up to their kind."""

    kind: str
    x: Array
    y: Array
    look: Look | None = None  # None where the kind has a colour of its own
    name: str = ""  # of the variant or rule
    within: Within = ""
    lr: Array | None = None  # at each point, where the picture is to be asked for it


def mark(
    kind: str, x: ArrayLike, y: ArrayLike, look: Look | None = None, within: Within = ""
) -> Mark:
    """Return a mark at points given as numbers."""
    return Mark(kind, np.asarray(x, float), np.asarray(y, float), look, within=within)


@dataclass(frozen=True, eq=False)
class Band:
    """The area between two lines."""

    x: Array
    low: Array
    high: Array
    look: Look
    name: str = ""  # of the variant


@dataclass(frozen=True)
class Span:
    """A range of x, over the whole height of a panel."""

    kind: str
    low: float
    high: float
    look: Look | None = None


@dataclass(frozen=True)
class Note:
    """A text at a point."""

    kind: str
    text: str
    x: float
    y: float
    within: Within = ""
    side: Side = "right"  # of the point, where the text stands
    below: str = ""  # a second line, in smaller letters


@dataclass(frozen=True, eq=False)
class Cells:
    """A table of coloured cells.

    Args:
        x, y: borders of the columns and of the rows, one more than there are.
        values: (rows, columns), nan where there is none.
        texts: what stands in each cell, and notes: below it, of cells that are marked as lost.
        best: row and column of the one that is framed.
        limits: what the colours span, on a logarithmic scale where `log`.
        title: of the scale of colours.
        darkest: which end of the scale that is.
    """

    x: Array
    y: Array
    values: Array
    texts: Sequence[Sequence[str]]
    notes: Sequence[Sequence[str]]
    best: tuple[int, int] | None
    limits: View
    log: bool
    title: str
    darkest: Literal["lowest", "highest"]


Marks: TypeAlias = list[Mark | Band | Span | Note | Cells]


@dataclass(frozen=True)
class Axis:
    """Limits, scale and words of one axis."""

    limits: tuple[float, float]
    title: str = ""
    scale: Literal["linear", "log", "symlog"] = "linear"
    numbers: Literal["number", "lr", "steps", "none"] = "number"  # how they are written
    steps_per_epoch: float | None = None  # gives an axis of steps another one, of epochs
    linear_until: float = 1.0  # to both sides of 0, where the scale is symlog
    ticks: tuple[float, ...] = ()  # all there are; a scale that is symlog needs them
    labels: tuple[str, ...] = ()  # of the ticks, where they are not their numbers
    names: tuple[str, ...] = ()  # of the rows 0, 1, ... in place of numbers

    def fraction(self, value: float) -> float:
        """Return where a value stands on a logarithmic axis, from 0 to 1."""
        low, high = np.log10(self.limits)
        return float((np.log10(value) - low) / (high - low))


@dataclass(frozen=True)
class Panel:
    """Two axes, and what is drawn on them, in this order."""

    x: Axis
    y: Axis
    marks: Sequence[Mark | Band | Span | Note | Cells]
    title: str = ""


@dataclass(frozen=True)
class Entry:
    """One line of a legend: a mark of this kind and look, and what it means."""

    kind: str
    name: str
    note: str = ""  # below the name
    look: Look | None = None


@dataclass(frozen=True)
class Picture:
    """A picture: what it says about itself, its panels, its legend."""

    title: str  # what is compared
    panels: Sequence[Panel]  # side by side
    strip: Panel | None = None  # of rows, below a single panel; they share the x axis
    subtitle: str = ""  # with what
    caption: str = ""  # how to read the lines
    source: str = ""  # which run it was made from
    entries: Sequence[Entry] = ()
    legend_title: str = ""
    name_width: int = NAME_WIDTH
    scale: Scale | None = None  # of the colours of the lines


def of_run(run: Run, what: str, panels: Sequence[Panel], **more: Any) -> Picture:
    """Return a picture that says of which run it is, and what the run's variants have in common."""
    title = f"{shortened(run.name, 48)}: {what}"
    return Picture(title, panels, subtitle=run_subtitle(run), source=run.path.name, **more)


def wants_log(low: float, high: float) -> bool:
    """Return whether values in this range are easier to read on a logarithmic axis."""
    return low > 0 and high > LOG_RATIO * low


def log_limits(low: float, high: float, foot: float, head: float) -> tuple[float, float]:
    """Return limits of a logarithmic axis, with room as fractions of the range in decades.

    Example:
        >>> log_limits(0.01, 1.0, 0.5, 0.5)
        (0.001, 10.0)
    """
    bottom, top = float(np.log10(low)), float(np.log10(high))
    span = (top - bottom) or 1.0
    return 10 ** max(bottom - foot * span, -250.0), 10 ** min(top + head * span, 250.0)


def value_axis(
    low: float, high: float, foot: float, head: float, *, log: bool, flat: float = 1.0
) -> Axis:
    """Return an axis of losses or accuracies.

    Args:
        low, high: of the values in view.
        foot, head: room below and above them, as fractions of their range.
        log: makes it logarithmic.
        flat: the range of equal values, as a fraction of their size.

    Example:
        >>> value_axis(1.0, 3.0, 0.5, 0.5, log=False).limits
        (0.0, 4.0)
    """
    if log:
        return Axis(log_limits(low, high, foot, head), scale="log")
    span = (high - low) or flat * abs(high) or 1.0
    return Axis((low - foot * span, high + head * span))


def lr_axis(low: float, high: float, room: float, title: str = "learning rate") -> Axis:
    """Return a logarithmic axis of LRs."""
    return Axis(log_limits(low, high, room, room), title, "log", "lr")


def step_axis(last: float, unit: str = "step", steps_per_epoch: float | None = None) -> Axis:
    """Return an axis from 0 to the last step (or epoch), with room for the marks at its ends."""
    room = 0.012 * last or 0.5
    return Axis((-room, last + room), unit, numbers="steps", steps_per_epoch=steps_per_epoch)
