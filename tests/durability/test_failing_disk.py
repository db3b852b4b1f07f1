"""A disk that refuses at any moment: a clear error, exit 3, whole files, and it can go on later.

The file layer is replaced by one that counts what is done to files and refuses the n-th; the same
is tried with a real file system that is full, where one can be made.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from patching import patch_system

from lrexp.engine import read_back, stop
from lrexp.runs.reader import load_run

from .torture import MINE, Commands, differences

CONFIG = """\
name: torture
model: {name: 'mine:Net'}
data: {name: 'mine:data', batch_size: 16}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1}
engine: sequential
train: {duration: 12, eval_every: 5}
compare: {variants: {a: {}, b: {optimizer.lr: 0.01}}}
"""


class Disk:
    """Counts writes, flushes, renames and new files below a folder, and refuses one of them."""

    def __init__(self, folder: Path, refused: int, code: int) -> None:
        self.folder, self.refused, self.code = str(folder), refused, code
        self.asked: list[str] = []  # what was done, in words
        self.stays_full = False

    @property
    def count(self) -> int:
        """How often it was asked."""
        return len(self.asked)

    def ask(self, path: object, what: str) -> None:
        """Note one operation on a path, and raise if it is refused."""
        if not str(path).startswith(self.folder):
            return
        self.asked.append(what)
        if self.count == self.refused or (self.stays_full and self.count > self.refused):
            raise OSError(self.code, os.strerror(self.code), str(path))


class File:
    """A file that asks the disk first."""

    def __init__(self, file: Any, disk: Disk, path: object) -> None:
        self._file, self._disk, self._path = file, disk, path

    def write(self, data: Any) -> Any:
        """Write."""
        self._disk.ask(self._path, "write")
        return self._file.write(data)

    def flush(self) -> None:
        """Flush."""
        self._disk.ask(self._path, "flush")
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


@contextmanager
def failing(
    folder: Path, refused: int, code: int = errno.ENOSPC, *, stays_full: bool = False
) -> Iterator[Disk]:
    """Refuse the n-th operation on files below a folder; 0 refuses none."""
    disk = Disk(folder, refused, code)
    disk.stays_full = stays_full
    kept = io.open, os.replace, os.rename, os.fsync, os.mkdir, os.open
    # Path.open takes io.open, other code builtins.open: one function under two names
    paths: dict[int, object] = {}

    def opened(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        absolute = os.path.abspath(path) if isinstance(path, str | Path) else ""  # noqa: PTH100
        if not set(mode) & set("wax+"):
            return kept[0](path, mode, *args, **options)
        disk.ask(absolute, "open")
        file = kept[0](path, mode, *args, **options)
        paths[file.fileno()] = absolute
        return File(file, disk, absolute)

    def asking(index: int, what: str) -> Callable[..., Any]:
        def ask_first(path: Any, *args: Any, **options: Any) -> Any:
            known = paths.get(path, "") if isinstance(path, int) else os.path.abspath(path)  # noqa: PTH100
            writes = index != 5 or bool(args and args[0] & (os.O_WRONLY | os.O_RDWR))
            if writes:
                disk.ask(known, what)
            return kept[index](path, *args, **options)

        return ask_first

    with pytest.MonkeyPatch.context() as patch:
        patch_system(patch, "open", opened)
        patch.setattr(builtins, "open", opened)
        for index, name in enumerate(("replace", "rename", "fsync", "mkdir"), 1):
            patch_system(patch, name, asking(index, name))
        patch.setattr(os, "open", asking(5, "open"))
        yield disk


MEMORY = Path("/dev/shm")  # where Linux has a file system that flushes nothing


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the experiment, in memory where that can be.

    A checkpoint is taken at every evaluation and nowhere else, so that every run does the same.
    """
    monkeypatch.setattr(stop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(read_back, "CHUNK_SECONDS", 1e9)
    in_memory = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    with tempfile.TemporaryDirectory(dir=MEMORY if in_memory else tmp_path) as name:
        folder = Path(name)
        lines = [line for line in MINE.splitlines() if "lrexp" not in line]
        (folder / "mine.py").write_text("\n".join(lines) + "\n")
        (folder / "config.yaml").write_text(CONFIG)
        monkeypatch.chdir(folder)
        yield folder
        monkeypatch.chdir(tmp_path)


SHARE = 0.5  # of the refusals come where there is a run that can go on
WORDS = ["compare", "config.yaml", "--jobs", "1", "--out"]


def operations(folder: Path, run_command: Callable) -> list[str]:
    """Train the reference, and return what a run does to files."""
    assert run_command(*WORDS, "reference").code == 0
    with failing(folder / "run", 0) as disk:
        assert run_command(*WORDS, "run").code == 0
    assert disk.count > 40  # it does count
    return disk.asked


def goes_on_after(
    folder: Path, run_command: Callable, n: int, code: int, *, stays_full: bool
) -> bool:
    """Refuse the n-th operation of a run, then let it go on; return whether there was one to."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    with failing(folder / "run", n, code, stays_full=stays_full):
        answer = run_command(*WORDS, "run")
    assert "Traceback" not in answer.err
    assert "lrexp failed:" not in answer.err, (n, answer.err)
    if answer.code != 0:  # else what does not matter, such as a directory that was not flushed
        assert answer.code == 3, (n, answer.err)
        assert "cannot be written" in answer.err, (n, answer.err)
        assert os.strerror(code) in answer.err
        if code == errno.ENOSPC:
            assert "Free some space" in answer.err
    all_is_readable(folder / "run")
    has_begun = (folder / "run/order.json").exists()
    if answer.code == 3 and has_begun:
        again = run_command("resume", "run")
        assert again.code == 0, (n, again.err)
    if has_begun:
        assert differences(folder / "run", folder / "reference") == [], n
    return answer.code == 3 and has_begun


def all_is_readable(run: Path) -> None:
    for path in run.rglob("*.json"):
        json.loads(path.read_text())
    if (run / "status.json").exists():
        loaded = load_run(run)
        for trial in loaded.trials:
            assert len(trial.steps["loss"]) <= 12
            assert len(trial.evals["step"]) <= 4


CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def test_each_kind_of_operation_refused(lrexp: Callable, folder: Path) -> None:
    asked = operations(folder, lrexp)
    kinds = {"open", "write", "flush", "fsync", "replace", "mkdir"}
    assert kinds <= set(asked)
    chance, resumed = random.Random(0), []
    for row, kind in enumerate(sorted(kinds)):
        places = [n for n, what in enumerate(asked, 1) if what == kind]
        code = CODES[row % len(CODES)]  # --long has all of them, for every operation
        n, stays_full = chance.choice(places), row % 2 == 0
        resumed.append(goes_on_after(folder, lrexp, n, code, stays_full=stays_full))
    assert sum(resumed) > SHARE * len(resumed)


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "stays_full", "step"),
    [
        (errno.ENOSPC, False, 1),
        (errno.ENOSPC, True, 1),
        (errno.EDQUOT, True, 5),  # the same code handles these
        (errno.EROFS, True, 5),
        (errno.EIO, False, 5),
    ],
)
def test_every_operation_refused(
    code: int, stays_full: bool, step: int, lrexp: Callable, folder: Path
) -> None:
    places = range(1, len(operations(folder, lrexp)) + 1, step)
    done = [goes_on_after(folder, lrexp, n, code, stays_full=stays_full) for n in places]
    print(f"{len(places)} operations refused, {sum(done)} runs resumed")
    assert sum(done) > SHARE * len(places)


@pytest.mark.pictures
@pytest.mark.parametrize(
    "shares", [(0.5,), pytest.param((0.0, 0.25, 1.0), marks=pytest.mark.long)], ids=["", "more"]
)
def test_drawing_on_a_full_disk(shares: tuple[float, ...], lrexp: Callable, folder: Path) -> None:
    with failing(folder / "reference/plots", 0) as disk:
        assert lrexp(*WORDS, "reference").code == 0
    drawn = sorted(path.name for path in (folder / "reference/plots").iterdir())
    assert drawn == ["loss.png", "lr.png"]
    for share in shares:
        n = 1 + int(share * (disk.count - 2))
        shutil.rmtree(folder / "run", ignore_errors=True)
        with failing(folder / "run/plots", n, stays_full=True):
            answer = lrexp(*WORDS, "run")
        assert answer.code == 3, answer.err
        assert "cannot be written: No space left on device. Free some space" in answer.err
        assert "Traceback" not in answer.err
        plots = folder / "run/plots"
        assert {path.name for path in plots.glob("*")} < set(drawn)  # none is half a picture
        all_is_readable(folder / "run")
        assert load_run(folder / "run").status["status"] == "failed"
        assert (folder / "run/summary.json").exists()
        again = lrexp("resume", "run")
        assert again.code == 0, again.err
        assert "2 trials are done" in again.err
        assert differences(folder / "run", folder / "reference") == []


@contextmanager
def small_file_system(at: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a real file system of a few kilobytes, where the machine allows it."""
    at.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(at)]
    if (
        shutil.which("mount") is None
        or subprocess.run(words, capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=False, capture_output=True)


@pytest.mark.parametrize(
    "kilobytes", [48, *(pytest.param(size, marks=pytest.mark.long) for size in (4, 24, 72, 96))]
)
def test_a_file_system_that_is_full(kilobytes: int, folder: Path, commands: Commands) -> None:
    (folder / "mine.py").write_text(MINE)  # checkpoints come often, in processes of their own too
    (folder / "config.yaml").write_text(CONFIG.replace("duration: 12", "duration: 900"))
    with small_file_system(folder / "disk", kilobytes) as disk:
        code = commands.run(folder, *WORDS, "disk/run")
        err = (folder / "err.txt").read_text()
        assert code == 3, err
        assert "No space left on device. Free some space" in err
        assert "Traceback" not in err
        assert commands.run(folder, *WORDS, "reference") == 0
        if not (disk / "run/order.json").exists():
            return
        shutil.copytree(disk / "run", folder / "run")
        assert commands.run(folder, "resume", "run") == 0, (folder / "err.txt").read_text()
        assert differences(folder / "run", folder / "reference") == []


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_directory_that_is_read_only(folder: Path, commands: Commands) -> None:
    (folder / "closed").mkdir(mode=0o500)
    assert commands.run(folder, *WORDS, "closed/run") == 3
    assert "cannot be written: Permission denied" in (folder / "err.txt").read_text()


def test_a_directory_that_is_a_file(folder: Path, commands: Commands) -> None:
    (folder / "closed").write_text("")
    assert commands.run(folder, *WORDS, "closed/run") == 3
    assert "cannot be written: File exists" in (folder / "err.txt").read_text()


DELETES = """
import shutil
from itertools import count
calls = count()
plain = Net.forward
def forward(self, x):
    if self.training and next(calls) == 15:
        shutil.rmtree("run")
    return plain(self, x)
Net.forward = forward
"""


@pytest.mark.parametrize("command", ["compare", "find-lr"])
def test_a_directory_that_is_deleted_meanwhile(
    command: str, folder: Path, commands: Commands
) -> None:
    with (folder / "mine.py").open("a") as file:
        file.write(DELETES)
    code = commands.run(folder, command, "config.yaml", "--out", "run")
    err = (folder / "err.txt").read_text()
    assert code == 3, err
    assert "was deleted while the run was writing it" in err
    assert "Traceback" not in err
    assert "lrexp failed:" not in err
