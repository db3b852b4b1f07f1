"""Drawing a picture for the page: its panels as traces, axes and shapes of plotly.js.

The other drawer, beside `lrexp.report.figure`: both show the same `Picture`. Numbers travel as
32-bit floats in base64, and long lines are thinned with their peaks kept, so that a page of a
thousand trainings stays small.
"""

from __future__ import annotations

import base64
import html
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrexp.analysis.smoothing import thin
from lrexp.report.data.picture import (
    Array,
    Axis,
    Band,
    Cells,
    Look,
    Mark,
    Note,
    Panel,
    Picture,
    Span,
)
from lrexp.report.page.looks import BAND, DASHES, MARKS, NOTES, OWN, RULE_SYMBOLS, SPANS
from lrexp.report.text import lr_text, number_text, shortened, steps_text, told_apart

Plain = dict[str, Any]
MOST_POINTS, FEWEST_POINTS = 2_000, 40  # of one line
FOLDED = ("loss.raw", "loss.seed")  # lines that are looked at later, if at all
ROW_HEIGHT, PANEL_HEIGHT = 26, 380  # pixels
TITLE_WIDTH, NARROW_NAME = 64, 20  # characters
FEW_POINTS = 40  # of a line, that are marked one by one
FEW_DECADES, MANY_DECADES = 0.7, 2.5  # of an axis: all digits, some, or none are written at it
WRITTEN: dict[str, Callable[[float], str]] = {
    "number": number_text,
    "lr": lr_text,
    "steps": steps_text,
}


@dataclass(frozen=True)
class Budget:
    """How many points a line may have: one that is seen at once, and one that is folded away."""

    seen: int = MOST_POINTS
    folded: int = MOST_POINTS

    @classmethod
    def of(cls, pictures: Iterable[Picture], points: int) -> Budget:
        """Share so many points among the lines of all pictures."""
        marks = [m for p in pictures for panel in p.panels for m in panel.marks]
        lines = [m for m in marks if isinstance(m, Mark | Band) and len(m.x) > FEWEST_POINTS]
        folded = sum(isinstance(line, Mark) and line.kind in FOLDED for line in lines)
        return cls(_share(points // 2, len(lines) - folded), _share(points // 2, folded))

    def points(self, kind: str) -> int:
        """Return how many points a line of this kind may have."""
        return self.folded if kind in FOLDED else self.seen


def _share(points: int, lines: int) -> int:
    return max(FEWEST_POINTS, min(MOST_POINTS, points // max(lines, 1)))


def charts(picture: Picture, budget: Budget) -> list[Plain]:
    """Return a chart for each panel of a picture, {data, layout, scales} of plotly.js.

    Args:
        picture: what to draw; tables of cells are drawn by the page itself.
        budget: of points.
    """
    shown = [p for p in picture.panels if not any(isinstance(m, Cells) for m in p.marks)]
    return [_chart(panel, picture.strip, budget) for panel in shown]


def _chart(panel: Panel, strip: Panel | None, budget: Budget) -> Plain:
    chart = _Chart(budget)
    rows = _num_rows(panel.y, panel)
    height = 110 + ROW_HEIGHT * rows * (1 if panel.y.names else 2) if rows else PANEL_HEIGHT
    bottom = 0.0
    if strip is not None:
        below = ROW_HEIGHT * (len(strip.y.names) + 1)
        bottom = (below + 20) / (height + below)
        height += below
        chart.add(strip, "y3", (0.0, bottom - 20 / height))
    chart.add(panel, "y", (bottom, 1.0))
    layout = {**chart.layout, "height": height, "shapes": chart.shapes}
    layout["annotations"] = chart.annotations
    return {
        "title": panel.title,
        "data": chart.traces,
        "layout": layout,
        "scales": _scales(panel) if not rows else None,
    }


def _num_rows(axis: Axis, panel: Panel) -> int:
    """Return how many rows a panel has in place of a y axis of numbers."""
    if axis.names:
        return len(axis.names)
    notes = [m for m in panel.marks if isinstance(m, Note) and m.kind.startswith("verdicts")]
    return len(notes) if axis.numbers == "none" else 0


class _Chart:
    """One chart on its way to plotly.js."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.traces: list[Plain] = []
        self.shapes: list[Plain] = []
        self.annotations: list[Plain] = []
        self.layout: Plain = {
            # fractions of the panel, for marks that stand at its edges
            "xaxis2": {"overlaying": "x", "range": [0, 1], "visible": False, "fixedrange": True},
            "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        }

    def add(self, panel: Panel, y: str, domain: tuple[float, float]) -> None:
        """Add a panel with its own y axis."""
        self.layout["xaxis"] = _axis(panel.x) | {"anchor": "y3" if "yaxis3" in self.layout else "y"}
        self.layout[f"yaxis{y[1:]}"] = _axis(panel.y) | {"domain": list(domain)}
        marks = [mark for mark in panel.marks if isinstance(mark, Mark)]
        for mark in panel.marks:
            if isinstance(mark, Mark):
                self._mark(mark, marks, panel, y)
            elif isinstance(mark, Band):
                self._band(mark, y)
            elif isinstance(mark, Span):
                self._span(mark, panel, y)
            elif isinstance(mark, Note):
                self._note(mark, panel, y)

    def _mark(self, mark: Mark, marks: Sequence[Mark], panel: Panel, y: str) -> None:
        look = MARKS[mark.kind]
        if mark.within and len(mark.x) == 2 and look["mode"] == "lines":
            self.shapes.append(_edge_line(mark, look, panel, y))
            return
        points = _thinned(mark, self.budget.points(mark.kind))
        xs, ys = _placed(points.x, panel.x), _placed(points.y, panel.y)
        trace = {
            "x": _packed(xs),
            "y": _packed(ys),
            "xaxis": "x2" if "x" in mark.within else "x",
            "yaxis": "y2" if "y" in mark.within else y,
            "kind": mark.kind,
            "key": key_of(mark.look),
            "variant": mark.name,
            **_styled(mark, look, marks),
            **_hover(points, panel),
        }
        self.traces.append(trace)

    def _band(self, band: Band, y: str) -> None:
        low, high = (thin(band.x, edge, self.budget.seen) for edge in (band.low, band.high))
        self.traces.append(
            {
                "x": _packed(np.concatenate([high[0], low[0][::-1]])),
                "y": _packed(np.concatenate([high[1], low[1][::-1]])),
                "yaxis": y,
                "kind": "band",
                "key": key_of(band.look),
                "variant": band.name,
                "mode": "lines",
                "fill": "toself",
                "fillcolor": f"{_color(OWN, band.look)}/{BAND}",
                "line": {"width": 0},
                "hoverinfo": "skip",
            }
        )

    def _span(self, span: Span, panel: Panel, y: str) -> None:
        color, alpha = SPANS[span.kind]
        color = _color(color, span.look)
        low, high = _placed(np.array([span.low, span.high]), panel.x)
        self.shapes.append(
            {
                "type": "rect",
                "x0": float(low),
                "x1": float(high),
                "y0": 0,
                "y1": 1,
                "xref": "x",
                "yref": f"{y} domain",
                "layer": "below",
                "fillcolor": f"{color}/{alpha}",
                "line": {"width": 0},
            }
        )

    def _note(self, note: Note, panel: Panel, y: str) -> None:
        color, strong = NOTES.get(note.kind, ("@ink", False))
        text = _plain_text(shortened(note.text, 400))
        text = f"<b>{text}</b>" if strong else text
        is_row = note.kind.startswith("verdicts")
        x_within, y_within = "x" in note.within, "y" in note.within
        self.annotations.append(
            {
                "text": text,
                "aside": _plain_text(note.below),  # left out on a narrow screen
                "x": note.x if x_within else _of_annotation(note.x, panel.x),
                "y": note.y if y_within else _of_annotation(note.y, panel.y),
                "xref": "x domain" if x_within else "x",
                "yref": f"{y} domain" if y_within else y,
                "xanchor": "left"
                if is_row
                else {"right": "left", "left": "right", "center": "center"}[note.side],
                "xshift": 0 if is_row else {"right": 9, "left": -9, "center": 0}[note.side],
                "yshift": 22 if is_row else 0,
                "showarrow": False,
                "align": "left",
                "font": {"color": color, "size": 13 if strong else 12},
                "bgcolor": "" if is_row else "@paper/0.8",
            }
        )


def _styled(mark: Mark, look: Plain, marks: Sequence[Mark]) -> Plain:
    """Return how plotly.js draws the points of a mark."""
    color = _color(look["color"], mark.look)
    mode, alpha = look["mode"], look["alpha"]
    found: Plain = {"mode": mode}
    if "lines" in mode:
        dash = look["dash"] or DASHES[mark.look.dash if mark.look else 0]
        is_thin = mark.kind in ("loss.raw", "loss.seed", "range.raw", "lr.seed")
        found["line"] = {"color": f"{color}/{alpha}", "width": look["width"]}
        if dash != "solid" and not is_thin:
            found["line"]["dash"] = dash
        if mark.kind in ("loss.median", "loss.lost") and len(mark.x) <= FEW_POINTS:
            found |= {"mode": "lines+markers", "marker": {"size": 5, "color": color}}
    if "markers" in look["mode"]:
        symbol = look["symbol"]
        if mark.kind in ("range.rule", "strip.rule"):
            rules = [m for m in marks if m.kind == mark.kind]
            symbol = f"{RULE_SYMBOLS[rules.index(mark) % len(RULE_SYMBOLS)]}-open"
        width = 2 if "open" in symbol else 0.8
        edge = f"{color}/{alpha}" if "open" in symbol else "@paper"
        found["marker"] = {
            "symbol": symbol,
            "size": look["size"],
            "color": f"{color}/{alpha}",
            "line": {"width": width, "color": edge},
        }
        found["cliponaxis"] = not mark.within
    return found


def _hover(mark: Mark, panel: Panel) -> Plain:
    """Return what is said of the point below the pointer."""
    if mark.kind.startswith("strip.") and mark.kind.endswith("_bar"):
        return {"hoverinfo": "skip"}
    name = _plain_text(shortened(mark.name, 80)).replace("{", "&#123;")  # no part of a template
    lines = [f"<b>{name}</b>"] if name else []
    given: Plain = {}
    if not panel.y.names and panel.y.numbers != "none":
        name = _plain_text((panel.y.title or panel.title).split(",")[0] or "value")
        lines.append(f"{name} %{{y:.4~g}}" if "y" not in mark.within else "")
    if panel.x.scale == "symlog":
        given["customdata"] = _packed(mark.x)
        lines.append("%{customdata:.4~g}")
    elif "x" not in mark.within:
        name = {"lr": "LR", "steps": panel.x.title}.get(panel.x.numbers, "")
        number = ",~r" if panel.x.numbers == "steps" and panel.x.title == "step" else ".4~g"
        lines.append(f"{name} %{{x:{number}}}")
    if mark.lr is not None and len(mark.lr) and (mark.lr == mark.lr[0]).all():
        lines.append(f"LR {lr_text(float(mark.lr[0]))}")
    elif mark.lr is not None and len(mark.lr):
        given["customdata"] = _packed(mark.lr)
        lines.append("LR %{customdata:.3~g}")
    return given | {"hovertemplate": "<br>".join(filter(None, lines)) + "<extra></extra>"}


def _thinned(mark: Mark, most: int) -> Mark:
    """Return a line of at most so many points, its peaks among them."""
    if len(mark.x) <= most or "lines" not in MARKS[mark.kind]["mode"]:
        return mark
    x, y = thin(mark.x, mark.y, most)
    lr = None if mark.lr is None else mark.lr[np.searchsorted(mark.x, x)]
    return Mark(mark.kind, x, y, mark.look, mark.name, mark.within, lr)


def _edge_line(mark: Mark, look: Plain, panel: Panel, y: str) -> Plain:
    """Return a line from edge to edge, which stays so when the panel is zoomed."""
    color = _color(look["color"], mark.look)
    xs = mark.x if "x" in mark.within else _placed(mark.x, panel.x)
    return {
        "type": "line",
        "x0": float(xs[0]),
        "x1": float(xs[1]),
        "y0": float(mark.y[0]),
        "y1": float(mark.y[1]),
        "xref": "x domain" if "x" in mark.within else "x",
        "yref": f"{y} domain" if "y" in mark.within else y,
        "line": {"color": f"{color}/{look['alpha']}", "width": look["width"], "dash": look["dash"]},
        "layer": "below" if mark.kind == "strip.line" else "above",
    }


def _axis(axis: Axis) -> Plain:
    """Return an axis of plotly.js with limits, scale, ticks and title."""
    found: Plain = {"type": "log" if axis.scale == "log" else "linear", "automargin": True}
    found["range"] = _range(axis, axis.limits)
    if axis.title:
        lines = textwrap.wrap(axis.title, TITLE_WIDTH)
        found["title"] = {"text": "<br>".join(map(_plain_text, lines))}
    written = WRITTEN.get(axis.numbers, number_text)
    if axis.names:
        names = [_plain_text(name) for name in axis.names]
        found |= {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": False}
        found["narrow"] = [_plain_text(name) for name in told_apart(axis.names, NARROW_NAME)]
    elif axis.numbers == "none":
        found |= {"showticklabels": False, "showgrid": False, "fixedrange": True, "ticks": ""}
    elif axis.ticks:
        found["tickvals"] = _placed(np.array(axis.ticks), axis).tolist()
        found["ticktext"] = [written(tick) for tick in axis.ticks]
    elif axis.scale == "log":
        decades = abs(float(np.diff(_range(axis, axis.limits))[0]))
        if decades < MANY_DECADES:
            found |= {"tickformat": "~g", "dtick": "D1" if decades < FEW_DECADES else "D2"}
        else:
            found |= {"exponentformat": "e", "dtick": 1}
    elif axis.numbers == "steps":
        found["tickformat"] = ",~r"
    return found


def _range(axis: Axis, limits: tuple[float, float]) -> list[float]:
    return [float(x) for x in _of_range(np.array(limits), axis)]


def _of_range(values: Array, axis: Axis) -> Array:
    """Return values as an axis counts them: logarithms on one that is logarithmic."""
    return np.log10(values) if axis.scale == "log" else _placed(values, axis)


def _of_annotation(value: float, axis: Axis) -> float:
    return float(_of_range(np.array([value]), axis)[0])


def _placed(values: Array, axis: Axis) -> Array:
    """Return values where they stand; plotly.js has no scale that is logarithmic on both sides."""
    if axis.scale != "symlog":
        return values
    size = np.abs(values) / axis.linear_until
    return np.sign(values) * np.where(size <= 1, size, 1 + np.log10(np.maximum(size, 1)))


def _scales(panel: Panel) -> Plain | None:
    """Return the ranges of the y axis on both scales; None where only one makes sense."""
    lines = [m.y for m in panel.marks if isinstance(m, Mark) and m.kind.startswith(("loss", "lr."))]
    values = np.concatenate(lines) if lines else np.empty(0)
    positive = values[values > 0]
    if not len(positive) or panel.y.scale == "symlog":
        return None
    low, high = panel.y.limits
    if panel.y.scale == "log":
        return {"log": _range(panel.y, (low, high)), "linear": [0.0, high]}
    if high <= 0:
        return None
    floor = low if low > 0 else max(float(positive.min()) * 0.9, high * 1e-6)
    return {"linear": [low, high], "log": [math.log10(floor), math.log10(high)]}


def key_of(look: Look | None) -> str:
    """Return what marks of one look have in common."""
    return "" if look is None else f"{look.color}-{look.dash}-{look.shade}"


def color_of(look: Look) -> str:
    """Return the name of a look's colour."""
    return f"@{look.color}" if look.shade is None else f"@v{look.shade:.3f}"


def _color(color: str, look: Look | None) -> str:
    """Return a colour, or that of a look where it is to be its own."""
    return color if color != OWN else "@ink" if look is None else color_of(look)


def _packed(values: Array) -> Plain:
    """Return numbers as plotly.js reads them from text."""
    data = np.ascontiguousarray(values, dtype="<f4").tobytes()
    return {"dtype": "f4", "bdata": base64.b64encode(data).decode("ascii")}


def _plain_text(text: str) -> str:
    """Return text that plotly.js shows as it is: it reads some markup."""
    return html.escape(text, quote=False)
