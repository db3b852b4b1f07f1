"""Verdicts on tables of other programs and on runs judged anew, from the shell and in Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import lrexp as library
from lrexp.errors import ConfigError

# Final validation losses of three optimizers over eight seeds, as a team would type them.
ADAM = [3.281, 3.279, 3.284, 3.276, 3.280, 3.283, 3.278, 3.282]
MUON = [3.271, 3.270, 3.276, 3.268, 3.269, 3.275, 3.266, 3.273]
LION = [3.280, 3.281, 3.283, 3.277, 3.280, 3.282, 3.279, 3.281]
ROWS = {"adam": ADAM, "muon": MUON, "lion": LION}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "results.csv"
    lines = [f"{name},{seed},{x}" for name, row in ROWS.items() for seed, x in enumerate(row)]
    path.write_text("\n".join(["optimizer,seed,val_loss", *lines]) + "\n")
    return path


def verdicts(judged: dict[str, Any]) -> dict[str, str]:
    return {c["variant"]: c["verdict"] for c in judged["comparisons"]}


def test_pairs_are_judged_pair_by_pair(table: Path, lrexp: Callable) -> None:
    answer = lrexp("judge", table, "--by", "optimizer", "--pair", "seed", "--metric", "val_loss", "--reference", "adam", "--json")  # fmt: skip
    assert answer.code == 0, answer.err
    judged = json.loads(answer.out)
    assert verdicts(judged) == {"muon": "better", "lion": "equivalent"}
    muon, lion = judged["comparisons"]
    d = np.subtract(MUON, ADAM)
    low, high = stats.ttest_1samp(d, 0.0).confidence_interval(0.95)
    assert (muon["n"], muon["paired"], muon["wins"], muon["reference"]) == (8, True, 8, "adam")
    assert muon["difference"] == pytest.approx(d.mean())
    assert muon["interval"] == [pytest.approx(low), pytest.approx(high)]
    assert (muon["p"], muon["p_holm"]) == (2 / 256, 4 / 256)
    assert lion["margin"] == pytest.approx(np.std(ADAM, ddof=1))  # less than 1 % of the loss
    assert muon["seeds_needed"] is lion["seeds_needed"] is None
    assert [row["variant"] for row in judged["ranking"]] == ["muon", "adam", "lion"]
    said = lrexp("judge", table, "--by", "optimizer", "--pair", "seed", "--metric", "val_loss")
    assert "pairs by seed: exact sign flips" in " ".join(said.out.split())
    assert "p for all 3 pairs" in " ".join(said.out.split())  # the best is the reference


def test_without_pairs_it_is_welch(table: Path) -> None:
    judged = library.judge(table, by="optimizer", metric="val_loss", reference="adam")
    muon = judged["comparisons"][0]
    assert (muon["paired"], muon["verdict"]) == (False, "better")
    assert muon["p"] == pytest.approx(stats.ttest_ind(MUON, ADAM, equal_var=False).pvalue)


def test_what_is_undecided_says_how_many_seeds_would_settle_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(1.0, 0.05, 7)
    b = a - 0.02 + 0.04 * (np.arange(7) % 2)  # ahead in four of seven
    rows = [{"lr": lr, "seed": s, "loss": x} for lr, row in ((0.1, a), (0.3, b)) for s, x in enumerate(row)]  # fmt: skip
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = library.judge(
        tmp_path / "r.jsonl", by="lr", pair="seed", metric="loss", reference="0.1"
    )
    (found,) = judged["comparisons"]
    assert found["verdict"] == "undecided"
    assert found["seeds_needed"] > 7
    assert f"about {found['seeds_needed']} seeds would settle" in found["sentence"]


WIDE = "seed;adam;muon;note\n" + "".join(
    f"{s};{a};{m};x\n" for s, (a, m) in enumerate(zip(ADAM, MUON, strict=True))
)


def test_tables_of_every_form_give_the_same(table: Path, tmp_path: Path) -> None:
    long = library.judge(table, by="optimizer", pair="seed", metric="val_loss", reference="adam")
    (tmp_path / "wide.csv").write_text(WIDE)
    wide = library.judge(tmp_path / "wide.csv", pair="seed", direction="min", reference="adam")
    for name, row in ROWS.items():
        rows = [{"config": {"seed": s}, "val_loss": x} for s, x in enumerate(row)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    files = [tmp_path / f"{name}.json" for name in ROWS]
    several = library.judge(
        files, by="file", pair="config.seed", metric="val_loss", reference="adam"
    )
    assert several["comparisons"] == long["comparisons"]
    assert wide["comparisons"][0]["difference"] == long["comparisons"][0]["difference"]
    assert verdicts(wide) == {"muon": "better"}


def test_trainings_without_a_number_diverged(tmp_path: Path) -> None:
    rows = [f"a,{s},1.{s}\nb,{s},{'' if s == 3 else 'NaN' if s == 4 else '1.0'}" for s in range(8)]
    (tmp_path / "r.csv").write_text("by,seed,val_loss\n" + "\n".join(rows) + "\n")
    judged = library.judge(
        tmp_path / "r.csv", by="by", pair="seed", metric="val_loss", reference="a"
    )
    (found,) = judged["comparisons"]
    assert found["diverged"] == {"variant": 2, "reference": 0, "both": 0}
    assert (found["difference"], found["interval"]) == (None, None)
    assert judged["ranking"][0]["variant"] == "a"  # any divergence ranks below none
    assert judged["warnings"] == ["1 rows have no val_loss: counted as diverged."]


# words of the command | part of the message
WRONG = [
    (["none.csv", "--by", "a"], "FILE: cannot be read: "),
    (["results.csv", "--by", "optimiser", "--metric", "val_loss"], "--by: is no column (got 'optimiser'). Did you mean 'optimizer'?"),
    (["results.csv", "--by", "optimizer"], "--metric: is missing. Give --metric with one of seed, val_loss"),
    (["results.csv", "--by", "optimizer", "--metric", "optimizer"], "FILE: holds no number in row 1"),
    (["results.csv", "--by", "seed", "--pair", "optimizer", "--metric", "val_loss", "--direction", "up"], "--direction: must be min or max"),
    (["results.csv", "--by", "optimizer", "--pair", "val_loss", "--metric", "seed"], "two rows of optimizer=adam"),
    (["results.csv", "--by", "optimizer", "--metric", "val_loss", "--reference", "adm"], "--reference: is no variant (got 'adm'). Did you mean 'adam'?"),
    (["same.csv", "--by", "x", "--metric", "y"], "--direction: cannot be told by the name (got 'y')"),
    (["one.csv", "--by", "x", "--metric", "loss"], "--by: names one variant only (got 'x')"),
    (["empty.csv", "--by", "x"], "FILE: has no rows"),
    (["results.csv", "--metric", "val_loss"], "--metric: needs --by"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_what_cannot_be_judged_is_told(
    words: list[str], message: str, table: Path, lrexp: Callable, tmp_path: Path
) -> None:
    (tmp_path / "same.csv").write_text("x,y\na,1\nb,2\n")
    (tmp_path / "one.csv").write_text("x,loss\na,1\na,2\n")
    (tmp_path / "empty.csv").write_text("x,y\n")
    if "two rows" in message:
        table.write_text(table.read_text().replace("3.279", "3.281"))
    answer = lrexp("judge", *words)
    assert answer.code == 2
    assert message in answer.err
    assert answer.out == ""


CONFIG = {
    "model": {"name": "mlp", "args": {"hidden": [16]}},
    "data": {"name": "digits", "batch_size": 128},
    "loss": "cross_entropy",
    "optimizer": {"name": "SGD", "lr": 0.3, "args": {"momentum": 0.9}},
    "train": {"duration": "22st", "eval_every": "11st"},
    "metrics": ["f1_macro"],
    "compare": {"seeds": 7, "variants": {"standard": {}, "low": {"optimizer.lr": 0.03}}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> library.Run:
    return library.compare(CONFIG, out=tmp_path_factory.mktemp("judged") / "run", draw=None)


def test_a_run_is_judged_anew_from_its_files(run: library.Run, lrexp: Callable) -> None:
    answer = lrexp("verdict", run.path, "--json")
    assert answer.code == 0, answer.err
    same, summary = json.loads(answer.out), run.summary
    assert summary is not None
    (was,), (now,) = summary["comparisons"], same["comparisons"]
    assert [now[key] for key in ("difference", "interval", "p_holm", "n", "sentence")] == [
        was[key] for key in ("mean", "interval", "p_holm", "n", "verdict")
    ]
    other = json.loads(lrexp("verdict", run.path, "--reference", "low", "--json").out)
    assert other["comparisons"][0]["difference"] == -now["difference"]
    assert verdicts(other) == {"standard": "better"}
    f1 = json.loads(
        lrexp("verdict", run.path, "--metric", "f1_macro", "--select", "best", "--json").out
    )
    assert (f1["direction"], f1["select"]) == ("max", "best")
    rows = {row["variant"]: row["metrics"]["val_f1_macro"]["best"] for row in summary["ranking"]}
    assert {row["variant"]: row["mean"] for row in f1["ranking"]} == {
        name: row["mean"] for name, row in rows.items()
    }
    assert (
        "Validation f1 macro, higher is better"
        in lrexp("verdict", run.path, "--metric", "f1_macro").out
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "f1_micro"], "--metric: was not measured in this run (got 'val_f1_micro'). Did you mean 'val_f1_macro'?"),
        (["--reference", "lo"], "--reference: is no variant (got 'lo'). Did you mean 'low'?"),
        (["--select", "last"], "--select: must be final or best (got 'last')"),
    ],
)  # fmt: skip
def test_what_a_run_does_not_have_is_told(
    words: list[str], message: str, run: library.Run, lrexp: Callable
) -> None:
    answer = lrexp("verdict", run.path, *words)
    assert answer.code == 2
    assert message in answer.err


def test_power_says_how_many_seeds_a_difference_takes(run: library.Run, lrexp: Callable) -> None:
    answer = lrexp("power", run.path, "--difference", "1%", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert run.summary is not None
    means = {row["variant"]: row["mean"] for row in run.summary["ranking"]}
    assert found["difference"] == pytest.approx(0.01 * means["standard"])
    (row,) = found["comparisons"]
    sd = run.summary["comparisons"][0]["sd"]
    assert row["sd"] == pytest.approx(sd)

    def power(n: int) -> float:  # of a paired t-test
        limit = stats.t.ppf(0.975, n - 1)
        return float(stats.nct.sf(limit, n - 1, np.sqrt(n) * found["difference"] / sd))

    assert power(row["seeds"]) >= 0.8 > power(row["seeds"] - 1)
    assert (
        f"{row['seeds']:,}"
        in lrexp("power", run.path, "--difference", str(found["difference"])).out
    )
    for size, message in (("x", "--difference: must be a positive size"), ("-0%", "positive size")):
        answer = lrexp("power", run.path, "--difference", size)
        assert (answer.code, message in answer.err) == (2, True)


def test_a_range_test_holds_no_comparison(tmp_path: Path, lrexp: Callable) -> None:
    found = library.find_lr(
        {**CONFIG, "find_lr": {"budget": 0, "steps": 20, "seeds": 1}},
        out=tmp_path / "found",
        draw=None,
    )
    assert found.run is not None
    assert "RUN: holds no comparison" in lrexp("verdict", found.run.path).err
    with pytest.raises(ConfigError):
        library.judge([], by="x")
