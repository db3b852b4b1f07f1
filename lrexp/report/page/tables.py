"""The tables of a page, as rows of text: variants, cells of a heat map, how it was run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from lrexp.report.data.picture import Cells, Panel
from lrexp.report.metrics import other_columns
from lrexp.report.text import (
    lr_text,
    mean_sd_text,
    measure_text,
    number_text,
    setting_text,
    settings_text,
    visible,
)
from lrexp.runs.files import find_json, find_text
from lrexp.runs.reader import Run

MOST_CONFIG = 200_000  # characters of a config that are shown
VIRIDIS = (  # at equal distances from the darkest to the brightest
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
    (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
)  # fmt: skip
Plain = dict[str, Any]


def variants_table(run: Run, summary: Mapping[str, Any]) -> Plain | None:
    """Return the head and the rows of the variants of a comparison, or of the LRs of a race."""
    if "ranking" in summary:
        return _ranking(summary)
    return _rules(summary)


def _ranking(summary: Mapping[str, Any]) -> Plain:
    rows = summary["ranking"]
    others = other_columns(summary)
    differences = len(summary.get("seeds") or ()) > 1
    changes = [added_settings(row) for row in rows]
    head = ["rank", "variant", *(["changes"] if any(changes) else [])]
    head += [measure_text(summary["metric"])]
    head += ["Δ to best"] if differences else []
    head += [*(name for name, _ in others), "outcome", "diagnosis"]
    made = []
    for i, row in enumerate(rows):
        difference = row.get("difference") or {}
        cells = [
            _cell(str(row["rank"]), row["rank"]),
            _cell(row["variant"]),
            *([_cell(changes[i])] if any(changes) else []),
            _cell(mean_sd_text(row.get("mean"), row.get("sd")), _sortable(row.get("mean"))),
        ]
        if differences:
            text = mean_sd_text(difference.get("mean"), difference.get("sd")) if i else "–"
            cells.append(_cell(text, _sortable(difference.get("mean"))))
        cells += [_cell(texts[i].strip()) for _, texts in others]
        cells += [_cell(_outcome(row)), _cell(row["diagnosis"]["word"])]
        made.append({"cells": cells, "more": row["diagnosis"]["sentence"]})
    return {"head": head, "rows": made, "caption": "Variants, best first"}


def _rules(summary: Mapping[str, Any]) -> Plain | None:
    rules = {name: lr for name, lr in (summary.get("rules") or {}).items() if lr}
    if not rules:
        return None
    rows = [
        {"cells": [_cell(name), _cell(lr_text(lr), lr)], "more": ""} for name, lr in rules.items()
    ]
    head = ["rule", "learning rate"]
    return {"head": head, "rows": rows, "caption": "What every rule reads off the range test"}


def added_settings(row: Mapping[str, Any]) -> str:
    """Return what a variant changes, as far as its name does not say so."""
    settings = row.get("settings") or {}
    told = [
        setting_text(key, value).rpartition(" ")[2] in row["variant"]
        for key, value in settings.items()
    ]
    return "" if all(told) else settings_text(settings)


def _cell(text: str, value: float | str | None = None) -> Plain:
    """Return a cell, and what it is sorted by."""
    is_number = value is not None or text[:1].isdigit()
    return {"text": text, "value": text if value is None else value, "number": is_number}


def _sortable(value: float | None) -> float | str:
    return "" if value is None else value


def _outcome(row: Mapping[str, Any]) -> str:
    counts = row.get("outcomes") or {}
    total = sum(counts.values())
    return ", ".join(
        kind if count == total else f"{count} of {total} {kind}" for kind, count in counts.items()
    )


def cells_table(cells: Cells, panel: Panel) -> Plain:
    """Return a table of coloured cells, the highest row on top."""
    low, high = cells.limits
    rows = []
    for i in reversed(range(len(cells.values))):
        made = []
        for j, value in enumerate(cells.values[i]):
            color, letters = _color(float(value), cells) if np.isfinite(value) else ("", "")
            made.append(
                {
                    "text": cells.texts[i][j],
                    "note": cells.notes[i][j],
                    "color": color,
                    "letters": letters,
                    "best": cells.best == (i, j),
                }
            )
        rows.append({"name": panel.y.labels[i], "cells": made})
    worst, best = (high, low) if cells.darkest == "highest" else (low, high)
    return {
        "title": cells.title,
        "x": panel.x.title,
        "y": panel.y.title,
        "columns": list(panel.x.labels),
        "rows": rows,
        "worst": number_text(worst),
        "best": number_text(best),
        "ramp": ", ".join(f"rgb({r} {g} {b})" for r, g, b in VIRIDIS),
    }


def _color(value: float, cells: Cells) -> tuple[str, str]:
    """Return the colour of a cell and of the letters on it."""
    ends = np.array(cells.limits)
    at, ends = (np.log10(value), np.log10(ends)) if cells.log else (value, ends)
    share = float(np.clip((at - ends[0]) / (ends[1] - ends[0]), 0, 1))
    share = 1 - share if cells.darkest == "highest" else share
    points = np.linspace(0, 1, len(VIRIDIS))
    red, green, blue = (
        round(float(np.interp(share, points, [c[i] for c in VIRIDIS]))) for i in range(3)
    )
    bright = (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255 > 0.45
    return f"rgb({red} {green} {blue})", "#222222" if bright else "#ffffff"


def how_table(run: Run) -> Plain:
    """Return how a run was made: facts by name, and its config."""
    found = visible(find_json(run.path / "environment.json") or {})
    packages = found.get("packages") or {}
    git = found.get("git") or {}
    words = found.get("command_line") or []
    facts = {
        "command": shlex.join(["lrexp", *map(str, words[1:])]) if words else "",
        "folder": run.path.name,
        "started": str(run.status.get("started", "")),
        "seconds": number_text(run.status.get("seconds")) if run.status.get("seconds") else "",
        "engine": _engines(run),
        "device": " · ".join(
            str(found[key]) for key in ("device", "device_name") if found.get(key)
        ),
        "threads": str(found.get("threads", "")),
        "lrexp": str(found.get("lrexp", "")),
        "Python": str(found.get("python", "")),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "platform": str(found.get("platform", "")),
        "git": f"{git.get('commit')}{' with changes' if git.get('dirty') else ''}"
        if git.get("commit")
        else "",
    }
    config = find_text(run.path / "resolved.yaml", 10 * MOST_CONFIG) or ""
    return {"facts": {k: v for k, v in facts.items() if v}, "config": config[:MOST_CONFIG]}


def _engines(run: Run) -> str:
    stages = (find_json(run.path / "engine.json") or {}).get("stages") or []
    names = [str(unit.get("engine")) for stage in stages for unit in stage.get("units") or ()]
    return ", ".join(dict.fromkeys(names))
