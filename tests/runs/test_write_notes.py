"""status.json while trials end: not once for each of them."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from lrexp.runs.writer import RunWriter, TrialWriter


def test_trials_that_end_together_are_counted_in_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(tmp_path, {"num_trials": 64})
    written = []
    replace = os.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: (written.append(b), replace(a, b)))
    for count in range(1, 65):
        writer.note_counts({"finished": count})
    assert len(written) <= 1  # a second may have begun
    writer.update_status("complete")
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["counts"] == {"finished": 64}
    assert status["status"] == "complete"


def test_only_files_that_have_grown_are_flushed_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (flushed.append(file), fsync(file)))
    with closing(TrialWriter(tmp_path / "trial")) as trial:
        trial.steps(0, [0], [0.1], [1.0])
        trial.evaluation(1, 1.0, {"train_loss": 1.0})
        first = trial.sync()
        assert len(flushed) == 2
        assert trial.sync() == first
        assert len(flushed) == 2
        trial.steps(1, [0], [0.1], [0.5])
        second = trial.sync()
        assert len(flushed) == 3
    assert second["evals.csv"] == first["evals.csv"]
    assert second["steps.csv"] > first["steps.csv"]
