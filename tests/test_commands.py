"""Every command, end to end, on real data, as a user would run it."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stopping import copy_of, status

import lrexp as library
from lrexp.config.load import load_config
from lrexp.report.text import lr_text

ROOT = Path(__file__).parents[1]


CONFIG = """\
name: small
model: {name: mlp, args: {hidden: [32]}}
data: {name: digits, batch_size: 64, val_fraction: 0.2}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1, args: {momentum: 0.9}}   # the peak
schedule: {name: cosine, warmup: 10%}
train: {duration: 3ep, eval_every: 1ep}
compare:
  seeds: 2
  variants:
    standard: {}
    high: {optimizer.lr: 1e5}
    low: {optimizer.lr: 1e-4}
find_lr: {budget: 0, min_lr: 1e-4, max_lr: 10, steps: 60, seeds: 2}
"""
STEPS = 3 * 22  # 1,438 training samples, 22 full batches of 64


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison; for reading only."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "small.yaml").write_text(CONFIG)
    return library.compare(folder / "small.yaml", out=folder / "run", draw=None).path


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A range test; for reading only."""
    folder = tmp_path_factory.mktemp("tested")
    (folder / "small.yaml").write_text(CONFIG)
    library.find_lr(folder / "small.yaml", out=folder / "run", draw=None)
    return folder / "run"


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.pictures
def test_compare_writes_a_run_that_explains_itself(
    lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    answer = lrexp("compare", config, "--out", "run")
    assert answer.code == 0, answer.err
    run = tmp_path / "run"
    assert {p.name for p in run.iterdir()} >= {
        "config.yaml", "resolved.yaml", "environment.json", "status.json", "trials",
        "summary.json", "summary.csv", "plots",
    }  # fmt: skip
    assert (run / "config.yaml").read_text() == CONFIG
    assert status(run)["status"] == "complete"
    assert status(run)["counts"] == {"finished": 4, "diverged": 2}
    environment = json.loads((run / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert environment["device"] == "cpu"
    plots = {"loss.png", "lr.png", "lr_sensitivity.png", "verdicts.png"}
    assert {p.name for p in (run / "plots").iterdir()} == plots
    assert all(p.stat().st_size > 10_000 for p in (run / "plots").iterdir())

    good = run / "trials/standard/seed-0"
    steps, evals = rows(good / "steps.csv"), rows(good / "evals.csv")
    assert [int(row["step"]) for row in steps] == list(range(STEPS))
    assert float(steps[0]["lr"]) == pytest.approx(0.1 / 6)  # warmup of 6 steps
    assert float(steps[5]["lr"]) == 0.1
    assert [int(row["step"]) for row in evals] == [0, 22, 44, 66]
    assert [float(row["epoch"]) for row in evals] == [0, 1, 2, 3]
    assert float(evals[-1]["val_accuracy"]) > 0.8
    mean = np.mean([float(row["loss"]) for row in steps[44:]])
    assert float(evals[-1]["train_loss"]) == pytest.approx(mean)
    result = json.loads((good / "result.json").read_text())
    assert result["outcome"] == "finished"
    assert result["final"]["val_loss"] == pytest.approx(float(evals[-1]["val_loss"]))
    assert json.loads((run / "trials/high/seed-1/result.json").read_text())["outcome"] == "diverged"

    ranking = json.loads((run / "summary.json").read_text())["ranking"]
    assert [row["variant"] for row in ranking] == ["standard", "low", "high"]
    assert ranking[0]["diagnosis"]["word"] == "converging well"
    assert ranking[1]["diagnosis"]["word"] == "too slow"
    assert ranking[2]["diagnosis"]["word"] == "diverged"
    assert ranking[2]["outcomes"] == {"diverged": 2}
    for word in ("standard", "low", "high", "diverged", "too slow", "run"):
        assert word in answer.out


def test_variants_of_a_seed_share_weights_and_batches(compared: Path) -> None:
    first = {
        (variant, seed): rows(compared / f"trials/{variant}/seed-{seed}/steps.csv")[0]["loss"]
        for variant in ("standard", "high", "low")
        for seed in (0, 1)
    }
    assert len({first[variant, 0] for variant in ("standard", "high", "low")}) == 1
    assert first["standard", 0] != first["standard", 1]


def test_equal_variants_are_equal_to_the_bit_whatever_their_place(
    lrexp: Callable, config: Path
) -> None:
    drop = "model.args={hidden: [32], dropout: 0.5}"
    for name, variants in {
        "one": "{a: {}, other: {optimizer.lr: 0.01, data.batch_size: 32}, b: {}}",
        "two": "{b: {}, other: {optimizer.lr: 0.01, data.batch_size: 32}, a: {}}",
        "alone": "{b: {}}",
    }.items():
        words = ("--set", f"compare.variants={variants}", "--set", drop, "--out", name)
        answer = lrexp("compare", config, *words)
        assert answer.code == 0, answer.err
    curves = {
        Path(f"{run}/trials/{variant}/seed-1/{file}").read_text()
        for run, variant in (("one", "a"), ("one", "b"), ("two", "a"), ("two", "b"), ("alone", "b"))
        for file in ("steps.csv",)
    }
    assert len(curves) == 1


def test_without_a_compare_section_there_are_a_high_a_standard_and_a_low_rate(
    lrexp: Callable, tmp_path: Path
) -> None:
    config = tmp_path / "plain.yaml"
    config.write_text(CONFIG[: CONFIG.index("compare:")])
    answer = lrexp("compare", config, "--json", "--quiet")
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    by_name = {row["variant"]: row["settings"] for row in summary["ranking"]}
    assert {name: s["optimizer.lr"] for name, s in by_name.items()} == {
        "high": 1.0, "standard": pytest.approx(0.1), "low": pytest.approx(0.01),
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    ["schedule=linear", "optimizer={name: AdamW, lr: 0.01}", "data.batch_size=32",
     "model.args={hidden: [8]}", "train.grad_clip=0.1", "loss=multi_margin_loss",
     "train.accumulate=2"],
)  # fmt: skip
def test_any_key_may_differ_between_variants(change: str, lrexp: Callable, config: Path) -> None:
    key, _, value = change.partition("=")
    variants = f"compare.variants={{base: {{}}, changed: {{{key}: {value}}}}}"
    answer = lrexp("compare", config, "--seeds", 1, "--set", variants, "--json")
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    curves = {
        p.parent.parent.name: p.read_text()
        for p in Path(summary["run"]).glob("trials/*/seed-0/steps.csv")
    }
    assert curves["base"] != curves["changed"]


def test_running_the_resolved_config_again_repeats_the_run(lrexp: Callable, config: Path) -> None:
    variants = (
        "compare.variants={a: {}, b: {data.batch_size: 32, schedule: {name: wsd, warmup: 1ep}}}"
    )
    assert lrexp("compare", config, "--set", variants, "--out", "one").code == 0
    answer = lrexp("compare", "one/resolved.yaml", "--out", "two")
    assert answer.code == 0, answer.err
    files = sorted(p.relative_to("one") for p in Path("one").glob("trials/*/*/*.csv"))
    assert len(files) == 8
    for file in files:
        assert (Path("one") / file).read_text() == (Path("two") / file).read_text()


def test_a_run_keeps_the_users_code_so_that_it_can_be_repeated_from_its_directory(
    lrexp: Callable, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(ROOT / "configs/own", own, ignore=shutil.ignore_patterns("__pycache__"))
    assert lrexp("compare", own / "experiment.yaml", "--seeds", 1, "--out", "one").code == 0
    shutil.rmtree(own)
    answer = lrexp("compare", "one/resolved.yaml", "--out", "two")
    assert answer.code == 0, answer.err
    for file in Path("one").glob("trials/*/*/steps.csv"):
        assert file.read_text() == Path("two", *file.parts[1:]).read_text()


def test_json_is_the_only_thing_on_stdout(lrexp: Callable, config: Path) -> None:
    answer = lrexp("compare", config, "--json", "--seeds", 1)
    summary = json.loads(answer.out)
    assert Path(summary["run"]).is_dir()
    assert {"mean", "sd", "values", "outcomes", "diagnosis"} <= summary["ranking"][0].keys()
    assert "standard" in answer.err  # progress
    assert lrexp("compare", config, "--json", "--quiet", "--seeds", 1).err == ""


def test_prints_of_user_code_stay_off_the_json_document(lrexp: Callable, config: Path) -> None:
    Path("loud.py").write_text(
        "from torch import nn\n"
        "class Loud(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        print('forward!')\n"
        "        return super().forward(x)\n"
    )
    loud = "model={name: 'loud:Loud', args: {in_features: 64, out_features: 10}}"
    for command in ("compare", "find-lr", "validate"):
        answer = lrexp(command, config, "--set", loud, "--json")
        assert isinstance(json.loads(answer.out), dict), answer.err
        assert "forward!" in answer.err


@pytest.mark.pictures
def test_find_lr_suggests_a_rate_and_writes_it_into_a_copy(
    lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    answer = lrexp("find-lr", config, "--out", "run", "--write", "tuned.yaml", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found.keys() >= {
        "suggested_lr",
        "interval",
        "base_lr",
        "max_lr",
        "rules",
        "reason",
        "run",
    }
    low, high = found["interval"]
    assert low <= found["suggested_lr"] <= high
    assert 0.005 < found["suggested_lr"] < 2
    assert found["base_lr"] < found["max_lr"]
    assert {"steepest", "minimum", "valley", "slide", "auto"} <= found["rules"].keys()
    assert (tmp_path / "run/plots/range_test.png").stat().st_size > 10_000
    steps = rows(tmp_path / "run/trials/range_test/seed-0/steps.csv")
    assert float(steps[0]["lr"]) == 1e-4

    assert "Note: the variants high, low set an optimizer.lr of their own" in answer.err
    tuned = (tmp_path / "tuned.yaml").read_text()
    assert "# the peak" in tuned  # comments survive
    plan = load_config(tmp_path / "tuned.yaml")
    assert plan.experiment.optimizer.lr == pytest.approx(found["suggested_lr"], rel=5e-3)
    assert lrexp("compare", "tuned.yaml", "--seeds", 1, "--quiet").code == 0
    refused = lrexp("find-lr", config, "--write", config)
    assert (refused.code, config.read_text()) == (2, CONFIG)
    assert "--force" in refused.err


@pytest.mark.parametrize(
    ("schedule", "mean"),
    [("constant", 1.0), ("linear", 0.5), ("{name: cosine, min_lr: 0.08}", 0.9), ("plateau", 1.0)],
)
def test_find_lr_suggests_the_peak_of_the_schedule(
    lrexp: Callable, config: Path, tmp_path: Path, schedule: str, mean: float
) -> None:
    words = ("--set", "optimizer.lr=0.1", "--set", "compare.variants={only: {}}")
    assert lrexp("find-lr", config, *words, "--set", "schedule=constant", "--out", "flat").code == 0
    answer = lrexp("find-lr", config, *words, "--set", f"schedule={schedule}", "--out", "run")
    flat, found = (library.load_run(tmp_path / name).summary for name in ("flat", "run"))
    assert found["mean_frac"] == pytest.approx(mean, abs=0.03)
    constant = found["suggested_lr"] * found["mean_frac"]
    assert constant == pytest.approx(flat["suggested_lr"])
    assert found["rules"]["steepest"] == flat["rules"]["steepest"]
    assert ("The peak for your schedule" in answer.out) == (mean < 1)
    readings = found["readings"]
    assert list(readings) == ["low", "bottom / 10", "high / 10"]
    assert constant == pytest.approx(sorted(readings.values())[1])
    flat_out = " ".join(answer.out.replace("│", " ").split())
    assert f"{lr_text(readings['low'])} (low), " in flat_out
    assert ("for the schedule" in flat_out) == (mean < 1)

    again = library.resume(tmp_path / "run")  # a complete run is read from its files
    assert again.suggested_lr == found["suggested_lr"]
    assert list(again.interval) == found["interval"]
    assert (again.rules, again.suggestion.note) == (found["rules"], found["note"])


def test_a_mean_frac_that_no_run_writes_is_damage(tested: Path, tmp_path: Path) -> None:
    file = copy_of(tested, tmp_path / "run") / "summary.json"
    summary = json.loads(file.read_text())
    for value, message in (("half", "damaged"), (0, "mean_frac"), (2, "mean_frac")):
        file.write_text(json.dumps(summary | {"mean_frac": value}))
        with pytest.raises(library.LrexpError, match=message):
            library.resume(tmp_path / "run")
    del summary["mean_frac"]  # as an older version wrote it
    file.write_text(json.dumps(summary))
    assert library.resume(tmp_path / "run").suggestion.mean_frac == 1


@pytest.mark.pictures
def test_find_lr_uses_the_seeds_that_ran_when_another_one_raised(
    lrexp: Callable, config: Path
) -> None:
    Path("mine.py").write_text(
        "from torch import nn\n"
        "calls = 0\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        global calls\n"
        "        calls += 1\n"
        "        if calls == 9:\n"
        "            raise ArithmeticError('once')\n"
        "        return self.layer(x)\n"
    )
    mine = ("--set", "model={name: 'mine:Net'}")
    answer = lrexp("find-lr", config, *mine, "--out", "run")
    assert answer.code == 3, answer.err
    assert "mine.py:11: in forward: ArithmeticError: once" in answer.err
    assert json.loads(Path("run/summary.json").read_text())["seeds"] == [1]
    assert Path("run/plots/range_test.png").exists()


@pytest.mark.parametrize(
    "changes",
    [
        ["find_lr.max_lr=1e-6", "find_lr.min_lr=1e-9"],  # flat
        ["find_lr.min_lr=1e6", "find_lr.max_lr=1e9"],  # diverges from the start
    ],
)
def test_find_lr_refuses_with_exit_code_4_when_there_is_no_signal(
    changes: list[str], lrexp: Callable, config: Path
) -> None:
    words = [word for change in changes for word in ("--set", change)]
    answer = lrexp("find-lr", config, *words, "--json", "--write", "tuned.yaml")
    assert answer.code == 4, answer.err
    found = json.loads(answer.out)
    assert found["suggested_lr"] is None
    assert len(found["reason"]) > 20
    assert not Path("tuned.yaml").exists()


def test_plot_redraws_from_the_files_alone(lrexp: Callable, compared: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        copy_of(compared, tmp_path / name)
    Path("one/summary.json").unlink()  # as if it were still running
    answer = lrexp("plot", "one")
    assert answer.code == 0, answer.err
    assert {p.name for p in Path("one/plots").iterdir()} >= {"loss.png", "lr.png"}
    answer = lrexp("plot", "one", "two", "--out", "both")
    assert answer.code == 0, answer.err
    pictures = [Path(line) for line in answer.out.splitlines()]
    assert pictures
    assert all(p.parent == Path("both") and p.stat().st_size > 10_000 for p in pictures)


def test_schedule_draws_every_variant_without_training(lrexp: Callable) -> None:
    answer = lrexp("schedule", ROOT / "configs/schedules.yaml", "--json", "--out", "lr.png")
    assert answer.code == 0, answer.err
    traces = json.loads(answer.out)["lr"]
    assert len(traces) == 9
    assert {len(trace) for trace in traces.values()} == {12 * 22}
    assert set(traces["constant"]) == {0.003}
    assert max(traces["cosine"]) == pytest.approx(0.003)
    assert Path("lr.png").stat().st_size > 10_000
    shown = lrexp("schedule", ROOT / "configs/schedules.yaml", "--out", "lr.png")
    assert "As if the loss never changed: plateau." in shown.out
    assert not Path("runs").exists()


def test_validate_prints_the_config_in_steps(lrexp: Callable, config: Path) -> None:
    answer = lrexp("validate", config)
    assert answer.code == 0, answer.err
    assert "duration: 66st" in answer.out
    assert "warmup: 6st" in answer.out
    assert "grad_clip: null" in answer.out  # defaults are there


def test_runs_lists_what_lies_there(lrexp: Callable, config: Path) -> None:
    assert "No runs" in lrexp("runs", ".").out
    assert lrexp("runs").code == 0  # on a fresh machine there is no such folder yet
    assert lrexp("compare", config, "--seeds", 1, "--quiet").code == 0
    answer = lrexp("runs")
    assert answer.code == 0
    for word in ("small", "compare", "complete", "standard"):
        assert word in answer.out
    (entry,) = json.loads(lrexp("runs", "--json").out)
    assert (entry["status"], entry["best_variant"]) == ("complete", "standard")


def test_init_writes_a_config_that_runs(lrexp: Callable) -> None:
    assert lrexp("init").code == 0
    answer = lrexp("compare", "lrexp.yaml", "--set", "train.duration=1ep", "--seeds", 1)
    assert answer.code == 0, answer.err
    before = Path("lrexp.yaml").read_text()
    assert lrexp("init").code == 2
    assert lrexp("init", "--force").code == 0
    assert Path("lrexp.yaml").read_text() == before


def test_schema_is_json_schema(lrexp: Callable) -> None:
    schema = json.loads(lrexp("schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"model", "data", "optimizer", "train", "compare", "find_lr"} <= schema[
        "properties"
    ].keys()


def test_version_and_help_need_no_torch() -> None:
    script = (
        "import sys; from lrexp.cli import run; code = run(['--help']) + run(['--version']);"
        "heavy = {'torch', 'matplotlib', 'pydantic_core', 'numpy', 'sklearn'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert library.__version__ in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_with_130_and_stays_readable(
    number: signal.Signals, lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    def interrupt() -> None:
        if next(steps) == 60:
            signal.raise_signal(number)

    steps, before = itertools.count(1), signal.signal(number, signal.default_int_handler)
    try:  # a background job of a shell ignores SIGINT
        answer = lrexp("compare", config, "--out", "run", stop=interrupt)
    finally:
        signal.signal(number, before)
    assert answer.code == 130, answer.err
    assert "Traceback" not in answer.err
    assert "lrexp plot run" in answer.err
    assert status(tmp_path / "run")["status"] == "interrupted"
    run = library.load_run(tmp_path / "run")
    assert run.summary is None
    assert len(run.trials[0].steps["loss"]) == 60
    assert lrexp("plot", "run").code == 0


def test_schedule_writes_the_lrs(lrexp: Callable, tmp_path: Path) -> None:
    config = {
        "model": "linear",
        "data": "digits",
        "loss": "cross_entropy",
        "optimizer": {"name": "SGD", "lr": 0.4},
        "train": {"duration": 4},
        "schedule": "linear",
        "compare": {"variants": {"whole": {}, "half, held": {"train.duration": 2}}},
    }
    path = tmp_path / "two.yaml"
    path.write_text(json.dumps(config))
    answer = lrexp("schedule", path, "--csv", tmp_path / "lr.csv", "--out", tmp_path / "lr.png")
    assert answer.code == 0
    assert f"LRs:  {tmp_path / 'lr.csv'}" in answer.out
    lines = (tmp_path / "lr.csv").read_text().splitlines()
    assert lines[0] == 'step,whole,"half, held"'
    rows = [line.split(",") for line in lines[1:]]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert [float(row[1]) for row in rows] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert [row[2] for row in rows] == ["0.4", "0.2", "", ""]
