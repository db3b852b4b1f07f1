"""What the tests ask of a panel."""

from __future__ import annotations

from lrexp.report.data.picture import Band, Mark, Note, Panel, Span


def marks(panel: Panel, kind: str, name: str | None = None) -> list[Mark]:
    """Return the marks of a kind, those of one variant where it is named."""
    found = [mark for mark in panel.marks if isinstance(mark, Mark) and mark.kind == kind]
    return [mark for mark in found if name in (None, mark.name)]


def points(panel: Panel, kind: str) -> list[tuple[float, float]]:
    """Return the points of all marks of a kind, rounded."""
    pairs = [pair for mark in marks(panel, kind) for pair in zip(mark.x, mark.y, strict=True)]
    return [(round(float(x), 9), round(float(y), 9)) for x, y in pairs]


def bands(panel: Panel) -> list[Band]:
    return [mark for mark in panel.marks if isinstance(mark, Band)]


def spans(panel: Panel) -> dict[str, tuple[float, float]]:
    return {mark.kind: (mark.low, mark.high) for mark in panel.marks if isinstance(mark, Span)}


def notes(panel: Panel) -> list[str]:
    return [mark.text for mark in panel.marks if isinstance(mark, Note)]
