"""The picture of a comparison, asked through its axes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from lrexp.report.curves import Line, smoothed
from lrexp.report.loss import loss_figure
from lrexp.report.style import Seen, clipped_view, house_style
from lrexp.runs.reader import load_run

from .looks import legend_texts, notes, overlaps, raw, strong, words_of
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


def draw(path: Path) -> Figure:
    with house_style():
        return loss_figure(load_run(path))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Figure:
    """The picture of three LRs, of which one diverges, with five seeds each."""
    return draw(write_compare(tmp_path_factory.mktemp("compared") / "run", seeds=5))


def test_a_comparison_has_a_panel_for_training_and_one_for_validation(compared: Figure) -> None:
    figure = compared
    training, val = figure.axes
    assert training.get_title("left") == "training loss"
    assert val.get_title("left") == "validation loss"
    assert len(raw(training)) == 15  # 3 variants × 5 seeds
    assert len(raw(val)) == 0
    for ax in figure.axes:
        assert [len(strong(ax, name)) for name in ("standard", "low")] == [1, 1]
        assert len(ax.collections) == 2  # the bands of the two that did not diverge
        assert ax.get_xlabel() == "step"
        assert ax.get_title("right") == "epoch"
        assert len(ax.child_axes) == 1
    assert training.get_yscale() == val.get_yscale() == "log"  # from 2.3 to 0.05
    assert overlaps(figure) == []


def test_the_heading_says_what_is_compared_with_what(compared: Figure) -> None:
    title, subtitle, source, caption = words_of(compared)
    assert title == "digits-lr: validation loss of 3 learning rates, 5 seeds"
    assert subtitle == "mlp on digits · SGD (momentum 0.9) · constant schedule · batch size 64"
    assert source == "run"
    assert caption.startswith("Line: median of the seeds")


def test_the_legend_stands_right_of_the_panels_in_the_order_of_the_ranking(
    compared: Figure,
) -> None:
    figure = compared
    figure.draw_without_rendering()
    [legend] = figure.legends
    assert legend.get_title().get_text() == "ranked by validation loss"
    right_most = max(ax.get_window_extent().x1 for ax in figure.axes)
    assert legend.get_window_extent().x0 > right_most
    names = [text.split("\n")[0] for text in legend_texts(figure)]
    assert names == ["standard", "low", "high"]
    assert " ± " in legend_texts(figure)[0]
    assert legend_texts(figure)[2] == "high\ndiverged"
    colors = {name: strong(figure.axes[0], name)[0].get_color() for name in names}
    for handle, name in zip(legend.legend_handles, names, strict=True):
        assert to_rgba(handle.get_color()) == to_rgba(colors[name])


def test_curves_that_diverged_are_clipped_and_labelled(compared: Figure) -> None:
    training, val = compared.axes
    assert notes(training) == ["high diverged at steps 10 to 14 (all 5 seeds)"]
    lines = strong(training, "high")
    assert len(lines) == 5  # each seed by itself
    assert max(line.get_ydata().max() for line in lines) > 1e4
    assert 2.3 < training.get_ylim()[1] < 30
    assert notes(val) == []


def test_a_seed_that_diverged_is_no_part_of_the_median(tmp_path: Path) -> None:
    path = write_compare(tmp_path / "run", seeds=3, lrs={"a": 0.01})
    shutil.rmtree(path / "trials/a/seed-1")
    write_trial(path / "trials/a/seed-1", exploding(1, 60), 0.01, outcome="diverged")
    figure = draw(path)
    assert notes(figure.axes[0]) == ["a diverged at step 59 (1 of 3 seeds)"]
    median, lost = strong(figure.axes[0], "a")
    assert median.get_ydata().max() < 3
    assert median.get_xdata()[-1] == 229
    assert lost.get_xdata()[-1] == 58  # the last finite loss
    assert lost.get_linewidth() < median.get_linewidth()


def test_a_spike_that_heals_neither_bends_the_curve_nor_fills_the_view(tmp_path: Path) -> None:
    path = write_compare(tmp_path / "run", seeds=1, lrs={"calm": 0.01, "unstable": 0.011})
    shutil.rmtree(path / "trials/unstable")
    loss = np.full(230, 2.3)
    loss[5:9] = [1e3, 1e9, 1e10, 1e6]
    val = np.array([2.35, 1e8, *[2.3] * 9])
    write_trial(path / "trials/unstable/seed-0", loss, 0.011, val=val)
    figure = draw(path)
    for ax in figure.axes:
        assert ax.get_ylim()[1] < 50
        assert max(strong(ax, "unstable")[0].get_ydata()) > 50  # it leaves the picture
    line = strong(figure.axes[0], "unstable")[0]
    np.testing.assert_allclose(line.get_ydata()[60:], 2.3, rtol=1e-3)


def test_a_curve_that_ends_far_above_is_clipped_and_labelled(tmp_path: Path) -> None:
    path = write_compare(tmp_path / "run", seeds=1, lrs={"calm": 0.01, "wild": 0.011})
    shutil.rmtree(path / "trials/wild")
    loss = np.geomspace(2.3, 1e15, 230)
    val = np.geomspace(2.3, 1e15, 11)
    write_trial(path / "trials/wild/seed-0", loss, 0.011, val=val)  # it finished, after all
    figure = draw(path)
    assert all(ax.get_ylim()[1] < 100 for ax in figure.axes)
    [note] = notes(figure.axes[0])
    assert note.startswith("wild ends above, at ")
    assert float(note.rpartition(" ")[2]) == pytest.approx(1e15, rel=0.5)


def test_losses_of_zero_do_not_flatten_the_others(tmp_path: Path) -> None:
    path = write_compare(tmp_path / "run", seeds=1, lrs={"calm": 0.01, "dead": 0.011})
    shutil.rmtree(path / "trials/dead")
    write_trial(path / "trials/dead/seed-0", np.tile([0.0, 2.0], 115), 0.011)
    [ax, _] = draw(path).axes
    assert ax.get_yscale() == "log"
    assert 0.01 < ax.get_ylim()[0] < 0.05


def test_training_loss_that_ranks_gets_its_evaluated_mean_beside_it(tmp_path: Path) -> None:
    path = write_compare(tmp_path / "run", seeds=2, lrs={"a": 0.01, "b": 0.001})
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(summary | {"metric": "train_loss"}))
    figure = draw(path)
    assert [ax.get_title("left") for ax in figure.axes] == [
        "training loss",
        "validation loss",
        "training loss, mean between evaluations",
    ]
    line = strong(figure.axes[2], "a")[0]
    assert line.get_xdata()[0] == 23  # none before the first epoch
    trials = load_run(path).variants["a"]
    means = [trial.steps["loss"][:23].mean() for trial in trials]
    assert line.get_ydata()[0] == pytest.approx(np.median(means))


def test_many_diverged_variants_do_not_cover_the_curves(tmp_path: Path) -> None:
    lrs = {"fine": 0.01, **{f"high {i}": 0.5 + i for i in range(9)}}
    figure = draw(write_compare(tmp_path / "run", seeds=1, lrs=lrs))
    assert notes(figure.axes[0])[-1] == "and 4 more"
    assert len(notes(figure.axes[0])) == 6


def test_when_all_diverged_the_start_is_shown(tmp_path: Path) -> None:
    figure = draw(write_compare(tmp_path / "run", seeds=1, lrs={"a": 0.5, "b": 1.0}))
    low, high = figure.axes[0].get_ylim()
    assert low < 2.3 < high < 100
    assert len(notes(figure.axes[0])) == 2


def test_one_seed_has_no_band_and_no_validation_no_panel(tmp_path: Path) -> None:
    figure = draw(write_compare(tmp_path / "run", seeds=1, validated=False))
    [ax] = figure.axes
    assert len(ax.collections) == 0
    assert words_of(figure)[0] == "digits-lr: training loss of 3 learning rates, 1 seed"
    assert "diverged at step 10" in notes(ax)[0]
    assert overlaps(figure) == []


@pytest.mark.parametrize("count", [12, 32])
def test_no_two_of_many_variants_look_alike(tmp_path: Path, count: int) -> None:
    lrs = {f"lr={lr:.3g}": lr for lr in np.geomspace(1e-4, 0.3, count).tolist()}
    figure = draw(write_compare(tmp_path / "run", seeds=2, epochs=2, lrs=lrs))
    lines = [strong(figure.axes[0], name)[0] for name in lrs]
    assert len({f"{line.get_color()} {line._dash_pattern}" for line in lines}) == count
    assert len(legend_texts(figure)) == count
    assert overlaps(figure) == []


def test_more_variants_than_a_legend_holds_are_counted(tmp_path: Path) -> None:
    lrs = {f"lr={lr:.3g}": lr for lr in np.geomspace(1e-4, 0.3, 90).tolist()}
    figure = draw(write_compare(tmp_path / "run", seeds=1, epochs=1, lrs=lrs))
    texts = [text.split()[0] for text in legend_texts(figure)]
    names = [row["variant"] for row in load_run(tmp_path / "run").summary["ranking"]]
    assert texts == [*names[:15], "72", *names[-3:]]
    assert legend_texts(figure)[15] == "72 more"
    assert overlaps(figure) == []


def test_accuracy_gets_a_panel_where_it_ranks(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_status(path, variants=["adam", "sgd"], seeds=[0])
    write_config(path, {"adam": {"optimizer.name": "Adam"}, "sgd": {}})
    for name in ("adam", "sgd"):
        val = validation(learning(0, 0.02, 230))
        accuracy = np.clip(1 - val / 2.6, 0, 1)
        write_trial(
            path / f"trials/{name}/seed-0", learning(0, 0.02, 230), 0.1, val=val, accuracy=accuracy
        )
    values = {"adam": [0.96], "sgd": [0.95]}
    settings = {"adam": {"optimizer.name": "Adam"}, "sgd": {}}
    summary = ranking(["adam", "sgd"], values, settings=settings, metric="val_accuracy")
    (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    figure = draw(path)
    assert [ax.get_title("left") for ax in figure.axes] == [
        "training loss",
        "validation loss",
        "validation accuracy",
    ]
    assert [ax.get_yscale() for ax in figure.axes] == ["log", "log", "linear"]
    assert words_of(figure)[0] == "digits-lr: validation accuracy of 2 optimizers, 1 seed"
    assert words_of(figure)[1] == "mlp on digits · constant schedule · batch size 64"
    assert overlaps(figure) == []


def test_batch_sizes_are_compared_over_epochs(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_status(path, variants=["64", "16"], seeds=[0])
    write_config(path, {"64": {"data.batch_size": 64}, "16": {"data.batch_size": 16}})
    for name, per_epoch in (("64", 23), ("16", 92)):
        loss = learning(0, 0.02, 5 * per_epoch)
        val = validation(loss, per_epoch)
        write_trial(path / f"trials/{name}/seed-0", loss, 0.1, steps_per_epoch=per_epoch, val=val)
    figure = draw(path)
    assert words_of(figure)[0] == "digits-lr: validation loss of 2 batch sizes, 1 seed"
    for ax in figure.axes:
        assert ax.get_xlabel() == "epoch"
        assert ax.child_axes == []
    ends = [strong(figure.axes[1], name)[0].get_xdata()[-1] for name in ("64", "16")]
    assert ends == [5.0, 5.0]


def test_a_variant_that_never_saw_a_second_epoch_is_drawn_over_steps(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_status(path, variants=["64", "16", "8"], seeds=[0])
    write_config(path, {name: {"data.batch_size": int(name)} for name in ("64", "16", "8")})
    write_trial(path / "trials/64/seed-0", learning(0, 0.01, 60), 0.1, steps_per_epoch=23)
    write_trial(path / "trials/8/seed-0", exploding(0, 20), 0.1, outcome="diverged")
    with_one_length = draw(path).axes[0]
    assert (with_one_length.get_xlabel(), len(with_one_length.child_axes)) == ("step", 1)
    write_trial(path / "trials/16/seed-0", learning(0, 0.01, 200), 0.1, steps_per_epoch=92)
    with_two = draw(path).axes[0]
    assert (with_two.get_xlabel(), len(with_two.child_axes)) == ("step", 0)


def test_an_interrupted_run_says_how_far_it_got(tmp_path: Path) -> None:
    path = write_compare(tmp_path / "run", seeds=3, summary=False, status="interrupted")
    shutil.rmtree(path / "trials/low/seed-1")
    shutil.rmtree(path / "trials/low/seed-2")
    (path / "trials/low/seed-0/result.json").unlink()
    steps = path / "trials/low/seed-0/steps.csv"
    steps.write_text(steps.read_text()[:500])  # torn in the middle of a row
    shutil.rmtree(path / "trials/standard/seed-2")
    figure = draw(path)
    assert words_of(figure)[1].startswith("interrupted, 5 of 9 trials ended · mlp on digits")
    assert legend_texts(figure) == [
        "high\ndiverged",
        "standard\n2 of 3 ended",
        "low\n0 of 3 ended",
    ]
    assert 0 < strong(figure.axes[0], "low")[0].get_xdata()[-1] < 60


def test_a_run_that_just_began_has_an_empty_picture(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_status(path, status="running", variants=["a", "b"], seeds=[0])
    write_config(path, {"a": {"optimizer.lr": 1.0}, "b": {}})
    figure = draw(path)
    assert notes(figure.axes[0]) == ["no steps yet"]
    assert legend_texts(figure) == ["a\nnot begun", "b\nnot begun"]
    assert words_of(figure)[1].startswith("running, 0 of 2 trials ended")


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
def test_short_and_strange_losses_are_drawn(tmp_path: Path, loss: list[float], scale: str) -> None:
    path = tmp_path / "run"
    write_status(path, variants=["a"], seeds=[0])
    write_config(path, {"a": {"optimizer.lr": 1.0}})
    finite = bool(np.isfinite(loss).all())
    outcome = "finished" if finite else "diverged"
    write_trial(path / "trials/a/seed-0", np.array(loss), 0.1, outcome=outcome)
    figure = draw(path)
    figure.canvas.draw()
    [ax] = figure.axes
    assert ax.get_yscale() == scale
    low, high = ax.get_ylim()
    inside = [x for x in loss if np.isfinite(x)]
    assert low < high
    assert all(low <= x <= high for x in inside)
    if inside:
        assert strong(ax, "a")[0].get_marker() == "o"  # a few points are seen one by one


def test_all_variants_of_a_seed_begin_at_the_loss_before_training(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_status(path, variants=["fast", "slow"], seeds=[0])
    write_config(path, {name: {"optimizer.lr": 1.0} for name in ("fast", "slow")})
    for name, rate in (("fast", 4.0), ("slow", 300.0)):
        write_trial(path / f"trials/{name}/seed-0", 0.2 + 2.0 * np.exp(-np.arange(500) / rate), 1.0)
    [ax] = draw(path).axes
    for name in ("fast", "slow"):
        assert strong(ax, name)[0].get_ydata()[0] == pytest.approx(2.2)


def test_twelve_variants_are_told_apart_by_more_than_colour(tmp_path: Path) -> None:
    lrs = {f"v{i:02}": 0.001 * (i + 1) for i in range(12)}
    figure = draw(write_compare(tmp_path / "run", seeds=1, lrs=lrs))
    lines = [strong(figure.axes[0], name)[0] for name in lrs]
    assert (
        len({(line.get_color(), str(line._dash_pattern), line.get_marker()) for line in lines})
        == 12
    )
    assert [line.get_marker() for line in lines] == ["None"] * 8 + ["o"] * 4
    handles = figure.legends[0].get_lines()
    assert sorted(handle.get_marker() for handle in handles) == ["None"] * 8 + ["o"] * 4


def test_one_that_explodes_and_comes_back_does_not_flatten_the_others(tmp_path: Path) -> None:
    path = write_compare(tmp_path / "run", seeds=1, lrs={"calm": 0.01, "wild": 0.011})
    shutil.rmtree(path / "trials/wild")
    loss = learning(0, 0.01, 230)
    loss[3:30] += 500.0
    write_trial(path / "trials/wild/seed-0", loss, 0.011)
    ax = draw(path).axes[0]
    assert ax.get_ylim()[1] < 20


@pytest.mark.parametrize("steps", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_many_steps_keep_their_peaks(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "run"
    write_status(path, variants=["a"], seeds=[0])
    write_config(path, {"a": {"optimizer.lr": 1.0}})
    rate, peak, dip = 5 / steps, int(0.7777 * steps), int(0.1234 * steps)
    loss = learning(0, rate, steps)
    loss[peak], loss[dip] = 40.0, 0.001
    write_trial(path / "trials/a/seed-0", loss, 0.1, steps_per_epoch=steps // 100)
    [ax] = draw(path).axes
    [faint] = raw(ax)
    assert len(faint.get_ydata()) <= 3_000
    assert faint.get_ydata().max() == 40.0
    assert faint.get_ydata().min() == 0.001
    assert faint.get_xdata()[np.argmax(faint.get_ydata())] == peak
    [smooth] = strong(ax, "a")
    assert len(smooth.get_ydata()) <= 3_000
    expected = 0.05 + 2.25 * np.exp(-rate * smooth.get_xdata())
    assert smooth.get_ydata()[0] == pytest.approx(loss[0])  # that before training, not smoothed
    # smoothed as logarithms: the noise is lognormal, its geometric mean 1
    np.testing.assert_allclose(smooth.get_ydata()[20:], expected[20:], rtol=0.02)
    assert ax.get_ylim()[1] < 10  # the peak has no say in the view


@pytest.mark.parametrize(
    "name",
    [
        "a $x^2$ b",
        r"\$ \alpha_{",
        "_hidden",
        "[red]x[/red]",
        "日本 😀 \n\t\x1b[31m",
        "long " * 40,
        "%d",
    ],
)
def test_names_are_shown_as_they_are(tmp_path: Path, name: str) -> None:
    path = tmp_path / "run"
    write_status(path, name=name, variants=["a"], seeds=[0])
    write_config(path, {"a": {"optimizer.lr": 1.0}}, model={"name": name})
    write_trial(path / "trials/a/seed-0", learning(0, 0.01, 50), 0.1)
    figure = draw(path)
    figure.canvas.draw()  # a missing glyph or bad TeX would warn or raise
    assert overlaps(figure) == []
    title = words_of(figure)[0]
    assert title.endswith(": training loss of 1 learning rate, 1 seed")
    if name.isascii() and name.isprintable() and len(name) < 40:
        assert title.startswith(name)


def test_long_names_of_variants_differ_in_the_legend(tmp_path: Path) -> None:
    start = "optimizer.lr=0.1-schedule=cosine-warmup=5%-momentum="
    lrs = {f"{start}{m}-nesterov=true": 0.01 for m in ("0.9", "0.95", "_$0.99$")}
    figure = draw(write_compare(tmp_path / "run", seeds=1, epochs=1, lrs=lrs))
    names = {text.split("\n")[0] for text in legend_texts(figure)}
    assert names == {"…0.9-nesterov=true", "…0.95-nesterov=true", "…_$0.99$-nesterov=true"}
    assert overlaps(figure) == []


def test_the_end_of_the_best_variant_is_in_view_even_when_none_got_below_its_start() -> None:
    seen = [Seen(low=2.318, high=1e17, start=2.32, end=2.456)]
    low, high = clipped_view(seen)
    assert low == 2.318
    assert 2.456 < high < 3


def test_a_steep_fall_does_not_hold_the_smooth_curve_above_the_losses_that_follow() -> None:
    steps = np.arange(14_000.0)
    losses = 0.001 + 2.0 * np.exp(-steps / 20)
    smooth = smoothed(Line(steps, losses), len(steps))
    later = smooth.x > 1_000
    assert smooth.y[0] == pytest.approx(losses[0])
    assert smooth.y[later].max() < 0.002
