"""The benchmarks: that nobody does less work, and that their quick modes run.

By default one quick mode goes from the command line to its table; the others run with --long.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from lrexp.runs.spec import make_spec
from lrexp.workloads.tensors import ResidentBatches

HERE = Path(__file__).parent / "benchmarks"
CPU = torch.device("cpu")
SMALL = "MLP 16-32-2"
STEPS, COPIES = 25, 3


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of the benchmark by name, as the scripts do among themselves."""
    monkeypatch.syspath_prepend(str(HERE))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


@pytest.fixture
def updates() -> Iterator[list[int]]:
    """Count what the optimizers of this process do."""
    count = [0]

    def add(*_: object) -> None:
        count[0] += 1

    hook = register_optimizer_step_post_hook(add)
    yield count
    hook.remove()


@pytest.mark.parametrize("name", ["usual_loop", "tuned_loop"])
def test_a_loop_by_hand_does_all_its_updates(load: Any, updates: list[int], name: str) -> None:
    work = load("nets").WORKLOADS[SMALL]
    losses = getattr(load("baselines"), name)(work, STEPS, CPU)
    assert len(losses) == updates[0] == STEPS


@pytest.mark.cuda
@pytest.mark.parametrize("name", [SMALL, "GPT"])
def test_the_graphed_loop_trains(load: Any, name: str) -> None:
    work = load("nets").WORKLOADS[name]
    graphed = load("baselines").graphed_loop(work, 200, torch.device("cuda"))
    tuned = load("baselines").tuned_loop(work, 200, torch.device("cuda"))
    assert len(graphed) == len(tuned) == 200
    ends = [sum(losses[-20:]) / 20 for losses in (graphed, tuned)]
    assert ends[0] == pytest.approx(ends[1], rel=0.1)
    assert ends[0] < graphed[0]


def test_the_sequential_engine_does_all_its_updates(load: Any, updates: list[int]) -> None:
    work = load("nets").WORKLOADS[SMALL]
    watch = load("ours").train_with("sequential", work, COPIES, STEPS, CPU)
    assert [len(losses) for losses in watch.losses.values()] == [STEPS] * COPIES
    assert updates[0] == STEPS * COPIES


@pytest.mark.parametrize(
    "engine", ["vectorized", "auto", pytest.param("processes", marks=pytest.mark.long)]
)
def test_every_engine_trains_the_same(load: Any, engine: str) -> None:
    ours, work = load("ours"), load("nets").WORKLOADS[SMALL]
    found = ours.available(jobs=2)
    if engine not in found:
        pytest.skip(f"no {engine} in this lrexp")
    expected = found["sequential"](work, COPIES, STEPS, CPU).losses
    losses = found[engine](work, COPIES, STEPS, CPU).losses
    assert losses.keys() == expected.keys()
    for trial, values in expected.items():
        assert losses[trial] == pytest.approx(values, rel=1e-4)


def test_the_steady_rate_leaves_out_starting_workers_and_nothing_else(load: Any) -> None:
    ours = load("ours")
    watch, piece = ours.Watch(), ours.Piece
    watch.groups, watch.ended = [("a", "b"), ("c",)], 6.0
    watch.pieces = {
        "a": [piece(0, 0, 0), piece(0, 2, 20), piece(2, 4, 20), piece(4, 6, 20)],
        "b": [piece(0, 0, 0), piece(0, 2, 20), piece(2, 4, 20)],
        "c": [piece(1, 1, 0), piece(1, 3, 10), piece(3, 5, 10)],
    }
    assert watch.steady(jobs=2) == (3.0, 50)  # from 3: 10 + 20 of a, 10 of b, 10 of c
    assert watch.steady(jobs=1) == (4.0, 75)  # from 2


def test_the_quick_mode_prints_the_table(
    load: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "samples.json"
    load("throughput").main(
        ["--quick", "--workloads", SMALL, "--copies", "2", "--parts", "table",
         "--contenders", "usual", "tuned", "graphed", "sequential", "vectorized",
         "--json", str(file)]
    )  # fmt: skip
    out = capsys.readouterr().out
    assert f"| {SMALL} | 2 | (a) usual |" in out
    assert f"| {SMALL} | 2 | sequential |" in out
    (cell,) = json.loads(file.read_text())["table"]
    assert len(cell["rates"]["tuned"]) == 2
    assert all(rate > 0 for rates in cell["rates"].values() for rate in rates)


def test_checkpoints_and_rows_are_timed_in_a_real_directory(load: Any, tmp_path: Path) -> None:
    recording = load("recording")
    pause = recording.TimedPause(0.0, count=2)
    found = recording.train(recording.RUNS[0], 1_000_000, tmp_path, pause)
    assert len(found.checkpoints) == 2  # and there the training ended
    rows = (tmp_path / "trials/copy-0/seed-0/steps.csv").read_text().splitlines()
    assert 0 < found.rows == len(rows) - 1 < 1_000_000
    assert sum(found.checkpoints) + found.row_seconds < found.seconds


@pytest.mark.long
def test_the_quick_mode_prints_what_checkpoints_cost(
    load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    load("checkpoints").main(["--quick", "--parts", "one", "run", "due", "long"])
    out = capsys.readouterr().out
    assert "| one, SGD with momentum | 0.00955 M |" in out
    assert f"| {SMALL} |" in out
    assert "Pause.due()" in out
    assert "checkpoints, timed" in out


def test_schedules_are_judged_on_other_seeds_than_they_are_tuned_on(load: Any) -> None:
    duel = load("adaptive_vs_onecycle")
    for effort in (duel.FULL, duel.QUICK):
        assert set(effort.tuning).isdisjoint(effort.judged)


@pytest.mark.long
def test_the_quick_mode_tunes_on_one_seed_and_judges_on_others(
    load: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "found.json"
    load("adaptive_vs_onecycle").main(["--quick", "--workloads", "diabetes", "--json", str(file)])
    out = capsys.readouterr().out
    assert "diabetes: peak LRs" in out
    assert "too few seeds to tell" in out  # two, in the quick mode
    (found,) = json.loads(file.read_text()).values()
    assert found["lrs"].keys() == {"one_cycle", "adaptive"}
    assert set(found["lrs"].values()) <= {0.005, 0.01}
    summary = found["summary"]
    assert summary["seeds"] == [0, 1]  # tuned on 1000
    assert summary["time_to_target"]["target"] == pytest.approx(found["target"])


def test_the_range_test_does_all_its_updates(load: Any) -> None:
    range_test = load("finders")
    for name, finder in range_test.installed().items():
        if name in ("fastai", "Lightning"):
            continue  # they take seconds to import, and warn
        assert range_test.timed(finder)[1] == range_test.STEPS, name


@pytest.mark.long
def test_the_script_by_hand_does_the_steps_of_the_command(load: Any, tmp_path: Path) -> None:
    whole = load("whole_commands")
    words = whole.commands(2, tmp_path)
    spec = make_spec("compare", whole.config_of(2))
    _, rows = whole.timed(words["tuned script"])
    assert rows == sum(trial.total_steps for trial in spec.first_trials(spec.plan()))


@pytest.mark.long
def test_the_quick_mode_prints_what_reads_take(
    load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    load("throughput").main(["--quick", "--parts", "reads"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    names = [line.split(" | ")[0].removeprefix("| ").partition(", ")[0] for line in lines[2:]]
    plots = ["lrexp plot", "lrexp plot"]
    assert names == ["import matplotlib.pyplot", "lrexp runs", "lrexp schedule", *plots]
    assert "plot, quickstart: 9 trials" in lines[-2]
    assert "plot, 108 trials, " in lines[-1]


def test_every_network_learns_from_its_data(load: Any) -> None:
    nets = load("nets")
    for name, work in nets.WORKLOADS.items():
        inputs, targets = nets.data(name)
        assert len(inputs) == len(targets) >= 20 * work.batch_size
        if name == "ResNet-9":  # a step of it takes more than a second
            continue
        losses = load("baselines").tuned_loop(work, 30, CPU)
        assert sum(losses[-5:]) < sum(losses[:5]), name


def test_the_modules_of_the_benchmark_hide_no_others(load: Any) -> None:
    for file in HERE.glob("*.py"):
        assert file.stem not in sys.stdlib_module_names


def test_regret_is_interpolated_in_log_lr(load: Any) -> None:
    regret, grid = load("accuracy.regret"), load("accuracy.grid")
    inf = float("inf")
    found = grid.Measured(
        lrs=np.array([0.001, 0.01, 0.1, 1.0]),
        val=np.array([[3.0, 5.0], [1.0, 1.0], [2.0, 9.0], [inf, np.nan]]),
        train=np.array([[3.0, 3.0], [2.0, 2.0], [1.0, 1.0], [inf, inf]]),
        start=np.array([4.0, 6.0]),
    )
    land = regret.landscape(found)
    assert land.loss.tolist() == [4.0, 1.0, 4.0, 5.0]  # (2 + 6)/2: clipped; diverged: (4 + 6)/2
    assert (land.best_lr, land.start) == (pytest.approx(0.01), 5.0)
    assert land.learns
    assert land.is_interior
    expected = {
        0.01: 0.0, 0.001: 0.75, 0.1: 0.75, 1.0: 1.0,
        10**-2.5: 0.375,  # halfway in log LR
        10**-1.9: 0.075,
        10**-0.5: 0.875,
        1e-9: 0.75, 50.0: 1.0,  # outside: the end of the grid
        None: 1.0, np.nan: 1.0,
    }  # fmt: skip
    for lr, value in expected.items():
        assert land.regret(lr) == pytest.approx(value, abs=1e-12), lr
    assert land.good(0.05) == pytest.approx((0.01, 0.01))
    assert land.good(0.75) == pytest.approx((0.001, 0.1))
    assert regret.landscape(found, of_training=True).best_lr == pytest.approx(0.1)


def test_what_cannot_be_judged_is_noticed(load: Any) -> None:
    regret = load("accuracy.regret")
    log_lr = np.array([-2.0, -1.0, 0.0])
    assert not regret.Landscape(log_lr, np.array([1.0, 1.0, 1.0]), 1.0).learns
    rising = regret.Landscape(log_lr, np.array([0.1, 0.5, 1.0]), 1.0)
    assert rising.learns
    assert not rising.is_interior


def test_each_half_has_every_kind_of_workload(load: Any) -> None:
    workloads = load("accuracy.workloads")
    tuning, held_out = map(workloads.chosen, ("tuning", "held-out"))
    assert {work.kind for work in tuning} >= {work.kind for work in held_out}
    assert min(len(tuning), len(held_out)) >= 12
    assert len(tuning) + len(held_out) == len(workloads.ALL)
    assert len({work.name for work in workloads.chosen("all")}) == len(workloads.ALL)


def test_seeds_that_suggest_do_not_judge(load: Any) -> None:
    grid = load("accuracy.grid")
    for protocol in (grid.Protocol(), grid.LONG_PROTOCOL, grid.QUICK):
        seeds = [seed for group in protocol.groups for seed in group]
        assert len({*seeds, *protocol.judges}) == len(seeds) + len(protocol.judges)
    assert len(grid.Protocol().judges) >= 3
    assert grid.Protocol().per_decade >= 6
    assert grid.Protocol().decades >= 5


def test_the_truth_of_the_long_half_is_dense_and_has_a_best_lr(load: Any, tmp_path: Path) -> None:
    grid, regret, long = load("accuracy.grid"), load("accuracy.regret"), load("accuracy.long_half")
    assert len(long.LONG_ALL) >= 12
    assert all(1000 <= work.steps <= 5000 for work in long.LONG_ALL)
    cells = list(grid.cells(long.LONG_ALL))
    assert [cell.work for cell in cells] == long.LONG_ALL  # one cell of each
    assert len({cell.optimizer for cell in cells}) >= 5
    assert len({cell.schedule for cell in cells}) >= 5
    for cell in cells:
        found = grid.measured(cell, grid.LONG_PROTOCOL, tmp_path)  # an error if of another key
        assert found.val.shape == found.lowest.shape == (31, 3)
        assert np.log10(found.lrs[-1] / found.lrs[0]) == pytest.approx(5.0, abs=1e-3)
        assert (found.lowest <= found.val).all()  # the last evaluation is one of them
        land = regret.landscape(found)
        assert land.learns, cell.name
        assert land.is_interior, cell.name
    assert not list(tmp_path.iterdir())  # nothing was trained


def test_a_truth_of_another_definition_is_refused(load: Any, tmp_path: Path) -> None:
    truth = load("accuracy.truth")
    file = tmp_path / "truth" / "work.json"
    truth.write(file, "one", {"val": np.array([[1.234567, np.inf]])})
    assert truth.read(file, "one")["val"].tolist() == [[1.2346, np.inf]]
    with pytest.raises(ValueError, match="--remake-truth"):
        truth.read(file, "another")


@pytest.mark.long
def test_the_truth_of_the_long_half_is_what_the_engine_trains(load: Any, tmp_path: Path) -> None:
    grid, training = load("accuracy.grid"), load("accuracy.training")
    [work] = [w for w in load("accuracy.long_half").LONG_ALL if w.name == "prose LSTM"]
    [cell] = grid.cells([work])
    kept = grid.measured(cell, grid.LONG_PROTOCOL, tmp_path)
    best = int(np.argmin(kept.val.mean(axis=1)))
    variants = {"best": training.variant_of(cell.schedule, float(kept.lrs[best]))}
    plans = training.plan_of(work, cell.optimizer, variants)
    [found] = training.train(plans, [0], "sequential").values()
    assert found.val[0] == pytest.approx(kept.start[0], rel=1e-3)
    assert found.val[1] == pytest.approx(kept.val[best, 0], rel=0.03)
    assert found.lowest == pytest.approx(kept.lowest[best, 0], rel=0.03)


def test_peers_see_the_batches_of_the_engine(load: Any) -> None:
    peers = load("accuracy.peers")
    inputs = torch.arange(22.0).view(11, 2)
    batches = ResidentBatches((inputs, inputs), 4)
    order = peers.SameOrder(batches, seed=3)
    for epoch in range(2):
        ours = [x for x, _ in batches.epoch(3, epoch)]
        theirs = [inputs[rows] for rows in order]
        assert len(ours) == len(theirs) == len(order) == 2
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.long
def test_the_accuracy_benchmark_runs_and_keeps_what_it_trained(
    load: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--quick", "--no-peers", "--workloads", "linear exact", "--cache", str(tmp_path),
             "--contenders", "lrexp auto", "fixed default", "short grid"]  # fmt: skip
    load("finder_accuracy").main(words)
    out = capsys.readouterr().out
    assert "| lrexp auto |" in out
    assert "| fixed default |" in out
    tree = json.loads((tmp_path / "accuracy-tuning.json").read_text())
    assert len(tree["cells"]) == 3 * 4  # optimizers × schedules
    for found in tree["contenders"].values():
        assert 0 <= found["mean_regret"] <= found["worst_regret"]
        assert found["cells"].keys() == tree["cells"].keys()
    assert (tmp_path / "accuracy-tuning.png").stat().st_size > 10_000
    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.npz")}
    assert len(written) == 3 * 4 + 3 + 1  # grids, range tests, and one without learning
    load("finder_accuracy").main(words)
    assert capsys.readouterr().out == out
    assert written == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.npz")}


@pytest.mark.long
def test_the_quick_mode_prints_what_many_trials_cost(
    load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    load("many_trials").main(["--quick", "--here"])
    assert "| 20 |" in capsys.readouterr().out
