"""Every config that is shipped runs, and finds what its comment promises.

By default each trains a few steps of every variant, with one seed; with --long, all that it says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from workloads.sample_files import write_mnist

ROOT = Path(__file__).parents[1]

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
WHOLE = {  # what would take minutes even so
    "schedules": ["train.duration=4ep", "compare.seeds=1"],
    "adaptive": ["train.duration=8ep", "compare.seeds=1"],
    "gpt": ["train.duration=3e4tok"],
    "grid": ["train.duration=4ep", "compare.seeds=1"],
    "mnist": ["train.duration=10st", "data.batch_size=8"],
}
SHORT = {  # one epoch where nothing is said
    "gpt.yaml": "1e4tok",  # twice its warmup
    "smoke/gpt.yaml": "1280tok",
    "adaptive.yaml": "3ep",  # one evaluation
    "groups.yaml": "2ep",  # one of them is warmup
    "schedules.yaml": "2ep",  # a cycle of its restarts
    "mnist.yaml": "10st",
}
DIVERGES = {("smoke/mlp.yaml", "diverges"), ("regression.yaml", "high")}  # as they should


def named(path: Path) -> str:
    return path.relative_to(ROOT / "configs").as_posix()


def compare(lrexp: Callable, path: Path, data: list[str], changes: list[str]) -> dict:
    """Compare with these changes, and return the summary of a run that is in `run`."""
    words = [word for change in [*data, *changes] for word in ("--set", change)]
    answer = lrexp("compare", path, *words, "--out", "run", "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


@pytest.fixture
def data(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Where the data of a config lie, which is not downloaded in a test."""
    if named(request.getfixturevalue("path")) != "mnist.yaml":
        return []
    write_mnist(tmp_path / "data", "FashionMNIST")
    return ["data.args.download=false", f"data.args.root={tmp_path / 'data'}", "data.batch_size=8"]


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_every_config_trains_each_of_its_variants(
    path: Path, data: list[str], lrexp: Callable
) -> None:
    changes = [f"train.duration={SHORT.get(named(path), '1ep')}", "compare.seeds=1"]
    for row in compare(lrexp, path, data, changes)["ranking"]:
        diverges = (named(path), row["variant"]) in DIVERGES
        assert row["outcomes"] == {("diverged" if diverges else "finished"): 1}
        (steps,) = Path("run/trials", row["variant"]).glob("seed-*/steps.csv")
        assert len(steps.read_text().splitlines()) > 4  # and the header


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_every_config_is_valid_as_it_is(path: Path, data: list[str], lrexp: Callable) -> None:
    answer = lrexp("validate", path, *(word for change in data for word in ("--set", change)))
    assert answer.code == 0, answer.err


@pytest.mark.long
@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_every_config_runs(path: Path, data: list[str], lrexp: Callable) -> None:
    for row in compare(lrexp, path, data, WHOLE.get(path.stem, []))["ranking"]:
        assert row["outcomes"].get("failed", 0) == 0


def test_the_classic_guide_is_reproduced(lrexp: Callable) -> None:
    answer = lrexp("compare", ROOT / "configs/regression.yaml", "--out", "run", "--json")
    assert answer.code == 0, answer.err
    words = {r["variant"]: r["diagnosis"]["word"] for r in json.loads(answer.out)["ranking"]}
    assert words["standard"] == "converging well"
    assert words["high"] in ("diverged", "unstable")
    assert words["low"] == "too slow"
    epochs = Path("run/trials/standard/seed-0/evals.csv").read_text().splitlines()
    assert len(epochs) == 1 + 1 + 10  # header, before training, ten epochs


@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["find_lr", "quickstart"])
def test_find_lr_configs_find_one(name: str, seeds: int, lrexp: Callable) -> None:
    path = ROOT / f"configs/{name}.yaml"
    answer = lrexp("find-lr", path, "--set", f"find_lr.seeds={seeds}", "--budget", "1x", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["suggested_lr"] > 0
