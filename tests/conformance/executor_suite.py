"""What any executor must keep.

Whoever writes one runs these tests over it:

    class TestMine(ExecutorConformance):
        factory = "my_package:make_executor"     # (jobs, spec) -> Executor

The trials are of a model that notes who trains it and dies where it is told to. An executor whose
workers are no processes of their own says so, and is not asked to survive their death.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from described import Described, described
from starting import Started, Starter
from waiting import is_alive, wait_for

import lrexp.engine.read_back
import lrexp.engine.stop
from lrexp.records import TrialId
from lrexp.runs.executor import Executor, StopSignal

ROOT = Path(__file__).parents[2]
MODULE = '''\
"""A training that notes who does it, and that dies once at the moment that a file names."""
import os, signal, time
from pathlib import Path
import torch
from torch import nn
import lrexp.engine.read_back, lrexp.engine.stop
lrexp.engine.stop.CHECKPOINT_SECONDS, lrexp.engine.stop.MOST_SHARE = 0.02, 1.0
lrexp.engine.read_back.CHUNK_SECONDS = 0.005

HERE = Path(__file__).parent
steps = 0  # of this process

def note(name, text):
    with open(HERE / name, "a") as file:
        file.write(text)

def dies(moment):
    """One process dies, whoever comes first."""
    try:
        (HERE / moment).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)

def data():
    dies("loading")
    x = torch.randn(180, 6, generator=torch.Generator().manual_seed(1))
    return (x[:120], x[:120].argmax(1) % 4), (x[120:], x[120:].argmax(1) % 4)

def net():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 4))

class Sgd(torch.optim.SGD):
    def __init__(self, params, lr, seconds=0.001, fatal=False, raises=False):
        super().__init__(params, lr, momentum=0.9)
        self.seconds, self.fatal, self.raises = seconds, fatal, raises

    def step(self, closure=None):
        global steps
        super().step(closure)
        steps += 1
        if steps == 1:
            note("pids", f"{os.getpid()}\\n")
            dies("first")
        note("trained", "x")
        if steps == 40:
            dies("middle")
        if (HERE / "saved").exists() and any(HERE.glob("run/checkpoints/*.safetensors")):
            dies("saved")
        if self.fatal:
            os._exit(7)
        if self.raises:
            raise ArithmeticError("of its own")
        time.sleep(self.seconds)
'''
CONFIG = {
    "model": {"name": "conform:net"},
    "data": {"name": "conform:data", "batch_size": 16},
    "loss": "cross_entropy",
    "optimizer": {"name": "conform:Sgd", "lr": 0.1},
    "schedule": {"name": "plateau", "monitor": "val_loss"},
    "train": {"duration": 80, "eval_every": 13},
    "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.01}, "c": {"optimizer.lr": 0.03}}},
}
STEPS = 80
PACE = [
    (lrexp.engine.stop, "CHECKPOINT_SECONDS", lrexp.engine.stop.CHECKPOINT_SECONDS),
    (lrexp.engine.stop, "MOST_SHARE", lrexp.engine.stop.MOST_SHARE),
    (lrexp.engine.read_back, "CHUNK_SECONDS", lrexp.engine.read_back.CHUNK_SECONDS),
]
SCRIPT = """\
import importlib, sys
from pathlib import Path
from lrexp.runs.builder import Objects
from lrexp.runs.executor import StopSignal
from lrexp.runs.resume import read_spec
from lrexp.runs.stages import read_stages
run, factory = Path(sys.argv[1]), sys.argv[2]
spec, _ = read_spec(run, Objects(), (), force=False)
module, _, name = factory.partition(":")
executor = getattr(importlib.import_module(module), name)(2, spec)
executor.run(run, read_stages(run)[0].choice.groups, StopSignal())
"""
MOMENTS = ["loading", "first", "middle", "saved"]  # the last one is right after a checkpoint


def contents(run: Path) -> dict[str, object]:
    """Return what the trials of a run wrote, without times."""
    found: dict[str, object] = {}
    for path in sorted(run.glob("trials/*/*/*")):
        name = str(path.relative_to(run))
        found[name] = path.read_bytes()
        if path.name == "result.json":
            result = json.loads(path.read_text())
            found[name] = {
                k: v for k, v in result.items() if not k.startswith(("seconds", "steps_"))
            }
    return found


def rows(run: Path) -> int:
    """Return the rows of all trials, headers among them."""
    return sum(path.read_bytes().count(b"\n") for path in run.glob("trials/*/*/steps.csv"))


def results(run: Path) -> int:
    """Return how many trials have a result."""
    return len(list(run.glob("trials/*/*/result.json")))


def describe(folder: Path, **optimizer: object) -> Described:
    """Describe a run; `optimizer` gives the arguments of that of variant b."""
    (folder / "conform.py").write_text(MODULE)
    config = json.loads(json.dumps(CONFIG))
    if optimizer:
        config["compare"]["variants"]["b"]["optimizer.args"] = optimizer
    (folder / "config.json").write_text(json.dumps(config))
    return described(folder / "run", folder / "config.json")


class ExecutorConformance:
    """The tests; see above."""

    factory: ClassVar[str]
    has_processes: ClassVar[bool] = True  # its workers are processes of this machine

    @pytest.fixture(autouse=True)
    def _quick(self, quick_workers: Starter) -> None:
        """Let workers start at once."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _pace(cls) -> Iterator[None]:
        """Put back what the module sets in this process."""
        yield
        for module, name, value in PACE:
            setattr(module, name, value)

    @pytest.fixture(scope="class")
    @classmethod
    def in_peace(cls, _pace: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
        """What the trials give in this process, undisturbed."""
        run = describe(tmp_path_factory.mktemp("peace"))
        run.train_here()
        assert results(run.path) == 3
        return contents(run.path)

    def make(self, run: Described, jobs: int = 2) -> Executor:
        """Return the executor that is tested."""
        module, _, name = self.factory.partition(":")
        executor: Executor = getattr(importlib.import_module(module), name)(jobs, run.spec)
        return executor

    def train(self, run: Described, stop: StopSignal | None = None, jobs: int = 2) -> Executor:
        """Let the executor train the whole run; nobody does so any more when it returns."""
        executor = self.make(run, jobs)
        executor.run(run.path, run.groups, stop or StopSignal())
        assert not self.living(run)
        return executor

    def living(self, run: Described) -> list[int]:
        """Return the processes that trained and live, but for this one."""
        pids = {int(pid) for pid in self.noted(run, "pids").split()} - {os.getpid()}
        return [pid for pid in pids if is_alive(pid)]

    def noted(self, run: Described, name: str) -> str:
        """Return what the module noted."""
        path = run.path.parent / name
        return path.read_text() if path.exists() else ""

    def assert_trained(self, run: Described, steps: int, *, checks: int = 3) -> None:
        """Check that so many steps were made, and no more than those of checked checkpoints.

        The first checkpoint after a trial has begun, or gone on, is restored into a copy that takes
        a step beside it; where the training stops right there, the original takes one, too.
        """
        trained = len(self.noted(run, "trained"))
        assert steps <= trained <= steps + checks

    def only_processes(self) -> None:
        """Skip a test of workers that can be killed."""
        if not self.has_processes:
            pytest.skip("its workers are no processes of their own")

    @pytest.mark.parametrize("jobs", [3, pytest.param(1, marks=pytest.mark.long)])
    def test_results_are_those_of_this_process(
        self, jobs: int, tmp_path: Path, in_peace: dict[str, object]
    ) -> None:
        run = describe(tmp_path)
        self.train(run, jobs=jobs)
        assert contents(run.path) == in_peace
        self.assert_trained(run, 3 * STEPS)
        assert not list(run.path.glob("checkpoints/*.safetensors"))
        assert not list(run.path.glob("checkpoints/*.lease"))
        assert not list(run.path.rglob("*.tmp"))

    def test_what_has_its_results_is_not_trained_again(
        self, tmp_path: Path, in_peace: dict[str, object]
    ) -> None:
        run = describe(tmp_path)
        run.train_here(run.groups[:1])
        before = {p: p.stat().st_mtime_ns for p in run.path.glob("trials/*/*/*")}
        assert len(before) == 3
        self.train(run)
        assert {p: p.stat().st_mtime_ns for p in before} == before
        self.assert_trained(run, 3 * STEPS)
        everything = {p: p.stat().st_mtime_ns for p in run.path.glob("trials/*/*/*")}
        self.train(run)  # there is nothing left to do
        assert {p: p.stat().st_mtime_ns for p in run.path.glob("trials/*/*/*")} == everything
        assert contents(run.path) == in_peace

    @pytest.mark.parametrize(
        ("jobs", "moment"),
        [
            *enumerate(MOMENTS, 1),
            *(
                pytest.param(jobs, moment, marks=pytest.mark.long)
                for jobs in (1, 2, 3, 4)
                for moment in MOMENTS
            ),
        ],
    )
    def test_a_killed_worker_loses_nothing(
        self, jobs: int, moment: str, tmp_path: Path, in_peace: dict[str, object]
    ) -> None:
        self.only_processes()
        run = describe(tmp_path)
        (tmp_path / moment).touch()
        executor = self.train(run, jobs=jobs)
        assert not (tmp_path / moment).exists()  # it was killed
        assert contents(run.path) == in_peace
        deaths = {trial: len(how) for trial, how in executor.deaths.items()}
        assert len(deaths) == (moment != "loading")  # the trials of other workers count none
        assert set(deaths.values()) <= {1}
        trained = len(self.noted(run, "trained"))
        # At least what came after the checkpoint goes on from there; the others train once.
        most = {"loading": 0, "first": 0, "middle": 40, "saved": STEPS}[moment]
        assert 3 * STEPS <= trained <= 3 * STEPS + most + 4  # 4 begin or go on, and are checked

    def test_a_trial_that_kills_its_worker_fails_at_its_second_try(
        self, tmp_path: Path, in_peace: dict[str, object]
    ) -> None:
        self.only_processes()
        run = describe(tmp_path, fatal=True)
        executor = self.train(run)
        died = json.loads((run.path / "trials/b/seed-0/result.json").read_text())
        assert (died["outcome"], died["error_kind"]) == ("failed", "WorkerDiedError")
        assert (died["variant"], died["seed"], died["kind"]) == ("b", 0, "compare")
        self.assert_trained(run, 2 * STEPS + 2)
        assert list(executor.deaths) == [TrialId("b", 0)]
        assert len(executor.deaths[TrialId("b", 0)]) == 2
        others = {name for name in in_peace if "/b/" not in name}
        assert {name: contents(run.path)[name] for name in others} == {
            name: in_peace[name] for name in others
        }
        self.train(run)  # it has a result: it is not tried once more
        self.assert_trained(run, 2 * STEPS + 2)

    def test_a_trial_that_raises_fails_at_once(
        self, tmp_path: Path, in_peace: dict[str, object]
    ) -> None:
        run = describe(tmp_path, raises=True)
        assert not self.train(run).deaths
        failed = json.loads((run.path / "trials/b/seed-0/result.json").read_text())
        assert (failed["outcome"], failed["error_kind"]) == ("failed", "ArithmeticError")
        assert 'raise ArithmeticError("of its own")' in failed["traceback"]
        self.assert_trained(run, 2 * STEPS + 1)
        assert (
            contents(run.path)["trials/a/seed-0/steps.csv"] == in_peace["trials/a/seed-0/steps.csv"]
        )

    def test_a_stop_ends_at_checkpoints_and_a_later_run_goes_on(
        self, tmp_path: Path, in_peace: dict[str, object]
    ) -> None:
        run = describe(tmp_path)
        pauses = 0
        while results(run.path) < 3:
            before = rows(run.path)
            self.train(run, StopSignal(lambda before=before: rows(run.path) > before + 60))
            begun = [p.parent for p in run.path.glob("trials/*/*/steps.csv")]
            going_on = [p for p in begun if not (p / "result.json").exists()]
            names = {f"{p.parent.name}-{p.name}.safetensors" for p in going_on}
            assert {p.name for p in run.path.glob("checkpoints/*.safetensors")} == names
            assert not list(run.path.glob("checkpoints/*.lease"))
            pauses += 1
        assert pauses > 1
        assert contents(run.path) == in_peace
        self.assert_trained(run, 3 * STEPS, checks=2 * (pauses + 2))  # not one step twice

    def test_a_stop_before_anything_is_trained(self, tmp_path: Path) -> None:
        run = describe(tmp_path)
        self.train(run, StopSignal(lambda: True))
        self.train(run, StopSignal(at_once=True))
        assert rows(run.path) == 0
        assert not self.noted(run, "trained")

    def test_a_stop_at_once_loses_at_most_what_came_after_the_checkpoint(
        self, tmp_path: Path, in_peace: dict[str, object]
    ) -> None:
        run = describe(tmp_path)
        stop = StopSignal()

        def interrupt() -> None:
            wait_for(lambda: rows(run.path) > 20)
            stop.at_once = True

        thread = threading.Thread(target=interrupt)
        thread.start()
        began = time.monotonic()
        self.train(run, stop)
        thread.join()
        assert results(run.path) < 3, time.monotonic() - began
        self.train(run)
        assert contents(run.path) == in_peace

    def test_two_executors_share_the_groups_out(
        self, tmp_path: Path, in_peace: dict[str, object]
    ) -> None:
        self.only_processes()  # one process trains one trial at a time
        run = describe(tmp_path)
        executors = [self.make(run, 1), self.make(run, 1)]
        threads = [
            threading.Thread(target=e.run, args=(run.path, run.groups, StopSignal()))
            for e in executors
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert contents(run.path) == in_peace
        self.assert_trained(run, 3 * STEPS)
        assert not any(executor.deaths for executor in executors)

    def test_the_leases_of_processes_that_are_gone_hold_nobody_up(
        self, tmp_path: Path, in_peace: dict[str, object], starter: Starter
    ) -> None:
        """As after a power cut: whoever trained is gone, and its files are there."""
        run = describe(tmp_path)
        (tmp_path / "middle").touch()
        with in_a_process(run, "described:InThisProcess", starter):
            pass
        assert not (tmp_path / "middle").exists()
        assert list(run.path.glob("checkpoints/*.lease"))
        self.train(run)
        assert contents(run.path) == in_peace

    @pytest.mark.parametrize(
        "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
    )
    def test_workers_that_lose_who_started_them_end(
        self, number: signal.Signals, tmp_path: Path, in_peace: dict[str, object], starter: Starter
    ) -> None:
        self.only_processes()
        run = describe(tmp_path, seconds=0.02)
        with in_a_process(run, self.factory, starter) as process:
            wait_for((run.path / "checkpoints/b-seed-0.safetensors").exists, process)
            process.send_signal(number)
        wait_for(lambda: not self.living(run))
        trained = len(self.noted(run, "trained"))
        assert trained < 3 * STEPS
        assert (run.path / "checkpoints/b-seed-0.safetensors").exists()
        assert not (run.path / "trials/b/seed-0/result.json").exists()
        self.train(run)
        assert contents(run.path) == in_peace


def in_a_process(run: Described, factory: str, starter: Starter) -> Started:
    """Let an executor train a run in a process of its own."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    words = ["-c", SCRIPT, run.path, factory]
    return starter.start(
        words,
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
    )
