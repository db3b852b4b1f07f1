"""An executor that is registered from outside trains a comparison to the same results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import contents, status
from torch.nn.functional import cross_entropy

import lrexp as library
from lrexp.errors import ConfigError, UserCodeError
from lrexp.records import Group
from lrexp.runs.executor import EXECUTORS, StopSignal

CONFIG = {
    "model": {"name": "mlp", "args": {"hidden": [8], "dropout": 0.2}},
    "data": {"name": "digits", "batch_size": 256},
    "loss": "cross_entropy",
    "optimizer": {"name": "SGD", "lr": 0.1, "args": {"momentum": 0.9}},
    "train": {"duration": 12, "eval_every": 5},
    "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.01}}},
}
WORKER = [sys.executable, "-m", "lrexp", "worker"]


class OneByOne:
    """Trains each group in a worker of its own, one after the other."""

    made: list[dict[str, Any]] = []  # noqa: RUF012  # emptied by `own`

    def __init__(self, jobs: int, spec: Any, *, force: bool, devices: Any, note: str = "") -> None:
        self.made.append({"jobs": jobs, "note": note})

    def run(self, run: Path, groups: Sequence[Group], stop: StopSignal) -> None:
        for group in groups:
            done = [
                (run / "trials" / t.variant / f"seed-{t.seed}/result.json") for t in group.trials
            ]
            if not stop.ask() and not all(path.exists() for path in done):
                words = [*WORKER, str(run), *(t.name for t in group.trials)]
                assert subprocess.Popen(words, stdout=subprocess.DEVNULL).wait() == 0


@pytest.fixture
def own() -> Iterator[type[OneByOne]]:
    OneByOne.made = []
    yield library.register_executor("one-by-one")(OneByOne)
    del EXECUTORS["one-by-one"]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As in workers: with another number, sums may be split differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, Any]:
    """What training in this process writes."""
    run = library.compare(CONFIG, jobs=1, out=tmp_path_factory.mktemp("here") / "run")
    return results(run.path)


def results(run: Path) -> dict[str, Any]:
    """Return what must not depend on who trains."""
    found = contents(run)
    return {name: found[name] for name in found if name.startswith(("trials", "summary"))}


GIVEN = [  # of the config, as the argument | the option that the executor is given; None: an object
    ({"executor": {"name": "one-by-one", "note": "x"}}, {}, "x"),
    ({"executor": {"name": "local", "note": "x"}}, {"executor": "one-by-one"}, "x"),
    ({}, {"executor": {"name": "one-by-one", "note": "y"}}, "y"),
    ({}, {"executor": "one-by-one"}, ""),
    ({}, {"executor": OneByOne(2, None, force=False, devices=None)}, None),
]


@pytest.mark.parametrize(("config", "given", "note"), GIVEN)
@pytest.mark.usefixtures("own", "quick_workers")
def test_the_results_are_those_of_this_process(
    config: dict[str, Any], given: dict[str, Any], note: str | None,
    tmp_path: Path, here: dict[str, Any],
) -> None:  # fmt: skip
    run = library.compare({**CONFIG, **config}, jobs=2, out=tmp_path / "there", **given)
    assert results(run.path) == here
    assert run.status["counts"] == {"finished": 2}
    assert OneByOne.made == ([] if note is None else [{"jobs": 2, "note": note}])


@pytest.mark.usefixtures("own", "quick_workers")
def test_the_command_line_names_it_and_resume_goes_on_with_it(
    lrexp: Callable, tmp_path: Path, here: dict[str, Any]
) -> None:
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    asked = []

    def stop() -> bool:
        asked.append(1)
        return bool(list(tmp_path.glob("run/trials/*/*/result.json")))

    with pytest.raises(library.InterruptedRunError):
        library.compare(tmp_path / "c.json", executor="one-by-one", out=tmp_path / "run", stop=stop)
    assert status(tmp_path / "run")["status"] == "interrupted"
    assert lrexp("resume", "run", "--executor", "one-by-one", "--jobs", 1).code == 0
    assert results(tmp_path / "run") == here
    assert len(OneByOne.made) == 2
    answer = lrexp("compare", "c.json", "--executor", "one-by-one", "--out", "again")
    assert answer.code == 0, answer.err
    assert results(tmp_path / "again") == here


@pytest.mark.usefixtures("quick_workers")
def test_processes_are_started_for_one_job_too(
    tmp_path: Path, here: dict[str, Any], starter: Any
) -> None:
    before = starter.asked_by(os.getpid())
    seen: set[int] = set()

    def look() -> None:
        seen.update(starter.asked_by(os.getpid()))

    made = {"executor": "processes", "jobs": 1, "stop": look}
    run = library.compare(CONFIG, out=tmp_path / "there", **made)
    assert results(run.path) == here
    assert seen - set(before)
    socket = threading.Lock()  # cannot be sent
    with pytest.raises(ConfigError, match="executor: can start no processes: loss cannot be sent"):
        library.compare(
            {key: value for key, value in CONFIG.items() if key != "loss"},
            loss=lambda output, target: (socket, cross_entropy(output, target))[1],
            executor="processes", out=tmp_path / "never",
        )  # fmt: skip


# executor | part of the message
WRONG = [
    (
        "one-by-tow",
        "executor.name: is not the name of an executor (got 'one-by-tow'). Did you mean",
    ),
    ({"name": "one-by-one", "notes": 1}, "executor.notes: is not a parameter of"),
    (
        {"name": "one-by-one", "jobs": 1},
        "executor.jobs: is given to the executor one-by-one already",
    ),
    ({"name": "local", "treads": 2}, "Did you mean 'threads'?"),
    (3, "executor: must be"),
]


@pytest.mark.parametrize(("executor", "message"), WRONG)
@pytest.mark.usefixtures("own")
def test_what_is_none_is_refused_before_anything_is_written(
    executor: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        library.compare({**CONFIG, "executor": executor}, out=tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_an_executor_raises_is_the_users(tmp_path: Path) -> None:
    class Broken:
        def run(self, run: Path, groups: Any, stop: Any) -> None:
            raise ConnectionError("no cluster")

    with pytest.raises(UserCodeError, match="ConnectionError: no cluster") as caught:
        library.compare(CONFIG, executor=Broken(), out=tmp_path / "run")
    assert "test_own_executor.py" in str(caught.value)
    assert status(tmp_path / "run")["status"] == "failed"


@pytest.mark.usefixtures("quick_workers")
def test_the_built_in_one_takes_options(tmp_path: Path, here: dict[str, Any]) -> None:
    executor = {"name": "local", "threads": 1}
    run = library.compare(CONFIG, executor=executor, jobs=2, out=tmp_path / "there")
    assert results(run.path) == here
