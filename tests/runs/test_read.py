"""Reading run directories: whole, growing, torn, damaged, and what is none."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrexp.errors import ConfigError, RunError
from lrexp.runs.files import MAX_DEPTH, find_bytes, find_json, read_json, to_json
from lrexp.runs.listing import list_runs
from lrexp.runs.reader import STEPS_COLUMNS, TrialRecord, load_run, read_columns
from lrexp.runs.writer import RunWriter, TrialWriter

HEADER = "step,epoch,lr,loss\n"
STATUS = {"status": "complete", "command": "compare", "name": "demo", "seeds": [0, 1]}


def make_run(path: Path, **status: Any) -> Path:
    path.mkdir(parents=True)
    (path / "status.json").write_text(json.dumps(STATUS | status), encoding="utf-8")
    return path


def make_trial(run: Path, variant: str, seed: int, rows: str = "0,0,0.1,2.5\n") -> Path:
    path = run / "trials" / variant / f"seed-{seed}"
    path.mkdir(parents=True)
    (path / "steps.csv").write_text(HEADER + rows, encoding="utf-8")
    return path


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        (HEADER + "0,0,0.1,2.5\n1,0,0.1,1.25\n", [2.5, 1.25]),
        (HEADER + "0,0,0.1,2.5\n1,0,0.1,1.25", [2.5]),  # torn: it may have been 1.2573
        (HEADER + "0,0,0.1,2.5\n1,0,", [2.5]),
        (HEADER + "0,0,0.1,nan\n1,0,0.1,inf\n2,0,0.1,-inf\n", [math.nan, math.inf, -math.inf]),
        (HEADER + "0,0,0.1,\n1,,,1.25\n", [math.nan, 1.25]),
        (HEADER + "0,0,1e-07,2.5e+30\n", [2.5e30]),
        ("\ufeff" + HEADER.replace("\n", "\r\n") + "0,0,0.1,2.5\r\n", [2.5]),  # a spreadsheet's
        (HEADER, []),
        (HEADER + "\n", []),
        ("step,epo", []),  # torn in its first line
        ("", []),
        (None, []),
    ],
)
def test_rows_count_once_their_line_is_ended(
    tmp_path: Path, text: str | None, loss: list[float]
) -> None:
    if text is not None:
        (tmp_path / "steps.csv").write_text(text, encoding="utf-8", newline="")
    columns = read_columns(tmp_path / "steps.csv", STEPS_COLUMNS)
    assert list(columns) == ["step", "epoch", "lr", "loss"]
    np.testing.assert_array_equal(columns["loss"], loss)
    assert columns["step"].dtype == np.int64
    assert len({len(column) for column in columns.values()}) == 1


@given(
    rows=st.lists(st.tuples(st.floats(), st.floats(allow_nan=False)), max_size=6),
    torn=st.integers(0, 400),
)
def test_a_file_cut_anywhere_gives_a_prefix_of_its_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, float]], torn: int
) -> None:
    text = HEADER + "".join(f"{i},0,{lr!r},{loss!r}\n" for i, (lr, loss) in enumerate(rows))
    path = tmp_path_factory.mktemp("cut") / "steps.csv"
    path.write_text(text[:torn], encoding="utf-8")
    columns = read_columns(path, STEPS_COLUMNS)
    num_rows = len(columns["step"])
    assert num_rows == max(0, text[:torn].count("\n") - 1)
    np.testing.assert_array_equal(columns["lr"], [lr for lr, _ in rows[:num_rows]])
    np.testing.assert_array_equal(columns["loss"], [loss for _, loss in rows[:num_rows]])


@pytest.mark.parametrize(
    "rows",
    ["0,0,0.1,2.5\n1,0,0.1\n2,0,0.1,1.0\n", "0,0,0.1,oops\n", "0,0,0.1\n", "0,0,0.1,2.5,9\n"],
)
def test_a_broken_line_is_an_error_that_names_the_file(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "steps.csv"
    path.write_text(HEADER + rows, encoding="utf-8")
    with pytest.raises(RunError, match=r"steps\.csv: is damaged: .* Delete the broken line"):
        read_columns(path, STEPS_COLUMNS)


def test_what_the_writer_writes_is_read_back(tmp_path: Path) -> None:
    writer = TrialWriter(tmp_path / "trial", loss_digits=17)
    writer.evaluation(0, 0.0, {"train_loss": math.nan, "val_loss": 2.0, "val_accuracy": 0.1})
    writer.steps(0, [0, 0], [0.1, 1 / 3], [2.5, 0.1 + 0.2])
    writer.steps(2, [1], [1e-7], [math.inf])
    writer.evaluation(3, 1.5, {"train_loss": 1.0, "val_loss": 0.5, "val_accuracy": 0.9})
    trial = TrialRecord("a", 0, tmp_path / "trial")
    assert trial.result is None  # it goes on
    writer.close()
    assert trial.steps["step"].tolist() == [0, 1, 2]
    assert trial.steps["epoch"].tolist() == [0, 0, 1]
    assert trial.steps["lr"].tolist() == [0.1, 1 / 3, 1e-7]
    assert trial.steps["loss"].tolist() == [2.5, 0.1 + 0.2, math.inf]
    assert list(trial.evals) == ["step", "epoch", "train_loss", "val_loss", "val_accuracy"]
    np.testing.assert_array_equal(trial.evals["train_loss"], [math.nan, 1.0])
    assert trial.evals["epoch"].tolist() == [0.0, 1.5]


def test_a_trial_without_evaluations_has_empty_columns(tmp_path: Path) -> None:
    trial = TrialRecord("a", 0, tmp_path)
    assert {name: len(column) for name, column in trial.evals.items()} == {
        "step": 0,
        "epoch": 0,
        "train_loss": 0,
    }


def test_variants_come_in_the_order_of_the_config_and_seeds_by_number(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", variants=["z", "a", "not begun"])
    for variant, seed in (("a", 0), ("z", 10), ("z", 2), ("left over", 0)):
        make_trial(path, variant, seed)
    (path / "trials" / "a" / "seed-x").mkdir()  # no trial
    run = load_run(path)
    assert list(run.variants) == ["z", "a", "not begun", "left over"]
    assert [trial.seed for trial in run.variants["z"]] == [2, 10]
    assert run.variants["not begun"] == ()
    assert len(run.trials) == 4


def test_a_run_in_progress_is_loaded_without_a_summary(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", status="running", host=platform.node(), pid=os.getpid())
    make_trial(path, "a", 0)
    (path / "resolved.yaml").write_text("optimizer: {name: SGD, lr: 1.0e-05}\n", encoding="utf-8")
    run = load_run(str(path))
    assert (run.name, run.command, run.status["status"]) == ("demo", "compare", "running")
    assert run.summary is None
    assert run.config["optimizer"]["lr"] == 1e-5
    assert run.trials[0].result is None


def test_curves_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    make_trial(path, "a", 0, rows="broken\n")
    trial = load_run(path).trials[0]
    with pytest.raises(RunError, match="is damaged"):
        _ = trial.steps


@pytest.mark.parametrize(
    ("said", "host", "alive", "shown"),
    [
        ("running", "here", True, "running"),
        ("running", "here", False, "interrupted"),
        ("running", "elsewhere", False, "running"),  # another machine's processes are unknown
        ("complete", "here", False, "complete"),
        ("failed", "here", False, "failed"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="processes are not asked after on Windows")
def test_a_run_whose_process_is_gone_is_interrupted(
    tmp_path: Path, said: str, host: str, alive: bool, shown: str
) -> None:
    node = platform.node() if host == "here" else "elsewhere.example"
    pid = os.getpid() if alive else dead_pid()
    path = make_run(tmp_path / "run", status=said, host=node, pid=pid)
    assert load_run(path).status["status"] == shown
    assert list_runs(tmp_path)[0].status == shown


@pytest.mark.parametrize("owner", [{"host": "elsewhere.example", "pid": 7}, {}])
@pytest.mark.parametrize(
    ("touched", "silence", "shown"),
    [
        ("lock", 250, "running"),
        ("lock", 310, "interrupted"),
        ("status.json", 250, "running"),  # it has ended just now, or its lock was deleted
        ("status.json", 310, "interrupted"),
    ],
)
def test_a_run_of_another_host_that_was_silent_for_long_is_interrupted(
    tmp_path: Path, owner: dict[str, Any], touched: str, silence: float, shown: str
) -> None:
    path = make_run(tmp_path / "run", status="running", **owner)
    if touched == "lock":
        os.utime(path / "status.json", (1, 1))
        (path / "lock").touch()
    last = (path / touched).stat().st_mtime - silence
    os.utime(path / touched, (last, last))
    before = sorted(path.iterdir())
    assert load_run(path).status["status"] == shown
    assert list_runs(tmp_path)[0].status == shown
    assert sorted(path.iterdir()) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such folder"),
        (lambda path: path.write_text("x"), "there is no such folder"),
        (lambda path: path.mkdir(), "it has no status.json"),
        (lambda path: make_run(path / "inside"), "holds runs and is none itself"),
    ],
)
def test_what_is_no_run_directory_is_refused(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(ConfigError, match=message) as caught:
        load_run(path)
    assert str(path) in str(caught.value)
    assert "lrexp runs" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [("status.json", "{"), ("summary.json", "{"), ("resolved.yaml", "a: [")],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    path = make_run(tmp_path / "run")
    (path / name).write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=f"{name}: is damaged"):
        load_run(path)


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    begun = datetime(2026, 11, 21, 21, 3, 1, tzinfo=timezone.utc)
    for i, name in enumerate(["old", "new", "middle"]):
        hours = {"old": 0, "middle": 1, "new": 2}[name]
        started = (begun + timedelta(hours=hours)).isoformat(timespec="seconds")
        path = make_run(tmp_path / f"{i}", name=name, started=started)
        make_trial(path, "a", 0, rows="broken\n")  # curves are not read
    (tmp_path / "notes").mkdir()
    (tmp_path / "file.txt").write_text("x")
    entries = list_runs(tmp_path)
    assert [entry.name for entry in entries] == ["new", "middle", "old"]
    assert entries[-1].started == begun


@pytest.mark.parametrize(
    ("summary", "best_variant", "suggested_lr"),
    [
        ({"ranking": [{"variant": "low"}, {"variant": "high"}]}, "low", None),
        ({"suggested_lr": 0.05}, None, 0.05),
        ({"suggested_lr": None}, None, None),
        (None, None, None),
    ],
)
def test_an_entry_tells_what_was_best(
    tmp_path: Path, summary: Any, best_variant: str | None, suggested_lr: float | None
) -> None:
    path = make_run(tmp_path / "run", started="2026-11-21T21:03:01+01:00")
    if summary is not None:
        (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    [entry] = list_runs(tmp_path)
    assert (entry.best_variant, entry.suggested_lr) == (best_variant, suggested_lr)
    plain = json.loads(json.dumps(entry.to_plain()))
    assert plain["path"] == str(path)
    assert plain["started"] == "2026-11-21T21:03:01+01:00"
    assert plain["best_variant"] == best_variant


def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    bad = make_run(tmp_path / "bad")
    (bad / "status.json").write_text("{", encoding="utf-8")
    assert {entry.path.name: entry.status for entry in list_runs(tmp_path)} == {
        "good": "complete",
        "bad": "damaged",
    }


# what status.json and summary.json hold | what a list says of that run
STRANGE = [
    ({"started": "0001-01-01"}, {}, ("complete", None, None)),
    ({"started": "9999-12-31T23:59:59"}, {}, ("complete", None, None)),
    ({"started": ["2026"]}, {}, ("complete", None, None)),
    ({}, {"suggested_lr": 10**400}, ("damaged", None, None)),
    ({}, {"suggested_lr": math.nan}, ("damaged", None, None)),
    ({}, {"suggested_lr": True}, ("complete", None, None)),
    ({}, {"suggested_lr": "0.1"}, ("complete", None, None)),
    ({}, {"suggested_lr": 1}, ("complete", None, 1)),
    ({}, {"ranking": [{"variant": 7}]}, ("complete", None, None)),
    ({}, {"ranking": [{"variant": {"a": 1}}]}, ("complete", None, None)),
    ({"seconds": 10**400}, {}, ("damaged", None, None)),
]


@pytest.mark.parametrize(("status", "summary", "shown"), STRANGE)
def test_what_no_run_writes_hides_no_other_run(
    tmp_path: Path, lrexp: Any, status: Any, summary: Any, shown: tuple[object, ...]
) -> None:
    make_run(tmp_path / "runs/good")
    path = make_run(tmp_path / "runs/strange", **status)
    (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    answers = [lrexp("runs"), lrexp("runs", "--json")]
    assert [answer.code for answer in answers] == [0, 0], answers
    assert "good" in answers[0].out
    entries = {entry["path"]: entry for entry in json.loads(answers[1].out)}
    strange = entries["runs/strange"]
    assert entries["runs/good"]["status"] == "complete"
    assert (strange["status"], strange["best_variant"], strange["suggested_lr"]) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a": NaN}',
        '{"a": [-Infinity]}',
        '{"a": 1e400}',
        '{"a": {"b": 1' + "0" * 400 + "}}",
        '{"a": 1' + "0" * 5000 + "}",
        '{"a": "\\ud800"}',
        '{"\\ud800": 1}',
        '{"a": ' + "[" * 900 + "]" * 900 + "}",
        '{"a":' * 100_000,
        " " * 20_000_001,
    ],
    ids=lambda text: text[:20],
)
def test_json_that_no_run_writes_is_refused(tmp_path: Path, text: str) -> None:
    path = make_run(tmp_path / "run")
    (path / "status.json").write_text(text)
    with pytest.raises(RunError, match=r"status\.json: is damaged: .* Restore it"):
        load_run(path)


def test_what_is_read_can_be_written_again(tmp_path: Path) -> None:
    deep: Any = 1.5
    for _ in range(MAX_DEPTH - 2):
        deep = {"ä": deep}
    path = make_run(tmp_path / "run", more=deep, number=-(10**300), text="\U0001f600")
    RunWriter(path, {}, earlier=load_run(path).status)
    read = read_json(path / "status.json")
    assert (read["more"], read["number"], read["text"]) == (deep, -(10**300), "\U0001f600")
    (path / "status.json").write_text(to_json({"even": {"deeper": deep}}))
    with pytest.raises(RunError, match="nested deeper than 100 levels"):
        read_json(path / "status.json")


@pytest.mark.parametrize("text", [None, "null", "[]"])
def test_a_missing_object_is_none_or_an_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    assert find_json(tmp_path / "a.json") is None
    with pytest.raises(RunError, match=r"a\.json: is damaged: it is missing, or holds no object"):
        read_json(tmp_path / "a.json")


@pytest.mark.usefixtures("at_once")
def test_only_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)  # takes no room
    expected = {"pipe": "no file", "link": "no file", "folder": "Is a directory", "huge": "larger"}
    for name, message in expected.items():
        with pytest.raises(RunError, match=f"{name}: .*{message}"):
            find_bytes(tmp_path / name)
    (tmp_path / "small").write_bytes(b"12345")
    assert find_bytes(tmp_path / "small", 5) == b"12345"
    with pytest.raises(RunError, match="larger than 4 bytes"):
        find_bytes(tmp_path / "small", 4)


def test_a_missing_folder_of_runs_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder of runs") as caught:
        list_runs(tmp_path / "nothing")
    assert caught.value.exit_code == 2
