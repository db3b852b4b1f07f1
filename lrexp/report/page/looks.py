"""The look of every kind of mark on the page, as plotly.js wants it.

Colours are names, such as `@0` or `@muted`: the page turns them into those of its light or its dark
palette; `@v0.5` is half way on its scale of shades. The marks are those that `lrexp.report.style`
draws with matplotlib, and so are the hues.
"""

from __future__ import annotations

from typing import Any

DASHES = ("solid", "8px,3px", "2px,2px", "9px,3px,2px,3px")
RULE_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star")
OWN = "@own"  # the colour of the mark's look


def _line(width: float, alpha: float = 1.0, color: str = OWN, dash: str = "") -> dict[str, Any]:
    return {"mode": "lines", "width": width, "alpha": alpha, "color": color, "dash": dash}


def _dots(symbol: str, size: float, alpha: float = 1.0, color: str = OWN) -> dict[str, Any]:
    return {"mode": "markers", "symbol": symbol, "size": size, "alpha": alpha, "color": color}


MARKS: dict[str, dict[str, Any]] = {
    "loss.raw": _line(0.7, 0.3),
    "loss.seed": _line(1.1, 0.75),
    "loss.median": _line(2.2),
    "loss.best": _dots("circle-open", 11),
    "loss.lost": _line(1.3),
    "loss.leaver": _dots("x", 9),
    "lr.trace": _line(2.2),
    "lr.reactive": _line(1.3, dash="6px,4px"),
    "lr.seed": _line(1.0, 0.5),
    "range.raw": _line(0.9, 0.4),
    "range.median": _line(2.4),
    "range.suggested": _line(1.5, dash="5px,3px"),
    "range.rule": _dots("circle-open", 8, color="@ink"),
    "suggested": _line(2.0, color="@accent"),
    "strip.line": _line(0.8, color="@grid"),
    "strip.suggested": _dots("line-ns-open", 14, color="@accent"),
    "strip.suggested_bar": _line(8, 0.35, color="@accent"),
    "strip.range_bar": _line(8, 0.35, color="@bar"),
    "strip.rule": _dots("circle-open", 7, color="@ink"),
    "strip.rule_bar": _line(8, 0.35, color="@bar"),
    "race.mean": _line(1.6, 0.5),
    "race.seed": _dots("circle", 5, 0.45),
    "race.kept": _dots("circle", 11),
    "race.beyond": _dots("diamond-tall-open", 11),
    "race.worse": _dots("triangle-up-open", 11),
    "race.diverged": _dots("x", 12),
    "sensitivity.basins": _line(4, 0.6),
    "sensitivity.mean": {**_line(2.2), "mode": "lines+markers", "symbol": "circle", "size": 5},
    "sensitivity.seed": _dots("circle", 7, 0.35),
    "sensitivity.diverged": _dots("x", 10),
    "sensitivity.beyond": _dots("diamond-tall", 10),
    "sensitivity.best": _dots("circle-open", 14),
    "sensitivity.start": _line(1, color="@muted", dash="4px,3px"),
    "verdicts.zero": _line(1.2, color="@ink"),
    "verdicts.seed": _dots("circle", 6, 0.5),
    "verdicts.mean": _dots("diamond", 10),
    "verdicts.interval": _line(8, 0.35),
    "verdicts.diverged": _dots("x", 10),
    "finals.seed": _dots("circle", 8, 0.6),
    "finals.mean": _dots("line-ns-open", 18),
    "finals.lost": _dots("x", 10),
}
SPANS = {  # the colour and its strength
    "range": ("@bar", 0.2),
    "interval": ("@accent", 0.15),
    "sensitivity.basin": (OWN, 0.13),
    "verdicts.noise": ("@muted", 0.15),
}
BAND = 0.16
NOTES = {  # the colour, and whether it is strong
    "suggested": ("@accent", True),
    "strip.suggested": ("@accent", True),
    "strip.range": ("@muted", False),
    "range.reason": ("@ink", True),
    "verdicts.claim": ("@good", True),
    "verdicts.worse": ("@bad", True),
    "verdicts.row": ("@ink", True),
}
# How a legend shows what stands for more than a line: a swatch with this class of the page.
SWATCHES = {
    "band": "band",
    "interval": "interval",
    "range": "range",
    "sensitivity.basin": "band",
    "sensitivity.basins": "bar",
    "verdicts.interval": "bar",
    "verdicts.noise": "noise",
}
