"""Run directories are created once, written whole, and readable by others at any moment."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import secrets
import struct
from pathlib import Path
from threading import Thread

import pytest

from lrexp.errors import ConfigError, RunError
from lrexp.runs.files import to_json, write_whole
from lrexp.runs.writer import RunWriter, TrialWriter, create_run_directory, slug


def test_a_new_run_directory_says_when_what_and_how(tmp_path: Path) -> None:
    path = create_run_directory("Digits: LR!", "compare", runs_dir=tmp_path / "deep" / "runs")
    assert path.is_dir()
    date, time, *name, digits = path.name.split("-")
    assert (len(date), len(time), len(digits)) == (8, 6, 4)
    assert name == ["digits", "lr", "compare"]


def test_simultaneous_runs_never_share_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = iter("aaaabbbbccccdddd")  # every name is tried while it is taken
    monkeypatch.setattr(secrets, "token_hex", lambda n: next(digits))
    paths: list[Path] = []
    threads = [
        Thread(target=lambda: paths.append(create_run_directory("x", "c", runs_dir=tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a b/c", "a-b-c"), ("../../etc", "etc"), ("", "run"), ("äö", "run"), ("x" * 99, "x" * 60)],
)
def test_names_become_safe_parts_of_a_path(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_out_must_be_new_or_empty(tmp_path: Path) -> None:
    empty, new, full = tmp_path / "empty", tmp_path / "a" / "new", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    (full / "file").touch()
    assert create_run_directory("x", "compare", out=empty) == empty
    assert create_run_directory("x", "compare", out=new).is_dir()
    for taken in (full, full / "file"):
        with pytest.raises(ConfigError, match="exists and is not an empty folder"):
            create_run_directory("x", "compare", out=taken)


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


def test_a_directory_that_cannot_be_made_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        create_run_directory("x", "compare", runs_dir=tmp_path / "file" / "runs")


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
