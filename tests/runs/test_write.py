"""The files of a run are written whole, and readable by others at any moment."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import struct
from contextlib import closing
from pathlib import Path

import pytest

from lrexp.errors import RunError
from lrexp.runs.files import to_json, write_whole
from lrexp.runs.writer import RunWriter, TrialWriter, slug


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a b/c", "a-b-c"), ("../../etc", "etc"), ("", "run"), ("äö", "run"), ("x" * 99, "x" * 60)],
)
def test_names_become_safe_parts_of_a_path(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_a_write_that_fails_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "status.json"
    write_whole(file, "old")

    def full_disk(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RunError, match=r"status\.json: cannot be written: No space left"):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_has_no_number_that_is_not_finite(number: float) -> None:
    assert json.loads(to_json({"a": [number, 1.5], "b": {"c": number}})) == {
        "a": [None, 1.5],
        "b": {"c": None},
    }


def test_steps_are_readable_while_the_trial_runs_and_give_the_numbers_back(tmp_path: Path) -> None:
    loss = struct.unpack("f", struct.pack("f", 1 / 3))[0]  # a float32
    writer = TrialWriter(tmp_path / "trial")
    writer.steps(0, [0, 0], [0.1, 1e-7], [loss, math.inf])
    writer.steps(2, [1], [1 / 3], [math.nan])
    rows = list(csv.DictReader((tmp_path / "trial" / "steps.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert [float(row["lr"]) for row in rows] == [0.1, 1e-7, 1 / 3]
    assert struct.unpack("f", struct.pack("f", float(rows[0]["loss"])))[0] == loss
    assert [row["loss"] for row in rows[1:]] == ["inf", "nan"]
    writer.close()


def test_evaluations_keep_their_columns(tmp_path: Path) -> None:
    writer = TrialWriter(tmp_path / "trial")
    writer.evaluation(0, 0.0, {"train_loss": math.nan, "val_loss": 2.5})
    writer.evaluation(7, 0.5, {"val_loss": 1.25, "train_loss": 1.5})
    text = (tmp_path / "trial" / "evals.csv").read_text()
    assert text == "step,epoch,train_loss,val_loss\n0,0,nan,2.5\n7,0.5,1.5,1.25\n"
    writer.close()


def test_status_tells_how_a_run_stands(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, {"command": "compare", "name": "x"})
    first = json.loads((tmp_path / "status.json").read_text())
    assert (first["status"], first["command"]) == ("running", "compare")
    assert first["pid"] > 0
    writer.update_status("complete", counts={"finished": 2})
    last = json.loads((tmp_path / "status.json").read_text())
    assert (last["status"], last["counts"]) == ("complete", {"finished": 2})


def test_summary_csv_has_a_row_per_variant_and_a_column_per_seed(tmp_path: Path) -> None:
    ranking = [
        {
            "rank": 1,
            "variant": "a, b",
            "mean": 0.5,
            "sd": 0.25,
            "values": [0.25, None],
            "outcomes": {"finished": 1, "diverged": 1},
            "diagnosis": {"word": "diverged", "sentence": "…"},
        }
    ]
    writer = RunWriter(tmp_path, {})
    writer.summary({"ranking": ranking, "seeds": [3, 4], "metric": "val_loss"})
    (row,) = csv.DictReader((tmp_path / "summary.csv").read_text().splitlines())
    assert row["variant"] == "a, b"
    assert (row["seed-3"], row["seed-4"]) == ("0.25", "")
    assert (row["finished"], row["diverged"], row["failed"]) == ("1", "1", "0")


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
