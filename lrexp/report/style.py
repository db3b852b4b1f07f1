"""The look of every picture: colours, fonts, axes, and which losses a panel shows.

Colours are those of Okabe & Ito, which people with any colour vision tell apart; their yellow,
too pale for a line on white, gives way to a brown. From the ninth line on, dashes and markers
tell the lines apart. Text from users is never read as TeX, and a character that no font has
becomes a box.
Source: Okabe & Ito, Color Universal Design, 2008.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from lrexp.report.curves import Array, LossCurves
from lrexp.report.text import lr_text, number_text, shortened, steps_text

COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#222222",
    "#A0522D",
)

DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))
MARKERS = ("", "o", "s", "^")
INK = "#222222"
MUTED = "#6B6B6B"
GRID = "#E6E6E6"
ACCENT = "#D55E00"  # what a range test suggests
FONT = "DejaVu Sans"  # comes with matplotlib

WIDER_FONTS = (  # asked for characters that FONT lacks, where they are installed
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Arial Unicode MS",
)

MISSING_GLYPH = "□"
NOTE_BOX = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
NUM_MARKERS = 8  # on a line
TITLE_PAD = 8.0  # points between a panel and its title
EPOCHS_HEIGHT = 15.663  # points, of an axis of epochs along the top: ticks and numbers
LOG_RATIO = 30.0  # of the highest to the lowest value in view, above which an axis is logarithmic


@dataclass(frozen=True)
class Mark:
    """How one line is told from the others."""

    color: str
    dashes: Any
    marker: str = ""  # on the line, in a few places


def mark(index: int) -> Mark:
    """Return the mark of the line number `index`; the first 32 differ."""
    turn = index // len(COLORS) % len(DASHES)
    return Mark(COLORS[index % len(COLORS)], DASHES[turn], MARKERS[turn])


def marker_look(look: Mark, num_points: int) -> dict[str, Any]:
    """Return what `Axes.plot` is told about the markers on a line of so many points."""
    if not look.marker:
        return {}
    every = max(1, num_points // NUM_MARKERS)
    return {"marker": look.marker, "markersize": 5.0, "markevery": (every // 2, every)}


def house_style() -> AbstractContextManager[None]:
    """Return a context in which matplotlib draws as the house does, whatever the user has set."""
    return mpl.rc_context(
        {
            **{key: mpl.rcParamsDefault[key] for key in mpl.rcParamsDefault if _is_look(key)},
            "font.family": list(_fonts()),
            "font.size": 11.0,
            "text.usetex": False,
            "text.color": INK,
            "axes.edgecolor": "#9A9A9A",
            "axes.labelcolor": INK,
            "axes.linewidth": 0.8,
            "axes.unicode_minus": False,
            "axes.titley": 1.0,  # else found out anew, tick by tick, in every pass of the layout
            "path.simplify": True,
        }
    )


def _is_look(key: str) -> bool:
    groups = ("axes.", "figure.", "font.", "grid.", "legend.", "lines.", "savefig.", "text.")
    return key.startswith((*groups, "xtick.", "ytick.", "patch.", "path."))


def drawable(text: str, width: int = 200) -> str:
    """Return user text on one line of at most `width` characters, made of glyphs that exist."""
    known = _glyphs()
    return "".join(c if ord(c) in known else MISSING_GLYPH for c in shortened(text, width))


def dress(ax: Axes) -> None:
    """Give axes a quiet grid and two thin spines."""
    ax.set_axisbelow(True)
    ax.grid(True, which="major", color=GRID, linewidth=0.8)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(which="both", color="#9A9A9A", labelcolor=INK, length=3.5)
    ax.tick_params(which="minor", length=2)


def wants_log(low: float, high: float) -> bool:
    """Return whether values in this range are easier to read on a logarithmic axis."""
    return low > 0 and high > LOG_RATIO * low


def log_limits(low: float, high: float, foot: float, head: float) -> tuple[float, float]:
    """Return limits of a logarithmic axis, with room as fractions of the range in decades."""
    bottom, top = float(np.log10(low)), float(np.log10(high))
    span = (top - bottom) or 1.0
    return 10 ** max(bottom - foot * span, -250.0), 10 ** min(top + head * span, 250.0)


def pad_x(ax: Axes, first: float, last: float) -> None:
    """Set the limits of a linear x axis with a little room for the marks at its ends."""
    room = 0.012 * (last - first) or 0.5
    ax.set_xlim(first - room, last + room)


def panel_title(ax: Axes, text: str, **look: Any) -> Text:
    """Write a title above a panel, and above its axis of epochs where it has one; return it.

    The last title of a panel says how high all of them stand.
    """
    pad = TITLE_PAD + (EPOCHS_HEIGHT if ax.child_axes else 0.0)
    usual: dict[str, Any] = {"loc": "left", "fontsize": 12, "color": INK, "parse_math": False}
    return ax.set_title(text, pad=pad, **(usual | look))


def log_axis(ax: Axes, which: str, text: Callable[[float], str] = number_text) -> None:
    """Make the x or y axis logarithmic; few decades also get labels at 2 and 5.

    Call it when the limits are set: they decide the labels.
    """
    getattr(ax, f"set_{which}scale")("log")
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
    decades = abs(float(np.log10(high) - np.log10(low)))
    subs = [1.0, 2.0, 5.0] if decades < 2.5 else [1.0]
    if decades < 0.7:
        subs = [float(digit) for digit in range(1, 10)]
    if decades < 0.4:  # may hold none of those digits
        axis.set_major_locator(MaxNLocator(nbins=6))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(base=10, subs=subs))
        axis.set_minor_locator(LogLocator(base=10, subs=tuple(range(1, 10)), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_formatter(NullFormatter())


def lr_axis(ax: Axes, which: str, *, log: bool) -> None:
    """Label an axis of learning rates: 0.01, 1e-4."""
    if log:
        log_axis(ax, which, lr_text)
        return
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: lr_text(value)))


def number_axis(ax: Axes, which: str, *, log: bool) -> None:
    """Label an axis of losses or accuracies."""
    if log:
        log_axis(ax, which)
        return
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: number_text(value)))


def step_axis(ax: Axes, *, unit: str = "step", steps_per_epoch: float | None = None) -> None:
    """Label the x axis in steps (or epochs), with epochs along the top where their length is known.

    Call it when the limits are set: an axis of epochs is drawn where it has an epoch to show.
    """
    ax.set_xlabel(unit)
    ax.xaxis.set_major_locator(_whole_numbers())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: steps_text(value)))
    if unit != "step" or not steps_per_epoch or ax.get_xlim()[1] < steps_per_epoch:
        return
    length = steps_per_epoch
    top = ax.secondary_xaxis("top", functions=(_scaled(1 / length), _scaled(length)))
    top.xaxis.set_major_locator(_whole_numbers())
    top.tick_params(color=GRID, labelcolor=MUTED, labelsize="small", length=3)
    top.spines["top"].set_visible(False)
    # a title at the right, not a label of the axis: that would take a line of its own
    panel_title(ax, "epoch", loc="right", fontsize="small", color=MUTED)


def _whole_numbers() -> MaxNLocator:
    return MaxNLocator(nbins=7, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def _scaled(factor: float) -> Callable[[Any], Any]:
    return lambda values: values * factor


@lru_cache(maxsize=1)
def _fonts() -> tuple[str, ...]:
    installed = set(font_manager.fontManager.get_font_names())
    return (FONT, *(name for name in WIDER_FONTS if name in installed))


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    """Return the code points that every weight in use can draw."""
    return frozenset(_glyphs_of("normal") & _glyphs_of("bold"))


def _glyphs_of(weight: str) -> set[int]:
    fonts = [font_manager.FontProperties(family=name, weight=weight) for name in _fonts()]
    return {glyph for font in fonts for glyph in FT2Font(font_manager.findfont(font)).get_charmap()}


BLOW_UP = 4.0  # times the fall of the best curve, that a curve in view may rise above its start


@dataclass(frozen=True)
class Seen:
    """What one variant would have shown."""

    low: float
    high: float
    start: float
    end: float


def loss_view(curves: Sequence[LossCurves]) -> tuple[float, float]:
    """Return the lowest and the highest loss to show.

    Seeds that diverged have no say, unless all did; nor do rare peaks of the raw losses, nor
    losses of exactly 0 (a loss that underflows), which no logarithmic axis could show.
    """
    seen = []
    for curve in curves:
        if curve.smooth is not None:
            raw = np.concatenate([line.y for line in curve.kept_raw])
            start = float(np.median([line.y[0] for line in curve.kept_raw if len(line.y)]))
            low, high = (float(loss) for loss in np.percentile(raw, [1, 99]))
            middle = curve.smooth.middle
            lowest = float(middle.min(where=middle != 0.0, initial=middle.max()))
            low = lowest if low == 0.0 == raw.min() else min(low, lowest)
            seen.append(Seen(low, high, start, float(middle[-1])))
    if seen:
        return clipped_view(seen)
    return view_of_lost([line.y for curve in curves for line in curve.diverged])


def clipped_view(seen: Sequence[Seen]) -> tuple[float, float]:
    """Return the range that holds all curves but for their blow-ups.

    A curve may rise above its start by a few times what the best curve falls below it; the end of
    the best curve is always in view.
    """
    low = min(s.low for s in seen)
    tops = [s.start + BLOW_UP * ((s.start - low) or abs(s.start)) for s in seen]
    best_end = min(s.end for s in seen)
    high = max(max(min(s.high, top), s.start) for s, top in zip(seen, tops, strict=True))
    return low, max(high, best_end + 0.5 * (best_end - low))


def set_loss_axis(ax: Axes, low: float, high: float, *, log: bool, head: float = 0.06) -> None:
    """Set the y axis; `head` is the room above the highest loss, as a fraction of the range."""
    if log:
        ax.set_ylim(*log_limits(low, high, 0.06, head))
    else:
        span = (high - low) or abs(high) or 1.0
        ax.set_ylim(low - 0.06 * span, high + head * span)
    number_axis(ax, "y", log=log)


def view_of_lost(losses: Sequence[Array]) -> tuple[float, float]:
    """Return the view where every seed diverged: around the losses that they began with."""
    losses = [loss for loss in losses if len(loss)]
    if not losses:
        return 0.0, 1.0
    start = float(np.median([loss[0] for loss in losses]))
    low = min(float(loss.min()) for loss in losses)
    high = max(float(loss.max()) for loss in losses)
    return low, min(high, start + 10 * max(start - low, abs(start)))
