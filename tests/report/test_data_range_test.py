"""What the pictures of range tests and races show: arrays and words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lrexp.analysis.range_curve import Curve, combine
from lrexp.report.data import pictures
from lrexp.report.data.picture import Look, Panel, Picture
from lrexp.report.data.range_test import (
    curves_of_run,
    overlaid_range_test_picture,
    range_test_loss_picture,
    range_test_picture,
)
from lrexp.report.data.tried import race_picture
from lrexp.runs import reader
from lrexp.runs.reader import Run, load_run

from .marks import bands, marks, notes, points, spans
from .synthetic import write_find_lr, write_race, write_status, write_trial


def shown(path: Path) -> Picture:
    return range_test_picture(load_run(path))


def rows(panel: Panel | None) -> list[tuple[str, str]]:
    """Return names and texts of a strip."""
    assert panel is not None
    return list(zip(panel.y.names, notes(panel), strict=True))


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A range test of three seeds with a suggestion."""
    return load_run(write_find_lr(tmp_path_factory.mktemp("tested") / "run", seeds=3))


@pytest.fixture(scope="module")
def picture(tested: Run) -> Picture:
    return range_test_picture(tested)


def test_the_seeds_become_one_curve_over_log_lr(tested: Run, picture: Picture) -> None:
    [panel] = picture.panels
    assert (panel.x.scale, panel.x.numbers, panel.x.title) == ("log", "lr", "learning rate")
    assert picture.strip is not None
    assert picture.strip.x == panel.x
    combined = combine([Curve(t.steps["lr"], t.steps["loss"]) for t in tested.trials])
    [median], [band] = marks(panel, "range.median"), bands(panel)
    np.testing.assert_array_equal(median.x, combined.lr)
    np.testing.assert_array_equal(median.y, combined.smooth)
    np.testing.assert_array_equal(band.low, combined.low)
    raw = marks(panel, "range.raw")
    assert [mark.y[0] for mark in raw] == [trial.steps["loss"][0] for trial in tested.trials]


def test_the_suggestion_its_interval_and_the_range_are_marked(picture: Picture) -> None:
    [panel] = picture.panels
    assert spans(panel) == {"range": (0.0047, 0.21), "interval": (0.031, 0.068)}
    assert points(panel, "suggested") == [(0.047, 0), (0.047, 1)]
    assert notes(panel) == ["suggested 0.047"]
    assert picture.title == "digits-lr: LR range test with 3 seeds suggests 0.047"
    assert picture.subtitle == "mlp on digits · SGD (momentum 0.9) · batch size 64"
    assert [(entry.kind, entry.name) for entry in picture.entries] == [
        ("range.median", "median, smoothed"), ("band", "lowest to highest seed"),
        ("range.raw", "raw, each seed"), ("suggested", "suggested LR"),
        ("interval", "its interval"), ("range", "base to max LR"),
    ]  # fmt: skip


def test_every_rule_has_a_mark_on_the_curve_and_a_row_below(tmp_path: Path) -> None:
    rules = {"steepest": 0.03, "minimum": 0.03, "valley": 0.047, "slide": None}
    picture = shown(write_find_lr(tmp_path / "run", rules=rules))
    assert rows(picture.strip) == [
        ("suggested", "0.047  (0.031 to 0.068)"), ("base to max", "0.0047 to 0.21"),
        ("steepest", "0.03"), ("minimum", "0.03"), ("valley", "0.047"),
    ]  # fmt: skip
    [panel] = picture.panels
    found = {mark.name: mark for mark in marks(panel, "range.rule")}
    assert {name: mark.x[0] for name, mark in found.items()} == {
        "steepest": 0.03, "minimum": 0.03, "valley": 0.047,
    }  # fmt: skip
    [median] = marks(panel, "range.median")
    for mark in found.values():
        assert mark.y[0] == pytest.approx(np.interp(np.log(mark.x[0]), np.log(median.x), median.y))


def test_the_view_shows_the_valley_not_the_blow_up(picture: Picture) -> None:
    low, high = picture.panels[0].y.limits
    assert 0.2 < low < 0.5
    assert 2.4 < high < 3.5  # the losses go up to 9
    assert max(mark.y.max() for mark in marks(picture.panels[0], "range.raw")) > 5


def test_a_loss_over_decades_has_a_log_axis(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_status(path, command="find-lr", variants=["range_test"], seeds=[0])
    lr = np.geomspace(1e-7, 10.0, 100)
    write_trial(path / "trials/range_test/seed-0", 1e4 / (1 + (lr / 1e-3) ** 2) + lr**8, lr)
    assert shown(path).panels[0].y.scale == "log"


def test_without_a_suggestion_the_reason_is_told(tmp_path: Path) -> None:
    picture = shown(write_find_lr(tmp_path / "run", signal=False))
    [panel] = picture.panels
    assert notes(panel) == [
        "No suggestion. The loss never falls: over the whole range it stays within the noise of "
        "its start."
    ]
    assert picture.title.endswith("LR range test with 3 seeds gives no suggestion")
    assert spans(panel) == {}
    assert picture.strip is None


def test_a_test_that_goes_on_shows_what_there_is(tmp_path: Path) -> None:
    path = write_find_lr(tmp_path / "run", seeds=2)
    (path / "summary.json").unlink()
    (path / "trials/range_test/seed-1/result.json").unlink()
    write_status(
        path, command="find-lr", status="running", variants=["range_test"], seeds=[0, 1, 2]
    )
    picture = shown(path)
    assert len(marks(picture.panels[0], "range.raw")) == 1  # the seed that has ended
    assert picture.title == "digits-lr: LR range test with 3 seeds"
    assert picture.subtitle.startswith("running, 1 of 3 trials ended")
    assert notes(picture.panels[0]) == []


def test_a_test_that_failed_is_no_part_of_the_curve(tmp_path: Path) -> None:
    path = write_find_lr(tmp_path / "run", seeds=3)
    steps = path / "trials/range_test/seed-2/steps.csv"
    steps.write_text("".join(steps.read_text().splitlines(keepends=True)[:20]))
    result = path / "trials/range_test/seed-2/result.json"
    result.write_text('{"outcome": "failed", "error": "boom", "final": {}}')
    run = load_run(path)
    ended = [trial.steps["lr"] for trial in run.trials if trial.seed < 2]
    assert [list(c.lr) for c in curves_of_run(run).curves] == [list(lr) for lr in ended]


def test_after_a_paired_control_the_curves_are_differences_to_the_untrained_model(
    tmp_path: Path,
) -> None:
    path = write_find_lr(tmp_path / "run", seeds=3)
    trials = load_run(path).trials
    hard = [np.random.default_rng(t.seed).normal(0, 0.5, len(t.steps["lr"])) for t in trials]
    for trial, noise in zip(trials, hard, strict=True):
        steps = trial.path / "steps.csv"
        lr, loss = trial.steps["lr"], trial.steps["loss"] + noise
        pairs = zip(lr.tolist(), loss.tolist(), strict=True)
        cells = (f"{s},0,{a!r},{x!r}\n" for s, (a, x) in enumerate(pairs))
        steps.write_text("step,epoch,lr,loss\n" + "".join(cells))
        write_trial(path / f"trials/untrained/seed-{trial.seed}", 2.3 + noise, lr)
    found = pictures(load_run(path))
    [panel] = found["range_test"].panels
    assert "less that of the untrained model on the same batch" in panel.title
    [first, *_] = marks(panel, "range.raw")
    level = np.mean([2.3 + noise.mean() for noise in hard])
    expected = trials[0].steps["loss"] - 2.3 + level
    np.testing.assert_allclose(first.y, expected, atol=1e-6)
    [over_lr], [over_steps] = (
        marks(found[name].panels[0], "range.median") for name in ("range_test", "loss")
    )
    assert over_lr.y is over_steps.y  # made once for both


def test_each_file_is_read_once_and_the_curves_are_joined_once_for_all_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    joined: list[int] = []
    read_columns = reader.read_columns
    monkeypatch.setattr(
        reader,
        "read_columns",
        lambda path, names: (read.append(path), read_columns(path, names))[1],
    )
    monkeypatch.setattr(
        "lrexp.report.data.range_test.combine",
        lambda curves: (joined.append(len(curves)), combine(curves))[1],
    )
    assert list(pictures(load_run(write_find_lr(tmp_path / "run", seeds=3)))) == [
        "range_test", "loss", "lr",
    ]  # fmt: skip
    assert len(read) == len(set(read)) >= 3
    assert joined == [3]


def test_the_losses_over_the_step(tmp_path: Path) -> None:
    picture = range_test_loss_picture(load_run(write_find_lr(tmp_path / "run", seeds=3, steps=80)))
    [panel] = picture.panels
    assert (panel.x.scale, panel.x.title) == ("linear", "step")
    assert [mark.x[0] for mark in marks(panel, "range.raw")] == [0, 0, 0]
    assert marks(panel, "range.median")[0].x[:3].tolist() == [0, 1, 2]
    assert picture.title == "digits-lr: training loss of the LR range test, 3 seeds"


def test_several_range_tests_have_a_look_and_a_suggestion_each(tmp_path: Path) -> None:
    runs = [
        load_run(write_find_lr(tmp_path / name, seeds=1, suggested_lr=lr))
        for name, lr in (("first", 0.01), ("second", 0.05), ("third", None))
    ]
    picture = overlaid_range_test_picture(runs)
    assert [(entry.name, entry.note, entry.look) for entry in picture.entries] == [
        ("first", "suggests 0.01", Look(0)),
        ("second", "suggests 0.05", Look(1)),
        ("third", "no suggestion", Look(2)),
    ]
    [panel] = picture.panels
    assert points(panel, "range.suggested") == [(0.01, 0), (0.01, 1), (0.05, 0), (0.05, 1)]
    assert [mark.look for mark in marks(panel, "range.median")] == [Look(0), Look(1), Look(2)]
    assert picture.title == "digits-lr: LR range test of 3 runs"


def test_lrs_that_were_tried_have_a_line_for_each_length(tmp_path: Path) -> None:
    picture = race_picture(load_run(write_race(tmp_path / "run")))
    [panel] = picture.panels
    assert panel.title == "validation loss after training with each LR"
    long, short = marks(panel, "race.mean")
    assert (long.look, short.look) == (Look(0), Look(2))
    assert long.y == pytest.approx([0.5, 0.45])
    assert short.x.tolist() == [0.01, 0.04, 0.16, 0.64]
    assert short.y == pytest.approx([0.95, 0.95, 0.75, 0.95])  # the others lie above the view
    assert points(panel, "race.kept") == [(0.03, 0.5), (0.12, 0.45), (0.04, 0.95), (0.16, 0.75)]
    assert points(panel, "race.beyond") == [(0.01, 0.95)]
    assert points(panel, "race.diverged") == [(0.64, 0.95)]
    assert "before training 2.1 ↑" in notes(panel)
    assert panel.y.limits[1] < 1.2
    assert spans(panel) == {"interval": (0.03, 0.08)}
    assert rows(picture.strip) == [("answer", "0.05  (0.03 to 0.08)"), ("range test", "0.02")]


@pytest.mark.parametrize("failed", [[0], [0, 1]])
def test_a_trial_of_a_race_that_failed_is_no_diverged_one(
    tmp_path: Path, failed: list[int]
) -> None:
    path = write_race(tmp_path / "run", summary=False)
    for seed in failed:
        result = path / f"trials/race-40-lr-0.64/seed-{seed}/result.json"
        result.write_text(json.dumps({"outcome": "failed", "error": "boom", "final": {}}))
    picture = race_picture(load_run(path))
    [panel] = picture.panels
    assert points(panel, "race.diverged") == []
    assert "diverged" not in [entry.name for entry in picture.entries]
    short = marks(panel, "race.mean")[1]
    assert short.x.tolist() == ([0.01, 0.04, 0.16, 0.64] if failed == [0] else [0.01, 0.04, 0.16])


def test_the_words_of_what_was_tried(tmp_path: Path) -> None:
    picture = race_picture(load_run(write_race(tmp_path / "run")))
    assert picture.title == "digits-lr: 6 learning rates tried, 0.05 suggested"
    assert picture.legend_title == "trained for"
    assert [(entry.name, entry.note) for entry in picture.entries] == [
        ("80 steps (50%)", "2 LRs, 2 seeds"), ("40 steps (25%)", "4 LRs, 2 seeds"),
        ("higher than shown", ""), ("diverged", ""), ("suggested LR", ""),
        ("probably within 2 % of the best", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(("until", "lengths"), [(1, 1), (3, 1), (9, 2)])
def test_what_was_tried_is_shown_at_any_moment(tmp_path: Path, until: int, lengths: int) -> None:
    picture = race_picture(load_run(write_race(tmp_path / "run", until=until, summary=False)))
    assert len(marks(picture.panels[0], "race.mean")) == lengths
    assert picture.strip is None
    assert picture.title.endswith("tried")
