"""One run, one writer; one group, one trainer: leases of processes that live, or that are gone."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from lrexp.errors import RunError
from lrexp.runs import lock
from lrexp.runs.lock import Owner, claimant, claimed, locked, still_ours
from lrexp.runs.writer import RunWriter


@pytest.fixture(scope="module")
def dead_pid() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def write_lock(folder: Path, name: str = "lock", **changes: object) -> Path:
    """Write a lease as this process would, but for these lines of it."""
    with locked(folder):
        text = (folder / "lock").read_text()
    for key, value in changes.items():
        text, count = re.subn(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
        assert count == 1, text
    (folder / name).write_text(text)
    return folder / name


def make_silent(path: Path, seconds: float = 310.0) -> None:
    last = path.stat().st_mtime - seconds
    os.utime(path, (last, last))


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.4)


def test_a_lock_names_its_owner_and_goes_with_it(tmp_path: Path) -> None:
    with locked(tmp_path):
        assert f"pid={os.getpid()}\n" in (tmp_path / "lock").read_text()
        with pytest.raises(RunError, match=f"is being written by process {os.getpid()}\\. Wait"):
            locked(tmp_path).__enter__()
        assert list(tmp_path.iterdir()) == [tmp_path / "lock"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "is_stale"),
    [
        ({}, False),
        ({"pid": "dead"}, True),
        ({"start": 7}, True),  # the number was used again
        ({"host": "elsewhere.example", "pid": "dead"}, False),  # its processes are unknown here
        ({"pid": -1}, False),
        ({"pid": 2**40}, False),
        ({"duration": 3.0}, False),  # of a program with other habits
    ],
)
def test_only_the_lock_of_a_process_that_is_gone_is_taken_over(
    tmp_path: Path, changes: dict[str, Any], is_stale: bool, dead_pid: int
) -> None:
    path = write_lock(tmp_path, **{k: dead_pid if v == "dead" else v for k, v in changes.items()})
    before = path.read_text()
    if is_stale:
        with locked(tmp_path):
            assert f"pid={os.getpid()}\n" in path.read_text()
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(RunError, match=rf"written by .* delete {path}"):
            locked(tmp_path).__enter__()
        assert path.read_text() == before


@pytest.mark.parametrize(
    "content",
    [
        '{"host": "of an older lrexp", "pid": 1}\n',
        *(pytest.param(content, marks=pytest.mark.long) for content in ("", "x")),
    ],
)
def test_a_lock_of_nobody_is_respected_until_it_was_silent_for_long(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE_SECONDS", 1.7)  # filelock watches such a one for two seconds
    path = tmp_path / "lock"
    path.write_text(content)
    with pytest.raises(RunError, match=rf"written by another process.* delete {path}"):
        locked(tmp_path).__enter__()
    make_silent(path)
    with locked(tmp_path):
        assert f"pid={os.getpid()}\n" in path.read_text()


@pytest.mark.usefixtures("short_leases")
@pytest.mark.parametrize("take", [locked, lambda folder: claimed(folder / "lock")])
@pytest.mark.parametrize(("silence", "is_stale"), [(250.0, False), (310.0, True)])
def test_a_lock_of_another_host_is_taken_over_when_it_was_silent_for_long(
    tmp_path: Path,
    take: Callable[[Path], Any],
    silence: float,
    is_stale: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_lock(tmp_path, host="elsewhere.example")
    make_silent(path, silence)
    monkeypatch.setattr(time, "time", lambda: 9999.0)  # this host's clock is wrong
    try:
        with take(tmp_path) as lease:
            assert (lease is not None) == is_stale
    except RunError:
        assert not is_stale
    assert path.exists() != is_stale
    assert [file for file in tmp_path.iterdir() if file != path] == []


@pytest.mark.usefixtures("short_leases")
def test_a_silent_lock_is_not_taken_from_who_wakes_up(tmp_path: Path) -> None:
    path = write_lock(tmp_path, host="elsewhere.example")
    make_silent(path)
    waking = threading.Timer(0.2, lambda: os.utime(path))
    waking.start()
    with pytest.raises(RunError, match="is being written"):
        locked(tmp_path).__enter__()
    waking.join()
    assert path.exists()


@pytest.mark.usefixtures("short_leases")
def test_a_lock_shows_that_its_owner_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.chdir(tmp_path)
    with locked(Path("run")):
        monkeypatch.chdir(run)  # as user code may
        os.utime(run / "lock", (1, 1))
        for _ in range(10_000):
            if (run / "lock").stat().st_mtime > 1:
                break
            time.sleep(0.01)
        assert (run / "lock").stat().st_mtime > 1
    assert list(run.iterdir()) == []
    assert [t for t in threading.enumerate() if t.name.startswith("filelock-lease")] == []


def test_a_contender_that_puts_the_lease_back_takes_nothing(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    theirs = write_lock(other, pid=1, host="elsewhere.example")
    (tmp_path / "status.json").write_text("{}")
    with locked(tmp_path) as lease:
        check = still_ours(tmp_path, lease)
        aside = tmp_path / "aside"
        (tmp_path / "lock").rename(aside)
        theirs.replace(tmp_path / "lock")
        back = Thread(target=lambda: (time.sleep(0.2), aside.replace(tmp_path / "lock")))
        back.start()
        check()
        assert not aside.exists()  # it has waited for that
        back.join()


def test_who_was_taken_over_writes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "EXCHANGE_SECONDS", 0.05)
    with locked(tmp_path) as lease:
        check = still_ours(tmp_path, lease)
        (tmp_path / "status.json").write_text("{}")
        mine = (tmp_path / "lock").read_text()
        (tmp_path / "lock").write_text(re.sub("start=.*", "start=7", mine))
        check()  # the token is ours, whatever the system tells of when this process started
        writer = RunWriter(tmp_path, {}, require_ours=check)
        other = tmp_path / "other"
        other.mkdir()
        write_lock(other, pid=1, host="elsewhere.example").replace(tmp_path / "lock")
        before = (tmp_path / "status.json").read_text()
        for write in (
            writer.update_status,
            lambda: writer.summary({}),
            lambda: RunWriter(tmp_path, {}, require_ours=check),
        ):
            with pytest.raises(RunError, match=r"was taken over by process 1, .* goes on there"):
                write()
        (tmp_path / "lock").unlink()
        with pytest.raises(RunError, match="was taken over by another process"):
            check()
    assert not (tmp_path / "summary.json").exists()
    assert (tmp_path / "status.json").read_text() == before


def test_a_deleted_run_is_written_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path("run")
    run.mkdir()
    (run / "status.json").write_text("{}")
    with locked(run) as lease:
        check = still_ours(run, lease)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")  # as user code may
        check()
        for file in (tmp_path / "run").iterdir():
            file.unlink()
        (tmp_path / "run").rmdir()
        with pytest.raises(RunError, match=r"^run: was deleted while the run was writing it"):
            check()
    assert not (tmp_path / "run").exists()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="cannot be written"):
        locked(run).__enter__()


def test_of_many_that_want_a_stale_lock_at_once_one_gets_it(tmp_path: Path, dead_pid: int) -> None:
    write_lock(tmp_path, pid=dead_pid)
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


def test_a_group_is_trained_by_one_process(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints/a-seed-0.lease"
    assert claimant(path) is None
    with claimed(path) as lease:
        assert lease is not None
        with claimed(path) as second:
            assert second is None
        assert claimant(path) == os.getpid()  # who did not get it takes nothing away
    assert not path.exists()
    assert claimant(path) is None
    with pytest.raises(RunError, match="cannot be written"):  # the run was deleted
        claimed(tmp_path / "gone/checkpoints/a-seed-0.lease").__enter__()


@pytest.mark.parametrize("content", ["", "x"])
def test_a_damaged_lease_keeps_a_group_for_seconds_only(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.lease"
    path.write_text(content)
    with claimed(path) as lease:
        assert lease is not None
        assert claimant(path) == os.getpid()


def test_a_lease_that_is_about_to_be_written_is_left_alone(tmp_path: Path) -> None:
    """Whoever takes a lease creates its file and then writes it, here a moment later."""
    path = tmp_path / "a.lease"
    theirs = write_lock(tmp_path, "other.lease").read_text()
    path.touch()
    inode = path.stat().st_ino
    writing = Thread(target=lambda: (time.sleep(0.3), path.write_text(theirs)))
    writing.start()
    with claimed(path) as lease:
        assert lease is None
    writing.join()
    assert (path.stat().st_ino, path.read_text()) == (inode, theirs)


def test_a_lease_that_a_program_of_other_habits_left_is_named(tmp_path: Path) -> None:
    path = write_lock(tmp_path, "a.lease", duration=3.0)
    with pytest.raises(RunError, match=rf"delete {path}"):
        claimed(path).__enter__()


def test_a_killed_process_holds_no_group_but_is_known_by_its_lease(
    tmp_path: Path, dead_pid: int
) -> None:
    path = write_lock(tmp_path, "a.lease", pid=dead_pid)
    assert claimant(path) == dead_pid
    with claimed(path) as lease:
        assert lease is not None
        assert claimant(path) == os.getpid()


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


@pytest.mark.parametrize(
    ("changes", "is_gone"),
    [
        ({}, False),
        ({"process_started": None}, False),
        ({"pid": os.getppid(), "process_started": None}, False),
        ({"pid": "dead", "process_started": None}, True),
        ({"process_started": "another time"}, True),  # the number was used again
        ({"pid": "dead", "host": "elsewhere.example"}, False),  # its processes are unknown here
        ({"pid": "dead", "pid_namespace": 1}, False),  # those of another container, too
        ({"pid": "dead", "pid_namespace": None}, True),
        ({"pid": -1}, False),
        ({"pid": 2**40}, False),
    ],
)
def test_a_process_is_gone_only_where_that_is_certain(
    changes: dict[str, Any], is_gone: bool, dead_pid: int
) -> None:
    changes = {key: dead_pid if value == "dead" else value for key, value in changes.items()}
    owner = Owner.from_plain(json.loads(json.dumps(Owner.this().to_plain() | changes)))
    assert owner is not None
    assert owner.is_gone() == is_gone


@pytest.mark.parametrize("plain", [[], {}, {"host": "x", "pid": True}, {"host": 3, "pid": 1}])
def test_what_names_no_process_is_no_owner(plain: object) -> None:
    assert Owner.from_plain(plain) is None
