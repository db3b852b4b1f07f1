"""Which command a comparison names as the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrexp.report.console import show_comparison

from .verdict_runs import over_lr


@pytest.mark.parametrize(
    ("means", "following"),
    [
        ([0.1, 0.5, 0.9, 1.2, 1.5], "find-lr mine.yaml"),
        ([1.5, 1.2, 0.9, 0.5, 0.1], "find-lr mine.yaml"),
        ([1.5, 0.5, 0.1, 0.6, 1.5], "resume"),  # more seeds would tell
    ],
)
def test_where_the_best_lr_is_at_an_end_others_are_looked_for(
    means: list[float], following: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = over_lr(tmp_path / "run", {"constant": means})
    show_comparison(run, "mine.yaml", None, quiet=False, json=False)
    out, err = capsys.readouterr()
    assert f"Next:  lrexp {following}" in out + err
