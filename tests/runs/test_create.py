"""A run directory is whole from the moment it has its name, or it is not there."""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread

import pytest

from lrexp.errors import ConfigError, RunError
from lrexp.runs.listing import list_runs
from lrexp.runs.writer import NEW, create_run

STATUS = json.dumps({"status": "complete", "command": "compare", "name": "x"})


def describe(folder: Path) -> None:
    (folder / "config.yaml").write_text("name: x\n")
    (folder / "mine").mkdir()
    (folder / "mine/model.py").write_text("x = 1\n")
    (folder / "status.json").write_text(STATUS)


def create(
    out: Path | None = None, *, how: Callable[[Path], None] = describe, **options: Path
) -> Path:
    return create_run("x", "compare", how, out=out, **options)


def assert_whole(run: Path) -> None:
    assert sorted(str(path.relative_to(run)) for path in run.rglob("*")) == [
        "config.yaml", "mine", "mine/model.py", "status.json"
    ]  # fmt: skip


def test_a_new_run_says_when_what_and_how(tmp_path: Path) -> None:
    runs = tmp_path / "deep" / "runs"
    path = create_run("Digits: LR!", "compare", describe, runs_dir=runs)
    assert_whole(path)
    date, time_, *name, digits = path.name.split("-")
    assert (len(date), len(time_), len(digits)) == (8, 6, 4)
    assert name == ["digits", "lr", "compare"]
    assert list(runs.iterdir()) == [path]


@pytest.mark.parametrize("make", [lambda out: None, lambda out: out.mkdir()], ids=["new", "empty"])
def test_out_is_the_run_itself(tmp_path: Path, make: Callable[[Path], None]) -> None:
    out = tmp_path / "out"
    make(out)
    assert create(out) == out
    assert_whole(out)
    assert list(tmp_path.iterdir()) == [out]


def test_the_folders_around_out_are_made(tmp_path: Path) -> None:
    assert_whole(create(tmp_path / "a/b/out"))


def test_out_must_be_new_or_empty(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    for taken in (full, full / "file"):
        with pytest.raises(ConfigError, match="exists and is not an empty folder") as caught:
            create(taken)
        assert "resume" not in str(caught.value)
    (full / "order.json").touch()
    with pytest.raises(ConfigError, match=f"or `lrexp resume {full}`"):
        create(full)
    assert sorted(path.name for path in full.iterdir()) == ["file", "order.json"]


@pytest.mark.parametrize("out", [".", "absolute", "../home"])
def test_the_working_directory_stays_the_one_it_is(
    tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    before = Path().stat().st_ino
    path = create(Path(str(home) if out == "absolute" else out))
    assert Path().stat().st_ino == home.stat().st_ino == before  # who is in there sees the run
    assert_whole(Path.cwd())
    assert (path / "status.json").exists()
    assert list(tmp_path.iterdir()) == [home]


def test_a_link_is_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    assert create(link) == link
    assert link.is_symlink()
    assert_whole(real)
    assert sorted(tmp_path.iterdir()) == [link, real]


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="cannot be written"):
        create(link)
    assert list(tmp_path.iterdir()) == [link]


def test_a_mount_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def is_mounted(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rmdir", is_mounted)
        patch.setattr(Path, "rename", is_mounted)
        before = out.stat().st_ino
        assert create(out) == out
    assert out.stat().st_ino == before
    assert_whole(out)
    assert list(tmp_path.iterdir()) == [out]


def test_the_folder_around_out_need_not_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    mkdir = Path.mkdir

    def refused(path: Path, *words: object, **options: object) -> None:
        if path.parent == tmp_path and path != out:
            raise PermissionError(13, "Permission denied")
        mkdir(path, *words, **options)

    def rename(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    monkeypatch.setattr(Path, "mkdir", refused)
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(Path, "rmdir", rename)
    assert create(out) == out
    assert_whole(out)
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(RunError, match="Permission denied"):
        create(tmp_path / "new")


def test_a_part_that_cannot_be_moved_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a run must be moved in part by part, status.json, which makes it one, comes last."""
    import shutil

    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    moved: list[str] = []

    def full_disk(source: Path, target: Path) -> None:
        moved.append(source.name)
        if len(moved) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "move", full_disk)
    with pytest.raises(RunError, match="No space left"):
        create(Path())
    assert moved[-1] == "status.json"
    assert list_runs(tmp_path) == []


def test_the_rights_of_an_empty_folder_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o2750)
    create(out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o2750


@pytest.mark.parametrize("error", [KeyboardInterrupt, RunError, ValueError])
@pytest.mark.parametrize("to_out", [True, False])
def test_what_cannot_be_described_leaves_nothing(
    tmp_path: Path, error: type[BaseException], to_out: bool
) -> None:
    def fails(folder: Path) -> None:
        describe(folder)
        raise error

    with pytest.raises(error):
        create(tmp_path / "out" if to_out else None, how=fails, runs_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def _dies(folder: Path) -> None:
    describe(folder)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("to_out", [True, False])
def test_who_is_killed_while_describing_leaves_no_run(tmp_path: Path, to_out: bool) -> None:
    out = tmp_path / "out" if to_out else None
    killed = multiprocessing.get_context("fork").Process(
        target=create, args=(out,), kwargs={"how": _dies, "runs_dir": tmp_path}
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(NEW)
    assert list_runs(tmp_path) == []
    run = create(out, runs_dir=tmp_path)  # of the one that is killed nothing is in the way
    assert_whole(run)
    assert [entry.path for entry in list_runs(tmp_path)] == [run]
    assert left.exists()  # its process may be describing it, for all that is known


@pytest.mark.parametrize("at", ["rename", "mkdir", "rmdir"])
def test_a_kill_at_any_moment_leaves_a_whole_run_or_none(
    tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `KeyboardInterrupt` in place of a kill: right after a change of the folder."""
    original = getattr(Path, at)

    def interrupted(path: Path, *words: object, **options: object) -> None:
        original(path, *words, **options)
        raise KeyboardInterrupt

    out = tmp_path / "out"
    out.mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, at, interrupted)
        create(out, how=lambda folder: (folder / "status.json").write_text(STATUS) and None)
    runs = [entry.path for entry in list_runs(tmp_path)]
    assert runs == ([out] if at == "rename" else [])


def test_leftovers_are_swept_when_they_are_old(tmp_path: Path) -> None:
    def leftover(name: str, *, days: float) -> Path:
        path = tmp_path / name
        path.mkdir()
        describe(path)
        last = time.time() - days * 86_400
        os.utime(path, (last, last))
        return path

    old = leftover(f".x.123.0a1b2c3d{NEW}", days=2)
    kept = [
        leftover(f".x.124.0a1b2c3d{NEW}", days=0.5),  # it may be described right now
        leftover("x.new-run", days=2),
        leftover(".vim.new", days=2),  # a user's own
        leftover("20200101-000000-x-compare-3f9c", days=900),
    ]
    (tmp_path / f".file{NEW}").touch()
    os.utime(tmp_path / f".file{NEW}", (1, 1))
    (tmp_path / f".link{NEW}").symlink_to(kept[-1])
    os.utime(tmp_path / f".link{NEW}", (1, 1), follow_symlinks=False)
    run = create(runs_dir=tmp_path)
    assert not old.exists()
    for path in kept:
        assert_whole(path)
    assert_whole(run)
    listed = {entry.path for entry in list_runs(tmp_path)}
    assert listed == {run, kept[2], kept[3]}


def test_a_leftover_that_another_process_sweeps_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / f".x.123.0a1b2c3d{NEW}"
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone]))
    run = create(runs_dir=tmp_path)
    assert (run / "status.json").exists()


def raced(number: int, make: Callable[[], Path]) -> list[Path | Exception]:
    """Return what threads get that come as far as giving a name all at once."""
    found: list[Path | Exception] = []

    def run() -> None:
        try:
            found.append(make())
        except Exception as error:
            found.append(error)

    threads = [Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_simultaneous_runs_never_share_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = iter("aaaabbbbccccdddd")  # every name is tried while it is taken
    unique = iter(range(4))
    monkeypatch.setattr(
        secrets, "token_hex", lambda n: next(digits) if n == 2 else str(next(unique))
    )
    barrier = Barrier(4)

    def together(folder: Path) -> None:
        describe(folder)
        barrier.wait()

    found = raced(4, lambda: create(how=together, runs_dir=tmp_path))
    assert len({path for path in found if isinstance(path, Path)}) == 4, found
    for path in tmp_path.iterdir():
        assert_whole(path)


def test_a_name_that_is_taken_right_before_is_not_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = iter(["aaaa", "bbbb"])
    monkeypatch.setattr(secrets, "token_hex", lambda n: next(digits) if n == 2 else "0")
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        if target.name.endswith("aaaa"):  # another process is quicker
            target.mkdir()
            (target / "status.json").touch()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    run = create(runs_dir=tmp_path)
    assert run.name.endswith("bbbb")
    assert_whole(run)


@pytest.mark.parametrize("exists", [True, False])
def test_of_two_that_want_the_same_out_one_gets_it(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    barrier = Barrier(4)

    def together(folder: Path) -> None:
        describe(folder)
        barrier.wait()

    found = raced(4, lambda: create(out, how=together))
    assert sum(isinstance(one, Path) for one in found) == 1, found
    refused = [str(one) for one in found if isinstance(one, ConfigError)]
    assert len(refused) == 3, found
    assert "exists and is not an empty folder" in refused[0]
    assert_whole(out)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("option", ["runs_dir", "out"])
def test_a_directory_that_cannot_be_made_is_a_run_error(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        create_run("x", "compare", describe, **{option: tmp_path / "file/runs/a"})
