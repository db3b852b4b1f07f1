"""Files that were cut, changed or lost after an interruption: repaired, or refused by name.

In no case may a resumed run end with other numbers than one in peace.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path

import pytest
from stopping import everything

from lrexp.runs.lock import locked
from lrexp.runs.reader import load_run

from .torture import Commands, Kind, differences

# Ends itself with SIGTERM in the middle, where the file `stop` says; no attribute of the model
# counts, so that it can be saved.
STOP = """
import os, signal
from itertools import count
from pathlib import Path
calls = count()
stop_at = int(Path("stop").read_text()) if Path("stop").exists() else -1
add_noise = Net.forward
def forward(self, x):
    if self.training and next(calls) == stop_at:
        os.kill(os.getpid(), signal.SIGTERM)
    return add_noise(self, x)
Net.forward = forward
"""
KIND = Kind("compare", "sequential", steps=60, seeds=1)
INTERRUPTED = 130


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, commands: Commands) -> Path:
    """A folder with a reference and a run that was interrupted in its third trial."""
    folder = tmp_path_factory.mktemp("torn")
    KIND.write(folder)
    with (folder / "mine.py").open("a") as file:
        file.write(STOP)
    assert commands.run(folder, *KIND.words("reference")) == 0, (folder / "err.txt").read_text()
    (folder / "stop").write_text("150")  # in the middle of the third: 60 steps each
    code = commands.run(folder, *KIND.words("begun"))
    assert code == INTERRUPTED, (folder / "err.txt").read_text()
    (folder / "stop").unlink()
    assert "lrexp resume begun" in (folder / "err.txt").read_text()
    return folder


@pytest.fixture
def run(interrupted: Path) -> Path:
    """A copy of the interrupted run."""
    copy = interrupted / "run"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(interrupted / "begun", copy)
    return copy


def half_done(run: Path) -> Path:
    (trial,) = (
        p.parent
        for p in run.glob("trials/*/*/steps.csv")
        if not (p.parent / "result.json").exists()
    )
    return trial


def checkpoint(run: Path) -> Path:
    (path,) = run.glob("checkpoints/*.safetensors")
    return path


def resume(run: Path, commands: Commands) -> tuple[int, str]:
    code = commands.run(run.parent, "resume", run.name)
    return code, (run.parent / "err.txt").read_text()


def assert_as_in_peace(run: Path) -> None:
    assert differences(run, run.parent / "reference") == []


def test_the_interrupted_run_goes_on(run: Path, commands: Commands) -> None:
    assert load_run(run).status["status"] == "interrupted"
    size = (half_done(run) / "steps.csv").stat().st_size
    assert size > 100
    finished = {p: p.stat().st_mtime_ns for p in run.glob("trials/*/*/result.json")}
    assert len(finished) >= 2
    code, err = resume(run, commands)
    assert code == 0, err
    assert_as_in_peace(run)
    assert {p: p.stat().st_mtime_ns for p in finished} == finished  # not trained again


TAIL = 70  # bytes: more than one row


def cut_points(size: int, tail: int, every: bool) -> list[int]:
    points = list(range(max(size - tail, 0), size))
    return points if every else random.Random(size).sample(points, 5)


def ends_as_in_peace(run: Path, commands: Commands, points: list[int]) -> int:
    """Cut into what the checkpoint counts as written: no crash does that, a broken disk may.

    Return after how many cuts the run ended as it would have; the others were refused by name.
    """
    begun, right = run.parent / "begun", 0
    for size in points:
        shutil.rmtree(run)
        shutil.copytree(begun, run)
        path = half_done(run) / "steps.csv"
        with path.open("r+b") as file:
            file.truncate(size)
        assert load_run(run).trials
        code, err = resume(run, commands)
        if code != 0:
            assert code == 3, err
            assert "steps.csv" in err
            assert "Traceback" not in err
        else:
            assert_as_in_peace(run)
            right += 1
    return right


def test_rows_that_were_cut_off(run: Path, commands: Commands) -> None:
    points = cut_points((half_done(run) / "steps.csv").stat().st_size, TAIL, False)
    assert ends_as_in_peace(run, commands, points) == len(points)


@pytest.mark.long
def test_rows_that_were_cut_off_anywhere(run: Path, commands: Commands) -> None:
    size = (half_done(run) / "steps.csv").stat().st_size
    assert ends_as_in_peace(run, commands, cut_points(size, size, True)) == size


@pytest.mark.parametrize(
    "more",
    [
        "6",
        "60,5,0.1",
        "60,5,0.1,0.4\n61,5,0.1",
        "60,5,0.1,0.4\n" * 300,
        "\0" * 4096,
        "\n\n",
        "x,y\n",
    ],
    ids=range(7),
)
def test_rows_past_the_checkpoint_are_cut(more: str, run: Path, commands: Commands) -> None:
    """What a killed process had written since its last checkpoint, whole or torn."""
    for name in ("steps.csv", "evals.csv"):
        with (half_done(run) / name).open("a") as file:
            file.write(more)
    code, err = resume(run, commands)
    assert code == 0, err
    assert_as_in_peace(run)


def assert_refused(run: Path, commands: Commands, damaged: list[bytes]) -> None:
    """A checkpoint that is not whole is refused by name; without it the trial begins anew."""
    begun = run.parent / "begun"
    name = checkpoint(begun).relative_to(begun)
    for content in damaged:
        shutil.rmtree(run)
        shutil.copytree(begun, run)
        (run / name).write_bytes(content)
        before = everything(run)
        code, err = resume(run, commands)
        assert code == 3, (len(content), err)
        assert name.name in err
        assert "Delete it" in err
        assert "Traceback" not in err
        after = everything(run)
        del before["status.json"], after["status.json"]
        assert after == before  # nothing was lost by trying
    shutil.rmtree(run)
    shutil.copytree(begun, run)
    (run / name).unlink()
    code, err = resume(run, commands)
    assert code == 0, err
    assert_as_in_peace(run)


def test_a_checkpoint_that_was_cut(run: Path, commands: Commands) -> None:
    whole = checkpoint(run).read_bytes()
    sizes = [0, 1, len(whole) // 2, len(whole) - 1, *cut_points(len(whole), 200, False)]
    assert_refused(run, commands, [whole[:size] for size in sizes])


def test_a_checkpoint_with_a_changed_byte(run: Path, commands: Commands) -> None:
    whole, chance = checkpoint(run).read_bytes(), random.Random(3)
    places = [chance.randrange(len(whole)) for _ in range(6)]
    assert_refused(run, commands, [_flipped(whole, place) for place in places])


@pytest.mark.long
def test_a_checkpoint_that_was_cut_anywhere(run: Path, commands: Commands) -> None:
    whole = checkpoint(run).read_bytes()
    sizes = [*range(0, len(whole), 101), *range(len(whole) - 600, len(whole))]
    assert_refused(run, commands, [whole[:size] for size in sizes])


@pytest.mark.long
def test_a_checkpoint_with_a_changed_byte_anywhere(run: Path, commands: Commands) -> None:
    whole = checkpoint(run).read_bytes()
    places = range(0, len(whole), max(len(whole) // 400, 1))
    assert_refused(run, commands, [_flipped(whole, place) for place in places])


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def test_what_was_lost_is_made_again(run: Path, commands: Commands) -> None:
    """Pictures, summaries, whole trials, leftovers of writers that were killed."""
    done = next(run.glob("trials/*/*/result.json")).parent
    shutil.rmtree(done)
    (run / f".status.json.{2**22}.tmp").write_text("half")
    (run / "trials" / f".x.{2**22}.tmp").write_text("half")
    code, err = resume(run, commands)
    assert code == 0, err
    assert_as_in_peace(run)
    code, err = resume(run, commands)
    assert code == 0, err  # it is finished, and says so
    (run / "summary.json").unlink()
    (run / "summary.csv").unlink()
    assert commands.run(run.parent, "plot", run.name) == 0
    assert (run / "plots/loss.png").exists()


def test_a_lock_of_another_process_is_respected(run: Path, commands: Commands) -> None:
    lock = run / "lock"
    with locked(run):
        mine = lock.read_text()
        code, err = resume(run, commands)
        assert code == 3
        assert f"is being written by process {os.getpid()}. Wait for it or stop it" in err
    (host,) = re.findall("^host=.*$", mine, re.MULTILINE)
    lock.write_text(mine.replace(host, "host=another"))
    code, err = resume(run, commands)
    assert code == 3
    assert f"delete {Path(run.name) / 'lock'}" in err
    (start,) = re.findall("^start=.*$", mine, re.MULTILINE)
    lock.write_text(mine.replace(start, "start=7"))  # a pid used again
    code, err = resume(run, commands)
    assert code == 0, err
    assert_as_in_peace(run)
