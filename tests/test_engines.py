"""The commands with every engine: the same results, and what was chosen is said and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Answer
from starting import Starter

import lrexp as library
from lrexp.engine import choice
from lrexp.records import Failed, Record, Started
from lrexp.workloads.seeds import derive_seed

Command = Callable[..., Answer]

CONFIG = """\
name: engines
device: cpu
precision: fp64
model: {name: mlp, args: {hidden: [16]}}
data: {name: breast_cancer, batch_size: 64}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.05, args: {momentum: 0.9}}
train: {duration: 12, eval_every: 6}
compare:
  seeds: 2
  variants:
    base: {}
    again: {}
    cosine: {schedule: {name: cosine, warmup: 2}}
    adam: {optimizer: {name: AdamW, lr: 0.001}}
find_lr: {budget: 0, steps: 60, seeds: 3, max_lr: 1}
"""

RECURRENT = """\
from torch import nn

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(30, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.rnn(x.unsqueeze(1))[0][:, -1])
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def trained(folder: Path, engine: str) -> library.Run:
    (folder / "config.yaml").write_text(CONFIG)
    return library.compare(folder / "config.yaml", engine=engine, out=folder / "run", draw=None)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> library.Run:
    """The trials one by one; for reading only."""
    return trained(tmp_path_factory.mktemp("alone"), "sequential")


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> library.Run:
    """The same trials in stacks; for reading only."""
    return trained(tmp_path_factory.mktemp("stacked"), "vectorized")


def ran(answer: Answer) -> Any:
    assert answer.code == 0, answer.err
    return library.load_run(json.loads(answer.out)["run"])


def test_compare_gives_the_same_with_every_engine(alone: library.Run, stacked: library.Run) -> None:
    assert len(alone.trials) == len(stacked.trials) == 8
    for one, other in zip(alone.trials, stacked.trials, strict=True):
        assert (one.variant, one.seed) == (other.variant, other.seed)
        for file in ("steps", "evals"):
            ours, theirs = getattr(other, file), getattr(one, file)
            assert ours.keys() == theirs.keys()
            for name in theirs:
                np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, equal_nan=True)
        assert one.result.keys() == other.result.keys()
    ranking = [[row["variant"] for row in run.summary["ranking"]] for run in (alone, stacked)]
    assert ranking[0] == ranking[1]


def test_equal_variants_stay_equal_in_a_stack(stacked: library.Run) -> None:
    """Up to rounding: a kernel may treat the last rows of a stack in another way than the rest."""
    by_name = {(trial.variant, trial.seed): trial for trial in stacked.trials}
    for seed in (0, 1):
        one, other = (by_name[name, seed].steps for name in ("base", "again"))
        np.testing.assert_array_equal(one["lr"], other["lr"])
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-9)


def test_the_engine_is_kept_with_the_run_and_repeats_it(
    lrexp: Command, stacked: library.Run
) -> None:
    run = stacked
    (kept,) = json.loads((run.path / "engine.json").read_text())["stages"]
    trials = [f"{v}/seed-{s}" for s in (0, 1) for v in ("base", "again", "cosine")]
    assert kept["units"] == [
        {"engine": "vectorized", "trials": trials},
        {"engine": "vectorized", "trials": ["adam/seed-0", "adam/seed-1"]},
    ]
    resolved = run.path / "resolved.yaml"
    assert yaml.safe_load(resolved.read_text())["engine"] == "vectorized"
    repeated = ran(lrexp("compare", resolved, "--json"))
    for one, other in zip(run.trials, repeated.trials, strict=True):
        assert (one.path / "steps.csv").read_bytes() == (other.path / "steps.csv").read_bytes()


def test_auto_measures_says_what_it_takes_and_gives_the_same(
    lrexp: Command, config: Path, alone: library.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "SHORT", 0.0)
    monkeypatch.setattr(choice, "TRIAL_COST", (0.0, 0.0))
    monkeypatch.setattr(choice, "WORTH", 1e9)  # a stack, whatever the clock says
    answer = lrexp("compare", config, "--json")
    run = ran(answer)
    assert "Engine: 6 trials in " in answer.err
    (kept,) = json.loads((run.path / "engine.json").read_text())["stages"]
    assert {unit["engine"] for unit in kept["units"]} == {"vectorized"}
    first = kept["figures"]["families"][0]
    assert first["sequential_seconds_per_step"] > 0
    assert "4" in first["stacked_seconds_per_step_and_trial"]
    for one, other in zip(alone.trials, run.trials, strict=True):
        np.testing.assert_allclose(other.steps["loss"], one.steps["loss"], rtol=1e-9)


def test_range_tests_over_seeds_are_one_stack(lrexp: Command, config: Path) -> None:
    alone = lrexp("find-lr", config, "--engine", "sequential", "--json")
    stacked = lrexp("find-lr", config, "--engine", "vectorized", "--json")
    run = ran(stacked)
    (kept,) = json.loads((run.path / "engine.json").read_text())["stages"]
    assert [len(unit["trials"]) for unit in kept["units"]] == [3]
    ours, theirs = json.loads(stacked.out), json.loads(alone.out)
    assert ours["suggested_lr"] == pytest.approx(theirs["suggested_lr"], rel=1e-6)
    assert ours["rules"] == pytest.approx(theirs["rules"], rel=1e-6)


def test_what_cannot_be_stacked_goes_elsewhere_or_is_refused_with_the_line(
    lrexp: Command, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "SHORT", 0.0)
    monkeypatch.setattr(choice, "TRIAL_COST", (0.0, 0.0))
    (config.parent / "recurrent.py").write_text(RECURRENT)
    text = CONFIG.replace("{name: mlp, args: {hidden: [16]}}", '{name: "recurrent:Recurrent"}')
    config.write_text(text)
    answer = lrexp("compare", config, "--json")
    assert answer.code == 0
    assert "one by one: torch has no batched form of lstm" in answer.err
    config.write_text(text + "engine: vectorized\n")
    refused = lrexp("compare", config)
    assert refused.code == 2
    line = len(text.splitlines()) + 1
    assert f"config.yaml:{line}: engine: cannot train base and 2 more as a stack" in refused.err
    assert "no batched form of lstm" in refused.err
    assert "Leave it to auto" in refused.err


def write_late(config: Path) -> None:
    """Let a sample that comes late in the first epoch raise, in every trial."""
    (config.parent / "late.py").write_text(
        "import torch\n"
        "from torch.nn import functional\n\n"
        "def loss(output, target):\n"
        "    return -output.log_softmax(1).gather(1, target[:, None]).mean()\n\n"
        "def data():\n"
        "    x = torch.randn(2048, 4, generator=torch.Generator().manual_seed(0))\n"
        "    y = torch.arange(2048) % 2\n"
        "    late = torch.randperm(2048, generator=torch.Generator().manual_seed(SEED))[2000]\n"
        "    y[late] = -5\n"
        "    return (x, y), (x, y.clamp(min=0))\n".replace("SEED", str(derive_seed(0, "order", 0)))
    )
    config.write_text(
        "name: late\ndevice: cpu\nmodel: {name: linear, args: {out_features: 2}}\n"
        'data: {name: "late:data", batch_size: 2}\nloss: "late:loss"\n'
        "optimizer: {name: SGD, lr: 0.01}\ntrain: {duration: 1024, eval_every: 256}\n"
        "compare: {variants: {a: {}, wild: {optimizer.lr: 1e38}, b: {}, c: {}}}\n"
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_stack_that_raises_is_trained_one_by_one_which_says_where(
    jobs: int, lrexp: Command, config: Path, quick_workers: Starter
) -> None:
    """Also where one of its trials had ended before; in this process, and in others."""
    write_late(config)
    answer = lrexp("compare", config, "--engine", "vectorized", "--jobs", jobs)
    assert answer.code == 3
    assert "not as part of a stack" in answer.err
    assert "late.py:5" in answer.err
    assert "3 of 4 trials failed" in answer.err
    assert not list(Path("runs").glob("*/checkpoints"))  # every trial has its result


def test_a_stack_that_raises_in_a_worker_is_trained_there_one_by_one(
    config: Path, quick_workers: Starter
) -> None:
    write_late(config)
    records: list[Record] = []
    with pytest.raises(library.UserCodeError):
        library.compare(config, engine="vectorized", jobs=2, sinks=[records.append])
    again = {
        record.trial.variant: record.again for record in records if isinstance(record, Started)
    }
    assert again.keys() == {"a", "wild", "b", "c"}
    del again["wild"]  # it had its result before its stack raised
    assert all("not as part of a stack" in str(why) for why in again.values())
    failed = {r.trial.variant: str(r.error) for r in records if isinstance(r, Failed)}
    assert failed.keys() == {"a", "b", "c"}
    assert all("late.py:5" in error for error in failed.values())


def test_a_taken_folder_is_refused_before_anything_is_loaded(
    lrexp: Command, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("open('loaded', 'w').close()\n")
    config.write_text(CONFIG.replace("loss: cross_entropy", "loss: 'mine:loss'"))
    for command in ("compare", "find-lr"):
        answer = lrexp(command, config, "--out", config.parent)
        assert answer.code == 2
        assert "exists and is not an empty folder" in answer.err
        assert not (tmp_path / "loaded").exists()
    lrexp("compare", config, "--out", "free")
    assert (tmp_path / "loaded").exists()
