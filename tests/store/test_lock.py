"""One run, one writer: locks of processes that live, that are gone, and that race."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from lrexp.errors import RunError
from lrexp.store import locked
from lrexp.store.owner import Owner


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
        os.sched_yield()
    assert owner.is_gone()
    process.wait()
    process.stdout.close()


def test_this_process_and_its_parent_live() -> None:
    assert not Owner.this().is_gone()
    assert not Owner(platform.node(), os.getppid()).is_gone()
    assert Owner.from_plain(Owner.this().to_plain()) == Owner.this()
    assert Owner.from_plain({"host": "x", "pid": True}) is None
    assert Owner.from_plain([]) is None
    assert multiprocessing.parent_process() is None
