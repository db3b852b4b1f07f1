"""Signals to a real process, to all of its group, and a terminal or a pipe that goes away."""

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
from pathlib import Path

import pytest

from .torture import PACKAGE, differences

CONFIG = """\
name: signals
model: {name: mlp, args: {hidden: [8]}}
data: {name: 'mine:data', batch_size: 20}
loss: mse_loss
optimizer: {name: SGD, lr: 0.01}
engine: sequential
train: {duration: 12ep, eval_every: 4ep}
compare: {variants: {a: {}, b: {optimizer.lr: 0.02}}}
"""
# Its samples are augmented in another process; checkpoints come often.
MINE = """\
import torch
from torch.utils.data import DataLoader, Dataset
import lrexp.engine.losses, lrexp.engine.pause
lrexp.engine.pause.CHECKPOINT_SECONDS, lrexp.engine.pause.MOST_SHARE = 0.05, 1.0
lrexp.engine.losses.CHUNK_SECONDS = 0.01

class Noisy(Dataset):
    def __init__(self, n):
        self.x = torch.randn(n, 8, generator=torch.Generator().manual_seed(1))
    def __len__(self):
        return len(self.x)
    def __getitem__(self, i):
        return self.x[i] + 0.1 * torch.randn(8), self.x[i].sum()[None].sin()

def data(n=1500):
    return DataLoader(Noisy(n), batch_size=20, shuffle=True, num_workers=WORKERS), Noisy(100)
"""
QUICK = ("--jobs", "1")


def write(folder: Path, workers: int = 0) -> None:
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "mine.py").write_text(MINE.replace("WORKERS", str(workers)))


@contextmanager
def started(folder: Path, *words: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a group of its own, and end it in the end."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    process = subprocess.Popen(
        [sys.executable, "-m", "lrexp", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        text=True,
        **streams,  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def run(folder: Path, *words: str) -> tuple[int, str, str]:
    with started(folder, *words) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def rows(run: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in run.glob("trials/*/*/steps.csv"))


def wait_for_rows(count: int, run: Path, process: subprocess.Popen[str]) -> None:
    wait_for(lambda: rows(run) >= count, process)


def everyone(pid: int) -> list[int]:
    """Return a process and all that came from it, those that load data first."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    children = [child for child, parent in pairs if parent == pid]
    return [*(found for child in children for found in everyone(child)), pid]


@pytest.mark.parametrize(
    ("number", "jobs"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGTERM, 2)]
)
def test_a_signal_to_all_processes_while_data_are_loaded(
    number: signal.Signals, jobs: int, tmp_path: Path
) -> None:
    """The processes of a DataLoader die of it, and what torch then raises is no failure."""
    write(tmp_path, workers=1)
    options = ("config.yaml", "--jobs", str(jobs))
    assert run(tmp_path, "compare", *options, "--out", "reference")[0] == 0
    words = ["compare", *options, "--out", "run"]
    for moment in (40, 500, 1200):
        with started(tmp_path, *words) as process:
            wait_for_rows(moment, tmp_path / "run", process)
            for pid in everyone(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "lrexp resume run" in err
        assert "Traceback" not in err
        assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "interrupted"
        words = ["resume", "run"]
    code, _, err = run(tmp_path, "resume", "run")
    assert code == 0, err
    assert differences(tmp_path / "run", tmp_path / "reference") == []


def test_a_terminal_that_is_closed(tmp_path: Path) -> None:
    """SIGHUP is as SIGTERM, and that nobody reads any more changes nothing."""
    write(tmp_path)
    terminal, other_end = pty.openpty()
    longer = ("--set", "train.duration=60ep")  # than this process may be kept waiting
    words = ("compare", "config.yaml", "--out", "run", *QUICK, *longer)
    with started(tmp_path, *words, stdout=other_end, stderr=other_end) as process:
        os.close(other_end)
        while rows(tmp_path / "run") < 60:
            os.read(terminal, 1000)
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 130
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "interrupted"
    assert list((tmp_path / "run/checkpoints").iterdir())
    code, _, err = run(tmp_path, "resume", "run")
    assert code == 0, err


@pytest.mark.pictures
@pytest.mark.parametrize("closed", ["stderr", "both"])
def test_a_reader_that_leaves_ends_no_training(closed: str, tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "mine.py").open("a") as file:
        file.write(
            "\nimport sys\n_data = data\ndef data():\n    print('loud')\n    return _data()\n"
        )
    words = ("compare", "config.yaml", "--out", "run", *QUICK, "--json")
    options = {"stdout": subprocess.PIPE} if closed == "stderr" else {"stderr": subprocess.STDOUT}
    with started(tmp_path, *words, **options) as process:
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


def test_ctrl_c_before_there_is_a_run(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "mine.py").open("a") as file:
        file.write("\nimport pathlib, time\npathlib.Path('there').touch()\ntime.sleep(60)\n")
    with started(tmp_path, "compare", "config.yaml", "--out", "run") as process:
        wait_for((tmp_path / "there").exists, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "Interrupted before training; nothing was written.\n"
    assert not (tmp_path / "run").exists()


def test_ctrl_c_at_any_moment_of_the_start(tmp_path: Path) -> None:
    """While torch is imported, or Python ends, an exception may turn up anywhere."""
    write(tmp_path)
    for moment in range(4):
        with started(tmp_path, "compare", "config.yaml", "--out", f"run{moment}") as process:
            time.sleep(0.9 + 0.5 * moment)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert process.returncode == 130, (moment, err)
        assert "Traceback" not in err, (moment, err)
        assert "Interrupted" in err, (moment, err)
