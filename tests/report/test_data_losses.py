"""What the picture of a comparison shows, and that of several: arrays and words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lrexp.report.data.curves import Line, smoothed
from lrexp.report.data.losses import (
    Seen,
    clipped_view,
    loss_picture,
    overlaid_loss_picture,
    run_labels,
)
from lrexp.report.data.picture import Entry, Look, Panel, Picture
from lrexp.runs.reader import Run, load_run

from .marks import bands, marks, notes, points
from .synthetic import (
    exploding,
    learning,
    ranking,
    validation,
    write_compare,
    write_config,
    write_status,
    write_trial,
)


def shown(path: Path) -> Picture:
    return loss_picture(load_run(path))


def training(path: Path) -> Panel:
    return shown(path).panels[0]


def write_run(path: Path, variants: dict[str, list[np.ndarray]], **trial: object) -> Path:
    """Write a run of variants, each with the losses of its seeds."""
    write_status(path, variants=list(variants), seeds=[0])
    write_config(path, {name: {"optimizer.lr": 1.0} for name in variants})
    for name, seeds in variants.items():
        for seed, loss in enumerate(seeds):
            write_trial(path / f"trials/{name}/seed-{seed}", loss, 0.1, **trial)
    return path


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    """Three LRs, of which one diverges, with five seeds each."""
    return shown(write_compare(tmp_path_factory.mktemp("compared") / "run", seeds=5))


def test_the_seeds_become_their_median_in_a_band(tmp_path: Path) -> None:
    seeds = [np.full(100, level) for level in (1.0, 2.0, 6.0)]
    val = np.full(5, 0.5)
    picture = shown(write_run(tmp_path / "run", {"a": seeds}, val=val))
    steps, evals = picture.panels
    assert [mark.y[0] for mark in marks(steps, "loss.raw")] == [1.0, 2.0, 6.0]
    [median], [band] = marks(steps, "loss.median"), bands(steps)
    for found, level in ((median.y, 2.0), (band.low, 1.0), (band.high, 6.0)):
        np.testing.assert_allclose(found, level)
    np.testing.assert_array_equal(median.x, np.arange(100))
    [median] = marks(evals, "loss.median")
    np.testing.assert_array_equal(median.x, [0, 23, 46, 69, 92])
    np.testing.assert_array_equal(median.y, val)
    assert (median.name, median.look) == ("a", Look(0))


def test_a_comparison_has_a_panel_for_training_and_one_for_validation(compared: Picture) -> None:
    assert [panel.title for panel in compared.panels] == ["training loss", "validation loss"]
    steps, evals = compared.panels
    assert len(marks(steps, "loss.raw")) == 15  # 3 variants × 5 seeds
    assert marks(evals, "loss.raw") == []
    for panel in compared.panels:
        assert [mark.name for mark in marks(panel, "loss.median")] == ["standard", "low"]
        assert len(bands(panel)) == 2  # of the two that did not diverge
        assert (panel.x.title, panel.x.numbers, panel.x.steps_per_epoch) == ("step", "steps", 23)
        assert panel.y.scale == "log"  # from 2.3 to 0.05
    assert compared.strip is None


def test_the_words_of_a_comparison(compared: Picture) -> None:
    assert compared.title == "digits-lr: validation loss of 3 learning rates, 5 seeds"
    assert compared.subtitle == (
        "mlp on digits · SGD (momentum 0.9) · constant schedule · batch size 64"
    )
    assert compared.source == "run"
    assert compared.caption.startswith("Line: median of the seeds")
    assert compared.legend_title == "ranked by validation loss"


def test_the_legend_has_the_order_of_the_ranking_and_the_looks_of_the_lines(
    compared: Picture,
) -> None:
    entries = compared.entries
    assert [(e.name, e.look) for e in entries] == [
        ("standard", Look(1)), ("low", Look(2)), ("high", Look(0)),
    ]  # fmt: skip
    assert " ± " in entries[0].note
    assert entries[2].note == "diverged"
    for entry in entries[:2]:
        assert marks(compared.panels[0], entry.kind, entry.name)[0].look == entry.look


def test_curves_that_diverged_are_clipped_and_labelled(compared: Picture) -> None:
    steps, evals = compared.panels
    assert notes(steps) == ["high diverged at steps 10 to 14 (all 5 seeds)"]
    lost = marks(steps, "loss.lost", "high")
    assert len(lost) == 5  # each seed by itself
    assert max(mark.y.max() for mark in lost) > 1e4
    assert 2.3 < steps.y.limits[1] < 30
    row, edge = marks(steps, "loss.leaver")
    assert (row.within, edge.within, edge.x[0], edge.y[0]) == ("xy", "y", 10, 1)
    assert notes(evals) == []


def test_a_seed_that_diverged_is_no_part_of_the_median(tmp_path: Path) -> None:
    path = write_compare(tmp_path / "run", seeds=3, lrs={"a": 0.01})
    shutil.rmtree(path / "trials/a/seed-1")
    write_trial(path / "trials/a/seed-1", exploding(1, 60), 0.01, outcome="diverged")
    panel = training(path)
    assert notes(panel) == ["a diverged at step 59 (1 of 3 seeds)"]
    [median], [lost] = marks(panel, "loss.median"), marks(panel, "loss.lost")
    assert median.y.max() < 3
    assert median.x[-1] == 229
    assert lost.x[-1] == 58  # the last finite loss


def replaced(path: Path, loss: np.ndarray, **trial: object) -> Path:
    """Write a comparison of a calm variant, and of another with this loss."""
    write_compare(path, seeds=1, lrs={"calm": 0.01, "wild": 0.011})
    shutil.rmtree(path / "trials/wild")
    write_trial(path / "trials/wild/seed-0", loss, 0.011, **trial)
    return path


def test_a_spike_that_heals_neither_bends_the_curve_nor_fills_the_view(tmp_path: Path) -> None:
    loss = np.full(230, 2.3)
    loss[5:9] = [1e3, 1e9, 1e10, 1e6]
    picture = shown(replaced(tmp_path / "run", loss, val=np.array([2.35, 1e8, *[2.3] * 9])))
    for panel in picture.panels:
        assert panel.y.limits[1] < 50 < marks(panel, "loss.median", "wild")[0].y.max()
    [median] = marks(picture.panels[0], "loss.median", "wild")
    np.testing.assert_allclose(median.y[60:], 2.3, rtol=1e-3)


def test_a_curve_that_ends_far_above_is_clipped_and_labelled(tmp_path: Path) -> None:
    rising = {"loss": np.geomspace(2.3, 1e15, 230), "val": np.geomspace(2.3, 1e15, 11)}
    picture = shown(replaced(tmp_path / "run", **rising))  # it finished, after all
    assert all(panel.y.limits[1] < 100 for panel in picture.panels)
    [note] = notes(picture.panels[0])
    assert note.startswith("wild ends above, at ")
    assert float(note.rpartition(" ")[2]) == pytest.approx(1e15, rel=0.5)


def test_losses_of_zero_do_not_flatten_the_others(tmp_path: Path) -> None:
    y = training(replaced(tmp_path / "run", np.tile([0.0, 2.0], 115))).y
    assert y.scale == "log"
    assert 0.01 < y.limits[0] < 0.05


def test_one_that_explodes_and_comes_back_does_not_flatten_the_others(tmp_path: Path) -> None:
    loss = learning(0, 0.01, 230)
    loss[3:30] += 500.0
    assert training(replaced(tmp_path / "run", loss)).y.limits[1] < 20


def test_training_loss_that_ranks_gets_its_evaluated_mean_beside_it(tmp_path: Path) -> None:
    path = write_compare(tmp_path / "run", seeds=2, lrs={"a": 0.01, "b": 0.001})
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(summary | {"metric": "train_loss"}))
    panels = shown(path).panels
    assert [panel.title for panel in panels] == [
        "training loss", "validation loss", "training loss, mean between evaluations",
    ]  # fmt: skip
    [median] = marks(panels[2], "loss.median", "a")
    means = [trial.steps["loss"][:23].mean() for trial in load_run(path).variants["a"]]
    assert (median.x[0], median.y[0]) == (23, pytest.approx(np.median(means)))  # after an epoch


def test_many_diverged_variants_are_counted(tmp_path: Path) -> None:
    lrs = {"fine": 0.01, **{f"high {i}": 0.5 + i for i in range(9)}}
    panel = training(write_compare(tmp_path / "run", seeds=1, lrs=lrs))
    assert notes(panel) == [*(f"high {i} diverged at step 10" for i in range(5)), "and 4 more"]
    assert len(marks(panel, "loss.leaver")) == 2 * 5


def test_when_all_diverged_the_start_is_shown(tmp_path: Path) -> None:
    panel = training(write_compare(tmp_path / "run", seeds=1, lrs={"a": 0.5, "b": 1.0}))
    low, high = panel.y.limits
    assert low < 2.3 < high < 100
    assert len(notes(panel)) == 2


def test_one_seed_has_no_band_and_no_validation_no_panel(tmp_path: Path) -> None:
    picture = shown(write_compare(tmp_path / "run", seeds=1, validated=False))
    [panel] = picture.panels
    assert bands(panel) == []
    assert picture.title == "digits-lr: training loss of 3 learning rates, 1 seed"
    assert picture.caption == "Training loss: smoothed strong, raw loss of every step faint."
    assert notes(panel) == ["high diverged at step 10"]


def test_accuracy_gets_a_panel_where_it_ranks(tmp_path: Path) -> None:
    path = tmp_path / "run"
    loss = learning(0, 0.02, 230)
    accuracy = np.clip(1 - validation(loss) / 2.6, 0, 1)
    write_run(path, {"adam": [loss], "sgd": [loss]}, val=validation(loss), accuracy=accuracy)
    settings = {"adam": {"optimizer.name": "Adam"}, "sgd": {}}
    write_config(path, settings)
    values = {"adam": [0.96], "sgd": [0.95]}
    summary = ranking(["adam", "sgd"], values, settings=settings, metric="val_accuracy")
    (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    picture = shown(path)
    assert [(panel.title, panel.y.scale) for panel in picture.panels] == [
        ("training loss", "log"), ("validation loss", "log"), ("validation accuracy", "linear"),
    ]  # fmt: skip
    assert picture.title == "digits-lr: validation accuracy of 2 optimizers, 1 seed"
    assert picture.subtitle == "mlp on digits · constant schedule · batch size 64"


def test_batch_sizes_are_compared_over_epochs(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_status(path, variants=["64", "16"], seeds=[0])
    write_config(path, {name: {"data.batch_size": int(name)} for name in ("64", "16")})
    for name, per_epoch in (("64", 23), ("16", 92)):
        loss = learning(0, 0.02, 5 * per_epoch)
        val = validation(loss, per_epoch)
        write_trial(path / f"trials/{name}/seed-0", loss, 0.1, steps_per_epoch=per_epoch, val=val)
    picture = shown(path)
    assert picture.title == "digits-lr: validation loss of 2 batch sizes, 1 seed"
    assert [(p.x.title, p.x.steps_per_epoch) for p in picture.panels] == [("epoch", None)] * 2
    assert [mark.x[-1] for mark in marks(picture.panels[1], "loss.median")] == [5.0, 5.0]


def test_a_variant_that_never_saw_a_second_epoch_is_drawn_over_steps(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_status(path, variants=["64", "16", "8"], seeds=[0])
    write_config(path, {name: {"data.batch_size": int(name)} for name in ("64", "16", "8")})
    write_trial(path / "trials/64/seed-0", learning(0, 0.01, 60), 0.1, steps_per_epoch=23)
    write_trial(path / "trials/8/seed-0", exploding(0, 20), 0.1, outcome="diverged")
    x = training(path).x
    assert (x.title, x.steps_per_epoch) == ("step", 23)
    write_trial(path / "trials/16/seed-0", learning(0, 0.01, 200), 0.1, steps_per_epoch=92)
    x = training(path).x
    assert (x.title, x.steps_per_epoch) == ("step", None)


def test_an_interrupted_run_says_how_far_it_got(tmp_path: Path) -> None:
    path = write_compare(tmp_path / "run", seeds=3, summary=False, status="interrupted")
    for seed in (1, 2):
        shutil.rmtree(path / f"trials/low/seed-{seed}")
    (path / "trials/low/seed-0/result.json").unlink()
    steps = path / "trials/low/seed-0/steps.csv"
    steps.write_text(steps.read_text()[:500])  # torn in the middle of a row
    shutil.rmtree(path / "trials/standard/seed-2")
    picture = shown(path)
    assert picture.subtitle.startswith("interrupted, 5 of 9 trials ended · mlp on digits")
    assert [(entry.name, entry.note) for entry in picture.entries] == [
        ("high", "diverged"), ("standard", "2 of 3 ended"), ("low", "0 of 3 ended"),
    ]  # fmt: skip
    assert 0 < marks(picture.panels[0], "loss.median", "low")[0].x[-1] < 60


def test_a_run_that_just_began_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_status(path, status="running", variants=["a", "b"], seeds=[0])
    write_config(path, {"a": {"optimizer.lr": 1.0}, "b": {}})
    picture = shown(path)
    assert notes(picture.panels[0]) == ["no steps yet"]
    assert [(entry.name, entry.note) for entry in picture.entries] == [
        ("a", "not begun"), ("b", "not begun"),
    ]  # fmt: skip
    assert picture.subtitle.startswith("running, 0 of 2 trials ended")


@pytest.mark.parametrize(
    ("loss", "scale"),
    [
        ([1.0], "linear"),  # one step
        ([0.0, 0.0], "linear"),
        ([-1.0, -5.0], "linear"),
        ([2.0, 1.0, 0.5], "linear"),
        ([1e4, 1e2, 1e-2], "log"),
        ([1e30, 1e-30], "log"),
        ([np.nan], "linear"),
        ([np.inf, 1.0], "linear"),
    ],
)
def test_short_and_strange_losses_are_in_view(
    tmp_path: Path, loss: list[float], scale: str
) -> None:
    outcome = "finished" if np.isfinite(loss).all() else "diverged"
    path = write_run(tmp_path / "run", {"a": [np.array(loss)]}, outcome=outcome)
    [panel] = shown(path).panels
    assert panel.y.scale == scale
    low, high = panel.y.limits
    assert low < high
    assert all(low <= x <= high for x in loss if np.isfinite(x))


def test_all_variants_of_a_seed_begin_at_the_loss_before_training(tmp_path: Path) -> None:
    falls = {
        name: [0.2 + 2.0 * np.exp(-np.arange(500) / rate)]
        for name, rate in (("fast", 4.0), ("slow", 300.0))
    }
    panel = training(write_run(tmp_path / "run", falls))
    assert [mark.y[0] for mark in marks(panel, "loss.median")] == pytest.approx([2.2, 2.2])


@pytest.mark.parametrize("steps", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_many_steps_keep_their_peaks(tmp_path: Path, steps: int) -> None:
    rate, peak, dip = 5 / steps, int(0.7777 * steps), int(0.1234 * steps)
    loss = learning(0, rate, steps)
    loss[peak], loss[dip] = 40.0, 0.001
    path = write_run(tmp_path / "run", {"a": [loss]}, steps_per_epoch=steps // 100)
    [panel] = shown(path).panels
    [raw], [smooth] = marks(panel, "loss.raw"), marks(panel, "loss.median")
    assert len(raw.y) <= 3_000
    assert (raw.y.max(), raw.y.min()) == (40.0, 0.001)
    assert raw.x[np.argmax(raw.y)] == peak
    assert len(smooth.y) <= 3_000
    expected = 0.05 + 2.25 * np.exp(-rate * smooth.x)
    assert smooth.y[0] == pytest.approx(loss[0])  # that before training, not smoothed
    # smoothed as logarithms: the noise is lognormal, its geometric mean 1
    np.testing.assert_allclose(smooth.y[20:], expected[20:], rtol=0.02)
    assert panel.y.limits[1] < 10  # the peak has no say in the view


def test_the_end_of_the_best_variant_is_in_view_even_when_none_got_below_its_start() -> None:
    seen = [Seen(low=2.318, high=1e17, start=2.32, end=2.456)]
    low, high = clipped_view(seen)
    assert low == 2.318
    assert 2.456 < high < 3


def test_a_steep_fall_does_not_hold_the_smooth_curve_above_the_losses_that_follow() -> None:
    steps = np.arange(14_000.0)
    fall = 0.001 + 2.0 * np.exp(-steps / 20)
    smooth = smoothed(Line(steps, fall), len(steps))
    assert smooth.y[0] == pytest.approx(fall[0])
    assert smooth.y[smooth.x > 1_000].max() < 0.002


def named(folder: Path, names: tuple[str, ...], lrs: dict[str, float]) -> list[Run]:
    return [
        load_run(write_compare(folder / name, seeds=2, epochs=2, name=name, lrs=lrs))
        for name in names
    ]


def test_an_overlay_has_a_colour_for_each_run_and_dashes_for_its_variants(tmp_path: Path) -> None:
    picture = overlaid_loss_picture(
        named(tmp_path, ("before", "after"), {"standard": 0.01, "low": 0.001})
    )
    assert picture.title == "before, after: validation loss of 2 runs"
    assert [(entry.name, entry.look) for entry in picture.entries] == [
        (f"{run} · {name}", Look(i, j))
        for i, run in enumerate(("before", "after"))
        for j, name in enumerate(("standard", "low"))
    ]
    lines = marks(picture.panels[0], "loss.median")
    assert [line.look for line in lines] == [entry.look for entry in picture.entries]


def test_an_overlay_of_many_curves_has_a_look_for_each(tmp_path: Path) -> None:
    lrs = {f"lr={i}": 0.001 * (i + 1) for i in range(9)}
    picture = overlaid_loss_picture(named(tmp_path, ("before", "after"), lrs))
    assert len({entry.look for entry in picture.entries}) == 18
    assert all("±" in entry.note for entry in picture.entries)
    assert picture.entries[0] == Entry(
        "loss.median", "before · lr=0", picture.entries[0].note, Look(0)
    )


def test_runs_of_one_name_are_told_by_the_time_they_began(tmp_path: Path) -> None:
    def labels(*names: str) -> list[str]:
        found = [tmp_path / "-".join(names) / name for name in names]
        return run_labels([load_run(write_compare(p, seeds=1, epochs=1)) for p in found])

    first = "20261121-210301-digits-lr-compare-3f9c"
    assert labels(first, "20261121-220000-digits-lr-compare-3f9c") == ["21:03:01", "22:00:00"]
    assert labels(first, "20261122-210301-digits-lr-compare-3f9c") == [
        "20261121-210301",
        "20261122-210301",
    ]
    assert labels(first, "named") == [first, "named"]


@pytest.mark.parametrize("summary", [True, False])
def test_variants_that_differ_in_one_number_have_its_shade(tmp_path: Path, summary: bool) -> None:
    lrs = {"a": 0.1, "b": 0.001, "c": 0.01, "d": 0.0001, "e": 0.03}
    picture = shown(write_compare(tmp_path / "run", seeds=1, lrs=lrs, summary=summary))
    scale = picture.scale
    assert scale is not None
    assert (scale.title, scale.low, scale.high, scale.log) == ("optimizer.lr", 0.0001, 0.1, True)
    shades = {entry.name: entry.look.shade for entry in picture.entries if entry.look}
    assert [shades[name] for name in "dbca"] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    [line] = marks(picture.panels[0], "loss.median", "c")
    assert line.look is not None
    assert line.look.shade == shades["c"]


def test_few_variants_keep_colours_that_are_easier_to_tell_apart(compared: Picture) -> None:
    assert compared.scale is None
    assert all(entry.look and entry.look.shade is None for entry in compared.entries)


def test_a_median_ends_where_a_seed_ends_and_does_not_jump(tmp_path: Path) -> None:
    levels = ((1.0, 100), (2.0, 100), (6.0, 70), (9.0, 10))  # the last has hardly begun
    seeds = [np.full(steps, level) for level, steps in levels]
    [panel] = shown(write_run(tmp_path / "run", {"a": seeds})).panels
    [median] = marks(panel, "loss.median")
    assert (median.x[-1], len(marks(panel, "loss.raw"))) == (69, 4)
    np.testing.assert_allclose(median.y, 2.0)


def test_an_equal_curve_says_in_the_legend_whose_it_is(tmp_path: Path) -> None:
    loss = learning(0, 0.2, 100)
    picture = shown(write_run(tmp_path / "run", {"a": [loss], "b": [loss], "c": [loss + 1]}))
    assert [entry.note for entry in picture.entries] == ["", "same curve as a", ""]


def test_the_best_evaluation_is_marked_unless_it_is_the_last(tmp_path: Path) -> None:
    runs = {"a": [learning(0, 0.2, 100)]}
    falls, turns = np.array([2.0, 1.0, 0.7, 0.6, 0.5]), np.array([2.0, 1.0, 0.5, 0.8, 0.9])
    for val, best in ((turns, [(46, 0.5)]), (falls, [])):
        panel = shown(write_run(tmp_path / f"run{len(best)}", runs, val=val)).panels[1]
        assert points(panel, "loss.best") == best


def test_an_accuracy_before_training_does_not_flatten_those_after(tmp_path: Path) -> None:
    accuracy = np.array([0.28, 0.95, 0.96, 0.97, 0.98])
    runs = {"a": [learning(0, 0.2, 100)]}
    path = write_run(tmp_path / "run", runs, val=1 - accuracy, accuracy=accuracy)
    write_config(path, {"a": {"optimizer.lr": 1.0}}, compare={"metric": "val_accuracy"})
    panel = shown(path).panels[-1]
    assert panel.title == "validation accuracy"
    assert panel.y.limits[0] > 0.9
