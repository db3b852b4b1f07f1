"""`lrexp find-lr` with a budget: the whole way from a config to an LR that trainings decided."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from starting import Starter
from stopping import After, contents, copy_of, status
from torch import nn

import lrexp as library
from lrexp.analysis.race import Candidate
from lrexp.records import Trial, TrialId
from lrexp.runs.spec import RunSpec, make_spec
from lrexp.runs.trials import race_task, shortened, task_of
from lrexp.schedules.schedule import Schedule

CONFIG = """\
name: small
model: {name: mlp, args: {hidden: [16]}}
data: {name: digits, batch_size: 64, val_fraction: 0.2}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1, args: {momentum: 0.9}}
schedule: {name: cosine, warmup: 10%}
train: {duration: 100st, eval_every: 50st}
engine: sequential
find_lr: {min_lr: 1e-5, max_lr: 10, steps: 60, seeds: 2, race: true, budget: 2}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A race that nobody interrupts; for reading only."""
    folder = tmp_path_factory.mktemp("raced")
    (folder / "small.yaml").write_text(CONFIG)
    library.find_lr(folder / "small.yaml", out=folder / "run", draw=None)
    return folder / "run"


@pytest.mark.pictures
def test_from_config_to_answer(lrexp: Callable, config: Path, tmp_path: Path) -> None:
    answer = lrexp("find-lr", "small.yaml", "--out", "run", "--write", "tuned.yaml", "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    race, run = told["race"], tmp_path / "run"
    low, high = told["interval"]
    assert low <= told["suggested_lr"] <= high
    assert told["extrapolated"]
    assert "estimated_regret" not in told
    assert told["base_lr"] <= told["suggested_lr"] <= told["max_lr"]
    assert [(rung["horizon"], len(rung["lrs"])) for rung in race["rungs"]] == [(12, 4), (50, 3)]
    trials = [t for t in library.load_run(run).trials if t.variant.startswith("race-")]
    assert race["steps"] == sum(t.result["steps"] for t in trials) == 198  # of 200
    rung = race["rungs"][1]
    for lr in rung["lrs"]:
        trial = next(t for t in trials if t.variant == f"race-50-lr-{lr['lr']:.4g}")
        assert lr["losses"] == [trial.result["final"]["val_loss"]]
        assert trial.evals["step"].tolist() == [0, *range(9, 50, 9), 50]
    tests = [t for t in library.load_run(run).trials if t.variant == "range_test"]
    steps = sum(len(t.steps["loss"]) for t in tests)
    assert told["range_test"]["steps"] == steps
    spent = told["spent"]
    assert (spent["steps"], spent["trainings"]) == (198 + steps, (198 + steps) / 100)
    assert 0 < spent["seconds"] < 60
    assert [(one["lr"], one["steps"], one["loss"]) for one in told["tried"]] == [
        (t.lr, t.total_steps, t.result["final"]["val_loss"])
        for t in sorted(trials, key=lambda t: (t.total_steps, t.lr))
    ]
    assert {one["outcome"] for one in told["tried"]} == {"finished"}
    again = library.resume(run)
    assert (again.suggested_lr, list(again.interval)) == (told["suggested_lr"], told["interval"])
    assert (again.spent, again.tried) == (spent, told["tried"])
    assert again.rules["auto"] == told["range_test"]["suggested_lr"]
    tuned = yaml.safe_load((tmp_path / "tuned.yaml").read_text())
    assert float(tuned["optimizer"]["lr"]) == float(f"{told['suggested_lr']:.3g}")
    assert (run / "plots/race.png").stat().st_size > 10_000
    assert status(run)["num_trials"] == status(run)["counts"]["finished"] == 9


def test_the_flags_and_what_is_shown(lrexp: Callable, config: Path) -> None:
    answer = lrexp("find-lr", "small.yaml", "--out", "run", "--budget", "1x")
    assert answer.code == 0, answer.err
    for text in ("suggested LR", "the best", "range test", "× a whole training", "spent",
                 "25 steps, 25%", "best", "Extrapolated from trainings"):  # fmt: skip
        assert text in answer.out
    assert "regret" not in answer.out
    assert "--budget 1x --write tuned.yaml" in answer.out
    first, *_ = answer.err.splitlines()
    assert first.startswith("2 range tests of 60 steps, then trainings of several LRs: 1 × a whole")
    assert "25 of 100 steps each" in answer.err


@pytest.mark.parametrize("words", [("--budget", "0"), ("--range-test",)])
def test_the_range_test_alone(lrexp: Callable, config: Path, words: tuple[str, ...]) -> None:
    answer = lrexp("find-lr", "small.yaml", "--out", "run", *words, "--json")
    told = json.loads(answer.out)
    assert "race" not in told
    assert told["tried"] == []
    assert told["spent"]["steps"] > 60
    assert stages_of(Path("run"))[-1]["kind"] in ("range_test", "paired_control")


def test_time_buys_whole_trainings_and_is_decided_once(
    lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    words = ("--set", "find_lr.race=false", "--set", "find_lr.budget=5s")
    answer = lrexp("find-lr", "small.yaml", "--out", "run", *words, "--json")
    assert answer.code == 0, answer.err
    told, run = json.loads(answer.out), tmp_path / "run"
    assert told["budget"] == "5 s"
    (rung,) = told["race"]["rungs"]
    assert rung["horizon"] == 100
    assert len(rung["lrs"]) >= 4
    assert not told["extrapolated"]
    decided = json.loads((run / "search.json").read_text())
    assert 0 < decided["amount"] <= 5
    # on a machine that is a hundred times as slow it is still the same search
    after = copy_of(run, tmp_path / "after")
    last = stages_of(after)[-1]["trials"]
    for trial in last:
        shutil.rmtree(after / "trials" / trial["name"])
    (after / "summary.json").unlink()
    interrupted(after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lrexp.runs.searches.costs_of", lambda plan: pytest.fail("it is measured"))
        assert lrexp("resume", "after").code == 0
    assert contents(after) == contents(run)
    (after / "search.json").write_text('{"budget": 3}')
    interrupted(after)
    answer = lrexp("resume", "after")
    assert (answer.code, "search.json: is damaged" in answer.err) == (3, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", "0.1"), "small.yaml:9: find_lr.budget: leaves less than 4 steps"),
        (("--budget", "-1"), "is no budget"),
        (("--budget", "soon"), "is no budget (got 'soon'). Write time as 60s"),
        (("--range-test", "--budget", "2x"), "--range-test: allows no trainings"),
        (("--range-test", "--race"), "--range-test: allows no trainings"),
    ],
)
def test_what_cannot_be_had_is_said_at_once(
    lrexp: Callable, config: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    answer = lrexp("find-lr", "small.yaml", "--set", "find_lr.race=false", *words, "--out", "run")
    assert answer.code == 2
    assert message.split(": ", 1)[-1] in answer.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "engine", [pytest.param("sequential", marks=pytest.mark.long), "vectorized"]
)
def test_a_race_that_is_interrupted_again_and_again_ends_with_the_same_files(
    engine: str, lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    config.write_text(CONFIG.replace("engine: sequential", f"engine: {engine}"))
    straight = lrexp("find-lr", "small.yaml", "--out", "straight")
    assert straight.code == 0, straight.err
    steps = 60 if engine == "sequential" else 30
    answer = lrexp("find-lr", "small.yaml", "--out", "run", stop=After(steps))
    in_the_race = 0
    while answer.code == 130:
        in_the_race += len(stages_of(tmp_path / "run")) > 1
        assert not (tmp_path / "run/summary.json").exists()
        answer = lrexp("resume", "run", stop=After(steps))
    assert answer.code == 0, answer.err
    assert in_the_race >= 3
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_race_is_resumed_between_two_rungs(lrexp: Callable, raced: Path, tmp_path: Path) -> None:
    run = copy_of(raced, tmp_path / "run")
    stages = stages_of(run)
    assert [stage["kind"] for stage in stages] == ["range_test", "race", "race"]
    for trial in [trial for stage in stages[2:] for trial in stage["trials"]]:
        shutil.rmtree((run / "trials" / trial["name"]).parent)
    (run / "engine.json").write_text(json.dumps({"stages": stages[:2]}))
    (run / "summary.json").unlink()
    interrupted(run)
    assert lrexp("resume", "run").code == 0
    assert contents(run) == contents(raced)


def stages_of(run: Path) -> list[dict[str, Any]]:
    """Return the stages that have begun."""
    return json.loads((run / "engine.json").read_text())["stages"]


def interrupted(run: Path) -> None:
    """Let a run say that it was."""
    (run / "status.json").write_text(json.dumps(status(run) | {"status": "interrupted"}))


def test_a_trial_of_a_race_diverges_also_where_a_range_test_is_trained_again(
    lrexp: Callable, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(LOST_ONCE_EVALUATED)
    config = CONFIG.replace("{name: mlp, args: {hidden: [16]}}", "{name: 'mine:Net'}")
    (tmp_path / "mine.yaml").write_text(config)
    lrexp("find-lr", "mine.yaml", "--out", "straight")
    straight = tmp_path / "straight"
    assert set(outcomes(straight, "range_test")) == {"finished"}
    assert set(outcomes(straight, "race-12-*")) == {"diverged"}
    run = copy_of(straight, tmp_path / "run")
    for folder in [run / "trials/range_test/seed-0", *run.glob("trials/race-*")]:
        shutil.rmtree(folder)
    first = stages_of(run)[:2]
    assert [stage["kind"] for stage in first] == ["range_test", "race"]
    (run / "engine.json").write_text(json.dumps({"stages": first}))
    (run / "summary.json").unlink(missing_ok=True)
    interrupted(run)
    lrexp("resume", "run")
    assert set(outcomes(run, "range_test")) == {"finished"}
    assert outcomes(run, "race-12-*") == outcomes(straight, "race-12-*")
    assert contents(run) == contents(straight)


# Range tests are not evaluated; a race is, before its first step.
LOST_ONCE_EVALUATED = """\
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.is_lost = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), False
    def forward(self, x):
        self.is_lost = self.is_lost or not self.training
        output = self.layers(x)
        return output * float("nan") if self.is_lost and self.training else output
"""


def outcomes(run: Path, variants: str) -> list[str]:
    paths = sorted(run.glob(f"trials/{variants}/*/result.json"))
    return [json.loads(path.read_text())["outcome"] for path in paths]


def test_results_that_were_changed_do_not_fit(lrexp: Callable, raced: Path, tmp_path: Path) -> None:
    run = copy_of(raced, tmp_path / "run")
    first = stages_of(run)[1]
    for i, trial in enumerate(first["trials"]):
        path = run / "trials" / trial["name"] / "result.json"
        result = json.loads(path.read_text())
        result["final"]["val_loss"] = float(i)  # the lowest LR would have won
        path.write_text(json.dumps(result))
    interrupted(run)
    answer = lrexp("resume", "run")
    assert answer.code == 3
    assert "engine.json: does not fit the results" in answer.err
    (run / "engine.json").write_text('{"stages": [{"kind": "race"}]}')
    answer = lrexp("resume", "run")
    assert (answer.code, "engine.json: is damaged" in answer.err) == (3, True)


def race_in_fp64(folder: Path, engine: str, jobs: int) -> library.RangeTest:
    (folder / "small.yaml").write_text(CONFIG)
    return library.find_lr(
        folder / "small.yaml", engine=engine, jobs=jobs, budget=1.0, out=folder / "run", draw=None,
        overrides={"precision": "fp64"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def raced_one_by_one(tmp_path_factory: pytest.TempPathFactory) -> library.RangeTest:
    return race_in_fp64(tmp_path_factory.mktemp("one-by-one"), "sequential", 1)


@pytest.mark.parametrize(("engine", "jobs"), [("vectorized", 1), ("auto", 1), ("sequential", 2)])
def test_all_engines_give_the_same_answer(
    engine: str,
    jobs: int,
    raced_one_by_one: library.RangeTest,
    tmp_path: Path,
    quick_workers: Starter,
) -> None:
    expected, found = raced_one_by_one, race_in_fp64(tmp_path, engine, jobs)
    assert expected.race is not None
    assert found.race is not None
    assert found.suggested_lr == pytest.approx(expected.suggested_lr, rel=1e-6)
    theirs, ours = (
        [lr["losses"][0] for rung in race["rungs"] for lr in rung["lrs"]]
        for race in (expected.race, found.race)
    )
    assert ours == pytest.approx(theirs, rel=1e-6)


class Blind(nn.Module):
    """Says the same of every sample, and nothing that it learns changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (0.0 * self.weight).expand(len(x), 3)


def classes(num: int, seed: int, *, swapped: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(num, 6, generator=torch.Generator().manual_seed(seed))
    y = x[:, :3].argmax(1)
    return x, (y + 1) % 3 if swapped else y


def settings(**find_lr: Any) -> dict[str, Any]:
    return {
        "device": "cpu",
        "data": {"name": "given", "batch_size": 32},
        "optimizer": {"name": "SGD", "lr": 0.1, "args": {"momentum": 0.9}},
        "train": {"duration": 80, "eval_every": 80},
        "find_lr": {"min_lr": 1e-5, "steps": 60, **find_lr},
    }


@pytest.mark.parametrize("budget", ["1x", "6x"])
def test_a_refusal_is_measured_too(tmp_path: Path, budget: str) -> None:
    found = library.find_lr(
        settings(), model=Blind, data=(classes(300, 0), classes(100, 1)), loss="cross_entropy",
        budget=budget, out=tmp_path / "run",
    )  # fmt: skip
    assert found.suggested_lr is None
    assert "by more than luck would" in str(found.reason)
    assert len(found.tried) >= 6


class Deep(nn.Module):
    """A deep tanh net whose loss stays flat in a range test."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(6, 16)]
        for _ in range(8):
            layers += [nn.Tanh(), nn.Linear(16, 16)]
        self.layers = nn.Sequential(*layers, nn.Tanh(), nn.Linear(16, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_what_a_range_test_refuses_falsely_is_found(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "model": Deep, "data": (classes(300, 0), classes(100, 1)), "loss": "cross_entropy",
    }  # fmt: skip
    config = settings(seeds=1, steps=12) | {"train": {"duration": 300, "eval_every": 300}}
    alone = library.find_lr(config, **given, budget=0, out=tmp_path / "alone")
    assert alone.suggested_lr is None
    found = library.find_lr(config, **given, budget="12x", out=tmp_path / "run")
    assert found.suggested_lr is not None, found.reason
    losses = {one["lr"]: one["loss"] for one in found.tried if one["loss"] is not None}
    assert min(losses.values()) < 0.8  # of a guess: 1.1


def test_what_does_not_carry_over_to_validation_is_refused(lrexp: Callable, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def data():\n"
        "    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))\n"
        "    y = x[:, :3].argmax(1)\n"
        "    return (x[:300], y[:300]), (x[300:], (y[300:] + 1) % 3)\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "model: {name: linear}\ndata: {name: 'mine:data', batch_size: 32}\nloss: cross_entropy\n"
        "optimizer: {name: SGD, lr: 0.1}\ntrain: {duration: 400}\n"
        "find_lr: {min_lr: 1e-4, max_lr: 100}\n"
    )
    answer = lrexp("find-lr", "mine.yaml", "--race", "--out", "run", "--write", "tuned.yaml")
    assert answer.code == 4, answer.err
    assert "none" in answer.out
    assert "does not carry over" in answer.out
    assert not (tmp_path / "tuned.yaml").exists()


def test_without_validation_data_the_training_loss_counts(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 3))
    config = settings()
    config["data"]["val_fraction"] = 0.0
    found = library.find_lr(
        config, model=model, data=classes(300, 0), loss="cross_entropy", race=True, budget=1.0,
        out=tmp_path / "run",
    )  # fmt: skip
    assert found.suggested_lr is not None
    assert found.race is not None
    row = found.race["rungs"][0]["lrs"][0]
    horizon = found.race["rungs"][0]["horizon"]
    (trial,) = (t for t in found.run.trials if t.variant == f"race-{horizon}-lr-{row['lr']:.4g}")
    tail = trial.steps["loss"][-max(1, horizon // 10) :]
    assert row["losses"] == [pytest.approx(float(np.mean(tail)))]
    assert found.race["rungs"][0]["start"] == [pytest.approx(float(trial.steps["loss"][0]))]


def race_trial(horizon: int, lr: float) -> Trial:
    return Trial(TrialId(Candidate(horizon, lr).name, 0), "race", horizon, lr)


def test_trials_share_weights_and_batches(config: Path) -> None:
    spec = make_spec("find-lr", config)
    plan = spec.plan()
    trials = [race_trial(25, lr) for lr in (1e-9, 2e-9)]
    tasks = [task_of(plan, trial) for trial in trials]
    weights = [next(task.build()[0].parameters()) for task in tasks]
    assert torch.equal(*weights)
    assert {task.kind for task in tasks} == {tasks[0].kind}
    assert [task.total_steps for task in tasks] == [25, 25]
    plain = json.loads(json.dumps(spec.to_plain()))  # as another process makes them
    other = task_of(RunSpec.from_plain(plain).plan(), trials[1])
    assert other.schedule.lr(3) == tasks[1].schedule.lr(3)


def test_the_schedule_is_that_of_the_config_in_a_shorter_time(config: Path) -> None:
    plan = make_spec("find-lr", config).plan()
    variant = plan.variants["range_test"]
    task = race_task(variant, plan.config, race_trial(25, 0.4))
    lrs = [task.schedule.lr(step) for step in range(25)]
    whole = [4 * variant.schedule.lr(step) for step in range(100)]  # the config's LR is 0.1
    assert lrs == pytest.approx(np.reshape(whole, (25, 4)).mean(axis=1), rel=1e-12)


@pytest.mark.parametrize(("total", "horizon"), [(100, 7), (64, 64), (1000, 3), (5, 4)])
def test_a_compressed_schedule_keeps_its_mean(total: int, horizon: int) -> None:
    short = shortened(Schedule(lambda step: 1.0 + step / total, lambda step: 0.9), total, horizon)
    lrs = [short.lr(step) for step in range(horizon)]  # type: ignore[call-arg]
    assert np.mean(lrs) == pytest.approx(1.5, abs=1.5 / horizon)
    assert lrs == sorted(lrs)
    assert isinstance(short, Schedule)
    assert short.momentum is not None
    assert short.momentum(0) == pytest.approx(0.9)


def test_a_schedule_with_a_floor_leaves_low_lrs_out(lrexp: Callable, config: Path) -> None:
    floor = "schedule={name: cosine, min_lr: 0.05}"
    answer = lrexp("find-lr", "small.yaml", "--set", floor, "--json", "--out", "run")
    assert answer.code == 0, answer.err
    rungs = json.loads(answer.out)["race"]["rungs"]
    assert all(lr["lr"] >= 0.05 for rung in rungs for lr in rung["lrs"])


def test_an_exception_in_a_rung_ends_the_race(lrexp: Callable, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def loss(output, target):\n"
        "    if not torch.is_grad_enabled() and loss.evaluated > 2:\n"
        "        raise ValueError('no more')\n"
        "    loss.evaluated += not torch.is_grad_enabled()\n"
        "    return torch.nn.functional.cross_entropy(output, target)\n"
        "loss.evaluated = 0\n"
    )
    (tmp_path / "mine.yaml").write_text(CONFIG.replace("loss: cross_entropy", "loss: 'mine:loss'"))
    answer = lrexp("find-lr", "mine.yaml", "--out", "run")
    assert answer.code == 3, answer.err
    assert "mine.py:4" in answer.err
    assert "race-12-lr-" in answer.err
    assert not (tmp_path / "run/summary.json").exists()


def test_an_infinite_loss_is_null_beside_a_count(lrexp: Callable, config: Path) -> None:
    words = ("--set", "optimizer.args={momentum: 0.99}", "--set", "schedule=constant")
    answer = lrexp("find-lr", "small.yaml", "--json", "--out", "run", *words)
    rows = [lr for rung in json.loads(answer.out)["race"]["rungs"] for lr in rung["lrs"]]
    for row in rows:
        assert row["diverged"] == sum(loss is None for loss in row["losses"])
        assert all(loss is None or math.isfinite(loss) for loss in row["losses"])
