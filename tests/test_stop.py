"""A function of the caller's that ends a training: in this process, and with workers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from starting import Starter
from stopping import After, contents, status

import lrexp as library

CONFIG = {
    "name": "small",
    "seed": 0,
    "engine": "sequential",
    "model": {"name": "mlp", "args": {"hidden": [8], "dropout": 0.2}},
    "data": {"name": "digits", "batch_size": 64},
    "loss": "cross_entropy",
    "optimizer": {"name": "SGD", "lr": 0.1},
    "train": {"duration": 2000, "eval_every": 1000},
    "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.2}}},
}
SHORT = {"train.duration": 40, "train.eval_every": 10}


class ClosedError(Exception):
    pass


class Raises(After):
    """A function that raises when it is asked for the n-th time."""

    def __call__(self) -> bool:
        if super().__call__():
            raise ClosedError("the database is closed")
        return False


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(CONFIG))
    return path


def test_what_stop_raises_ends_the_run_and_is_no_fault_of_a_trial(config: Path) -> None:
    run, straight = config.parent / "run", config.parent / "straight"
    with pytest.raises(library.UserCodeError, match=r"test_stop.py.*ClosedError: the database"):
        library.compare(config, overrides=SHORT, out=run, jobs=1, stop=Raises(25))
    assert status(run)["status"] == "failed"
    assert not list(run.glob("trials/*/*/result.json"))  # none of them failed
    library.resume(run)
    library.compare(config, overrides=SHORT, out=straight, jobs=1)
    assert contents(run) == contents(straight)


def both_have_begun(folder: Path) -> Callable[[], bool]:
    """Return what is true once both trials have been evaluated."""
    return lambda: len(list(folder.glob("trials/*/*/evals.csv"))) == 2


def test_workers_stop_and_go_on(config: Path, quick_workers: Starter) -> None:
    run, straight = config.parent / "run", config.parent / "straight"
    with pytest.raises(library.InterruptedRunError, match="lrexp resume") as stopped:
        library.compare(config, out=run, jobs=2, stop=both_have_begun(run))
    assert stopped.value.run == run
    assert status(run)["status"] == "interrupted"
    assert not list(run.glob("trials/*/*/result.json"))
    assert len(list(run.glob("checkpoints/*"))) == 2
    library.resume(run, jobs=2)
    library.compare(config, out=straight, jobs=1)
    assert contents(run) == contents(straight) | {"engine.json": contents(run)["engine.json"]}


def test_what_stop_raises_ends_the_run_with_workers_too(
    config: Path, quick_workers: Starter
) -> None:
    run = config.parent / "run"
    with pytest.raises(library.UserCodeError, match="ClosedError: the database is closed"):
        library.compare(config, out=run, jobs=2, stop=Raises(4))
    assert status(run)["status"] == "failed"
    assert not list(run.glob("trials/*/*/result.json"))
