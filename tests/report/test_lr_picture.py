"""How pictures of learning rates look: of runs, of schedules, and in a notebook."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lrexp.errors import ConfigError
from lrexp.report.data.lr import lr_picture, schedule_picture
from lrexp.report.figure import draw
from lrexp.report.plots import plot_lr_schedule, plot_range_test
from lrexp.report.style import house_style
from lrexp.runs.reader import load_run

from .looks import legend_texts, overlaps, strong
from .synthetic import (
    write_compare,
)

STEPS = np.arange(1000)
COSINE = 0.05 * (1 + np.cos(np.pi * STEPS / 1000))


def test_a_comparison_has_one_line_for_each_variant(tmp_path: Path) -> None:
    with house_style():
        figure = draw(lr_picture(load_run(write_compare(tmp_path / "run", seeds=3))))
    [ax] = figure.axes
    assert [len(strong(ax, name)) for name in ("high", "standard", "low")] == [1, 1, 1]
    assert legend_texts(figure) == ["high\n0.5", "standard\n0.01", "low\n1e-4"]
    assert ax.get_yscale() == "log"
    assert overlaps(figure) == []
    labels = {text.get_text() for text in ax.get_yticklabels()}
    assert {"1e-4", "0.001", "0.01", "0.1"} <= labels


def test_equal_rates_do_not_hide_each_other() -> None:
    traces = {"a": np.full(9, 0.1), "b": np.full(9, 0.1), "c": np.full(9, 0.1)}
    with house_style():
        [ax] = draw(schedule_picture(traces)).axes
    widths = [strong(ax, name)[0].get_linewidth() for name in traces]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 3


def test_schedules_are_drawn_with_their_epochs() -> None:
    with house_style():
        figure = draw(schedule_picture({"cosine": COSINE}, "demo", steps_per_epoch=50))
    [ax] = figure.axes
    figure.draw_without_rendering()
    top = ax.child_axes[0].get_xticklabels()
    assert [text.get_text() for text in top][1:-1] == ["0", "5", "10", "15", "20"]
    assert overlaps(figure) == []


def test_a_notebook_gets_axes_with_every_step() -> None:
    ax = plot_lr_schedule(lambda step: 0.1 / (1 + step), total_steps=500)
    assert ax.get_title("left") == "Learning rate"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "learning rate")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 0.1 / (1 + np.arange(500)))
    assert ax.get_legend() is None
    assert tuple(ax.figure.get_size_inches()) == (12, 6)


def test_several_schedules_share_the_axes_they_are_given() -> None:
    _, ax = plt.subplots()
    schedules = {"_up $x$": lambda s: 0.001 * s, "down": lambda s: 0.1 - 0.001 * s}
    assert plot_lr_schedule(schedules, 100, title="A $t$", figsize=(3, 3), ax=ax) is ax
    assert len(ax.lines) == 2
    assert ax.get_title("left") == "A $t$"
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["_up $x$", "down"]
    ax.figure.draw_without_rendering()
    assert legend.get_window_extent().x0 >= ax.get_window_extent().x1


@pytest.mark.parametrize(
    ("total_steps", "point_interval", "steps"),
    [
        (1, None, [0]),
        (3, None, [0, 1, 2]),
        (10, 4, [0, 4, 8, 9]),
        (10, 100, [0, 9]),
    ],
)
def test_the_last_step_is_always_drawn(
    total_steps: int, point_interval: int | None, steps: list[int]
) -> None:
    ax = plot_lr_schedule(lambda step: step + 1.0, total_steps, point_interval=point_interval)
    assert ax.lines[0].get_xdata().tolist() == steps


def test_a_long_schedule_is_asked_for_few_points() -> None:
    asked: list[int] = []
    plot_lr_schedule(lambda step: asked.append(step) or 0.1, total_steps=1_000_000)
    assert len(asked) <= 20_001
    assert asked[-1] == 999_999
    assert all(type(step) is int for step in asked)


@pytest.mark.parametrize(
    ("schedule", "total_steps", "point_interval", "key"),
    [
        (math.sqrt, 0, None, "total_steps"),
        (math.sqrt, True, None, "total_steps"),
        (math.sqrt, 10.0, None, "total_steps"),
        (math.sqrt, 10, 0, "point_interval"),
        (0.1, 10, None, "schedule"),
        ({"a": 0.1}, 10, None, "schedule"),
    ],
)
def test_bad_arguments_are_refused(
    schedule: object, total_steps: object, point_interval: object, key: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: must be"):
        plot_lr_schedule(schedule, total_steps, point_interval=point_interval)
    assert plt.get_fignums() == []


def test_a_schedule_that_follows_a_loss_is_thin_and_dashed() -> None:
    traces = {"cosine": np.linspace(0.1, 0.01, 50), "plateau": np.full(50, 0.1)}
    figure = draw(schedule_picture(traces, reactive=["plateau"]))
    [cosine], [plateau] = (strong(figure.axes[0], name) for name in traces)
    assert plateau.is_dashed()
    assert not cosine.is_dashed()
    assert plateau.get_linewidth() < cosine.get_linewidth()
    assert figure.legends[0].get_lines()[1].is_dashed()


@pytest.mark.parametrize("ax", ["axes", 3, [None]])
def test_what_is_no_axes_is_refused(ax: object) -> None:
    for draw_on in (
        lambda: plot_lr_schedule(lambda step: 0.1, 10, ax=ax),
        lambda: plot_range_test([], ax=ax),
    ):
        with pytest.raises(ConfigError, match="Axes"):
            draw_on()
