"""Signals to a process, to all of its group, and a terminal or a pipe that goes away."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from starting import Starter
from waiting import is_alive, wait_for

from .torture import Commands, differences, environment

CONFIG = """\
name: signals
model: {name: mlp, args: {hidden: [8]}}
data: {name: 'mine:data', batch_size: 20}
loss: mse_loss
optimizer: {name: SGD, lr: 0.01}
engine: sequential
train: {duration: 2ep, eval_every: 1ep}
compare: {variants: {a: {}, b: {optimizer.lr: 0.02}}}
"""
STEPS = 80  # in all
MIDDLE = 20  # rows: some of the first trial
# Its samples are augmented, in another process where one loads data; checkpoints come often. While
# there is a file `slow`, there is time for a signal, however busy the machine.
MINE = """\
import time
from pathlib import Path
import torch
from torch.utils.data import DataLoader, Dataset
import lrexp.engine.read_back, lrexp.engine.stop
lrexp.engine.stop.CHECKPOINT_SECONDS, lrexp.engine.stop.MOST_SHARE = 0.05, 1.0
lrexp.engine.read_back.CHUNK_SECONDS = 0.01
PAUSE = 0.002 if Path("slow").exists() else 0.0

class Noisy(Dataset):
    def __init__(self, n):
        self.x = torch.randn(n, 8, generator=torch.Generator().manual_seed(1))
    def __len__(self):
        return len(self.x)
    def __getitem__(self, i):
        time.sleep(PAUSE)
        return self.x[i] + 0.1 * torch.randn(8), self.x[i].sum()[None].sin()

def data(n=400):
    return DataLoader(Noisy(n), batch_size=20, shuffle=True, num_workers=WORKERS), Noisy(20)
"""
QUICK = ("--jobs", "1")
# A shell's `&` and `nohup` hand signals down as ignored, and Python leaves them so.
TRULY = """\
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def write(folder: Path, workers: int = 0) -> None:
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "mine.py").write_text(MINE.replace("WORKERS", str(workers)))


@contextmanager
def started(
    folder: Path, *words: str, starter: Starter | None = None, **options: object
) -> Iterator[Any]:
    """Start a command in a group of its own, truly where no starter is given; end it in the end."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment()}
    begin = [sys.executable, "-c", TRULY] if starter is None else [sys.executable]
    popen = subprocess.Popen if starter is None else starter.popen
    process = popen(
        [*begin, "-m", "lrexp", *words],
        cwd=folder,
        start_new_session=True,
        text=True,
        **(streams | options),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def rows(run: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in run.glob("trials/*/*/steps.csv"))


def wait_for_rows(count: int, run: Path, process: Any) -> None:
    wait_for(lambda: rows(run) >= count, process)


def everyone(pid: int, starter: Starter) -> list[int]:
    """Return a process and all that came from it, those that load data first."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]

    def tree(top: int) -> list[int]:
        children = [child for child, parent in pairs if parent == top] + starter.asked_by(top)
        return [*(found for child in children for found in tree(child)), top]

    return tree(pid)


@pytest.fixture(scope="module")
def reference(
    commands: Commands, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int, int], Path]:
    """Return a run in peace, of so many processes that train and that load data for each."""

    @cache
    def trained(jobs: int, loaders: int) -> Path:
        folder = tmp_path_factory.mktemp("peace")
        write(folder, loaders)
        words = ("compare", "config.yaml", "--jobs", jobs, "--out", "reference")
        assert commands.run(folder, *words) == 0, (folder / "err.txt").read_text()
        return folder / "reference"

    return trained


def interrupted(
    folder: Path, number: signal.Signals, moment: int, words: list[str], starter: Starter | None,
    processes: Callable[[int], list[int]],
) -> None:  # fmt: skip
    """Run a command that is sent a signal when there are so many rows, and pauses."""
    (folder / "slow").touch()
    with started(folder, *words, starter=starter) as process:
        wait_for_rows(moment, folder / "run", process)
        for pid in processes(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        _, err = process.communicate(timeout=200)
    (folder / "slow").unlink()
    assert process.returncode == 130, err
    assert "lrexp resume run" in err
    assert "Traceback" not in err
    assert json.loads((folder / "run/status.json").read_text())["status"] == "interrupted"
    assert list((folder / "run/checkpoints").iterdir())
    assert rows(folder / "run") < STEPS


# each pair of a signal, a number of processes that train, and of such that load data for each
COVER = [
    (signal.SIGINT, 1, 1), (signal.SIGINT, 2, 0), (signal.SIGTERM, 1, 0),
    (signal.SIGTERM, 2, 1), (signal.SIGHUP, 1, 1), (signal.SIGHUP, 2, 0),
]  # fmt: skip
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ALL = [
    pytest.param(n, jobs, loaders, moments, marks=pytest.mark.long)
    for moments in ((MIDDLE,), (5, 30, 55))
    for n in SIGNALS
    for jobs in (1, 2)
    for loaders in (0, 1)
    if ((n, jobs, loaders), moments) not in [(row, (MIDDLE,)) for row in COVER]
]


@pytest.mark.parametrize(
    ("number", "jobs", "loaders", "moments"), [*((*row, (MIDDLE,)) for row in COVER), *ALL]
)
def test_a_signal_to_all_processes_of_a_run(
    number: signal.Signals,
    jobs: int,
    loaders: int,
    moments: tuple[int, ...],
    starter: Starter,
    commands: Commands,
    reference: Callable[[int, int], Path],
    tmp_path: Path,
) -> None:
    """The processes of a DataLoader may die of it, and what torch then raises is no failure."""
    write(tmp_path, loaders)
    words = ["compare", "config.yaml", "--jobs", str(jobs), "--out", "run"]
    for moment in moments:
        interrupted(tmp_path, number, moment, words, starter, lambda pid: everyone(pid, starter))
        words = ["resume", "run"]
    assert commands.run(tmp_path, "resume", "run") == 0, (tmp_path / "err.txt").read_text()
    assert differences(tmp_path / "run", reference(jobs, loaders)) == []


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.long) for n in SIGNALS[::2])],
)
def test_a_signal_to_the_process_that_was_started(
    number: signal.Signals,
    starter: Starter,
    commands: Commands,
    reference: Callable[[int, int], Path],
    tmp_path: Path,
) -> None:
    """As a cluster stops a job; the processes that train and load data for it end with it."""
    write(tmp_path, 1)
    words = ["compare", "config.yaml", "--jobs", "2", "--out", "run"]
    others: list[int] = []

    def first(pid: int) -> list[int]:
        others.extend(everyone(pid, starter)[:-1])
        return [pid]

    interrupted(tmp_path, number, MIDDLE, words, starter, first)
    assert len(others) >= 2
    wait_for(lambda: not any(map(is_alive, others)))
    assert commands.run(tmp_path, "resume", "run") == 0, (tmp_path / "err.txt").read_text()
    assert differences(tmp_path / "run", reference(2, 1)) == []


def test_signals_that_were_handed_down_as_ignored_are_none_here() -> None:
    """Else the tests of true starts would fail in a shell's background."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    ignoring = TRULY.replace("SIG_DFL", "SIG_IGN").replace(
        "os.execv", "sys.argv[1:1] = []; os.execv"
    )
    telling = f"import signal; print(*(signal.getsignal(getattr(signal, n)) for n in {names}))"
    words = [sys.executable, "-c", ignoring, "-c", TRULY, "-c", telling]
    for start, ignored in ((words, 0), ([*words[:3], *words[5:]], 3)):
        done = subprocess.run(start, capture_output=True, text=True, check=True)
        assert done.stdout.count("1") + done.stdout.count("SIG_IGN") == ignored


def test_a_terminal_that_is_closed(commands: Commands, tmp_path: Path) -> None:
    """SIGHUP is as SIGTERM, and that nobody reads any more changes nothing."""
    write(tmp_path)
    (tmp_path / "slow").touch()
    terminal, other_end = pty.openpty()
    words = ("compare", "config.yaml", "--out", "run", *QUICK)
    with started(tmp_path, *words, stdout=other_end, stderr=other_end) as process:
        os.close(other_end)
        while rows(tmp_path / "run") < 20:
            os.read(terminal, 1000)
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert process.wait(100) == 130
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "interrupted"
    assert list((tmp_path / "run/checkpoints").iterdir())
    (tmp_path / "slow").unlink()
    assert commands.run(tmp_path, "resume", "run") == 0, (tmp_path / "err.txt").read_text()


@pytest.mark.pictures
@pytest.mark.parametrize("closed", [pytest.param("stderr", marks=pytest.mark.long), "both"])
def test_a_reader_that_leaves_ends_no_training(
    closed: str, starter: Starter, tmp_path: Path
) -> None:
    write(tmp_path)
    with (tmp_path / "mine.py").open("a") as file:
        file.write(
            "\nimport sys\n_data = data\ndef data():\n    print('loud')\n    return _data()\n"
        )
    words = ("compare", "config.yaml", "--out", "run", *QUICK, "--json")
    options: dict[str, Any] = {"env": environment(draws=True)}
    if closed == "both":
        options["stderr"] = subprocess.STDOUT
    with started(tmp_path, *words, starter=starter, **options) as process:
        reader = process.stderr if closed == "stderr" else process.stdout
        assert reader is not None
        assert reader.readline()
        reader.close()
        if closed == "stderr":
            assert process.stdout is not None
            assert json.loads(process.stdout.read())["run"] == "run"
        assert process.wait(120) == 0
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "complete"
    assert (tmp_path / "run/plots/loss.png").exists()


def test_ctrl_c_before_there_is_a_run(starter: Starter, tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "mine.py").open("a") as file:
        file.write("\nimport pathlib, time\npathlib.Path('there').touch()\ntime.sleep(60)\n")
    words = ("compare", "config.yaml", "--out", "run")
    with started(tmp_path, *words, starter=starter) as process:
        wait_for((tmp_path / "there").exists, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "Interrupted before training; nothing was written.\n"
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_torch_is_imported(tmp_path: Path) -> None:
    """An exception would turn up anywhere, in C++ code that calls Python, too."""
    write(tmp_path)
    (tmp_path / "slow").touch()  # it does not end before the last moment
    for moment in range(3):
        with started(tmp_path, "compare", "config.yaml", "--out", f"run{moment}") as process:
            wait_for(partial(imports_torch, process.pid), process)
            time.sleep(0.6 * moment)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=100)
        assert process.returncode == 130, (moment, err)
        assert "Traceback" not in err, (moment, err)
        assert "Interrupted" in err, (moment, err)


def imports_torch(pid: int) -> bool:
    """Return whether a process has begun to import torch; where that is not seen, after a second."""
    maps = Path(f"/proc/{pid}/maps")
    if not maps.parent.exists():
        time.sleep(1.0)
        return True
    return "libtorch" in maps.read_text()
