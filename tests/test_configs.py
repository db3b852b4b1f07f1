"""Every config that is shipped runs, and finds what its comment promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from data.sample_files import write_mnist

ROOT = Path(__file__).parents[1]

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SHORTER = {  # the same experiment, shorter where the whole of it would take long
    "schedules": ["train.duration=4ep", "compare.seeds=1"],
    "adaptive": ["train.duration=8ep", "compare.seeds=1"],
    "gpt": ["train.duration=3e4tok"],
    "grid": ["compare.seeds=1", "train.duration=4ep"],
    "mnist": ["data.args.download=false", "train.duration=10st",
              "data.batch_size=8"],
}  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=[str(p.relative_to(ROOT)) for p in CONFIGS])
def test_every_config_runs(path: Path, lrexp: Callable, tmp_path: Path) -> None:
    changes = [word for change in SHORTER.get(path.stem, []) for word in ("--set", change)]
    if path.stem == "mnist":
        write_mnist(tmp_path / "data", "FashionMNIST")
        changes += ["--set", f"data.args.root={tmp_path / 'data'}"]
    answer = lrexp("compare", path, *changes, "--json")
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    assert all(row["outcomes"].get("failed", 0) == 0 for row in summary["ranking"])
    assert lrexp("validate", path, *changes).code == 0


def test_the_classic_guide_is_reproduced(lrexp: Callable) -> None:
    answer = lrexp("compare", ROOT / "configs/regression.yaml", "--out", "run", "--json")
    assert answer.code == 0, answer.err
    words = {r["variant"]: r["diagnosis"]["word"] for r in json.loads(answer.out)["ranking"]}
    assert words["standard"] == "converging well"
    assert words["high"] in ("diverged", "unstable")
    assert words["low"] == "too slow"
    epochs = Path("run/trials/standard/seed-0/evals.csv").read_text().splitlines()
    assert len(epochs) == 1 + 1 + 10  # header, before training, ten epochs


def test_find_lr_configs_find_one(lrexp: Callable) -> None:
    for name in ("find_lr", "quickstart"):
        answer = lrexp("find-lr", ROOT / f"configs/{name}.yaml", "--json")
        assert answer.code == 0, answer.err
        assert json.loads(answer.out)["suggested_lr"] > 0
