"""Training in worker processes: the same files, and what dies takes nothing else down.

Workers are forked from a process that has torch; those of a script without a guard are started.
"""

from __future__ import annotations

import json
import os
import pickle
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
from starting import Started as StartedProcess
from starting import Starter
from stopping import contents as results
from stopping import status
from torch import nn
from torch.nn import functional
from waiting import is_alive, wait_for

import lrexp as library
from lrexp.engine.stop import Pause
from lrexp.errors import ConfigError, RunError, UserCodeError
from lrexp.records import (
    Checkpoint,
    Ended,
    Failed,
    Interrupted,
    Record,
    Started,
    Steps,
    TrialId,
    Unit,
)
from lrexp.runs.builder import Objects
from lrexp.runs.executor import refuse_processes, run_in_processes, why_not_processes
from lrexp.runs.spec import make_order
from lrexp.runs.worker import raised, receive, send

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
find_lr: {min_lr: 1e-4, max_lr: 10, steps: 40, seeds: 3}
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


@pytest.mark.parametrize(("command", "jobs"), [("compare", 3), ("find-lr", 2)])
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
    exec("def loss(output, target): return (output - target).mean()", vars(made_here))
    monkeypatch.setitem(sys.modules, "made_here", made_here)
    order = make_order("compare", config, objects=Objects(loss=made_here.loss))
    with pytest.raises(ConfigError, match=r"^jobs: cannot be made again in a worker.*made_here"):
        list(run_in_processes(order, [Unit("sequential", (TrialId("one", 0),))], jobs=1))


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


def test_python_objects_of_a_module_reach_the_workers(tmp_path: Path) -> None:
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
        "x = torch.randn(300, 64, generator=torch.Generator().manual_seed(1))\n"
        "config = {'optimizer': {'name': 'SGD', 'lr': 0.1}, 'train': {'duration': 9},\n"
        "          'compare': {'variants': {'a': {}, 'b': {'optimizer.lr': 0.01}}}}\n"
        "given = dict(model=parts.make, data=(x, x.argmax(1) % 10),\n"
        "             loss=torch.nn.functional.cross_entropy)\n"
        "for jobs in (1, 2):\n"
        "    lrexp.compare(config, **given, out=f'run{jobs}', jobs=jobs)\n"
        "def make(): return parts.make()\n"
        "try:\n"
        "    lrexp.compare(config, **{**given, 'model': make}, jobs=2)\n"
        "except lrexp.ConfigError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, script]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "run1") == contents(tmp_path / "run2")
    assert done.stdout.startswith("jobs: needs what can be sent to another process, and")
    assert "make is defined in the notebook or script itself (got 2). Put it into" in done.stdout
    assert not (tmp_path / "runs").exists()


class Unsendable:
    def __reduce__(self) -> Any:
        raise ValueError("a socket")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"model": lambda: nn.Linear(64, 10)}, "lambda"),
        ({"loss": lambda y, t: (y - t).mean()}, "lambda"),
        ({"data": (torch.zeros(9, 2), Unsendable())}, "a socket"),
    ],
)
def test_objects_that_cannot_be_sent_are_refused_before_anything_runs(
    given: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    order = make_order("compare", {"optimizer": {}}, objects=Objects(**given))
    assert reason in str(why_not_processes(order))
    with pytest.raises(ConfigError, match=rf"^jobs: .*{reason}.*or use 1"):
        refuse_processes(order, 4)


def test_what_is_importable_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    data = (torch.zeros(9, 2), torch.zeros(9, 1))
    objects = Objects(model=nn.Linear(2, 1), data=data, loss=functional.mse_loss)
    order = make_order("compare", {"optimizer": {}}, [("seed", 3)], objects=objects)
    assert why_not_processes(order) is None
    assert why_not_processes(make_order("compare", {})) is None
    monkeypatch.setattr(functional.mse_loss, "__module__", "__main__")
    assert "mse_loss is defined in the notebook" in str(why_not_processes(order))
    monkeypatch.setattr(sys, "executable", "")
    assert "interpreter" in str(why_not_processes(make_order("compare", {})))


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "2"])
def test_jobs_is_a_count(jobs: Any, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    with pytest.raises(ConfigError, match=r"^jobs: must be a whole number from 1"):
        library.compare(tmp_path / "small.yaml", jobs=jobs, runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_an_order_keeps_the_config_as_it_was_read(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    order = make_order("find-lr", file, [("find_lr.steps", 50), ("find_lr.seeds", 2, "--seeds")])
    file.write_text("broken: [")
    again = pickle.loads(pickle.dumps(order))
    assert again == order
    config = again.config()
    assert config.document.directory == tmp_path
    assert config.document.text == SMALL
    plan = again.plan(config)
    assert again.lengths(plan) == {
        TrialId("range_test", 0): 50, TrialId("range_test", 1): 50,
    }  # fmt: skip
    (task,) = again.tasks(plan, [TrialId("range_test", 1)])
    assert (task.trial.seed, task.total_steps, task.eval_every) == (1, 50, 0)


def test_an_order_of_a_dict_has_no_lines() -> None:
    order = make_order("compare", {"optimizer": {"name": "SGD", "lr": 1e-3, "x": None}})
    with pytest.raises(ConfigError, match=r"(?m)^optimizer.x: ") as caught:
        order.config()
    assert "config:" not in str(caught.value)


def test_an_exception_crosses_as_text() -> None:
    class LocalError(Exception):
        pass

    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as incoming, os.fdopen(write, "wb") as outgoing:
        try:
            raise LocalError("here")
        except LocalError as error:
            message = raised(TrialId("a", 1), UserCodeError("it raised"), error)
        send(outgoing, message)
        error = receive(incoming).restored()
        assert str(error) == "it raised"
        assert 'raise LocalError("here")' in str(error.__cause__)
        outgoing.write(b"\0\0\0\0\0\0\0\x09half")  # the other process died in the middle
        outgoing.close()
        assert receive(incoming) is None


def order_of(tmp_path: Path, modes: list[str]) -> Any:
    notes = {mode: {"mode": mode, "note": str(tmp_path / f"{mode}.txt")} for mode in modes}
    return make_order("compare", fragile_config(tmp_path, notes))


def kinds(records: list[Record], variant: str) -> list[str]:
    return [type(r).__name__ for r in records if r.trial.variant == variant]


def test_the_trials_of_a_dead_unit_are_tried_again_one_by_one(
    tmp_path: Path, quick_workers: Starter
) -> None:
    modes = ["raises", "well", "once", "loud"]
    order = order_of(tmp_path, modes)
    unit = Unit("sequential", tuple(TrialId(mode, 0) for mode in modes))
    records = list(run_in_processes(order, [unit], jobs=1))
    assert kinds(records, "well").count("Started") == 1  # it had ended when the worker died
    assert kinds(records, "once").count("Started") == 2
    assert kinds(records, "loud").count("Started") == 1
    assert [type(r) for r in records].count(Ended) == 3
    (failed,) = (r for r in records if isinstance(r, Failed))
    assert 'raise Odd("this", "that")' in str(failed.error.__cause__)  # --debug shows it
    steps = [r for r in records if isinstance(r, Steps) and r.trial.variant == "well"]
    assert [r.first for r in steps] == [0, 6]
    assert not workers_of(os.getpid(), quick_workers)


def test_closing_the_records_kills_the_workers(tmp_path: Path, quick_workers: Starter) -> None:
    order = order_of(tmp_path, ["well"])
    units = [Unit("sequential", (TrialId("well", 0),))]
    records: Iterator[Record] = run_in_processes(order, units, jobs=3, devices=["cpu"])
    assert isinstance(next(records), Started)
    (worker,) = workers_of(os.getpid(), quick_workers)  # more would have nothing to do
    records.close()  # type: ignore[attr-defined]
    assert not is_alive(worker)


def test_workers_that_cannot_start_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = order_of(tmp_path, ["well"])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    units = [Unit("sequential", (TrialId("well", seed),)) for seed in range(3)]
    with pytest.raises(RunError, match="The last one ended with exit code 1"):
        list(run_in_processes(order, units, jobs=2))
    monkeypatch.setattr(sys, "executable", "/no/such/file")
    with pytest.raises(RunError, match=r"The system refuses: .*No such file"):
        list(run_in_processes(order, units, jobs=2))


def rows_of(records: list[Record]) -> dict[TrialId, list[tuple[int, float, float]]]:
    found: dict[TrialId, list[tuple[int, float, float]]] = {}
    for r in records:
        if isinstance(r, Steps):
            numbers = range(r.first, r.first + len(r.loss))
            found.setdefault(r.trial, []).extend(zip(numbers, r.lr, r.loss, strict=True))
    return found


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_workers_pause_and_others_continue(
    engine: str, tmp_path: Path, quick_workers: Starter
) -> None:
    """What was trained up to the pause, and what comes after it elsewhere, is the whole."""
    (tmp_path / "small.yaml").write_text(SMALL.replace("30st", "1500st").replace("7st", "500st"))
    order = make_order("compare", tmp_path / "small.yaml")
    names = ("standard", "low")
    if engine == "vectorized":
        units = [Unit(engine, tuple(TrialId(v, s) for v in names for s in (0, 1)))]
    else:
        units = [Unit(engine, (TrialId(v, s),)) for v in names for s in (0, 1)]
    whole = rows_of(list(run_in_processes(order, units, jobs=2)))

    pause, first = Pause(), []
    for record in run_in_processes(order, units, jobs=2, pause=pause):
        first.append(record)
        pause.requested = pause.requested or isinstance(record, Steps)
    saved = [r for r in first if isinstance(r, Checkpoint)]
    stopped = {trial for r in first if isinstance(r, Interrupted) for trial in r.trials}
    assert saved
    assert stopped == {trial for r in saved for trial in r.trials}
    assert not any(isinstance(r, Ended | Failed) for r in first)
    begun = {r.trial for r in first if isinstance(r, Started)}
    assert stopped == begun  # the others were passed over
    assert not workers_of(os.getpid(), quick_workers)

    states = {r.trial: r.state for r in saved}  # the last of each unit
    second = list(run_in_processes(order, units, jobs=2, take_state=states.get))
    before, after = rows_of(first), rows_of(second)
    for trial, rows in whole.items():
        steps = next((r.step for r in reversed(saved) if trial in r.trials), 0)
        assert before.get(trial, [])[:steps] + after[trial] == rows
    assert sum(isinstance(r, Ended) for r in second) == 4


def test_a_pause_before_anything_has_begun(tmp_path: Path) -> None:
    order, pause = order_of(tmp_path, ["well"]), Pause()
    pause.requested = True
    units = [Unit("sequential", (TrialId("well", 0),))]
    assert list(run_in_processes(order, units, jobs=2, pause=pause)) == []


def test_a_worker_that_dies_in_a_pause_is_not_tried_again(
    tmp_path: Path, quick_workers: Starter
) -> None:
    order, pause = order_of(tmp_path, ["killed"]), Pause()
    records = []
    for record in run_in_processes(
        order, [Unit("sequential", (TrialId("killed", 0),))], 1, pause=pause
    ):
        records.append(record)
        pause.requested = True  # it dies in its fifth step, before it looks
    assert isinstance(records[0], Started)
    assert not any(isinstance(r, Ended | Failed) for r in records)


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
