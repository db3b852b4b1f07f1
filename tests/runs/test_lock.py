"""One run, one writer: locks of processes that live, that are gone, and that race."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from lrexp.errors import RunError
from lrexp.runs.lock import Owner, locked
from lrexp.runs.writer import RunWriter


def dead_pid() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def write_lock(folder: Path, **changes: Any) -> None:
    (folder / "lock").write_text(json.dumps(Owner.this().to_plain() | changes) + "\n")


def test_a_lock_names_its_owner_and_goes_with_it(tmp_path: Path) -> None:
    with locked(tmp_path):
        content = json.loads((tmp_path / "lock").read_text())
        assert (content["host"], content["pid"]) == (platform.node(), os.getpid())
        with pytest.raises(RunError, match=f"is being written by process {os.getpid()} on"):
            locked(tmp_path).__enter__()
        assert list(tmp_path.iterdir()) == [tmp_path / "lock"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "is_stale"),
    [
        ({}, False),
        ({"process_started": None}, False),
        ({"pid": "dead"}, True),
        ({"pid": "dead", "process_started": None}, True),
        ({"process_started": "another time"}, True),  # the number was used again
        ({"host": "elsewhere.example", "pid": "dead"}, False),  # its processes are unknown here
        ({"pid_namespace": 1, "pid": "dead"}, False),  # those of another container, too
        ({"pid_namespace": None, "pid": "dead"}, True),
        ({"host": 3}, False),  # of nobody that is known
        ({"pid": -1}, False),
        ({"pid": 2**40}, False),
    ],
)
def test_only_the_lock_of_a_process_that_is_gone_is_taken_over(
    tmp_path: Path, changes: dict[str, Any], is_stale: bool
) -> None:
    write_lock(tmp_path, **{k: dead_pid() if v == "dead" else v for k, v in changes.items()})
    before = (tmp_path / "lock").read_text()
    if is_stale:
        with locked(tmp_path):
            assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(RunError, match=rf"written by .* delete {tmp_path / 'lock'}"):
            locked(tmp_path).__enter__()
        assert (tmp_path / "lock").read_text() == before


@pytest.mark.parametrize(
    "changes", [{"host": "elsewhere.example"}, {"pid_namespace": 1}, {"host": 3}, {"pid": -1}]
)
@pytest.mark.parametrize(("silence", "is_stale"), [(250.0, False), (310.0, True)])
def test_a_lock_that_cannot_be_asked_after_is_taken_over_when_it_was_silent_for_long(
    tmp_path: Path,
    changes: dict[str, Any],
    silence: float,
    is_stale: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_lock(tmp_path, **changes)
    last = (tmp_path / "lock").stat().st_mtime - silence
    os.utime(tmp_path / "lock", (last, last))
    monkeypatch.setattr(time, "time", lambda: last - 9999.0)  # this host's clock is wrong
    if is_stale:
        with locked(tmp_path):
            assert json.loads((tmp_path / "lock").read_text())["host"] == platform.node()
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(RunError, match=r"its last sign of life 25\d s ago\. Wait .* 300 s ago"):
            locked(tmp_path).__enter__()
        assert list(tmp_path.iterdir()) == [tmp_path / "lock"]


def test_a_lock_shows_that_its_owner_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.chdir(tmp_path)
    with locked(Path("run"), beat_seconds=0.01):
        monkeypatch.chdir(run)  # as user code may
        os.utime(run / "lock", (1, 1))
        for _ in range(10_000):
            if (run / "lock").stat().st_mtime > 1:
                break
            time.sleep(0.01)
        assert (run / "lock").stat().st_mtime > 1
        write_lock(run, host="elsewhere.example")  # another one took it over
        time.sleep(0.1)
        os.utime(run / "lock", (1, 1))
        time.sleep(0.1)
        assert (run / "lock").stat().st_mtime == 1
        (run / "lock").unlink()
        time.sleep(0.1)
        assert list(run.iterdir()) == []
    assert [thread for thread in threading.enumerate() if thread.name == "lrexp-lock"] == []


def test_who_was_taken_over_writes_no_more(tmp_path: Path) -> None:
    with locked(tmp_path):
        writer = RunWriter(tmp_path, {})
        write_lock(tmp_path, host="elsewhere.example", pid=7)
        for write in (
            writer.update_status,
            writer.require_directory,
            lambda: writer.summary({}),
        ):
            with pytest.raises(RunError, match=r"taken over by process 7 on elsewhere\.example"):
                write()
    assert (tmp_path / "lock").exists()
    assert not (tmp_path / "summary.json").exists()


def test_a_directory_that_another_run_got_meanwhile_is_refused(tmp_path: Path) -> None:
    before = json.dumps({"status": "complete", **Owner.this().to_plain(), "pid": dead_pid()})
    (tmp_path / "status.json").write_text(before)
    with pytest.raises(RunError, match="holds another run by now"):
        RunWriter(tmp_path, {})
    assert (tmp_path / "status.json").read_text() == before


@pytest.mark.parametrize("content", ["", '{"host": "x", "pi'])
def test_a_lock_whose_writer_was_killed_in_the_middle_is_taken_over(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "lock").write_text(content)
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_take_over_that_was_killed_does_not_lock_for_ever(tmp_path: Path) -> None:
    write_lock(tmp_path, pid=dead_pid())
    guard = tmp_path / "lock.takeover"
    guard.write_text("x\n")
    with pytest.raises(RunError, match="is being written by another process"):
        locked(tmp_path).__enter__()
    os.utime(guard, (1, 1))
    with locked(tmp_path):
        assert not guard.exists()


@pytest.mark.parametrize("content", [None, "", '{"ho'])
def test_who_was_killed_while_taking_over_keeps_nobody_waiting(
    content: str | None, tmp_path: Path
) -> None:
    write_lock(tmp_path, pid=dead_pid())
    whole = json.dumps(Owner.this().to_plain() | {"pid": dead_pid()}) + "\n"
    (tmp_path / "lock.takeover").write_text(whole if content is None else content)
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == [tmp_path / "lock"]


def test_a_take_over_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    write_lock(tmp_path, pid=dead_pid())
    guard = tmp_path / "lock.takeover"
    guard.write_text(json.dumps(Owner.this().to_plain()) + "\n")
    with pytest.raises(RunError, match=f"is being written by process {os.getpid()} on"):
        locked(tmp_path).__enter__()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "lock", guard]


def test_a_guard_that_is_another_process_s_by_now_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lock(tmp_path, pid=dead_pid())
    guard, new = tmp_path / "lock.takeover", json.dumps(Owner.this().to_plain()) + "\n"
    guard.write_text(json.dumps(Owner.this().to_plain() | {"pid": dead_pid()}) + "\n")
    rename = Path.rename

    def renamed_late(path: Path, target: Path) -> Path:
        guard.write_text(new)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renamed_late)
    with pytest.raises(RunError, match="is being written by"):
        locked(tmp_path).__enter__()
    assert guard.read_text() == new
    assert sorted(tmp_path.iterdir()) == [tmp_path / "lock", guard]


def test_a_lock_is_never_seen_without_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt  # where SIGKILL would leave a torn file

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        locked(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    for stale in (False, True):
        if stale:
            write_lock(tmp_path, pid=dead_pid())
        with locked(tmp_path):
            assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
            with pytest.raises(RunError, match="is being written"):
                locked(tmp_path).__enter__()
        assert list(tmp_path.iterdir()) == []


def test_of_many_that_want_a_stale_lock_at_once_one_gets_it(tmp_path: Path) -> None:
    write_lock(tmp_path, pid=dead_pid())
    held, refused = [], []

    def take() -> None:
        lock = locked(tmp_path)
        try:
            lock.__enter__()
        except RunError:
            refused.append(lock)
        else:
            held.append(lock)

    threads = [Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 15)
    held[0].__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_gone_is_no_error_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with locked(folder):
        (folder / "lock").unlink()
        folder.rmdir()
    with pytest.raises(RunError, match="cannot be written"):
        locked(folder).__enter__()


@pytest.mark.skipif(platform.system() != "Linux", reason="zombies are seen on Linux")
def test_a_zombie_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # it has ended, and nobody has waited for it
    owner = Owner(platform.node(), process.pid, None)
    for _ in range(1000):
        if owner.is_gone():
            break
        time.sleep(0.01)
    assert owner.is_gone()
    process.wait()
    process.stdout.close()


def test_this_process_and_its_parent_live() -> None:
    assert not Owner.this().is_gone()
    assert not Owner(platform.node(), os.getppid()).is_gone()
    assert Owner.from_plain(Owner.this().to_plain()) == Owner.this()
    assert Owner.from_plain({"host": "x", "pid": True}) is None
    assert Owner.from_plain([]) is None
