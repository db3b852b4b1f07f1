"""The picture of a range test, asked through its axes."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrexp.analysis.range_curve import Curve, combine
from lrexp.analysis.suggest import suggest
from lrexp.report.notebook import plot_range_test
from lrexp.report.range_test import range_test_figure, range_test_loss_figure, run_curves
from lrexp.report.style import ACCENT, house_style
from lrexp.runs.reader import Run, load_run

from .looks import legend_texts, notes, overlaps, raw, words_of
from .synthetic import write_find_lr, write_status, write_trial


def draw(path: Path) -> Figure:
    with house_style():
        return range_test_figure(load_run(path))


def spans(ax: Axes) -> list[tuple[float, float]]:
    """Return the shaded ranges of LR."""
    boxes = [patch.get_extents().transformed(ax.transData.inverted()) for patch in ax.patches]
    return [(round(box.x0, 9), round(box.x1, 9)) for box in boxes]


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A range test of three seeds with a suggestion."""
    return load_run(write_find_lr(tmp_path_factory.mktemp("tested") / "run", seeds=3))


@pytest.fixture(scope="module")
def picture(tested: Run) -> Figure:
    return draw(tested.path)


def test_the_curves_are_drawn_over_log_lr(tested: Run, picture: Figure) -> None:
    figure = picture
    upper, lower = figure.axes
    assert upper.get_xscale() == lower.get_xscale() == "log"
    assert len([line for line in raw(upper) if len(line.get_xdata()) > 2]) == 3
    combined = combine([Curve(t.steps["lr"], t.steps["loss"]) for t in tested.trials])
    [smooth] = [line for line in upper.lines if line.get_linewidth() == 2.4]
    np.testing.assert_array_equal(smooth.get_xdata(), combined.lr)
    np.testing.assert_array_equal(smooth.get_ydata(), combined.smooth)
    assert len(upper.collections) == 1  # the band of the seeds
    figure.draw_without_rendering()
    labels = [text.get_text() for text in lower.get_xticklabels()]
    assert {"1e-6", "1e-4", "0.01", "1"} <= set(labels)
    assert lower.get_xlabel() == "learning rate"


def test_the_suggestion_its_interval_and_the_range_are_marked(picture: Figure) -> None:
    figure = picture
    upper = figure.axes[0]
    assert spans(upper) == [(0.0047, 0.21), (0.031, 0.068)]
    [line] = [line for line in upper.lines if line.get_color() == ACCENT]
    assert list(line.get_xdata()) == [0.047, 0.047]
    assert notes(upper) == ["suggested 0.047"]
    assert words_of(figure)[0] == "digits-lr: LR range test with 3 seeds suggests 0.047"
    assert words_of(figure)[1] == "mlp on digits · SGD (momentum 0.9) · batch size 64"
    assert "base to max LR\nfor cyclic schedules" in legend_texts(figure)
    assert overlaps(figure) == []


def test_every_rule_has_a_mark_on_the_curve_and_a_row_below(tmp_path: Path) -> None:
    rules = {"steepest": 0.03, "minimum": 0.03, "valley": 0.047, "slide": None}
    figure = draw(write_find_lr(tmp_path / "run", rules=rules))
    upper, lower = figure.axes
    rows = [text.get_text() for text in lower.get_yticklabels()]
    assert rows == ["suggested", "base to max", "steepest", "minimum", "valley"]
    assert notes(lower) == ["0.047  (0.031 to 0.068)", "0.0047 to 0.21", "0.03", "0.03", "0.047"]
    marks = {line.get_label(): line for line in upper.lines if line.get_label() in rules}
    assert {name: float(line.get_xdata()[0]) for name, line in marks.items()} == {
        "steepest": 0.03,
        "minimum": 0.03,
        "valley": 0.047,
    }
    assert len({line.get_marker() for line in marks.values()}) == 3
    low, high = upper.get_ylim()
    assert all(low < float(line.get_ydata()[0]) < high for line in marks.values())


def test_the_view_shows_the_valley_not_the_blow_up(picture: Figure) -> None:
    upper = picture.axes[0]
    low, high = upper.get_ylim()
    assert 0.2 < low < 0.5
    assert 2.4 < high < 3.5  # the losses go up to 9
    assert max(line.get_ydata().max() for line in raw(upper)) > 5


def test_a_loss_over_decades_is_drawn_on_a_log_axis(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_status(path, command="find-lr", variants=["range_test"], seeds=[0])
    lr = np.geomspace(1e-7, 10.0, 100)
    write_trial(path / "trials/range_test/seed-0", 1e4 / (1 + (lr / 1e-3) ** 2) + lr**8, lr)
    assert draw(path).axes[0].get_yscale() == "log"


def test_without_a_suggestion_the_reason_is_written(tmp_path: Path) -> None:
    figure = draw(write_find_lr(tmp_path / "run", signal=False))
    [ax] = figure.axes
    [note] = notes(ax)
    assert note.replace("\n", " ").startswith("No suggestion. The loss never falls")
    assert words_of(figure)[0].endswith("LR range test with 3 seeds gives no suggestion")
    assert spans(ax) == []
    assert ax.get_xlabel() == "learning rate"
    assert overlaps(figure) == []


def test_a_test_that_goes_on_shows_what_there_is(tmp_path: Path) -> None:
    path = write_find_lr(tmp_path / "run", seeds=2)
    (path / "summary.json").unlink()
    (path / "trials/range_test/seed-1/result.json").unlink()
    write_status(
        path, command="find-lr", status="running", variants=["range_test"], seeds=[0, 1, 2]
    )
    figure = draw(path)
    assert len(raw(figure.axes[0])) == 1  # the seed that has ended
    assert words_of(figure)[0] == "digits-lr: LR range test with 3 seeds"
    assert words_of(figure)[1].startswith("running, 1 of 3 trials ended")
    assert notes(figure.axes[0]) == []


def test_a_test_that_failed_is_no_part_of_the_curve(tmp_path: Path) -> None:
    path = write_find_lr(tmp_path / "run", seeds=3)
    steps = path / "trials/range_test/seed-2/steps.csv"
    steps.write_text("".join(steps.read_text().splitlines(keepends=True)[:20]))
    result = path / "trials/range_test/seed-2/result.json"
    result.write_text('{"outcome": "failed", "error": "boom", "final": {}}')
    run = load_run(path)
    ended = [trial.steps["lr"] for trial in run.trials if trial.seed < 2]
    assert [list(curve.lr) for curve in run_curves(run)] == [list(lr) for lr in ended]


@pytest.mark.parametrize("losses", [[], [np.nan], [2.0], [2.0, np.inf], [2.0, 2.0, 2.0]])
def test_very_short_tests_are_drawn(tmp_path: Path, losses: list[float]) -> None:
    path = tmp_path / "run"
    write_status(path, command="find-lr", variants=["range_test"], seeds=[0, 1])
    lr = np.geomspace(1e-3, 1e-1, 3)[: len(losses)]
    for seed in (0, 1):
        write_trial(path / f"trials/range_test/seed-{seed}", np.array(losses), lr)
    run = load_run(path)
    with house_style():
        for draw_one in (range_test_figure, range_test_loss_figure):
            figure = draw_one(run)
            figure.draw_without_rendering()
            assert np.isfinite([ax.get_ylim() for ax in figure.axes]).all()


def test_the_losses_are_drawn_over_steps_too(tmp_path: Path) -> None:
    path = write_find_lr(tmp_path / "run", seeds=3, steps=80)
    with house_style():
        figure = range_test_loss_figure(load_run(path))
    [ax] = figure.axes
    assert (ax.get_xscale(), ax.get_xlabel()) == ("linear", "step")
    assert len(raw(ax)) == 3
    assert words_of(figure)[0] == "digits-lr: training loss of the LR range test, 3 seeds"
    assert overlaps(figure) == []


def test_a_notebook_gets_the_axes_with_the_curves() -> None:
    lr = np.geomspace(1e-7, 10, 100)
    loss = 2.3 - 1.9 / (1 + (3e-2 / lr) ** 1.6) + lr**3
    curves = [Curve(lr, loss), Curve(lr, loss + 0.01)]
    suggestion = suggest(curves)
    assert suggestion.suggested_lr is not None
    ax = plot_range_test(curves, suggestion)
    assert len(ax.figure.axes) == 2  # and the rows of the rules
    assert ax.get_ylabel() == "loss"
    assert [line.get_xdata()[0] for line in ax.lines if line.get_color() == ACCENT] == [
        suggestion.suggested_lr
    ]
    ax.figure.draw_without_rendering()
    assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1

    _, own = plt.subplots()
    assert plot_range_test(curves, suggestion, ax=own) is own
    assert len(own.figure.axes) == 1
    bare = plot_range_test(curves)
    assert notes(bare) == []
