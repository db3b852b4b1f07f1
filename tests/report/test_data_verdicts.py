"""What the pictures of verdicts and of LR sensitivity show: arrays and words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lrexp.report.data.picture import Look, Note, Picture
from lrexp.report.data.verdicts import differences_picture, sensitivity_picture
from lrexp.runs.reader import Run

from .marks import marks, notes, points, spans
from .verdict_runs import LOST, LRS, around, four_schedules, over_lr, write_verdicts


@pytest.fixture(scope="module")
def schedules(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return four_schedules(tmp_path_factory.mktemp("schedules") / "run")


def test_the_differences_are_shown_seed_by_seed(schedules: Run) -> None:
    [panel] = differences_picture(schedules).panels
    dots = marks(panel, "verdicts.seed")
    assert [len(mark.x) for mark in dots] == [8, 8, 1]
    # around 0.8 by 0.03, less around 1.0 by 0.02
    assert dots[0].x == pytest.approx(-0.2 + 0.01 * np.linspace(-1, 1, 8))
    means = [mark.x[0] for mark in marks(panel, "verdicts.mean")]
    assert means == pytest.approx([-0.2, 0], abs=1e-9)  # none of what half diverged
    assert [mark.look for mark in dots] == [Look(1), Look(2), Look(3)]
    assert points(panel, "verdicts.diverged") == [(1.0, 2.16)]  # at the edge of the worse
    assert points(panel, "verdicts.zero") == [(0, 0), (0, 1)]
    [interval, *_] = marks(panel, "verdicts.interval")
    low, high = interval.x
    assert low < -0.2 < high < 0
    # the floor of noise is of pairs, as the differences are: of equal variants, or there is none
    assert spans(panel)["verdicts.noise"] == pytest.approx((-0.1, 0.1))


def test_without_equal_variants_there_is_no_floor_of_noise(tmp_path: Path) -> None:
    picture = many(tmp_path, 2, 8)
    assert "verdicts.noise" not in spans(picture.panels[0])
    assert "A against A" not in [entry.name for entry in picture.entries]


def test_each_row_has_its_name_and_its_verdict(schedules: Run) -> None:
    [panel] = differences_picture(schedules).panels
    rows = [mark for mark in panel.marks if isinstance(mark, Note)]
    assert [(row.text, row.kind, row.y) for row in rows] == [
        ("good", "verdicts.claim", 0), ("same", "verdicts.row", 1),
        ("half_lost", "verdicts.worse", 2),
    ]  # fmt: skip
    assert rows[0].below == "good is better, p = 0.023"
    assert rows[1].below.startswith("undecided, p = ")
    assert rows[2].below == "base is better, p = 0.031, diverged in 7 of 8"
    assert panel.title == ""
    assert panel.y.numbers == "none"
    assert panel.x.title == "better ←   difference in validation loss to base   → worse"


def test_the_words_of_the_differences(schedules: Run) -> None:
    picture = differences_picture(schedules)
    assert picture.title == "digits-lr: differences to base, seed by seed, 8 seeds"
    assert picture.caption == (
        "Left of 0 the variant is better. Cross: seeds in which one of the two diverged. "
        "p is Holm's for 3 comparisons."
    )
    assert picture.legend_title == "variant − base"
    assert [entry.name for entry in picture.entries] == [
        "each seed", "their mean", "95 % interval of the mean", "A against A",
    ]  # fmt: skip


def many(path: Path, count: int, seeds: int) -> Picture:
    finals = {f"variant-number-{i}": around(1.0 + i**2 / 10)[:seeds] for i in range(count)}
    settings = {name: {"schedule.warmup": i} for i, name in enumerate(finals)}
    return differences_picture(write_verdicts(path, finals, settings))


@pytest.mark.parametrize(("count", "left_out"), [(2, 0), (19, 0), (40, 21)])
def test_too_few_seeds_are_told_once(tmp_path: Path, count: int, left_out: int) -> None:
    picture = many(tmp_path / "run", count, seeds=4)
    [panel] = picture.panels
    assert panel.title == "too few seeds to tell (n < 6)"
    assert len(notes(panel)) == count - 1 - left_out
    assert {mark.below for mark in panel.marks if isinstance(mark, Note)} == {""}
    assert marks(panel, "verdicts.interval") == []
    assert picture.caption.endswith(f"{left_out} variants are left out.") == (left_out > 0)


def test_differences_of_several_sizes_have_an_axis_that_is_logarithmic_on_both_sides(
    tmp_path: Path,
) -> None:
    [panel] = many(tmp_path / "run", 7, seeds=4).panels  # they differ by 0.1 to 3.6
    assert (panel.x.scale, panel.x.linear_until) == ("symlog", pytest.approx(0.1))
    assert panel.x.ticks == pytest.approx((-0.1, 0, 0.1, 1))
    assert panel.x.title.endswith("(logarithmic beyond ±0.1)")
    assert panel.x.limits[1] == pytest.approx(1.6 * 3.6 + 0.03)


def test_the_curve_over_lr(tmp_path: Path) -> None:
    run = over_lr(tmp_path / "run", {"constant": [2.0, 1.0, 0.5, 0.55, LOST]})
    picture = sensitivity_picture(run)
    [panel] = picture.panels
    [mean] = marks(panel, "sensitivity.mean")
    assert mean.x.tolist() == LRS
    assert mean.y[:4] == pytest.approx([2.0, 1.0, 0.5, 0.55])
    assert np.isnan(mean.y[4])
    seeds = marks(panel, "sensitivity.seed")
    assert [len(mark.x) for mark in seeds] == [8, 8, 8, 8, 7]
    assert seeds[0].y == pytest.approx(around(2.0))
    low, high = spans(panel)["sensitivity.basin"]
    # the start is 2.3, the best 0.5: within 5 % of the way is 0.59, on the line from 1.0 to 0.5
    assert low == pytest.approx(10 ** (-1 - 0.09 / 0.5))
    assert high == pytest.approx(1.0)  # next to it a seed diverged
    assert points(panel, "sensitivity.best") == [(0.1, pytest.approx(0.5))]
    assert points(panel, "sensitivity.start") == [(0, 2.3), (1, 2.3)]
    assert notes(panel) == ["1 of 8", "before training"]
    assert (panel.x.scale, panel.x.title) == ("log", "learning rate (base LR)")
    assert panel.title == "validation loss at the end"
    assert picture.entries[0].note == "best 0.1, good over 1.2 decades"
    assert picture.title == "digits-lr: validation loss over the learning rate, 8 seeds"


def test_a_start_far_above_all_ends_is_a_note_and_does_not_flatten_them(tmp_path: Path) -> None:
    [panel] = sensitivity_picture(
        over_lr(tmp_path / "run", {"constant": [0.3, 0.2, 0.15, 0.1, 0.4]})
    ).panels
    assert panel.y.limits[1] < 1.0  # the start is 2.3
    assert notes(panel) == ["before training 2.3 ↑"]
    assert marks(panel, "sensitivity.start") == []


@pytest.mark.parametrize(("metric", "edge"), [("val_loss", 0.012), ("val_accuracy", 0.988)])
def test_several_curves_have_a_basin_each(tmp_path: Path, metric: str, edge: float) -> None:
    rows = {"constant": [0.2, 0.4, 0.8, 0.82, LOST], "cosine": [0.3, 0.5, 0.9, 0.2, 0.15]}
    picture = sensitivity_picture(over_lr(tmp_path / "run", rows, metric=metric))
    [panel] = picture.panels
    basins = marks(panel, "sensitivity.basins")
    assert [mark.look for mark in basins] == [Look(0), Look(1)]
    assert basins[0].y.tolist() == [edge, edge]  # at the better end
    assert spans(panel) == {}
    names = [entry.name for entry in picture.entries[:2]]
    assert sorted(names) == ["schedule constant", "schedule cosine"]
    assert picture.legend_title == "all but the LR"


def test_a_value_far_above_the_start_leaves_the_picture_and_is_counted(tmp_path: Path) -> None:
    run = over_lr(tmp_path / "run", {"constant": [2.0, 1.0, 0.5, 40.0, 900.0]})
    [panel] = sensitivity_picture(run).panels
    assert panel.y.limits[1] < 5
    assert notes(panel).count("8 of 8 beyond") == 2
    assert points(panel, "sensitivity.beyond") == [(1.0, 0.965), (10.0, 0.965)]


def test_all_lost_is_shown_too(tmp_path: Path) -> None:
    picture = sensitivity_picture(over_lr(tmp_path / "run", {"constant": [LOST] * 5}))
    assert picture.entries[0].note == "no LR without divergence"
    assert marks(picture.panels[0], "sensitivity.best") == []
