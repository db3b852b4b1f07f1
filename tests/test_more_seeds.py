"""`lrexp resume RUN --seeds N`: what a comparison with N seeds from the start would have given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lrexp as library
from lrexp.errors import ConfigError

CONFIG = """\
name: small
device: cpu
engine: ENGINE
model: {name: mlp, args: {hidden: [8], dropout: 0.1}}
data: {name: digits, batch_size: 256}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1}
schedule: cosine
train: {duration: 8st, eval_every: 4st}
compare: {seeds: 2, variants: {a: {}, b: {optimizer.lr: 0.3}}}
"""


def write(folder: Path, engine: str = "sequential") -> Path:
    path = folder / "small.yaml"
    path.write_text(CONFIG.replace("ENGINE", engine))
    return path


def curves(run: Path) -> dict[str, str]:
    files = [*run.glob("trials/**/*.csv"), run / "summary.csv", run / "resolved.yaml"]
    found = {str(path.relative_to(run)): path.read_text() for path in files}
    return found | {"order.json": json.loads((run / "order.json").read_text())["changes"]}


@pytest.mark.parametrize(
    ("engine", "jobs"),
    [("sequential", 1), ("vectorized", 1), pytest.param("auto", 2, marks=pytest.mark.long)],
)
def test_more_seeds_are_those_of_a_larger_comparison(
    engine: str, jobs: int, tmp_path: Path
) -> None:
    config = write(tmp_path, engine)
    small, large = tmp_path / "small", tmp_path / "large"
    library.compare(config, seeds=2, out=small, draw=None)
    kept = {path: path.stat().st_mtime_ns for path in small.glob("trials/**/*.*")}
    drawn: list[Any] = []
    more = library.resume(small, seeds=4, jobs=jobs, draw=drawn.append)
    asked = library.load_run(small).status["seeds"]
    library.compare(config, seeds=4, out=large, draw=None, engine=_engine_of(small))
    assert {p: p.stat().st_mtime_ns for p in kept} == kept  # finished trials stay
    ours, theirs = curves(small), curves(large)
    theirs["order.json"], theirs["resolved.yaml"] = ours["order.json"], ours["resolved.yaml"]
    assert ours == theirs
    assert (asked, len(drawn), more.summary["seeds"]) == ([0, 1, 2, 3], 1, [0, 1, 2, 3])
    assert more.status["counts"] == {"finished": 8}


def _engine_of(run: Path) -> str:
    groups = json.loads((run / "engine.json").read_text())["stages"][0]["units"]
    return str(groups[0]["engine"])


def test_a_run_that_was_asked_for_more_seeds_gets_them(tmp_path: Path) -> None:
    """Whatever ends it: once order.json has the number, a plain resume is enough."""
    run = tmp_path / "run"
    library.compare(write(tmp_path), out=run, draw=None)
    order = json.loads((run / "order.json").read_text())
    order["changes"] = [["compare.seeds", "{value: 3}\n", "--seeds"]]
    (run / "order.json").write_text(json.dumps(order))
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "status": "running"}))
    assert library.resume(run, draw=None).summary["seeds"] == [0, 1, 2]


def test_an_interrupted_run_goes_on_with_more_seeds(tmp_path: Path) -> None:
    run, asked = tmp_path / "run", iter(range(1000))
    with pytest.raises(library.InterruptedRunError):
        library.compare(write(tmp_path), out=run, draw=None, stop=lambda: next(asked) == 10)
    library.compare(tmp_path / "small.yaml", seeds=3, out=tmp_path / "whole", draw=None)
    library.resume(run, seeds=3, draw=None)
    ours, whole = curves(run), curves(tmp_path / "whole")
    assert {k: v for k, v in ours.items() if "csv" in k} == {
        k: v for k, v in whole.items() if "csv" in k
    }


def test_what_cannot_have_more_seeds(lrexp: Callable, tmp_path: Path) -> None:
    config, run = write(tmp_path), tmp_path / "run"
    assert lrexp("compare", config, "--out", run, "--quiet", "--no-plots").code == 0
    fewer = lrexp("resume", run, "--seeds", 1)
    assert fewer.code == 2
    assert "--seeds: must be more than the run has, which is 2 (got 1)" in fewer.err
    assert "nothing to resume" in lrexp("resume", run, "--seeds", 2).err
    test = tmp_path / "test"
    library.find_lr(
        config, seeds=1, out=test, draw=None, overrides=["find_lr.steps=12", "find_lr.budget=0"]
    )
    with pytest.raises(ConfigError, match="--seeds: is for comparisons"):
        library.resume(test, seeds=3)
    with pytest.raises(ConfigError, match="seeds: must be a whole number"):
        library.resume(run, seeds=2.5)  # type: ignore[arg-type]


def test_a_longer_training_is_another_run(lrexp: Callable, tmp_path: Path) -> None:
    config, run, asked = write(tmp_path), tmp_path / "run", iter(range(1000))
    with pytest.raises(library.InterruptedRunError):
        library.compare(config, out=run, draw=None, stop=lambda: next(asked) == 4)
    kept = run / "config.yaml"
    kept.write_text(kept.read_text().replace("8st", "80st"))
    answer = lrexp("resume", run)
    assert answer.code == 2
    assert "run the file anew for another duration" in answer.err
    assert "lrexp resume RUN --seeds N" in answer.err


def test_select_is_a_flag_and_an_argument(lrexp: Callable, tmp_path: Path) -> None:
    config = write(tmp_path)
    answer = lrexp("compare", config, "--seeds", 1, "--select", "best", "--json", "--no-plots")
    assert json.loads(answer.out)["select"] == "best"
    run = library.compare(config, seeds=1, select="best", out=tmp_path / "run", draw=None)
    assert run.summary["select"] == "best"
    wrong = lrexp("compare", config, "--select", "worst")
    assert (wrong.code, "must be one of final, best" in wrong.err) == (2, True)
