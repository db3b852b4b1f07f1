"""Pictures as files, and what drawing them must not do."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from lrexp.errors import RunError
from lrexp.report.data.losses import overlaid_loss_picture
from lrexp.report.data.range_test import overlaid_range_test_picture
from lrexp.report.figure import draw
from lrexp.report.plots import draw_overlay, draw_run, draw_schedules
from lrexp.report.style import house_style
from lrexp.runs.files import remove_temporary_files
from lrexp.runs.reader import load_run

from .looks import legend_texts, overlaps, strong
from .synthetic import write_compare, write_find_lr


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(data) > 10_000  # something is drawn on it
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (write_compare, ["loss.png", "lr.png"]),
        (write_find_lr, ["range_test.png", "loss.png", "lr.png"]),
    ],
)
def test_a_run_is_drawn_into_its_own_folder(tmp_path: Path, write, names: list[str]) -> None:
    run = load_run(write(tmp_path / "run", seeds=2))
    paths = draw_run(run)
    assert [path.name for path in paths] == names
    assert {path.parent for path in paths} == {tmp_path / "run" / "plots"}
    assert {png_size(path) for path in paths} == {(1600, 900)}
    assert sorted(path.name for path in (tmp_path / "run" / "plots").iterdir()) == sorted(names)


def test_drawing_elsewhere_leaves_the_run_alone(tmp_path: Path) -> None:
    run = load_run(write_compare(tmp_path / "run", seeds=1, epochs=1))
    paths = draw_run(run, tmp_path / "a" / "b")
    assert [path.parent for path in paths] == [tmp_path / "a" / "b"] * 2
    assert not (tmp_path / "run" / "plots").exists()


def test_a_picture_is_flushed_and_renamed_from_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    renamed: list[str] = []
    replace, fsync = Path.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (flushed.append(file), fsync(file))[1])
    monkeypatch.setattr(
        Path, "replace", lambda old, new: (renamed.append(old.name), replace(old, new))[1]
    )
    draw_schedules({"a": np.full(9, 0.1)}, tmp_path / "lr.png")
    assert flushed
    assert len(renamed) == 1
    assert str(os.getpid()) in renamed[0]  # another command may draw the same file
    (tmp_path / renamed[0]).write_bytes(b"left by a command that was killed")
    remove_temporary_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lr.png"]


def test_a_refused_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    run = load_run(write_compare(tmp_path / "run", seeds=1, epochs=1))
    with pytest.raises(RunError, match=r"loss\.png: cannot be written: .*--out"):
        draw_run(run, tmp_path / "file")


def test_schedules_are_drawn_into_one_file(tmp_path: Path) -> None:
    path = draw_schedules({"a": np.full(9, 0.1)}, tmp_path / "new" / "lr.png", title="demo")
    assert path == tmp_path / "new" / "lr.png"
    assert png_size(path) == (1600, 900)


def test_settings_of_the_user_have_no_say(tmp_path: Path) -> None:
    run = load_run(write_compare(tmp_path / "run", seeds=1, epochs=1))
    plain = [path.read_bytes() for path in draw_run(run, tmp_path / "plain")]
    mine = {"text.usetex": True, "font.family": "serif", "axes.grid": True, "font.size": 30.0}
    with mpl.rc_context(mine | {"savefig.dpi": 30, "lines.linewidth": 9.0, "xtick.top": True}):
        styled = [path.read_bytes() for path in draw_run(run, tmp_path / "styled")]
        assert mpl.rcParams["font.size"] == 30.0
    assert plain == styled


def python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_files_are_drawn_without_pyplot(tmp_path: Path) -> None:
    path = write_find_lr(tmp_path / "run")
    code = (
        "import sys; from lrexp.report.plots import draw_run; from lrexp.runs.reader import load_run; "
        "draw_run(load_run(sys.argv[1])); print('matplotlib.pyplot' in sys.modules)"
    )
    assert python(code, path) == "False"


def test_runs_are_overlaid_by_kind(tmp_path: Path) -> None:
    comparisons = [
        load_run(write_compare(tmp_path / name, seeds=2, epochs=2, name=name, lrs={"a": 0.01}))
        for name in ("before", "after")
    ]
    tests = [load_run(write_find_lr(tmp_path / "test", seeds=1))]
    paths = draw_overlay([comparisons[0], *tests, comparisons[1]], tmp_path / "out")
    assert [path.name for path in paths] == ["overlay-loss.png", "overlay-range-test.png"]
    assert {png_size(path) for path in paths} == {(1600, 900)}


def test_many_curves_keep_run_variant_and_value_in_the_legend(tmp_path: Path) -> None:
    lrs = {f"lr={i}": 0.001 * (i + 1) for i in range(9)}
    runs = [
        load_run(write_compare(tmp_path / name, seeds=2, epochs=2, name=name, lrs=lrs))
        for name in ("before", "after")
    ]
    with house_style():
        texts = legend_texts(draw(overlaid_loss_picture(runs)))
    assert all("±" in text for text in texts)
    assert len({text.split("   ")[0] for text in texts}) == 18


def test_a_comparison_and_a_range_test_keep_their_own_pictures(tmp_path: Path) -> None:
    comparison, test = (
        write_compare(tmp_path / "a", seeds=1, epochs=1),
        write_find_lr(tmp_path / "b"),
    )
    runs = [load_run(comparison), load_run(test)]
    paths = draw_overlay(runs, tmp_path / "out")
    assert [path.name for path in paths] == ["overlay-loss.png", "overlay-range-test.png"]
    alone = draw_run(runs[0], tmp_path / "alone")
    assert paths[0].read_bytes() == alone[0].read_bytes()


def test_an_overlay_names_its_runs(tmp_path: Path) -> None:
    lrs = {"standard": 0.01, "low": 0.001}
    runs = [
        load_run(write_compare(tmp_path / name, seeds=2, epochs=2, name=name, lrs=lrs))
        for name in ("before", "after")
    ]
    with house_style():
        figure = draw(overlaid_loss_picture(runs))
    assert len(legend_texts(figure)) == 4
    ours, theirs = strong(figure.axes[0], "standard")
    low = strong(figure.axes[0], "low")[0]
    assert ours.get_color() != theirs.get_color()  # a colour for each run
    assert ours.get_color() == low.get_color()
    assert ours._dash_pattern != low._dash_pattern  # dashes for its variants
    assert overlaps(figure) == []


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    runs = [
        load_run(write_find_lr(tmp_path / name, seeds=1, suggested_lr=lr))
        for name, lr in (("first", 0.01), ("second", 0.05), ("third", None))
    ]
    with house_style():
        figure = draw(overlaid_range_test_picture(runs))
    assert legend_texts(figure) == [
        "first\nsuggests 0.01",
        "second\nsuggests 0.05",
        "third\nno suggestion",
    ]
    marked = [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert marked == [0.01, 0.05]
    assert overlaps(figure) == []
