"""Verdicts of real trainings: what a run says, what it must never say, and where it is written."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lrexp as library
from lrexp.analysis.claims import BETTER, NO_DIFFERENCE, TOO_FEW, compare_to
from lrexp.report.plots import draw_run
from lrexp.report.ranking import ranking_table

ROOT = Path(__file__).parents[1]
SMALL = {
    "name": "small",
    "model": {"name": "mlp", "args": {"hidden": [16]}},
    "data": {"name": "digits", "batch_size": 128},
    "loss": "cross_entropy",
    "optimizer": {"name": "SGD", "lr": 0.3, "args": {"momentum": 0.9}},
    "train": {"duration": "22st", "eval_every": "11st"},
}


def train(tmp_path: Path, compare: dict[str, Any], **changes: Any) -> library.Run:
    return library.compare({**SMALL, "compare": compare, **changes}, runs_dir=tmp_path)


def kinds(run: library.Run) -> dict[str, tuple[str, str | None]]:
    return {c["variant"]: (c["kind"], c["better"]) for c in run.summary["comparisons"]}


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_a_against_a_gives_no_claim(engine: str, tmp_path: Path) -> None:
    """The same under other names, written otherwise, evaluated otherwise."""
    variants = {
        "a": {},
        "again": {},
        "written out": {"optimizer.args": {"momentum": 0.9, "dampening": 0, "nesterov": False}},
        "evaluated more": {"train.eval_every": "2st"},
    }
    run = train(tmp_path, {"seeds": 8, "variants": variants}, engine=engine)
    assert set(kinds(run).values()) == {(NO_DIFFERENCE, None)}
    for comparison in run.summary["comparisons"]:
        assert (comparison["ties"], comparison["p"]) == (8, 1.0)
        assert comparison["mean"] == pytest.approx(0.0, abs=1e-6)
    floor = run.summary["noise"]
    assert floor["between_seeds"]["mean"] > 0.001
    assert floor["equal_variants"][0]["variants"][:2] == ["a", "again"]
    assert floor["equal_variants"][0]["highest"] <= 1e-6


def test_other_weights_and_orders_of_one_setting_seldom_give_a_claim(tmp_path: Path) -> None:
    """Twenty trainings of one setting, shared out at random between two names, again and again."""
    run = train(tmp_path, {"seeds": 20, "variants": {"a": {}}})
    values = run.summary["ranking"][0]["values"]
    rng, claims = np.random.default_rng(0), 0
    for _ in range(200):
        halves = rng.permutation(values).reshape(2, 10)
        shared = {name: dict(enumerate(half)) for name, half in zip("ab", halves, strict=True)}
        done = {name: dict.fromkeys(range(10), "finished") for name in shared}
        claims += compare_to(shared, done, "a")[0].kind == BETTER
    assert claims / 200 <= 0.08  # 5 % and three standard errors of 200 experiments would be 9.6 %


@pytest.mark.pictures
def test_a_real_difference_is_claimed_and_said_everywhere(lrexp: Callable, tmp_path: Path) -> None:
    config = tmp_path / "small.json"
    compare = {"seeds": 7, "variants": {"low": {"optimizer.lr": 0.001}, "standard": {}, "lost": {"optimizer.lr": 1e6}}}  # fmt: skip
    config.write_text(json.dumps({**SMALL, "compare": compare}))
    answer = lrexp("compare", config, "--out", "run", "--json")
    assert answer.code == 0, answer.err

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    summary = json.loads(answer.out, parse_constant=refuse)
    assert summary["run"] == "run"
    assert summary["ranking"][0].keys() >= {"variant", "rank", "mean", "sd", "values", "outcomes", "diagnosis", "difference", "settings", "verdict"}  # fmt: skip
    assert summary["declared"] == {
        "metric": "val_loss", "direction": "min", "select": "final", "reference": "standard",
        "steps": {"low": 22, "standard": 22, "lost": 22}, "reference_is_best": False,
        "comparisons_corrected_for": 2, "seeds_needed": 7, "alpha": 0.05, "looks": [],
    }  # fmt: skip
    low, lost = summary["comparisons"]
    assert (low["variant"], lost["variant"]) == ("low", "lost")
    assert low["better"] == lost["better"] == "standard"
    assert low["mean"] > 0.1
    assert (low["p"], low["p_holm"]) == (2 / 128, 4 / 128)
    assert lost["diverged"]["variant"] > 0
    assert (lost["mean"], lost["interval"]) == (None, None)
    verdicts = {row["variant"]: row["verdict"] for row in summary["ranking"]}
    assert verdicts == {"standard": None, "low": low["verdict"], "lost": lost["verdict"]}

    rows = {
        r["variant"]: r for r in csv.DictReader(Path("run/summary.csv").read_text().splitlines())
    }
    assert float(rows["low"]["delta"]) == pytest.approx(low["mean"])
    assert rows["low"]["verdict"] == low["verdict"]
    assert (rows["low"]["pairs"], rows["low"]["wins"]) == ("7", "0")
    assert (rows["standard"]["verdict"], rows["standard"]["delta"]) == ("", "")
    assert (rows["lost"]["delta"], rows["lost"]["reference"]) == ("", "standard")

    times = summary["time_to_target"]
    assert (times["unit"], times["declared"]) == ("step", False)
    assert times["variants"]["standard"]["reached"] >= 4
    assert times["variants"]["low"] == {"median": None, "reached": 0, "of": 7, "values": [None] * 7}
    (curve,) = summary["lr_sensitivity"]
    assert curve["lrs"] == [0.001, 0.3, 1e6]
    assert (curve["best_lr"], curve["best_is_end"], summary["warnings"]) == (0.3, None, [])
    assert curve["diverged"] == [0, 0, lost["diverged"]["variant"]]
    assert curve["basin"]["low"] <= 0.3 <= curve["basin"]["high"]
    assert {p.name for p in Path("run/plots").iterdir()} >= {"verdicts.png", "lr_sensitivity.png"}


def test_seeds_for_a_verdict_but_not_for_so_many_variants_are_told_before_training(
    lrexp: Callable, tmp_path: Path
) -> None:
    config = tmp_path / "small.json"
    compare = {"seeds": 6, "variants": {f"v{i}": {"optimizer.lr": 0.1 / i} for i in range(1, 5)}}
    config.write_text(json.dumps({**SMALL, "compare": compare}))
    answer = lrexp("compare", config, "--set", "train.duration=2st", "--out", "run")
    first = answer.err.index(
        "Too few seeds for a verdict: 4 variants make 3 comparisons, which take"
    )
    assert first < answer.err.index("Engine:")
    assert "7 seeds; compare.seeds is 6." in answer.err
    short = ("--set", "train.duration=2st")
    for seeds in (7, 3):
        answer = lrexp("compare", config, "--seeds", seeds, *short, "--out", f"of-{seeds}")
        assert answer.code == 0, answer.err
        assert "Too few seeds for" not in answer.err


def test_a_target_that_was_met_before_training_is_none(tmp_path: Path) -> None:
    compare = {"seeds": 2, "variants": {"still": {"optimizer.lr": 1e-12}, "learns": {}}}
    assert train(tmp_path, compare).summary["time_to_target"] is None
    declared = train(tmp_path, {**compare, "target": 2.5}).summary["time_to_target"]
    assert declared["variants"]["learns"]["median"] == 0
    learns = {"seeds": 2, "variants": {"learns": {}, "still": {"optimizer.lr": 1e-12}}}
    assert train(tmp_path, learns).summary["time_to_target"]["variants"]["still"]["reached"] == 0


def test_few_seeds_tell_nothing_and_say_how_many_would(lrexp: Callable, tmp_path: Path) -> None:
    config = tmp_path / "small.json"
    compare = {"seeds": 2, "variants": {"a": {}, "b": {"optimizer.lr": 0.001}, "c": {"optimizer.lr": 0.01}}}  # fmt: skip
    config.write_text(json.dumps({**SMALL, "compare": compare}))
    answer = lrexp("compare", config, "--out", "run")
    flat = " ".join(answer.out.split())
    assert "Too few seeds to tell (n < 6): 2 comparisons (Holm) take 7 seeds." in flat
    assert "Warning: The best LR is the highest that was compared (0.3)" in flat
    assert f"Next: lrexp find-lr {config}" in flat  # more seeds would not tell what lies above
    summary = library.load_run("run").summary
    assert {c["kind"] for c in summary["comparisons"]} == {TOO_FEW}
    one = lrexp("compare", config, "--seeds", 1, "--out", "one")
    assert one.code == 0
    assert library.load_run("one").summary["noise"] is None
    assert not Path("one/plots/verdicts.png").exists()
    assert "A against A" not in one.out


def test_a_grid_is_compared_with_its_best_over_all_pairs(tmp_path: Path) -> None:
    run = train(tmp_path, {"seeds": 2, "grid": {"optimizer.lr": [0.001, 0.1, 0.3, 0.2]}})
    declared = run.summary["declared"]
    assert declared["reference"] == run.summary["ranking"][0]["variant"]
    assert declared["reference_is_best"] is True
    assert (declared["comparisons_corrected_for"], declared["seeds_needed"]) == (6, 8)
    assert run.config["compare"]["reference"] == "best"
    (curve,) = run.summary["lr_sensitivity"]
    assert curve["lrs"] == [0.001, 0.1, 0.2, 0.3]  # whatever their order in the file
    again = library.compare(run.path / "resolved.yaml", runs_dir=tmp_path)
    assert again.summary["declared"] == declared


@pytest.mark.parametrize(
    ("reference", "expected"),
    [(None, "first"), ("second", "second"), ("best", "second"), ("best of all", None)],
)
def test_the_declared_reference(
    reference: str | None, expected: str | None, tmp_path: Path
) -> None:
    variants = {"first": {"optimizer.lr": 0.001}, "second": {}}
    compare = {"variants": variants} | ({"reference": reference} if reference else {})
    if expected is None:
        with pytest.raises(library.ConfigError, match=r"compare.reference: is no variant"):
            train(tmp_path, compare)
        return
    declared = train(tmp_path, compare).summary["declared"]
    assert (declared["reference"], declared["reference_is_best"]) == (expected, reference == "best")


def test_a_declared_target_and_a_metric_that_rises(tmp_path: Path) -> None:
    compare = {"seeds": 2, "metric": "val_accuracy", "target": 0.5}
    lrs = {"variants": {"a": {}, "b": {"optimizer.lr": 0.1}, "c": {"optimizer.lr": 1e-5}}}
    run = train(tmp_path, compare | lrs)
    times = run.summary["time_to_target"]
    assert (times["target"], times["declared"]) == (0.5, True)
    assert times["variants"]["a"]["median"] in (11.0, 16.5, 22.0)
    assert times["variants"]["c"]["median"] is None
    (curve,) = run.summary["lr_sensitivity"]
    assert curve["best_lr"] in (0.1, 0.3)
    assert 0 < curve["initial"] < 0.4 < max(curve["means"]) <= 1
    a = next(c for c in run.summary["comparisons"] if c["variant"] == "c")
    assert a["mean"] < 0
    assert a["losses"] == 2


def test_steps_of_other_sizes_are_timed_in_epochs(tmp_path: Path) -> None:
    variants = {"a": {}, "b": {"data.batch_size": 64, "train.duration": "44st"}}
    times = train(tmp_path, {"variants": variants, "target": 2.0}).summary["time_to_target"]
    assert times["unit"] == "epoch"
    assert all(0 < row["median"] <= 2 for row in times["variants"].values())


def test_losses_that_mean_other_things_are_not_compared(tmp_path: Path) -> None:
    variants = {"a": {}, "b": {"optimizer.lr": 0.1}, "margin": {"loss": "multi_margin_loss"}}
    run = train(tmp_path, {"seeds": 2, "variants": variants, "reference": "a"})
    assert [c["variant"] for c in run.summary["comparisons"]] == ["b"]
    assert run.summary["warnings"][0].startswith("No verdict on margin: val_loss of another loss")
    assert run.summary["declared"]["comparisons_corrected_for"] == 1
    accuracy = {"seeds": 1, "variants": variants, "reference": "a", "metric": "val_accuracy"}
    assert len(train(tmp_path, accuracy).summary["comparisons"]) == 2


def test_a_run_of_an_older_version_is_shown_and_drawn(tmp_path: Path) -> None:
    run = train(tmp_path, {"seeds": 2, "variants": {"a": {}, "b": {"optimizer.lr": 0.1}}})
    new = ("declared", "comparisons", "noise", "time_to_target", "lr_sensitivity", "warnings")
    old = {key: value for key, value in run.summary.items() if key not in new}
    old["ranking"] = [
        {k: v for k, v in row.items() if k != "verdict"} for row in run.summary["ranking"]
    ]
    (run.path / "summary.json").write_text(json.dumps(old))
    again = library.load_run(run.path)
    assert [path.name for path in draw_run(again)] == ["loss.png", "lr.png"]
    assert ranking_table(again.summary) is not None


def test_the_shipped_config_tells_schedules_apart(lrexp: Callable) -> None:
    answer = lrexp("compare", ROOT / "configs/verdicts.yaml", "--out", "run")
    assert answer.code == 0, answer.err
    assert "Verdicts, against constant: validation loss after 110 steps" in answer.out
    assert set(kinds(library.load_run("run")).values()) == {(BETTER, "cosine"), (BETTER, "rex")}
