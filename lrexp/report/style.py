"""The look of every picture: colours, fonts, and how each kind of mark is drawn by matplotlib.

Colours are those of Okabe & Ito, which people with any colour vision tell apart; their yellow,
too pale for a line on white, gives way to a brown. From the ninth line on, dashes and markers
tell the lines apart. Text from users is never read as TeX, and a character that no font has
becomes a box.
Source: Okabe & Ito, Color Universal Design, 2008.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from lrexp.report.data.picture import Look
from lrexp.report.text import shortened

COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222", "#A0522D",
)  # fmt: skip
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))
MARKERS = ("", "o", "s", "^")  # on a line, in a few places: one for each of the dashes
REACTIVE = (0, (5, 3))  # dashes of an LR that follows a loss
RULE_MARKERS = "osD^vPX*"
INK = "#222222"
MUTED = "#6B6B6B"
GRID = "#E6E6E6"
ACCENT = "#D55E00"  # what a range test suggests
RANGE = "#E6E1D3"  # the LRs between base and max
RANGE_BAR = "#8F8768"
DECIDED = "#0B7A4B"  # a claim that the variant is better
WORSE = "#B3261E"  # that it is worse
SHADES = "viridis"  # perceptually uniform
PALEST = 0.92  # of it: the yellow beyond is too pale for a line on white
FONT = "DejaVu Sans"  # comes with matplotlib

WIDER_FONTS = (  # asked for characters that FONT lacks, where they are installed
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
    "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS",
)  # fmt: skip
MISSING_GLYPH = "□"


def _dots(marker: str, size: float, **more: Any) -> dict[str, Any]:
    """Return the look of points that no line joins."""
    return {"marker": marker, "markersize": size, "linestyle": "none", **more}


_HOLLOW: dict[str, Any] = {"markerfacecolor": "white"}
_CROSS = {"markeredgecolor": "white", "clip_on": False}  # also whole where it stands on the edge
_BAR = {"linewidth": 7, "alpha": 0.35, "solid_capstyle": "butt"}

# By kind of mark; those without a colour have that of their look.
MARKS: dict[str, dict[str, Any]] = {
    "loss.raw": {"linewidth": 0.6},
    "loss.median": {"linewidth": 2.2},
    "loss.lost": {"linewidth": 1.3},
    "loss.best": _dots("o", 9, markerfacecolor="none", markeredgewidth=1.6, zorder=5),
    "loss.leaver": _dots("X", 8, **_CROSS, zorder=6),
    "lr.trace": {"linewidth": 2.2},
    "lr.reactive": {"linewidth": 1.3, "zorder": 2.5},
    "lr.seed": {"linewidth": 1.0, "alpha": 0.5},
    "range.raw": {"linewidth": 0.8, "alpha": 0.35},
    "range.median": {"linewidth": 2.4},
    "range.suggested": {"linewidth": 1.5, "linestyle": (0, (4, 2))},
    "range.rule": _dots("o", 7, color=INK, markeredgewidth=1.3, zorder=4, **_HOLLOW),
    "suggested": {"linewidth": 2, "color": ACCENT, "zorder": 3},
    "strip.line": {"linewidth": 0.8, "color": GRID, "zorder": 0},
    "strip.suggested": _dots("|", 13, color=ACCENT, markeredgewidth=2.4, **_HOLLOW),
    "strip.suggested_bar": {"color": ACCENT, **_BAR},
    "strip.range_bar": {"color": RANGE_BAR, **_BAR},
    "strip.rule": _dots("o", 6, color=INK, markeredgewidth=1.3, **_HOLLOW),
    "strip.rule_bar": {"color": RANGE_BAR, **_BAR},
    "race.mean": {"linewidth": 1.6, "alpha": 0.5, "zorder": 2},
    "race.seed": _dots(".", 6, alpha=0.45, zorder=2),
    "race.kept": _dots("o", 10, markeredgewidth=2, zorder=4),
    "race.beyond": _dots("d", 9, markeredgewidth=1.5, zorder=4, **_HOLLOW),
    "race.worse": _dots("^", 10, markeredgewidth=2, zorder=4, **_HOLLOW),
    "race.diverged": _dots("X", 11, markeredgecolor="white", zorder=4),
    "sensitivity.basins": {"linewidth": 4, "alpha": 0.6, "solid_capstyle": "butt", "zorder": 2},
    "sensitivity.mean": {"linewidth": 2.2, "marker": "o", "markersize": 3.5, "zorder": 3},
    "sensitivity.seed": _dots("o", 6.5, alpha=0.3, markeredgewidth=0, zorder=2.5),
    "sensitivity.diverged": _dots("X", 9, **_CROSS, zorder=6),
    "sensitivity.beyond": _dots("d", 9, **_CROSS, zorder=6),
    "sensitivity.best": _dots("o", 11, markerfacecolor="none", markeredgewidth=1.8, zorder=4),
    "sensitivity.start": {"linewidth": 1, "color": MUTED, "linestyle": (0, (4, 3)), "zorder": 1},
    "verdicts.zero": {"linewidth": 1.2, "color": INK, "zorder": 1.5},
    "verdicts.seed": _dots("o", 5, alpha=0.45, markeredgewidth=0, zorder=2.5),
    "verdicts.mean": _dots("D", 7, markeredgecolor="white", zorder=4),
    "verdicts.interval": {**_BAR, "zorder": 3},
    "verdicts.diverged": _dots("X", 9, **_CROSS, zorder=4),
}
FOLDED = {"loss.seed"}  # kinds that a band stands for; a page unfolds it
BAND: dict[str, Any] = {"alpha": 0.16, "linewidth": 0}

SPANS: dict[str, dict[str, Any]] = {
    "range": {"color": RANGE, "alpha": 0.7, "zorder": 0},
    "interval": {"color": ACCENT, "alpha": 0.18, "zorder": 0.5},
    "sensitivity.basin": {"alpha": 0.13, "zorder": 0},
    "verdicts.noise": {"color": GRID, "alpha": 0.8, "zorder": 0},
}

CELLS: dict[str, Any] = {"edgecolors": "white", "linewidth": 1.5}
LOST: dict[str, Any] = {
    "facecolor": "#EDEDED",
    "edgecolor": "#B5B5B5",
    "hatch": "//",
    "linewidth": 0,
    "zorder": 2,
}
BEST: dict[str, Any] = {"fill": False, "edgecolor": ACCENT, "linewidth": 4, "zorder": 4}

_IN_BOX = {
    "bbox": {
        "boxstyle": "round,pad=0.25",
        "facecolor": "white",
        "edgecolor": "none",
        "alpha": 0.85,
    },
    "zorder": 5,
}
# By kind of note: how far from its point it stands, in points to its side and up; and its look.
NOTES: dict[str, tuple[float, float, dict[str, Any]]] = {
    "loss.leaver": (8, 0, {"fontsize": 9.5, "color": INK, **_IN_BOX}),
    "loss.empty": (0, 0, {"color": MUTED, "va": "baseline"}),
    "suggested": (9, 0, {"fontsize": 12, "color": ACCENT, "fontweight": "bold", **_IN_BOX}),
    "strip.suggested": (9, 0, {"fontsize": 9.5, "color": ACCENT, "fontweight": "bold"}),
    "strip.range": (9, 0, {"fontsize": 9.5, "color": MUTED}),
    "strip.rule": (9, 0, {"fontsize": 9.5, "color": INK}),
    "sensitivity.lost": (8, 0, {"fontsize": 8.5, "color": MUTED, **_IN_BOX}),
    "sensitivity.start": (0, 4, {"fontsize": 9, "color": MUTED, "va": "baseline"}),
}
REASON: dict[str, Any] = {  # why there is no suggestion, in a box of its own
    "fontsize": 11.5,
    "color": INK,
    "linespacing": 1.5,
    "ha": "center",
    "va": "top",
    "bbox": {"boxstyle": "round,pad=0.7", "facecolor": "white", "edgecolor": ACCENT},
    "zorder": 5,
}

# How a legend shows a kind of mark where that is not by its dashes: as a line, or as a patch.
LEGEND_LINES: dict[str, dict[str, Any]] = {
    "range.median": {"linewidth": 2.4},
    "range.raw": {"linewidth": 1, "alpha": 0.5},
    "suggested": {"linewidth": 2, "color": ACCENT},
    "race.mean": {"linewidth": 1.6, "marker": "o", "markersize": 8},
    "race.beyond": _dots("d", 8, color=MUTED, markeredgewidth=1.5, **_HOLLOW),
    "race.worse": _dots("^", 8, color=MUTED, markeredgewidth=1.8, **_HOLLOW),
    "race.diverged": _dots("X", 9, color=MUTED),
    "sensitivity.mean": {"linewidth": 2.2, "marker": "o", "markersize": 3.5},
    "sensitivity.seed": _dots("o", 6.5, color=MUTED, alpha=0.45),
    "sensitivity.best": _dots("o", 10, color=MUTED, markerfacecolor="none"),
    "sensitivity.diverged": _dots("X", 9, color=MUTED),
    "verdicts.seed": _dots("o", 5, color=MUTED, alpha=0.6),
    "verdicts.mean": _dots("D", 7, color=MUTED),
    "nothing": {"linestyle": "none"},
}
LEGEND_PATCHES: dict[str, dict[str, Any]] = {
    "band": {"alpha": 0.16},
    "heatmap.best": {"fill": False, "edgecolor": ACCENT, "linewidth": 2.5},
    "heatmap.lost": {"facecolor": "#EDEDED", "edgecolor": "#B5B5B5", "hatch": "////"},
    "interval": {"color": ACCENT, "alpha": 0.18},
    "range": {"color": RANGE},
    "sensitivity.basin": {"alpha": 0.13},
    "sensitivity.basins": {"color": MUTED, "alpha": 0.6},
    "verdicts.interval": {"color": MUTED, "alpha": 0.35},
    "verdicts.noise": {"color": GRID},
}


def color_of(look: Look) -> Any:
    """Return the colour of a look."""
    if look.shade is None:
        return COLORS[look.color]
    return mpl.colormaps[SHADES](PALEST * look.shade)


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
    return in_glyphs(shortened(text, width))


def in_glyphs(text: str) -> str:
    """Return a text with a box in place of every character that no font has."""
    known = _glyphs()
    return "".join(c if ord(c) in known else MISSING_GLYPH for c in text)


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
