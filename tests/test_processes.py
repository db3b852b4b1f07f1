"""Training in worker processes: the same files, and what dies takes nothing else down.

Workers are forked from a process that has torch; those of a script without a guard are started.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from described import Described, described
from rich.console import Console
from starting import Started as StartedProcess
from starting import Starter
from stopping import contents as results
from stopping import status
from torch import nn
from torch.nn import functional
from waiting import is_alive, wait_for

import lrexp as library
from lrexp.engine.stop import Pause
from lrexp.errors import ConfigError, RunError
from lrexp.records import Ended, Failed, Group, Record, Started, Steps, TrialId
from lrexp.runs.builder import Objects
from lrexp.runs.executor import LocalProcesses, StopSignal, why_not_processes
from lrexp.runs.spec import RunSpec, make_spec
from lrexp.runs.worker import one_by_one_path

ROOT = Path(__file__).parents[1]
SMALL = """\
name: small
model: {name: mlp, args: {hidden: [16], dropout: 0.2}}
data: {name: digits, batch_size: 64}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1, args: {momentum: 0.9}}
schedule: {name: plateau, monitor: val_loss}
train: {duration: 30st, eval_every: 7st}
compare: {seeds: 2, variants: {standard: {}, high: {optimizer.lr: 1e5}, low: {optimizer.lr: 1e-4}}}
find_lr: {budget: 0, min_lr: 1e-4, max_lr: 10, steps: 40, seeds: 3}
"""

# A model that lives and dies as its `mode` says; it notes every attempt in a file.
FRAGILE = """
import os, signal, sys
from torch import nn
import torch
print("imported")
class Net(nn.Module):
    def __init__(self, mode, note=""):
        super().__init__()
        self.layer, self.mode, self.note, self.calls = nn.Linear(64, 10), mode, note, 0
    def forward(self, x):
        self.calls += self.training
        if self.calls == 5:
            self.misbehave()
        return self.layer(x)
    def misbehave(self):
        first = not (self.note and os.path.exists(self.note))
        if self.note:
            with open(self.note, "a") as file:
                file.write("x")
        if self.mode == "killed" or (self.mode == "once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mode == "exits":
            os._exit(7)
        if self.mode == "raises":
            class Odd(Exception):
                def __init__(self, a, b):
                    super().__init__(f"{a} and {b}")
            raise Odd("this", "that")
        if self.mode == "loud":
            print("printed")
            os.write(1, b"written\\n")
            assert sys.stdin.read() == ""
def data():
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    return x, x.argmax(1) % 10
"""


def fragile_config(tmp_path: Path, variants: dict[str, dict[str, Any]]) -> Path:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    models = {
        name: {"model": {"name": "fragile:Net", "args": args}} for name, args in variants.items()
    }
    config = {
        "model": {"name": "fragile:Net", "args": {"mode": "well"}},
        "data": {"name": "fragile:data", "batch_size": 32},
        "loss": "cross_entropy",
        "optimizer": {"name": "SGD", "lr": 0.1},
        "train": {"duration": 12, "eval_every": 6},
        "compare": {"variants": models},
    }
    path = tmp_path / "fragile.yaml"
    path.write_text(json.dumps(config))
    return path


def contents(run: Path) -> dict[str, object]:
    """Return what must not depend on the processes, and how many trials ended how."""
    found = results(run)
    del found["engine.json"]  # what was measured, and how many processes there were
    config = (run / "resolved.yaml").read_bytes()
    return {**found, "config": config, "counts": status(run)["counts"]}


def workers_of(pid: int, starter: Starter) -> list[int]:
    """Return the workers that a process has, which were forked for it."""
    return [worker for worker in starter.asked_by(pid) if is_alive(worker)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in workers: with another number, sums may be split differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("command", "jobs"),
    [pytest.param("compare", 3, marks=pytest.mark.long), ("find-lr", 2)],
)
@pytest.mark.usefixtures("one_thread")
def test_files_are_the_same_whichever_process_trained(
    command: str, jobs: int, lrexp: Callable, tmp_path: Path, quick_workers: Starter
) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    assert lrexp(command, "small.yaml", "--out", "here", "--jobs", 1).code == 0
    answer = lrexp(command, "small.yaml", "--out", "there", "--jobs", jobs, "--json")
    assert answer.code == 0, answer.err
    assert contents(Path("here")) == contents(Path("there"))
    assert json.loads(answer.out)["run"] == "there"
    assert answer.err.count("seed") == (6 if command == "compare" else 3)
    assert not workers_of(os.getpid(), quick_workers)


def test_a_worker_that_dies_takes_its_trial_down_and_no_other(
    lrexp: Callable, tmp_path: Path, quick_workers: Starter
) -> None:
    modes = ["well", "killed", "exits", "raises", "loud"]
    variants = {mode: {"mode": mode, "note": f"{mode}.txt"} for mode in modes}
    variants["again"] = {"mode": "once", "note": str(tmp_path / "again.txt")}
    config = fragile_config(tmp_path, variants)
    answer = lrexp("compare", config, "--jobs", 2, "--out", "run", "--json")
    assert answer.code == 3, answer.err
    assert {m: len((tmp_path / f"{m}.txt").read_text()) for m in modes} == {
        "well": 1, "killed": 2, "exits": 2, "raises": 1, "loud": 1,
    }  # fmt: skip
    assert (tmp_path / "again.txt").read_text() == "xx"
    assert "killed, seed 0: its worker process was killed (signal 9, SIGKILL), twice" in answer.err
    assert "lack of memory" in answer.err
    assert "exits, seed 0: its worker process ended with exit code 7, twice." in answer.err
    assert "fragile.py:28: in misbehave: Odd: this and that" in answer.err
    assert "3 of 6 trials failed" in answer.err
    assert "Traceback" not in answer.err

    ranking = {row["variant"]: row for row in json.loads(answer.out)["ranking"]}
    assert {name for name, row in ranking.items() if row["outcomes"] == {"finished": 1}} == {
        "well", "loud", "again",
    }  # fmt: skip
    assert json.loads((tmp_path / "run/status.json").read_text())["counts"] == {
        "finished": 3, "failed": 3,
    }  # fmt: skip
    for line in ("printed", "written"):  # on stderr, and the protocol went on
        assert line in answer.err.splitlines()
    assert answer.err.count("imported") == 1  # not once more for each worker

    # what began again is as if nothing had happened: `well` has the same weights and batches
    well, again = ((tmp_path / f"run/trials/{v}/seed-0") for v in ("well", "again"))
    for file in ("steps.csv", "evals.csv"):
        assert (well / file).read_bytes() == (again / file).read_bytes()
    failed = json.loads((tmp_path / "run/trials/killed/seed-0/result.json").read_text())
    assert failed["outcome"] == "failed"
    assert "SIGKILL" in failed["error"]


def test_a_worker_whose_plan_raises_ends_the_run(
    lrexp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_workers: Starter
) -> None:
    config = fragile_config(tmp_path, {"one": {"mode": "well"}})
    # Fine in this process, not in a worker.
    source = (tmp_path / "fragile.py").read_text()
    (tmp_path / "fragile.py").write_text(
        f"{source}\nassert __import__('os').getpid() == {os.getpid()}\n"
    )
    answer = lrexp("compare", config, "--jobs", 2, "--out", "run")
    assert answer.code == 3
    assert "AssertionError" in answer.err
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "failed"

    (tmp_path / "fragile.py").write_text(source)
    made_here = types.ModuleType("made_here")  # a name that no other process can import
    exec("def loss(output, target): return output.square().mean()", vars(made_here))
    monkeypatch.setitem(sys.modules, "made_here", made_here)
    run = described(tmp_path / "other", config, objects=Objects(loss=made_here.loss))
    with pytest.raises(RunError, match=r"^jobs: cannot be made again in a worker.*made_here"):
        run.train_by(LocalProcesses(1, run.spec))
    assert not (run.path / "objects.pkl").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(
    number: signal.Signals, tmp_path: Path, starter: Starter
) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    words = ["compare", "small.yaml", "--out", "run", "--set", "train.duration=100000ep"]
    trials = tmp_path / "run/trials"
    with command(tmp_path, starter, *words, "--jobs", "2") as process:
        wait_for(lambda: len(list(trials.glob("*/*/evals.csv"))) >= 2)
        workers = workers_of(process.pid, starter)
        assert len(workers) == 2
        process.send_signal(number)
        _, err = process.communicate(timeout=100)
    wait_for(lambda: not any(map(is_alive, workers)))
    if number == signal.SIGINT:
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "interrupted"


@contextmanager
def command(folder: Path, starter: Starter, *words: str) -> Iterator[StartedProcess]:
    """Run a command in a process of its own, and end it in the end."""
    process = starter.start(
        ["-m", "lrexp", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LREXP_PLOTS": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_python_objects_of_a_script_reach_the_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"  # without a guard, and with a queue.py beside it
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong queue')\n")
    (tmp_path / "parts.py").write_text(
        "from torch import nn\n"
        "def make():\n    return nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))\n"
    )
    script.write_text(
        "import sys; sys.path[:] = [*sys.path[1:], sys.path[0]]\n"
        "import torch, lrexp, parts\n"
        "torch.set_num_threads(1)\n"
        "torch.use_deterministic_algorithms(True)\n"
        "print('runs')\n"
        "x = torch.randn(300, 64, generator=torch.Generator().manual_seed(1))\n"
        "config = {'optimizer': {'name': 'SGD', 'lr': 0.1}, 'train': {'duration': 9},\n"
        "          'engine': 'sequential',\n"
        "          'compare': {'variants': {'a': {}, 'b': {'optimizer.lr': 0.01}}}}\n"
        "def own():\n    return parts.make()\n"
        "given = dict(data=(x, x.argmax(1) % 10),\n"
        "             loss=lambda output, target: torch.nn.functional.cross_entropy(output, target))\n"
        "for name, model, jobs in (('here', parts.make, 1), ('script', lambda: own(), 2)):\n"
        "    lrexp.compare(config, model=model, **given, out=name, jobs=jobs)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, script]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "runs\n"
    assert contents(tmp_path / "script") == contents(tmp_path / "here")
    assert not list(tmp_path.glob("*/objects.pkl"))


class Unsendable:
    def __reduce__(self) -> Any:
        raise ValueError("a socket")


def test_a_run_whose_objects_cannot_be_sent_trains_here(tmp_path: Path) -> None:
    data, kept = (torch.zeros(200, 2), torch.zeros(200, 1)), Unsendable()
    config = {
        "optimizer": {"name": "SGD", "lr": 0.1},
        "train": {"duration": 2},
        "compare": {"variants": {"a": {}}},
    }
    said = io.StringIO()
    run = library.compare(
        config, model=nn.Linear(2, 1), data=data, jobs=2, out=tmp_path / "run",
        loss=lambda output, target: (kept, functional.mse_loss(output, target))[1],
        console=Console(file=said, width=200),
    )  # fmt: skip
    assert run.status["counts"] == {"finished": 1}
    what = "data or loss or model cannot be sent to another process (a socket)"
    assert f"Training in this process: {what}." in said.getvalue()


def spec_of(**objects: Any) -> RunSpec:
    return make_spec("compare", {"optimizer": {}}, objects=Objects(**objects))


def test_what_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    data = (torch.zeros(9, 2), torch.zeros(9, 1))
    for model in (nn.Linear(2, 1), lambda: nn.Linear(2, 1)):
        assert why_not_processes(spec_of(model=model, data=data, loss=functional.mse_loss)) is None
    assert why_not_processes(spec_of()) is None
    why = why_not_processes(spec_of(data=(torch.zeros(9, 2), Unsendable())))
    assert why == "data cannot be sent to another process (a socket)"
    monkeypatch.setattr(sys, "executable", "")
    assert "interpreter" in str(why_not_processes(spec_of()))


def test_a_worker_opens_only_the_objects_it_was_started_for(
    tmp_path: Path, quick_workers: Starter
) -> None:
    """A pickle runs code: one that was put in its place is not opened."""
    objects = Objects(loss=functional.cross_entropy)
    run = described(
        tmp_path / "run", fragile_config(tmp_path, {"one": {"mode": "well"}}), objects=objects
    )

    class Replacing(LocalProcesses):
        def _write_objects(self, run: Path) -> None:
            super()._write_objects(run)
            (run / "objects.pkl").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")

    with pytest.raises(
        RunError, match=r"objects.pkl: is not the file that this worker was started"
    ):
        run.train_by(Replacing(1, run.spec))
    assert not Path("executed").exists()


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "2"])
def test_jobs_is_a_count(jobs: Any, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    with pytest.raises(ConfigError, match=r"^jobs: must be a whole number from 1"):
        library.compare(tmp_path / "small.yaml", jobs=jobs, runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_spec_keeps_the_config_as_it_was_read(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    spec = make_spec(
        "find-lr",
        file,
        [("find_lr.budget", 0), ("find_lr.steps", 50), ("find_lr.seeds", 2, "--seeds")],
    )
    file.write_text("broken: [")
    again = RunSpec.from_plain(json.loads(json.dumps(spec.to_plain())))
    assert again == spec
    config = again.config()
    assert config.document.directory == tmp_path
    assert config.document.text == SMALL
    trials = again.first_trials(again.plan(config))
    assert [(t.id, t.kind, t.total_steps) for t in trials] == [
        (TrialId("range_test", seed), "range_test", 50) for seed in (0, 1)
    ]


def test_a_spec_of_a_dict_has_no_lines() -> None:
    spec = make_spec("compare", {"optimizer": {"name": "SGD", "lr": 1e-3, "x": None}})
    with pytest.raises(ConfigError, match=r"(?m)^optimizer.x: ") as caught:
        spec.config()
    assert "config:" not in str(caught.value)


def run_of(
    tmp_path: Path, modes: list[str], groups: list[Group] | None = None, name: str = "run"
) -> Described:
    notes = {mode: {"mode": mode, "note": str(tmp_path / f"{mode}.txt")} for mode in modes}
    return described(tmp_path / name, fragile_config(tmp_path, notes), groups)


def kinds(records: list[Record], variant: str) -> list[str]:
    return [type(r).__name__ for r in records if r.trial.variant == variant]


def test_in_a_group_that_dies_the_others_lose_nothing(
    tmp_path: Path, quick_workers: Starter
) -> None:
    modes = ["raises", "well", "once", "loud"]
    unit = Group("sequential", tuple(TrialId(mode, 0) for mode in modes))
    run = run_of(tmp_path, modes, [unit])
    records = run.train_by(LocalProcesses(1, run.spec))
    assert kinds(records, "well").count("Started") == 1  # it had ended when the worker died
    # Files are looked at now and then, so records may tell of a first try of five steps or not.
    assert (tmp_path / "once.txt").read_text() == "xx"
    anew = max(
        i for i, r in enumerate(records) if isinstance(r, Started) and r.trial.variant == "once"
    )
    rows = [r for r in records[anew:] if isinstance(r, Steps) and r.trial.variant == "once"]
    assert [n for r in rows for n in range(r.first, r.first + len(r.loss))] == list(range(12))
    assert kinds(records, "loud").count("Started") == 1
    again = {r.again for r in records if isinstance(r, Started) and r.again}
    assert "its worker was killed (signal 9, SIGKILL)" in again
    assert again <= {"its worker was killed (signal 9, SIGKILL)", "it was begun anew"}
    assert [type(r) for r in records].count(Ended) == 3
    (failed,) = (r for r in records if isinstance(r, Failed))
    assert 'raise Odd("this", "that")' in str(failed.error.__cause__)  # --debug shows it
    steps = [r for r in records if isinstance(r, Steps) and r.trial.variant == "well"]
    assert [n for r in steps for n in range(r.first, r.first + len(r.loss))] == list(range(12))
    assert not workers_of(os.getpid(), quick_workers)


@pytest.mark.parametrize(
    "moment", ["in its first steps", pytest.param("after a checkpoint", marks=pytest.mark.long)]
)
def test_a_stack_that_dies_is_trained_one_by_one(
    moment: str, tmp_path: Path, quick_workers: Starter
) -> None:
    text = SMALL.replace("30st", "900st").replace("7st", "400st")
    (tmp_path / "small.yaml").write_text(text)
    names = [TrialId(variant, seed) for variant in ("standard", "low") for seed in (0, 1)]
    run = described(tmp_path / "run", tmp_path / "small.yaml", [Group("vectorized", tuple(names))])
    executor = LocalProcesses(2, run.spec)
    if moment == "after a checkpoint":
        pause = Pause()
        for record in run.records_of(executor, pause):
            pause.requested = pause.requested or isinstance(record, Steps)
        assert list(run.path.glob("checkpoints/*.safetensors"))
    records, killed = [], False
    for record in run.records_of(executor):
        records.append(record)
        if isinstance(record, Steps) and not killed:
            (worker,) = workers_of(os.getpid(), quick_workers)
            os.kill(worker, signal.SIGKILL)
            killed = True
    assert {trial: len(how) for trial, how in executor.deaths.items()} == dict.fromkeys(names, 1)
    assert one_by_one_path(run.path, run.groups[0]).exists()
    assert [type(r) for r in records].count(Ended) == 4
    alone = described(
        tmp_path / "alone", tmp_path / "small.yaml", [Group("sequential", (n,)) for n in names]
    )
    alone.train_here()
    for path in alone.path.glob("trials/*/*/*.csv"):
        assert path.read_bytes() == (run.path / path.relative_to(alone.path)).read_bytes()


def test_closing_the_records_kills_the_workers(tmp_path: Path, quick_workers: Starter) -> None:
    config = fragile_config(tmp_path, {"well": {"mode": "well"}})
    config.write_text(config.read_text().replace('"duration": 12', '"duration": 1000000'))
    run = described(tmp_path / "run", config)
    records = run.records_of(LocalProcesses(3, run.spec, devices=["cpu"]))
    assert isinstance(next(records), Started)
    (worker,) = workers_of(os.getpid(), quick_workers)  # more would have nothing to do
    records.close()
    assert not is_alive(worker)


def test_workers_that_cannot_start_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [Group("sequential", (TrialId("well", 0),))]
    run = run_of(tmp_path, ["well"], groups)
    for program, message in (
        ("/bin/false", "The last one ended with exit code 1"),
        ("/no/such/file", r"The system refuses: .*No such file"),
    ):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(RunError, match=message):
            run.train_by(LocalProcesses(2, run.spec))


@pytest.mark.parametrize(
    "engine", ["sequential", pytest.param("vectorized", marks=pytest.mark.long)]
)
def test_workers_pause_and_others_go_on(
    engine: str, tmp_path: Path, quick_workers: Starter
) -> None:
    """What was trained up to the pause, and what comes after it elsewhere, is the whole."""
    (tmp_path / "small.yaml").write_text(SMALL.replace("30st", "1500st").replace("7st", "500st"))
    names = [TrialId(v, s) for v in ("standard", "low") for s in (0, 1)]
    groups = [Group(engine, (name,)) for name in names]
    if engine == "vectorized":
        groups = [Group(engine, tuple(names))]
    whole = described(tmp_path / "whole", tmp_path / "small.yaml", groups)
    whole.train_by(LocalProcesses(2, whole.spec))

    run = described(tmp_path / "run", tmp_path / "small.yaml", groups)
    pause, first = Pause(), []
    for record in run.records_of(LocalProcesses(2, run.spec), pause):
        first.append(record)
        pause.requested = pause.requested or isinstance(record, Steps)
    assert not workers_of(os.getpid(), quick_workers)
    saved = {path.name for path in run.path.glob("checkpoints/*.safetensors")}
    begun = {r.trial for r in first if isinstance(r, Started)}
    ended = {r.trial for r in first if isinstance(r, Ended | Failed)}
    firsts = [g.trials[0] for g in groups if begun - ended & set(g.trials)]
    assert saved == {f"{t.variant}-seed-{t.seed}.safetensors" for t in firsts if t in begun - ended}
    assert saved
    run.train_by(LocalProcesses(2, run.spec))
    assert results_of(run) == results_of(whole)


def results_of(run: Described) -> dict[str, object]:
    return {name: found for name, found in results(run.path).items() if name.startswith("trials/")}


def test_a_pause_before_anything_has_begun(tmp_path: Path) -> None:
    run, pause = run_of(tmp_path, ["well"]), Pause()
    pause.requested = True
    assert run.train_by(LocalProcesses(2, run.spec), pause) == []


def test_a_worker_that_dies_in_a_pause_is_not_tried_again(
    tmp_path: Path, quick_workers: Starter
) -> None:
    run, stop = run_of(tmp_path, ["killed"]), StopSignal()
    steps = run.path / "trials/killed/seed-0/steps.csv"
    stop.ask = steps.exists  # it dies in its fifth step, before it looks
    executor = LocalProcesses(1, run.spec)
    executor.run(run.path, run.groups, stop)
    assert not executor.deaths
    assert not steps.with_name("result.json").exists()


def rows(run: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in run.glob("trials/*/*/steps.csv"))


def test_a_worker_that_dies_after_a_resume_takes_its_trial_down_and_no_other(
    tmp_path: Path, starter: Starter, lrexp: Callable, quick_workers: Starter
) -> None:
    """It took the checkpoint along: its trial begins anew, which gives the same numbers."""
    (tmp_path / "small.yaml").write_text(SMALL.replace("30st", "1500st").replace("7st", "500st"))
    words = ["compare", "small.yaml", "--jobs", "2", "--engine", "sequential", "--seeds", "1"]
    words.append("--out")
    assert lrexp(*words, "peace").code == 0
    run = tmp_path / "run"
    with command(tmp_path, starter, *words, "run") as process:
        wait_for(lambda: len(list(run.glob("trials/*/*/evals.csv"))) >= 2)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert list(run.glob("checkpoints/*"))  # `high` may just have ended
    before = rows(run)
    with command(tmp_path, starter, "resume", "run") as process:
        wait_for(lambda: rows(run) > before)
        for pid in workers_of(process.pid, starter):
            os.kill(pid, signal.SIGKILL)
        _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert contents(run) == contents(tmp_path / "peace")
