"""What the pictures of learning rates show: arrays and words."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from lrexp.report.data.lr import lr_picture, lr_view, schedule_picture
from lrexp.report.data.picture import Look
from lrexp.runs.reader import load_run

from .marks import marks
from .synthetic import (
    learning,
    write_compare,
    write_config,
    write_find_lr,
    write_status,
    write_trial,
)

STEPS = np.arange(1000)
COSINE = 0.05 * (1 + np.cos(np.pi * STEPS / 1000))


@pytest.mark.parametrize(
    ("traces", "view"),
    [
        ([COSINE], (0.0, 0.1, False)),
        ([COSINE, np.full(10, 0.02)], (0.0, 0.1, False)),
        ([np.full(10, 0.5), np.full(10, 0.01), np.full(10, 1e-4)], (1e-4, 0.5, True)),
        ([np.full(10, 0.1), np.full(10, 0.01)], (0.01, 0.1, True)),
        ([COSINE, COSINE / 10], (1e-5, 0.1, True)),  # without the tails, which end at 2e-8
        ([np.array([1e-7, 1e-3, 10.0])], (1e-7, 10.0, True)),  # the ramp of a range test
        ([np.linspace(0, 0.1, 100)], (0.0, 0.1, False)),
        ([np.zeros(5)], (0.0, 1.0, False)),
        ([], (0.0, 1.0, False)),
    ],
)
def test_the_axis_fits_the_rates(traces: list[np.ndarray], view: tuple[float, float, bool]) -> None:
    low, high, log = lr_view(traces)
    assert (low, high) == pytest.approx(view[:2])
    assert log is view[2]


def test_a_comparison_has_one_line_for_each_variant(tmp_path: Path) -> None:
    picture = lr_picture(load_run(write_compare(tmp_path / "run", seeds=3)))
    [panel] = picture.panels
    assert [(mark.name, mark.y[0], mark.look) for mark in marks(panel, "lr.trace")] == [
        ("high", 0.5, Look(0)), ("standard", 0.01, Look(1)), ("low", 1e-4, Look(2)),
    ]  # fmt: skip
    assert [(entry.name, entry.note) for entry in picture.entries] == [
        ("high", "0.5"), ("standard", "0.01"), ("low", "1e-4"),
    ]  # fmt: skip
    assert picture.title == "digits-lr: learning rate of 3 variants"
    assert (panel.y.scale, panel.y.numbers) == ("log", "lr")
    assert panel.x.limits == pytest.approx((-0.012 * 229, 1.012 * 229))


def test_seeds_whose_rates_differ_are_all_shown(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_status(path, variants=["plateau"], seeds=[0, 1, 2])
    write_config(path, {"plateau": {"schedule": "plateau"}})
    for seed, drop in enumerate((50, 50, 80)):
        lr = np.where(np.arange(100) < drop, 0.1, 0.01)
        write_trial(path / f"trials/plateau/seed-{seed}", learning(seed, 0.01, 100), lr)
    [panel] = lr_picture(load_run(path)).panels
    [first], [other] = marks(panel, "lr.trace"), marks(panel, "lr.seed")
    assert [int((mark.y == 0.1).sum()) for mark in (first, other)] == [50, 80]


def test_the_ramp_of_a_range_test_has_no_legend(tmp_path: Path) -> None:
    picture = lr_picture(load_run(write_find_lr(tmp_path / "run")))
    assert picture.entries == ()
    assert picture.panels[0].y.scale == "log"
    assert picture.title == "digits-lr: learning rate of the LR range test"


def test_a_run_that_just_began_has_no_rates_yet(tmp_path: Path) -> None:
    path = write_compare(tmp_path / "run", summary=False, status="running")
    shutil.rmtree(path / "trials")
    picture = lr_picture(load_run(path))
    assert [entry.note for entry in picture.entries] == ["not begun"] * 3
    assert picture.panels[0].marks == []


def test_schedules_have_their_epochs_and_words() -> None:
    spike = COSINE.copy()
    spike[500] = 0.3
    picture = schedule_picture({"cosine": COSINE, "spike": spike}, "demo", steps_per_epoch=50)
    [panel] = picture.panels
    assert picture.title == "demo: learning rate of 2 variants"
    assert picture.subtitle == "before any training · 1,000 steps"
    assert picture.caption == ""
    assert panel.x.steps_per_epoch == 50
    assert marks(panel, "lr.trace", "spike")[0].y.max() == 0.3
    assert picture.entries[0].note == "peak 0.1, end 2.47e-7"


def test_a_long_schedule_keeps_its_peak() -> None:
    lr = np.full(1_000_000, 0.1)
    lr[654_321] = 0.7
    [trace] = marks(schedule_picture({"a": lr}).panels[0], "lr.trace")
    assert len(trace.y) <= 3_000
    assert trace.x[np.argmax(trace.y)] == 654_321


def test_a_schedule_that_follows_a_loss_is_told() -> None:
    traces = {"cosine": np.linspace(0.1, 0.01, 50), "plateau": np.full(50, 0.1)}
    picture = schedule_picture(traces, reactive=["plateau"])
    assert [mark.kind for mark in picture.panels[0].marks] == ["lr.trace", "lr.reactive"]
    assert [entry.kind for entry in picture.entries] == ["lr.trace", "lr.reactive"]
    assert picture.entries[1].note == "if the loss never changed"
    assert picture.caption == "Thin, dashed: follows a loss, drawn as if the loss never changed."


def test_lrs_of_other_optimizers_share_the_colour_of_their_variant(tmp_path: Path) -> None:
    path = write_compare(tmp_path / "run", seeds=1)
    for variant in ("standard", "low"):
        steps = path / f"trials/{variant}/seed-0/steps.csv"
        head, *rows = steps.read_text().splitlines()
        added = [f"{row},{2.0**-i!r}" for i, row in enumerate(rows)]
        column = "lr_1" if variant == "low" else "effective_lr"
        steps.write_text("\n".join([f"{head},{column}", *added, ""]))
    picture = lr_picture(load_run(path))
    [panel] = picture.panels
    assert [(mark.name, mark.look) for mark in marks(panel, "lr.trace")] == [
        ("high", Look(0)), ("standard", Look(1)), ("standard (effective_lr)", Look(1, 1)),
        ("low", Look(2)), ("low (lr_1)", Look(2, 1)),
    ]  # fmt: skip
    assert picture.title == "digits-lr: learning rate of 3 variants"
    assert picture.entries[2].note.startswith("peak 1, end ")
