"""How the picture of a comparison looks, asked through its axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from lrexp.report.data.losses import loss_picture
from lrexp.report.figure import draw as drawn
from lrexp.report.style import house_style
from lrexp.runs.reader import load_run

from .looks import legend_texts, overlaps, raw, strong, words_of
from .synthetic import learning, write_compare, write_config, write_status, write_trial


def draw(path: Path) -> Figure:
    with house_style():
        return drawn(loss_picture(load_run(path)))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Figure:
    """The picture of three LRs, of which one diverges, with five seeds each."""
    return draw(write_compare(tmp_path_factory.mktemp("compared") / "run", seeds=5))


def test_a_panel_has_faint_raw_lines_strong_medians_and_bands(compared: Figure) -> None:
    training, val = compared.axes
    assert training.get_title("left") == "training loss"
    assert len(raw(training)) == 15  # 3 variants × 5 seeds
    assert len(raw(val)) == 0
    for ax in compared.axes:
        assert [len(strong(ax, name)) for name in ("standard", "low")] == [1, 1]
        assert len(ax.collections) == 2  # the bands of the two that did not diverge
        assert ax.get_xlabel() == "step"
        assert ax.get_title("right") == "epoch"
        assert len(ax.child_axes) == 1
        assert ax.get_yscale() == "log"
    [median] = strong(training, "low")
    assert all(line.get_linewidth() < median.get_linewidth() for line in strong(training, "high"))
    assert overlaps(compared) == []


def test_every_word_of_the_data_is_on_the_sheet(tmp_path: Path) -> None:
    picture = loss_picture(load_run(write_compare(tmp_path / "run", seeds=2)))
    with house_style():
        words = words_of(drawn(picture))
    assert words == [picture.title, picture.subtitle, picture.source, picture.caption]


def test_the_legend_stands_right_of_the_panels(compared: Figure) -> None:
    compared.draw_without_rendering()
    [legend] = compared.legends
    assert legend.get_title().get_text() == "ranked by validation loss"
    right_most = max(ax.get_window_extent().x1 for ax in compared.axes)
    assert legend.get_window_extent().x0 > right_most
    names = [text.split("\n")[0] for text in legend_texts(compared)]
    assert names == ["standard", "low", "high"]
    colors = {name: strong(compared.axes[0], name)[0].get_color() for name in names}
    for handle, name in zip(legend.legend_handles, names, strict=True):
        assert to_rgba(handle.get_color()) == to_rgba(colors[name])


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


@pytest.mark.parametrize("loss", [[], [1.0], [0.0, 0.0], [1e30, 1e-30], [np.nan], [np.inf, 1.0]])
def test_short_and_strange_losses_are_drawn(tmp_path: Path, loss: list[float]) -> None:
    path = tmp_path / "run"
    write_status(path, variants=["a"], seeds=[0])
    write_config(path, {"a": {"optimizer.lr": 1.0}})
    outcome = "finished" if np.isfinite(loss).all() else "diverged"
    write_trial(path / "trials/a/seed-0", np.array(loss), 0.1, outcome=outcome)
    figure = draw(path)
    figure.canvas.draw()
    if np.isfinite(loss).any():
        assert strong(figure.axes[0], "a")[0].get_marker() == "o"  # a few points, seen one by one


def test_twelve_variants_are_told_apart_by_more_than_colour(tmp_path: Path) -> None:
    lrs = {f"v{i:02}": 0.001 * (i + 1) for i in range(12)}
    run = write_compare(tmp_path / "run", seeds=1, lrs=lrs, summary=False)
    write_config(run, {name: {"schedule": name} for name in lrs})
    figure = draw(run)
    lines = [strong(figure.axes[0], name)[0] for name in lrs]
    assert (
        len({(line.get_color(), str(line._dash_pattern), line.get_marker()) for line in lines})
        == 12
    )
    assert [line.get_marker() for line in lines] == ["None"] * 8 + ["o"] * 4
    handles = figure.legends[0].get_lines()
    assert sorted(handle.get_marker() for handle in handles) == ["None"] * 8 + ["o"] * 4


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
