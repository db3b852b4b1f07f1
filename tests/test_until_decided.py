"""Comparisons that go on with more seeds until they are decided."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stopping import contents

import lrexp as library
from lrexp.analysis.statistics import look_alpha

CONFIG: dict[str, Any] = {
    "model": {"name": "mlp", "args": {"hidden": [16]}},
    "data": {"name": "digits", "batch_size": 128},
    "loss": "cross_entropy",
    "optimizer": {"name": "SGD", "lr": 0.3, "args": {"momentum": 0.9}},
    "engine": "sequential",
    "train": {"duration": "6st", "eval_every": "6st"},
    "compare": {"seeds": 4, "variants": {"standard": {}, "low": {"optimizer.lr": 0.01}}},
}
NEAR = {"compare.variants": {"standard": {}, "near": {"optimizer.lr": 0.2999}}}


def seeds_of(run: Path) -> list[int]:
    return list(json.loads((run / "status.json").read_text())["seeds"])


def test_it_goes_on_look_by_look_and_ends_with_a_claim(tmp_path: Path, lrexp: Callable) -> None:
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    words = ["compare", "c.json", "--until-decided", "--max-seeds", 20, "--out", "run"]
    answer = lrexp(*words)
    assert answer.code == 0, answer.err
    run = library.load_run(tmp_path / "run")
    assert run.summary is not None
    declared = run.summary["declared"]
    assert declared["looks"] == [4, 8, 12, 16, 20]
    assert len(seeds_of(run.path)) == 12  # at 8 a claim may spend 0.0017: it takes 2 / 2¹¹
    assert declared["alpha"] == pytest.approx(look_alpha([4, 8, 12, 16, 20], 12))
    assert declared["seeds_needed"] == 8
    (found,) = run.summary["comparisons"]
    assert (found["kind"], found["better"], found["p"]) == ("better", "standard", 2 / 2**12)
    said = " ".join(answer.out.split())
    assert f"look 3 of 5: p has to be at most {declared['alpha']:.2g}" in said
    assert "Undecided after 4 seeds: training up to 8." in " ".join(answer.err.split())
    # the same as asked for step by step
    first = library.compare(CONFIG, out=tmp_path / "steps")
    assert first.summary is not None
    resumed = library.resume(first.path, until_decided=True, max_seeds=20)
    assert isinstance(resumed, library.Run)
    assert contents(resumed.path)["summary.json"] == contents(run.path)["summary.json"]
    again = lrexp("resume", "run", "--until-decided", "--max-seeds", 30)
    assert again.code == 0, again.err
    assert "there is nothing to resume" in again.err
    assert len(seeds_of(run.path)) == 12


def test_it_ends_at_the_most_and_may_be_interrupted(tmp_path: Path) -> None:
    def more_than_20_trials() -> bool:
        return len(list(tmp_path.glob("run/trials/*/*/result.json"))) > 10

    given = {"overrides": NEAR, "until_decided": True, "max_seeds": 8, "out": tmp_path / "run"}
    with pytest.raises(library.InterruptedRunError):
        library.compare(CONFIG, stop=more_than_20_trials, **given)
    assert len(seeds_of(tmp_path / "run")) == 6
    run = library.resume(tmp_path / "run")  # goes on to the end of what was asked for
    assert len(seeds_of(run.path)) == 8
    assert run.summary["declared"]["looks"] == [4, 5, 6, 7, 8]
    assert run.summary["comparisons"][0]["n"] == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-seeds", 9], "--max-seeds: has no use alone (got 9). Add --until-decided"),
        (["--until-decided"], "--until-decided: needs --max-seeds. Give e.g. --max-seeds 16."),
        (["--until-decided", "--max-seeds", 4], "--max-seeds: must be more than the 4 that there are"),
        (["--set", "compare.looks=[8, 4]"], "compare.looks: must be numbers of seeds that rise"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told(
    words: list[Any], message: str, tmp_path: Path, lrexp: Callable
) -> None:
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    answer = lrexp("compare", "c.json", "--out", "run", *words)
    assert answer.code == 2
    assert message in answer.err
    assert not (tmp_path / "run").exists()
