"""What `lrexp show` says of a run: finished, interrupted, running, from its files alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from stopping import After

import lrexp as library
from lrexp.report.show import follow

CONFIG: dict[str, Any] = {
    "name": "shown",
    "model": {"name": "mlp", "args": {"hidden": [8]}},
    "data": {"name": "digits", "batch_size": 128},
    "loss": "cross_entropy",
    "optimizer": {"name": "SGD", "lr": 0.3},
    "engine": "sequential",
    "train": {"duration": "12st", "eval_every": "4st"},
    "compare": {"seeds": 2, "variants": {"a": {}, "b": {"optimizer.lr": 0.03}}},
    "find_lr": {"budget": 0, "steps": 20, "seeds": 1},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library.compare(CONFIG, out=tmp_path_factory.mktemp("show") / "run", draw=None).path


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    with pytest.raises(library.InterruptedRunError):
        library.compare(CONFIG, out=tmp_path / "run", draw=None, stop=After(17))
    return tmp_path / "run"


def test_a_finished_run_is_shown_as_it_was_when_it_ended(
    finished: Path, lrexp: Callable, tmp_path: Path
) -> None:
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    first = lrexp("compare", "c.json", "--out", "run")
    again = lrexp("show", tmp_path / "run")
    assert again.code == 0, again.err
    assert again.out == first.out.partition("Files: ")[0]
    shown = json.loads(lrexp("show", finished, "--json").out)
    assert shown["ranking"][0]["variant"] == "a"
    assert shown["run"] == str(finished)


def test_a_range_test_is_shown(lrexp: Callable, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    first = lrexp("find-lr", "c.json", "--out", "run")
    assert lrexp("show", "run").out == first.out.partition("Files: ")[0]


def test_an_interrupted_run_shows_how_far_it_came(interrupted: Path, lrexp: Callable) -> None:
    answer = lrexp("show", interrupted)
    assert answer.code == 0, answer.err
    text = " ".join(answer.out.split())
    assert "shown · compare · interrupted · 1 of 4 trials" in text
    assert f"lrexp resume {interrupted}".split()[-1][-20:] in answer.out.replace("\n", "")
    found = json.loads(lrexp("show", interrupted, "--json").out)
    assert found["status"] == "interrupted"
    assert found["trials"] == {"done": 1, "of": 4}
    assert found["steps"] == {"done": 17, "of": 48}
    assert found["seconds_left"] is None
    a = found["variants"]["a"]
    assert (a["seeds"], a["lost"]) == ({"done": 1, "of": 2}, 0)
    run = library.load_run(interrupted)
    ends = [trial.evals["val_loss"][-1] for trial in run.variants["a"]]
    assert a["last"] == pytest.approx(sum(ends) / len(ends))


def test_a_running_one_is_followed_to_its_end(tmp_path: Path) -> None:
    seen, console = [], Console(width=80, force_terminal=True, file=(tmp_path / "screen").open("w"))
    shown, over = threading.Event(), threading.Event()

    def stop() -> None:  # in the middle of the first trial it waits until it was shown
        if library.load_run(tmp_path / "run").trials and not over.is_set():
            shown.wait(20)
            over.set()

    def look(_: float) -> None:
        seen.append((tmp_path / "run/summary.json").exists())
        shown.set()
        threading.Event().wait(0.02)

    training = threading.Thread(
        target=lambda: library.compare(CONFIG, out=tmp_path / "run", draw=None, stop=stop)
    )
    training.start()
    while not (tmp_path / "run/status.json").exists():
        threading.Event().wait(0.01)
    run = follow(tmp_path / "run", console, look)
    training.join()
    assert run.status["status"] == "complete"
    assert seen
    assert seen[0] is False
    console.file.close()
    assert "running" in (tmp_path / "screen").read_text()
