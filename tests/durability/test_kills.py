"""SIGKILL while a run trains: resumed, it ends with the files of one in peace.

`--long` kills 100 times at random moments for each kind of training and prints the count.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from starting import Starter

from lrexp.runs.listing import list_runs
from lrexp.runs.reader import load_run

from .torture import ADAMW, Commands, Kind, begun, differences, trains

KINDS = [
    Kind("compare", "sequential"),
    Kind("compare", "vectorized", optimizer=ADAMW),
    Kind("compare", "sequential", jobs=2, steps=1500, accumulate=2),
    Kind("compare", "vectorized", jobs=2, steps=1500),
    Kind("find-lr", "sequential", steps=800),
    Kind("find-lr", "vectorized", steps=1500),
    Kind("find-lr", "sequential", steps=500, options=("--race", "--budget=2")),
]
STEPS = {"sequential": 60, "vectorized": 200}  # of the one kill; a checkpoint comes after 0.02 s
MANY = 100
KILLS_PER_RUN = 8  # at most, then it may go on in peace
ANY_MOMENT = 0.2  # of the kills come at any moment, start-up included; the others while it trains
SHARE = 0.5  # of a run's training, within which a process is killed
TOO_LATE = 0.7  # the machine is quicker than it was: kills come sooner by this factor
IN_TIME = 1.05  # and by this one later, after one that hit


def run_in_peace(kind: Kind, folder: Path, commands: Commands) -> tuple[float, float]:
    """Train the reference; return how long that took, and how long of it was training."""
    start = time.monotonic()
    is_training = trains(folder / "reference")
    commands.begin(folder, *kind.words("reference"))
    while not is_training() and time.monotonic() < start + 100:
        time.sleep(0.01)
    begun_at = time.monotonic()
    assert commands.ended() == 0, (folder / "err.txt").read_text()
    end = time.monotonic()
    return end - start, end - begun_at


def survived(kind: Kind, folder: Path, commands: Commands, kills: int, seed: int) -> int:
    """Kill runs until `kills` hit, and each time go on to the very files; return those in training."""
    kind.write(folder)
    in_all, in_training = run_in_peace(kind, folder, commands)
    chance = random.Random(seed)
    hit = before = 0  # kills; those that came before the first trial
    pace = 1.0  # of the machine, against that of the reference
    runs = 0
    run = folder / "run"
    while hit < kills:
        words, in_this_run = kind.words("run"), 0
        runs += 1
        while True:
            in_peace = in_this_run == KILLS_PER_RUN or hit == kills
            if in_peace:
                code = commands.run(folder, *words)  # in peace
            elif chance.random() < ANY_MOMENT:
                code = commands.killed(folder, chance.uniform(0, in_all * pace), *words)
            else:
                pause = chance.uniform(0, SHARE * in_training * pace)
                code = commands.killed(folder, pause, *words, once=trains(run))
            if code != -9:
                pace *= 1.0 if in_peace else TOO_LATE
                break
            pace = min(pace * IN_TIME, 1.0)
            hit, in_this_run = hit + 1, in_this_run + 1
            if begun(run):
                check_what_is_left(run)
                words = ["resume", "run"]
            else:  # nothing to resume
                before += 1
                shutil.rmtree(run, ignore_errors=True)
        assert code == 0, (runs, hit, (folder / "err.txt").read_text())
        assert differences(run, folder / "reference") == [], (runs, hit)
        shutil.rmtree(run)
        print(f"{kind.name}: {hit} kills in {runs} runs so far", flush=True)
    print(f"\n{kind.name}: {hit} kills survived in {runs} runs, {before} of them before a trial")
    return hit - before


def check_what_is_left(run: Path) -> None:
    """A run whose process was killed is readable, and nobody takes it for alive."""
    (entry,) = (entry for entry in list_runs(run.parent) if entry.path == run)
    assert entry.status in {"interrupted", "complete"}
    for trial in load_run(run).trials:
        steps = trial.steps["step"]
        assert (steps == range(len(steps))).all()


def starts(run: Path) -> bool:
    """Return whether there is the directory, and no trial yet."""
    return run.exists() and not begun(run)


def has_checkpoint(run: Path) -> bool:
    """Return whether there is a checkpoint; rows may have been written after it."""
    return any(run.glob("checkpoints/*"))


def all_but_one_have_ended(run: Path) -> bool:
    """Return whether the last trial trains, of those that train one by one."""
    return len(list(run.glob("trials/*/*/result.json"))) == 3


def one_has_ended(run: Path) -> bool:
    """Return whether the others still train, of those that train together; it diverged."""
    return len(list(run.glob("trials/*/*/result.json"))) == 1


SEQUENTIAL, VECTORIZED = KINDS[:2]
MOMENTS = [
    # two kinds meet other moments below
    *(
        pytest.param(kind, has_checkpoint, marks=pytest.mark.long if kind in KINDS[:2] else ())
        for kind in KINDS
    ),
    (SEQUENTIAL, starts), (VECTORIZED, starts),
    (SEQUENTIAL, all_but_one_have_ended), (VECTORIZED, one_has_ended),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "moment"), MOMENTS, ids=lambda value: getattr(value, "__name__", None) or value.name
)
def test_a_kill(
    kind: Kind, moment: Callable[[Path], bool], commands: Commands, tmp_path: Path
) -> None:
    run, words = tmp_path / "run", kind.words("run")
    killed_at(moment, kind, tmp_path, commands)
    if moment is starts:
        words = what_can_go_on(run, words, commands)
    else:
        check_what_is_left(run)
        words = ["resume", "run"]
    assert commands.run(tmp_path, *words) == 0, (tmp_path / "err.txt").read_text()
    assert differences(run, tmp_path / "reference") == []


def killed_at(moment: Callable[[Path], bool], kind: Kind, folder: Path, commands: Commands) -> None:
    """Leave a reference, and the same run, killed at a moment.

    This process may be kept waiting until the moment is over: then a longer training is tried.
    """
    run, reference = folder / "run", folder / "reference"
    for doublings in range(8):
        longer = replace(kind, steps=STEPS[kind.engine] * 2**doublings, seeds=1)
        longer.write(folder)
        assert commands.run(folder, *kind.words("reference")) == 0, (folder / "err.txt").read_text()
        for _ in range(4):
            code = commands.killed(folder, 0.0, *kind.words("run"), once=lambda: moment(run))
            if code == -9 and moment(run):
                return
            shutil.rmtree(run)
        shutil.rmtree(reference)
    pytest.fail("the moment was always over")


def what_can_go_on(run: Path, words: list[str], commands: Commands) -> list[str]:
    """Return the command after a kill at the start: there may be too little to resume."""
    assert all(entry.status != "running" for entry in list_runs(run.parent))
    if (run / "order.json").exists():
        return ["resume", "run"]
    code = commands.run(run.parent, "resume", "run")
    err = (run.parent / "err.txt").read_text()
    assert code in {2, 3}
    missing = ("is not a run directory: it has no status.json", "it has no order.json")
    assert any(why in err for why in missing), err
    shutil.rmtree(run)
    return words


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_many_kills(kind: Kind, starter: Starter, tmp_path: Path) -> None:
    commands = Commands(starter, draws=True)  # it is killed while it draws, too
    assert survived(kind, tmp_path, commands, MANY, seed=random.randrange(10**6)) > MANY / 2
