"""Commands that only read: which modules they import, and what of a config they look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lrexp
from lrexp.api import schedule

ROOT = Path(__file__).parents[1]

CONFIG = """\
model: mlp
data: digits
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1}
schedule: {name: cosine, warmup: 10%}
train: {duration: 3ep}
compare: {seeds: 2, variants: {standard: {}, high: {optimizer.lr: 1}}}
find_lr: {budget: 0, steps: 60, seeds: 1}
"""

HEAVY = ("torch", "sklearn", "scipy", "pandas", "torchvision")
# Runs its arguments, one command each, and prints what of HEAVY each of them has imported.
WATCHED = """
import json, sys
from lrexp.cli import run
for words in json.loads(sys.argv[1]):
    code = run(words)
    assert code == 0, words
    print("imported:", words[0], sorted({*json.loads(sys.argv[2])} & {*sys.modules}))
"""


def imported(commands: list[list[str]], heavy: tuple[str, ...], folder: Path) -> list[str]:
    """Return what a fresh process imports of `heavy`, command by command."""
    words = [sys.executable, "-c", WATCHED, json.dumps(commands), json.dumps(heavy)]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return [line for line in done.stdout.splitlines() if line.startswith("imported:")]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 99)
    rows = "".join(f"{i},{i % 3}\n" for i in range(300))
    (tmp_path / "rows.csv").write_text(f"x,y\n{rows}")
    return path


def test_reading_imports_no_torch(lrexp: Callable, config: Path, tmp_path: Path) -> None:
    assert lrexp("compare", config, "--quiet", "--out", "runs/compared").code == 0
    assert lrexp("find-lr", config, "--quiet", "--out", "runs/found").code in {0, 4}
    draw = ["schedule", "config.yaml", "--out", "lr.png"]
    data = [
        "data={name: linear, batch_size: 10}",
        "data={name: text, args: {path: text.txt, seq_len: 8}}",
        "data={name: csv, args: {path: rows.csv, target: y}}",
    ]
    commands = [
        ["runs"],
        ["runs", "--json"],
        ["plot", "runs/compared"],
        ["plot", "runs/found"],
        ["plot", "runs/compared", "runs/found", "--out", "both"],
        ["show", "runs/compared"],
        ["show", "runs/found"],
        draw,
        *([*draw, "--set", change, "--set", "schedule=plateau"] for change in data),
    ]
    found = imported(commands, HEAVY, tmp_path)
    expected = [f"imported: {words[0]} []" for words in commands]
    expected[-1] = "imported: schedule ['pandas']"  # it counts the rows that can be used
    assert found == expected
    assert len(list(tmp_path.rglob("*.png"))) == 3 + 3 + 2 + 1


def test_a_list_of_runs_waits_for_no_arrays(lrexp: Callable, tmp_path: Path) -> None:
    heavy = ("numpy", "matplotlib", "yaml", *HEAVY)
    assert imported([["runs", "."]], heavy, tmp_path) == ["imported: runs []"]


def test_torchs_own_schedulers_are_drawn_with_torch(
    lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    change = "schedule={name: StepLR, args: {step_size: 1, gamma: 0.5}}"
    answer = lrexp(
        "schedule", config, "--set", change, "--set", "compare.variants={a: {}}", "--json"
    )
    assert answer.code == 0, answer.err
    lr = json.loads(answer.out)["lr"]["a"]
    assert (lr[0], lr[22]) == (0.1, 0.05)
    assert lr[-1] == 0.025


@pytest.mark.parametrize(
    ("train", "change", "steps"),
    [
        ("60st", {}, 60),
        ("60st", {"schedule": {"name": "step", "size": "20st", "gamma": 0.5}}, 60),
        ("60st", {"schedule": "adaptive_cycle"}, 60),
        ("60st", {"schedule": {"name": "CosineAnnealingLR", "args": {"T_max": 60},
                               "interval": "step"}}, 60),
        ("60st", {"schedule": "OneCycleLR"}, 60),
        ("60st", {"schedule": {"name": "plateau", "patience": 0}, "train.eval_every": "20st"}, 60),
    ],
)  # fmt: skip
def test_data_is_not_asked_where_no_duration_needs_it(
    train: str, change: dict[str, Any], steps: int, config: Path, tmp_path: Path
) -> None:
    overrides = {
        "data": {"name": "csv", "args": {"path": "missing.csv", "target": "y"}},
        "train.duration": train,
        **change,
    }
    traces = schedule(config, overrides=overrides, out=tmp_path / "lr.png")
    assert {len(lr) for lr in traces.lr.values()} == {steps}


@pytest.mark.parametrize(
    "change",
    [
        {"train.duration": "1ep"},
        {"train.duration": "600sa"},
        {"schedule": {"name": "cosine", "warmup": "0.5ep"}},
        {"schedule": {"name": "StepLR", "args": {"step_size": 1}}},
        {"schedule": "plateau"},  # follows what is evaluated, once in an epoch
        {"schedule": {"name": "combined",
                      "parts": [{"start": 0, "end": "1ep", "schedule": "constant"}]}},
    ],
)  # fmt: skip
def test_what_is_wrong_with_data_is_said_where_a_duration_needs_it(
    change: dict[str, Any], config: Path, tmp_path: Path
) -> None:
    overrides = {
        "data": {"name": "csv", "args": {"path": "missing.csv", "target": "y"}},
        "train.duration": "60st",
        **change,
    }
    with pytest.raises(lrexp.ConfigError) as caught:
        schedule(config, overrides=overrides, out=tmp_path / "lr.png")
    (problem,) = caught.value.problems  # of both variants
    assert (problem.key, problem.what) == ("data.args.path", "there is no such file")
    assert not (tmp_path / "lr.png").exists()


def test_a_schedule_is_drawn_whatever_model_loss_and_optimizer_are_called(
    lrexp: Callable, config: Path
) -> None:
    changes = ["model=my_models:net", "loss=no_such", "optimizer={name: Nadamax, lr: 0.3}"]
    words = [word for change in changes for word in ("--set", change)]
    answer = lrexp("schedule", config, *words, "--json")
    assert answer.code == 0, answer.err
    assert max(json.loads(answer.out)["lr"]["standard"]) == pytest.approx(0.3)
    assert lrexp("validate", config, *words).code == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model={name: mlp, size: 3}", "model.size:"),
        ("optimizer={name: SGD, lr: -1}", "optimizer.lr:"),
        ("train.grad_clip=x", "train.grad_clip:"),
        ("schedule=cosin", "Did you mean 'cosine'?"),
        ("schedule={name: cosine, warmup: 999}", "schedule.warmup:"),
        ("schedule={name: cosine, warmpu: 9}", "Did you mean 'warmup'?"),
        ("data=digit", "Did you mean 'digits'?"),
        ("data={name: digits, args: {imagr: true}}", "data.args.imagr:"),
        ("data={name: digits, batch_size: 9999}", "data.batch_size:"),
        ("train={duration: 9ep, accumulate: 40}", "train.accumulate:"),
        ("train.duration=3tok", "train.duration:"),
        ("compare.variants={a: {data.val_fraction: 0.9999}}", "compare.variants.a.data.val_fraction"),
    ],
)  # fmt: skip
def test_what_a_schedule_is_drawn_from_is_checked(
    lrexp: Callable, config: Path, change: str, said: str
) -> None:
    answer = lrexp("schedule", config, "--set", change)
    assert answer.code == 2
    assert said in answer.err


def test_data_of_ones_own_is_loaded_for_its_size_alone(
    lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "own_rows.py").write_text(
        "import torch\n\n\n"
        "def rows():\n"
        "    print('loading')\n"
        "    return torch.zeros(50, 3), torch.zeros(50, 1)\n"
    )
    own = ("--set", "data={name: own_rows:rows, batch_size: 8, val_fraction: 0}")
    answer = lrexp("schedule", config, *own, "--json")
    assert answer.code == 0, answer.err
    assert {len(lr) for lr in json.loads(answer.out)["lr"].values()} == {3 * 6}
    assert answer.err.count("loading") == 1  # once for all variants
    answer = lrexp("schedule", config, *own, "--set", "train.duration=40", "--json")
    assert answer.code == 0, answer.err
    assert "loading" not in answer.err


def test_every_public_name_is_found_and_no_other() -> None:
    assert len(set(lrexp.__all__)) == len(lrexp.__all__)
    for name in [*lrexp.__all__, *lrexp.__all__]:  # twice: a module may have taken its place
        assert name == "records" or not isinstance(getattr(lrexp, name), ModuleType), name
    with pytest.raises(AttributeError, match="module 'lrexp' has no attribute 'nothing'"):
        _ = lrexp.nothing
