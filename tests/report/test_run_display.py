"""Runs and results as a terminal, a notebook and pandas show them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import pytest

import lrexp
from lrexp.report.data import pictures

SMALL = {
    "model": "linear", "data": "digits", "loss": "cross_entropy", "device": "cpu",
    "optimizer": {"name": "SGD", "lr": 0.1}, "train": {"duration": 20},
    "compare": {"variants": {"usual": {}, "low": {"optimizer.lr": 0.001}}, "seeds": 2},
    "find_lr": {"steps": 30, "seeds": 1, "budget": 0}, "engine": "sequential",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    lrexp.compare(SMALL, out=folder / "compared", draw=None)
    lrexp.find_lr(SMALL, out=folder / "found", draw=None)
    return folder


def test_a_table_is_what_the_summary_says(folder: Path) -> None:
    run = lrexp.load_run(folder / "compared")
    table, ranking = run.table(), (run.summary or {})["ranking"]
    assert list(table.variant) == [row["variant"] for row in ranking]
    assert list(table["mean"]) == [row["mean"] for row in ranking]
    assert list(table.value_1) == [row["values"][1] for row in ranking]
    assert list(table.finished) == [2, 2]
    final = [row["metrics"]["val_accuracy"]["final"]["mean"] for row in ranking]
    assert list(table.val_accuracy_final) == final
    assert set(table["optimizer.lr"]) == {0.1, 0.001}
    found = lrexp.load_run(folder / "found")
    rules = (found.summary or {})["rules"]
    assert dict(zip(found.table().rule, found.table().lr, strict=True)) == pytest.approx(
        {name: float("nan") if lr is None else lr for name, lr in rules.items()}, nan_ok=True
    )


def test_a_picture_is_a_figure_that_no_pyplot_knows(folder: Path) -> None:
    run = lrexp.load_run(folder / "compared")
    before = plt.get_fignums()
    figure = run.plot()
    assert [a.get_title() for a in figure.axes] != []
    assert {axes.get_xlabel() for axes in run.plot("lr").axes} != {""}
    assert plt.get_fignums() == before
    with pytest.raises(lrexp.ConfigError, match=r"no picture of this run.*Did you mean 'loss'"):
        run.plot("los")
    assert "verdicts" in pictures(run)  # so that is the one that decides
    assert figure.texts[0].get_text() == run.plot("verdicts").texts[0].get_text()


def test_html_shows_table_and_picture_and_names_as_text(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "compared", tmp_path / "run")
    summary = tmp_path / "run/summary.json"
    summary.write_text(summary.read_text().replace('"usual"', '"<b>bold</b>"'))
    html = lrexp.load_run(tmp_path / "run")._repr_html_()
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert "<b>" not in html
    assert html.count("<img ") == 1
    assert "data:image/png;base64,iVBOR" in html
    found = lrexp.find_lr(SMALL, out=folder / "again", draw=None)
    assert "suggested" in found._repr_html_()


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("options", [{}, {"quiet": True}])
def test_who_looks_sees_progress_and_the_table(
    watched: bool,
    options: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if watched:  # as in a notebook: `isatty` is false there
        shell = type("ZMQInteractiveShell", (), {})()
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    lrexp.compare(SMALL, out=tmp_path / "run", draw=None, **options)
    lrexp.find_lr(SMALL, out=tmp_path / "found", draw=None, **options)
    out, err = capsys.readouterr()
    shown = watched and not options
    assert ("Validation loss, lower is better" in out) == shown
    assert ("LR range test" in out) == shown
    assert ("Engine: 4 trials" in out + err) == shown


def test_what_the_command_line_shows_is_shown_once(
    lrexp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.yaml").write_text(
        "{model: linear, data: diabetes, loss: mse_loss, optimizer: {name: SGD, lr: 0.1}, "
        "train: {duration: 3}}"
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert lrexp("compare", "c.yaml").out.count("lower is better") == 1
