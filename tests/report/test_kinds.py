"""Each kind of mark that the data of a picture has is drawn, and nothing else has a look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lrexp.report.data import overlays, pictures
from lrexp.report.data.lr import schedule_picture
from lrexp.report.data.picture import NUM_COLORS, NUM_DASHES, Mark, Note, Picture, Span
from lrexp.report.figure import draw
from lrexp.report.page import looks
from lrexp.report.page.charts import Budget, charts
from lrexp.report.style import (
    COLORS,
    DASHES,
    FOLDED,
    LEGEND_LINES,
    LEGEND_PATCHES,
    MARKERS,
    MARKS,
    NOTES,
    SPANS,
    house_style,
)
from lrexp.runs.reader import Run, load_run

from .synthetic import (
    RACE_SUMMARY,
    exploding,
    write_compare,
    write_config,
    write_find_lr,
    write_race,
    write_status,
    write_trial,
)
from .test_heatmap import over_two
from .verdict_runs import LOST, four_schedules, over_lr

DRAWN_APART = {
    "range.reason",
    "verdicts.row",
    "verdicts.claim",
    "verdicts.worse",
}  # notes with a shape of their own
BY_DASHES = {"loss.median", "lr.trace", "lr.reactive"}  # lines of a legend


def plateaus(path: Path) -> Run:
    write_status(path, variants=["plateau", "lost"], seeds=[0, 1])
    write_config(path, {"plateau": {}, "lost": {}})
    for seed, lr in enumerate((0.1, 0.2)):
        write_trial(path / f"trials/plateau/seed-{seed}", np.ones(50), lr)
    write_trial(path / "trials/lost/seed-0", exploding(0), 0.1, outcome="diverged")
    return load_run(path)


def raced(path: Path) -> Run:
    """Write trainings of LRs of which one made it worse."""
    write_race(path)
    summary = {**RACE_SUMMARY, "suggested_lr": 0.02, "interval": [0.01, 0.04]}
    (path / "summary.json").write_text(json.dumps(summary))
    result = {"outcome": "finished", "final": {"val_loss": 3.0}}
    for trial in load_run(path).trials[:2]:  # the seeds of one LR
        (trial.path / "result.json").write_text(json.dumps(result))
    return load_run(path)


def every_picture(folder: Path) -> Iterator[Picture]:
    tests = [load_run(write_find_lr(folder / name, signal=name == "a")) for name in ("a", "b")]
    begun = folder / "begun"
    write_status(begun, status="running", variants=["a"], seeds=[0])
    one = {"constant": [2.0, 1.0, 0.5, 40.0, LOST]}
    two = {"constant": [0.2, 0.4, 0.8, 0.82, LOST], "cosine": [0.3, 0.5, 0.9, 0.2, 0.15]}
    runs = [
        load_run(write_compare(folder / "run", seeds=2, epochs=2)),
        *tests,
        load_run(begun),
        plateaus(folder / "plateaus"),
        load_run(write_race(folder / "race")),
        raced(folder / "raced"),
        four_schedules(folder / "schedules"),
        over_lr(folder / "one", one),
        over_lr(folder / "two", two),
        over_two(folder / "map", [[[0.5], [0.3]], [[0.4], [LOST]]]),
    ]
    for run in runs:
        yield from pictures(run).values()
    yield from overlays(tests).values()
    yield schedule_picture({"a": np.ones(9)}, reactive=["a"])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    return list(every_picture(tmp_path_factory.mktemp("kinds")))


def test_every_kind_has_a_look_and_every_look_a_kind(found: list[Picture]) -> None:
    panels = [panel for picture in found for panel in [*picture.panels, picture.strip] if panel]
    marks = [mark for panel in panels for mark in panel.marks]
    assert {mark.kind for mark in marks if isinstance(mark, Mark)} == set(MARKS) | FOLDED
    assert {mark.kind for mark in marks if isinstance(mark, Span)} == set(SPANS)
    assert {mark.kind for mark in marks if isinstance(mark, Note)} == DRAWN_APART | set(NOTES)
    in_legends = {entry.kind for picture in found for entry in picture.entries}
    assert in_legends | {"nothing"} == BY_DASHES | set(LEGEND_LINES) | set(LEGEND_PATCHES)
    assert (len(COLORS), len(DASHES), len(MARKERS)) == (NUM_COLORS, NUM_DASHES, NUM_DASHES)


def test_the_page_draws_every_kind(found: list[Picture]) -> None:
    drawn = [chart for picture in found for chart in charts(picture, Budget())]
    kinds = {trace["kind"] for chart in drawn for trace in chart["data"]}
    edges = {
        "race.start", "range.suggested", "sensitivity.basins", "sensitivity.start", "strip.line",
        "suggested", "verdicts.zero",
    }  # fmt: skip  # lines from edge to edge, which are shapes
    assert kinds == set(MARKS) - edges | FOLDED | {"band"}
    assert set(looks.MARKS) >= set(MARKS)
    assert set(looks.SPANS) == set(SPANS)


def test_every_picture_is_drawn(found: list[Picture]) -> None:
    with house_style():
        for picture in found:
            draw(picture)
