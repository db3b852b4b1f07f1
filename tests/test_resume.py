"""`lrexp resume`: the very files of a run that was never interrupted, or a reason why not."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from holding import held_by_another, left_behind
from patching import patch_system
from rich.console import Console
from stopping import After, contents, copy_of, status
from torch import nn
from waiting import MOST_SECONDS, wait_for

import lrexp as library
from lrexp.errors import ConfigError
from lrexp.report.data.range_test import range_test_picture

CONFIG = """\
name: small
model: {name: mlp, args: {hidden: [8], dropout: 0.1}}
data: {name: digits, batch_size: 256, val_fraction: 0.2}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1, args: {momentum: 0.9}}
schedule: {name: cosine, warmup: 10%}
train: {duration: 12st, eval_every: 4st}
engine: ENGINE
compare:
  seeds: 2
  variants:
    standard: {}
    low: {optimizer.lr: 1e-3}
find_lr: {budget: 0, min_lr: 1e-3, max_lr: 10, steps: 24, seeds: 2}
"""


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Let SIGINT be what it is at a terminal: a background job's is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path)


def write_config(folder: Path, engine: str = "sequential") -> Path:
    path = folder / "small.yaml"
    path.write_text(CONFIG.replace("ENGINE", engine))
    return path


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is in a comparison that nobody interrupts."""
    folder = tmp_path_factory.mktemp("straight")
    run = library.compare(write_config(folder), out=folder / "run", draw=None)
    return contents(run.path)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that was interrupted in its seventh step; for reading only."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(library.InterruptedRunError):
        library.compare(write_config(folder), out=folder / "run", draw=None, stop=After(7))
    return folder / "run"


@pytest.fixture
def paused(stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of an interrupted run, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return copy_of(stopped, tmp_path / "run")


@pytest.mark.parametrize(
    ("engine", "command"),
    [
        ("sequential", "compare"),
        ("vectorized", "find-lr"),
        pytest.param("sequential", "find-lr", marks=pytest.mark.long),
        pytest.param("vectorized", "compare", marks=pytest.mark.long),
    ],
)
def test_a_run_that_is_interrupted_again_and_again_ends_with_the_same_files(
    command: str, engine: str, lrexp: Callable, tmp_path: Path
) -> None:
    write_config(tmp_path, engine)
    straight = lrexp(command, "small.yaml", "--out", "straight")
    assert straight.code in (0, 4), straight.err
    answer = lrexp(command, "small.yaml", "--out", "run", stop=After(5))
    interruptions = 0
    while answer.code == 130:
        assert "lrexp resume run" in answer.err
        assert status(tmp_path / "run")["status"] == "interrupted"
        assert len(list((tmp_path / "run/checkpoints").glob("*.pt"))) <= 1
        assert not (tmp_path / "run/lock").exists()
        interruptions += 1
        answer = lrexp("resume", "run", stop=After(5))
    assert answer.code == straight.code, answer.err
    assert interruptions >= (8 if engine == "sequential" else 2)
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")
    assert status(tmp_path / "run")["status"] == "complete"
    assert not (tmp_path / "run/checkpoints").exists()
    assert [p for p in (tmp_path / "run").rglob("*") if p.name.startswith(".")] == []
    shown = re.sub(r"[ ─]+|spent [\d.]+ s, ", "", answer.out).replace("run", "")
    expected = re.sub(r"[ ─]+|spent [\d.]+ s, ", "", straight.out).replace("straight", "")
    assert shown == expected.replace("small.yaml", "/resolved.yaml")


BURIED = """\
import torch
from torch import nn
def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 8, generator=g)
    y = torch.cat([0.4 * x[:, :1], 10 * torch.rand(400, 1, generator=g)], dim=1)
    return (x[:320], y[:320]), (x[320:], y[320:])
def loss(output, target):
    return nn.functional.mse_loss(output, target[:, :1]) + target[:, 1].mean()
"""
BURIED_CONFIG = """\
name: buried
model: {name: mlp, args: {hidden: [8], out_features: 1}}
data: {name: 'mine:data', batch_size: 8}
loss: 'mine:loss'
optimizer: {name: SGD, lr: 0.1}
train: {duration: 1ep}
engine: ENGINE
find_lr: {budget: 0}
"""


@pytest.mark.parametrize(
    ("race", "engine"),
    [
        ((), "sequential"),
        ((), "vectorized"),
        # test_race.py has a race that is interrupted
        pytest.param(("--race",), "sequential", marks=pytest.mark.long),
        pytest.param(("--race",), "vectorized", marks=pytest.mark.long),
    ],
    ids=["sequential", "vectorized", "race-sequential", "race-vectorized"],
)
def test_a_paired_control_that_is_interrupted_goes_on(
    race: tuple[str, ...], engine: str, lrexp: Callable, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(BURIED)
    (tmp_path / "buried.yaml").write_text(BURIED_CONFIG.replace("ENGINE", engine))
    straight = lrexp("find-lr", "buried.yaml", *race, "--out", "straight")
    assert straight.code == 0, straight.err
    assert "without learning" in straight.err
    assert len(list((tmp_path / "straight/trials/untrained").iterdir())) == 3
    answer = lrexp("find-lr", "buried.yaml", *race, "--out", "run", stop=After(37))
    interruptions = 0
    while answer.code == 130:
        interruptions += 1
        answer = lrexp("resume", "run", stop=After(37))
    assert answer.code == 0, answer.err
    assert interruptions >= (8 if engine == "sequential" else 4)
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert 0.003 < summary["suggested_lr"] < 0.5
    found = library.resume(tmp_path / "run")
    assert found.suggested_lr == summary["suggested_lr"]
    [panel] = range_test_picture(library.load_run(tmp_path / "run")).panels
    assert "untrained model" in panel.title
    assert "weak signal" in str(found.suggestion.note) or race  # a race has notes of its own
    assert found.shown
    if not race:
        assert "edge of stability / 20" in straight.out or summary["stability_edge"] is None


def test_every_row_is_there_once_after_a_crash_past_the_checkpoint(
    lrexp: Callable, paused: Path, straight: dict[str, Any]
) -> None:
    trial = paused / "trials/standard/seed-0"
    with (trial / "steps.csv").open("a") as file:  # rows of steps that no checkpoint holds
        file.write("7,1,0.05,2.5\n8,1,0.0")
    with (trial / "evals.csv").open("a") as file:
        file.write("8,1.6,2.4,2")
    (trial / ".result.json.123.tmp").write_text("{")
    (paused / "trials/low/seed-0").mkdir(parents=True)  # begun, but not in a checkpoint
    (paused / "trials/low/seed-0/steps.csv").write_text("step,epoch,lr,loss\n0,0,1,")
    answer = lrexp("resume", "run")
    assert answer.code == 0, answer.err
    assert "1 goes on from a checkpoint, 3 begin" in answer.err
    assert contents(paused) == straight
    assert not (trial / ".result.json.123.tmp").exists()


def test_files_shorter_than_at_the_checkpoint_begin_anew(
    lrexp: Callable, paused: Path, straight: dict[str, Any]
) -> None:
    steps = paused / "trials/standard/seed-0/steps.csv"
    steps.write_bytes(steps.read_bytes()[:-1])
    answer = lrexp("resume", "run")
    assert answer.code == 0, answer.err
    assert "Resuming run: 4 begin." in answer.err
    assert contents(paused) == straight


def test_trials_that_are_done_are_not_run_again(
    lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    in_the_second_of_four = After(20)
    assert lrexp("compare", config, "--out", "run", stop=in_the_second_of_four).code == 130
    done = tmp_path / "run/trials/standard/seed-0"
    before = {path: path.stat().st_mtime_ns for path in done.iterdir()}
    assert (done / "result.json").exists()
    answer = lrexp("resume", "run", "--json")
    assert answer.code == 0, answer.err
    assert "1 trial is done, 1 goes on from a checkpoint, 2 begin" in answer.err
    assert json.loads(answer.out)["run"] == "run"
    assert {path: path.stat().st_mtime_ns for path in done.iterdir()} == before
    assert status(tmp_path / "run")["counts"] == {"finished": 4}


def test_a_finished_run_says_so(lrexp: Callable, config: Path, tmp_path: Path) -> None:
    assert lrexp("compare", config, "--out", "run").code == 0
    before = status(tmp_path / "run")
    answer = lrexp("resume", "run")
    assert answer.code == 0
    assert "run is complete: there is nothing to resume." in answer.err
    assert "standard" in answer.out
    assert status(tmp_path / "run") == before
    assert lrexp("find-lr", config, "--out", "test").code in (0, 4)
    test = library.resume(tmp_path / "test")
    assert isinstance(test, library.RangeTest)
    assert len(test.curves) == 2


@pytest.mark.pictures
def test_a_run_that_ended_before_its_plots_gets_them(
    lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    def interrupted(run: library.Run) -> None:
        assert run.summary is not None  # all but the pictures is there
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(library.InterruptedRunError):
        library.compare(config, out=tmp_path / "run", draw=interrupted)
    answer = lrexp("resume", "run")
    assert answer.code == 0, answer.err
    assert "4 trials are done" in answer.err
    plots = {"loss.png", "lr.png", "verdicts.png"}
    assert {path.name for path in (tmp_path / "run/plots").iterdir()} == plots


# Signals.


@pytest.mark.parametrize(
    ("error", "code", "ended"),
    [(TypeError("a bug"), 3, "failed"), (EOFError(), 130, "interrupted")],  # of a killed loader
)
def test_what_is_no_work_of_the_signal_is_not_hidden_by_it(
    error: Exception, code: int, ended: str, config: Path, tmp_path: Path
) -> None:
    """Whoever is told of the first trial's end breaks, in the step in which a stop is requested."""

    class Breaking(io.StringIO):
        def write(self, text: str) -> int:
            if "done" in text:
                signal.raise_signal(signal.SIGINT)
                raise error
            return super().write(text)

    console = Console(file=Breaking(), width=100)
    with pytest.raises((TypeError, library.InterruptedRunError)) as raised:
        library.compare(config, out=tmp_path / "run", console=console)
    assert getattr(raised.value, "exit_code", 3) == code
    assert status(tmp_path / "run")["status"] == ended
    assert ("a bug" in str(status(tmp_path / "run"))) == (ended == "failed")


def test_a_complete_range_test_still_writes_its_suggestion(
    lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    """The disk was full, or the process killed, right after the run was over."""
    text = config.read_text()
    assert lrexp("find-lr", config, "--out", "run").code == 0
    answer = lrexp("resume", "run", "--write", "tuned.yaml")
    assert answer.code == 0, answer.err
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert f"{summary['suggested_lr']:.3g}" in (tmp_path / "tuned.yaml").read_text()
    assert config.read_text() == text


def test_the_first_signal_pauses_and_the_second_stops_at_once(
    lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    signals = iter([signal.SIGTERM])

    def signalled() -> None:
        for number in signals:
            signal.raise_signal(number)

    assert lrexp("compare", config, "--out", "run", stop=signalled).code == 130
    assert signal.getsignal(signal.SIGINT) == before
    (checkpoint,) = (tmp_path / "run/checkpoints").iterdir()
    written = checkpoint.stat().st_mtime_ns
    signals = iter([signal.SIGINT, signal.SIGINT])
    answer = lrexp("resume", "run", stop=signalled)
    assert answer.code == 130
    assert "lrexp resume run" in answer.err
    assert checkpoint.stat().st_mtime_ns == written  # the second did not wait for a checkpoint
    assert lrexp("resume", "run").code == 0


def test_another_thread_may_stop_a_run(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    stop, told = threading.Event(), []

    def train() -> None:
        try:
            library.compare(
                config, out=tmp_path / "run", draw=None, stop=stop.is_set,
                overrides={"train.duration": 10**7, "train.eval_every": 10**6},
            )  # fmt: skip
        except library.InterruptedRunError as error:
            told.append(str(error))

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    rows = tmp_path / "run/trials/standard/seed-0/steps.csv"
    try:
        wait_for(lambda: not thread.is_alive() or (rows.exists() and rows.stat().st_size > 1000))
    finally:
        stop.set()
        thread.join(MOST_SECONDS)
    assert not thread.is_alive()
    assert "lrexp resume" in told[0]
    assert (tmp_path / "run/checkpoints/standard-seed-0.safetensors").exists()
    assert library.load_run(tmp_path / "run").status["status"] == "interrupted"


# What does not fit.


def interrupted(lrexp: Callable, folder: Path, *words: object) -> Path:
    answer = lrexp(*words, "--out", "run", stop=After(7))
    assert answer.code == 130, answer.err
    return folder / "run"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_stage(run: Path, **changes: Any) -> None:
    """Change what engine.json says of the first stage."""
    (stage,) = json.loads((run / "engine.json").read_text())["stages"]
    (run / "engine.json").write_text(json.dumps({"stages": [stage | changes]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: edit(run / "config.yaml", "12st", "24st"), r"config\.yaml: was changed"),
        (lambda run: edit(run / "resolved.yaml", "12st", "24st"), r"resolved\.yaml: is not what"),
        (lambda run: (run / "resolved.yaml").unlink(), r"resolved\.yaml: is not what"),
        (
            lambda run: edit_json(run / "environment.json", packages={"torch": "1.13.1"}),
            r"environment\.json: torch was 1\.13\.1 and is",
        ),
        (
            lambda run: edit_json(run / "environment.json", threads=7),
            r"threads was 7 and is \d now",
        ),
        (lambda run: edit_json(run / "environment.json", device="cuda"), "device was cuda and is"),
        (lambda run: edit_json(run / "environment.json", lrexp="0.0.1"), r"lrexp was 0\.0\.1"),
        (
            lambda run: edit_json(run / "environment.json", data={"low": {"train": {}}}),
            "the data of variant low is not the same any more",
        ),
    ],
)
def test_what_does_not_fit_is_refused_unless_forced(
    change: Callable[[Path], None], message: str, lrexp: Callable, paused: Path
) -> None:
    change(paused)
    answer = lrexp("resume", "run")
    assert answer.code == 2
    assert re.search(message, answer.err), answer.err
    assert "--force" in answer.err
    assert status(paused)["status"] == "interrupted"
    assert (paused / "checkpoints").exists()
    answer = lrexp("resume", "run", "--force")
    assert answer.code == 0, answer.err
    assert len(status(paused)["forced"]) == 1
    steps = library.load_run(paused).trials[0].steps
    assert len(steps["step"]) == 12  # settings are those that the run began with


OWN = """\
from torch import nn
from helpers.sizes import WIDTH

def make():
    return nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
"""


def write_own(folder: Path) -> Path:
    (folder / "helpers").mkdir(parents=True)
    (folder / "helpers/__init__.py").touch()
    (folder / "helpers/sizes.py").write_text("WIDTH = 8\n")
    (folder / "own_model.py").write_text(OWN)
    text = CONFIG.replace("ENGINE", "sequential").replace("name: mlp", "name: own_model:make")
    text = text.replace(", args: {hidden: [8], dropout: 0.1}", "")
    (folder / "own.yaml").write_text(text)
    return folder / "own.yaml"


def test_changed_modules_of_the_user_are_refused_unless_forced(
    lrexp: Callable, tmp_path: Path
) -> None:
    run = interrupted(lrexp, tmp_path, "compare", write_own(tmp_path / "project"))
    sizes = tmp_path / "project/helpers/sizes.py"
    sizes.write_text("WIDTH = 8  # as before\n")
    answer = lrexp("resume", "run")
    assert answer.code == 2
    assert f"{sizes}: is not the module that the run began with, run/helpers/sizes.py" in answer.err
    assert lrexp("resume", "run", "--force").code == 0
    assert status(run)["counts"] == {"finished": 4}


def test_a_checkpoint_that_does_not_fit_changed_code_is_kept(
    lrexp: Callable, tmp_path: Path
) -> None:
    config = write_own(tmp_path / "project")
    assert lrexp("compare", config, "--out", "straight").code == 0
    run = interrupted(lrexp, tmp_path, "compare", config)
    with (run / "trials/standard/seed-0/steps.csv").open("a") as file:
        file.write("7,1,0.05,2.5\n")  # past the checkpoint
    before = {path: path.read_bytes() for path in run.rglob("*") if path.suffix in (".csv", ".pt")}
    sizes = tmp_path / "project/helpers/sizes.py"
    sizes.write_text("WIDTH = 9\n")
    os.utime(sizes, (1, 1))  # as long as before, in the same second: kept bytecode would be taken
    answer = lrexp("resume", "run", "--force")
    assert answer.code == 3
    assert "The checkpoint does not fit: 0.weight was (8, 64)" in answer.err
    assert "Undo the change" in answer.err
    assert {path: path.read_bytes() for path in before} == before
    sizes.write_text("WIDTH = 8\n")
    os.utime(sizes, (2, 2))
    answer = lrexp("resume", "run")
    assert answer.code == 0, answer.err
    assert "1 goes on from a checkpoint" in answer.err
    assert contents(run) == contents(tmp_path / "straight")


def test_a_moved_run_goes_on_where_its_config_and_modules_are_gone(
    lrexp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_own(tmp_path / "project")
    assert lrexp("compare", config, "--out", "straight").code == 0
    run = interrupted(lrexp, tmp_path, "compare", config)
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(run, tmp_path / "elsewhere/moved")
    shutil.rmtree(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "elsewhere")
    answer = lrexp("resume", moved)
    assert answer.code == 0, answer.err
    assert contents(Path(moved)) == contents(tmp_path / "straight")
    assert "forced" not in status(Path(moved))


def test_a_run_from_a_stranger_reaches_no_other_code(
    lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    paused = interrupted(lrexp, tmp_path, "compare", config)
    canary = tmp_path / "canary"
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "evil.py").write_text(f"open({str(canary)!r}, 'w')\ndef make(): pass\n")
    order = json.loads((paused / "order.json").read_text())
    text = order["text"].replace("name: mlp", "name: evil:make")
    (paused / "config.yaml").write_text(text)
    edit_json(paused / "order.json", text=text, directory=str(packages))
    answer = lrexp("resume", "run")
    assert answer.code == 2
    assert "evil.py: is no module that the run began with" in answer.err
    text = order["text"].replace("name: mlp", "name: shutil:rmtree")
    (paused / "config.yaml").write_text(text)
    edit_json(paused / "order.json", text=text, directory=str(tmp_path), trust=["shutil"])
    answer = lrexp("resume", "run", "--force")
    assert answer.code == 2
    assert "was made with --trust shutil" in answer.err
    assert not canary.exists()


def test_trust_is_asked_for_again(lrexp: Callable, config: Path, tmp_path: Path) -> None:
    answer = lrexp("compare", config, "--out", "run", "--trust", "numpy", stop=After(7))
    assert answer.code == 130
    assert "lrexp resume run --trust numpy" in answer.err
    refused = lrexp("resume", "run")
    assert (refused.code, "was made with --trust numpy" in refused.err) == (2, True)
    assert lrexp("resume", "run", "--trust", "numpy").code == 0


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda run: (run / "order.json").unlink(), 2, "it has no order.json"),
        (lambda run: (run / "status.json").unlink(), 2, "it has no status.json"),
        (lambda run: (run / "order.json").write_text("{"), 3, r"order\.json: is damaged"),
        (lambda run: edit_json(run / "order.json", changes=[3]), 3, r"order\.json: is damaged"),
        (lambda run: edit_json(run / "order.json", command="rm"), 3, r"order\.json: is damaged"),
        (lambda run: (run / "engine.json").write_text("[]"), 3, r"engine\.json: is damaged"),
        (lambda run: edit_stage(run, jobs=0), 3, r"engine\.json: is damaged"),
        (
            lambda run: edit_stage(
                run,
                units=[{"engine": "sequential", "trials": ["../x/seed-0"]}],
                trials=[{"name": "../x/seed-0", "total_steps": 12}],
            ),
            3,
            r"engine\.json: is damaged: the variant '\.\./x' must start",
        ),
        (lambda run: (run / "environment.json").unlink(), 3, r"environment\.json: is damaged"),
        (
            lambda run: (run / "checkpoints/standard-seed-0.safetensors").write_bytes(b"x"),
            3,
            r"standard-seed-0\.safetensors: is no checkpoint .* Delete it",
        ),
    ],
)
def test_a_damaged_run_is_an_error_that_names_the_file(
    spoil: Callable[[Path], None], code: int, message: str, lrexp: Callable, paused: Path
) -> None:
    spoil(paused)
    answer = lrexp("resume", "run")
    assert answer.code == code, answer.err
    assert re.search(message, answer.err), answer.err
    assert "Traceback" not in answer.err
    assert not (paused / "lock").exists()


def test_without_its_checkpoint_a_trial_begins_anew(
    lrexp: Callable, paused: Path, straight: dict[str, Any]
) -> None:
    shutil.rmtree(paused / "checkpoints")
    assert lrexp("resume", "run").code == 0
    assert contents(paused) == straight


# One writer.


def test_a_run_that_another_process_writes_is_left_alone(lrexp: Callable, paused: Path) -> None:
    with held_by_another(paused / "lock") as pid:
        before = {path: path.stat().st_mtime_ns for path in paused.rglob("*")}
        answer = lrexp("resume", "run", "--force")
        assert answer.code == 3
        assert f"run: is being written by process {pid}" in answer.err
        assert "delete run/lock" in answer.err
        assert {path: path.stat().st_mtime_ns for path in paused.rglob("*")} == before


def test_the_lock_of_a_process_that_is_gone_is_taken_over(lrexp: Callable, paused: Path) -> None:
    left_behind(paused / "lock")
    assert lrexp("resume", "run").code == 0
    assert not (paused / "lock").exists()


# Range tests, failures, Python.


def test_a_resumed_range_test_may_write_its_suggestion(
    lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    config.write_text(config.read_text().replace("max_lr: 10, steps: 24", "max_lr: 30, steps: 80"))
    write = ("--write", "my tuned.yaml")
    answer = lrexp("find-lr", config, "--out", "run", *write, stop=After(50))
    assert answer.code == 130
    assert "lrexp resume run --write 'my tuned.yaml'" in answer.err
    answer = lrexp("resume", "run", *write, "--json")
    assert answer.code == 0, answer.err
    lr = json.loads(answer.out)["suggested_lr"]
    assert f"lr: {float(f'{lr:.3g}')!r}" in (tmp_path / "my tuned.yaml").read_text()


def test_write_is_for_range_tests(lrexp: Callable, paused: Path) -> None:
    answer = lrexp("resume", "run", "--write", "tuned.yaml")
    assert (answer.code, "--write: is for range tests" in answer.err) == (2, True)


KEEPING = """\
from torch import nn

class Net(nn.Linear):
    def __init__(self):
        super().__init__(64, 10)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x * (1 + 0.01 * self.calls))

class Declared(Net):
    def get_extra_state(self):
        return self.calls

    def set_extra_state(self, state):
        self.calls = state
"""


def write_keeping(folder: Path, name: str) -> Path:
    (folder / "keeping.py").write_text(KEEPING)
    text = CONFIG.replace("ENGINE", "sequential").replace("name: mlp", f"name: keeping:{name}")
    text = text.replace(", args: {hidden: [8], dropout: 0.1}", "")
    (folder / "keeping.yaml").write_text(text)
    return folder / "keeping.yaml"


@pytest.mark.parametrize("name", ["Declared", "Net"])
def test_what_a_model_keeps_is_declared_or_named(
    name: str, lrexp: Callable, tmp_path: Path
) -> None:
    held, config = name == "Declared", write_keeping(tmp_path, name)
    assert lrexp("compare", config, "--out", "straight").code == 0
    answer = lrexp("compare", config, "--out", "run", stop=After(7))
    assert answer.code == 130
    anew = (
        "Without a checkpoint, so it begins anew: standard/seed-0: a copy restored from its "
        "state_dict() took another step (loss differs): something that it keeps is not in its "
        "state_dict()."
    )
    assert (anew in answer.err) == (not held)
    assert ("begin_anew" in status(tmp_path / "run")) == (not held)
    answer = lrexp("resume", "run")
    assert answer.code == 0, answer.err
    assert (anew in answer.err) == (not held)
    assert ("goes on from a checkpoint" in answer.err) == held
    assert "begin_anew" not in status(tmp_path / "run")
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


FLAKY = """\
import pathlib
from torch import nn

class Net(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls > 8 and not pathlib.Path("repaired").exists():
            raise RuntimeError("no memory")
        return super().forward(x)
"""


def test_failed_trials_are_trained_again(lrexp: Callable, config: Path, tmp_path: Path) -> None:
    (tmp_path / "flaky.py").write_text(FLAKY)
    text = (
        config.read_text()
        .replace("name: mlp", "name: flaky:Net")
        .replace("args: {hidden: [8], dropout: 0.1}", "args: {in_features: 64, out_features: 10}")
    )
    config.write_text(text)
    answer = lrexp("compare", config, "--out", "run")
    assert answer.code == 3
    assert status(tmp_path / "run")["counts"] == {"failed": 4}
    answer = lrexp("resume", "run")
    assert answer.code == 3
    assert "4 of 4 trials failed" in answer.err
    (tmp_path / "repaired").touch()
    answer = lrexp("resume", "run")
    assert answer.code == 0, answer.err
    assert status(tmp_path / "run")["counts"] == {"finished": 4}
    assert "error" not in status(tmp_path / "run")
    assert lrexp("compare", config, "--out", "straight").code == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def make_model() -> nn.Module:
    return nn.Linear(4, 1)


def test_a_run_made_from_python_objects_says_how_to_go_on(lrexp: Callable, tmp_path: Path) -> None:
    given = {
        "model": make_model,
        "data": (torch.ones(8, 4), torch.ones(8, 1)),
        "loss": nn.MSELoss(),
    }
    config = {
        "optimizer": {"name": "SGD", "lr": 0.1},
        "train": {"duration": 9, "eval_every": 3},
        "compare": {"variants": {"a": {}}, "metric": "train_loss"},
        "data": {"batch_size": 4, "val_fraction": 0.5},
        "engine": "sequential",
    }
    goes_on_by = r"lrexp\.resume\('run', data=\.\.\., loss"
    with pytest.raises(library.InterruptedRunError, match=goes_on_by):
        library.compare(config, **given, out="run", stop=After(4))
    answer = lrexp("resume", "run")
    assert answer.code == 2
    assert "was made with data and loss and model given as Python objects" in answer.err
    assert "lrexp.resume('run', data=..., loss=..., model=...)" in answer.err
    with pytest.raises(ConfigError, match="given as Python objects"):
        library.resume("run", model=make_model)
    other = given | {"data": (torch.zeros(8, 4), torch.ones(8, 1))}
    with pytest.raises(ConfigError, match="the data of variant a is not the same"):
        library.resume("run", **other)
    run = library.resume("run", **given)
    assert run.status["status"] == "complete"
    library.compare(config, **given, out="straight")
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def test_python_objects_that_a_run_was_not_made_with_are_refused(paused: Path) -> None:
    with pytest.raises(ConfigError, match="was not made with model given as Python objects"):
        library.resume(paused, model=make_model)


def test_the_changes_of_a_run_hold_for_its_rest(
    lrexp: Callable, config: Path, tmp_path: Path
) -> None:
    words = (
        "compare",
        config,
        "--seeds",
        1,
        "--set",
        "train.duration=8st",
        "--set",
        "optimizer.lr=5e-2",
    )
    run = interrupted(lrexp, tmp_path, *words)
    assert lrexp("resume", "run").code == 0
    assert [len(trial.steps["step"]) for trial in library.load_run(run).trials] == [8, 8]
    assert library.load_run(run).config["optimizer"]["lr"] == 0.05


def test_a_deleted_run_stays_deleted(lrexp: Callable, config: Path, tmp_path: Path) -> None:
    def delete() -> None:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)

    answer = lrexp("compare", config, "--out", "run", stop=delete)
    assert answer.code == 3
    assert "No such file" in answer.err or "was deleted" in answer.err
    assert not (tmp_path / "run").exists()


def test_a_link_in_a_run_is_refused(lrexp: Callable, paused: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim.csv"
    victim.write_text("step,epoch,lr,loss\n" * 99)
    steps = paused / "trials/standard/seed-0/steps.csv"
    steps.unlink()
    steps.symlink_to(victim)
    answer = lrexp("resume", "run", "--force")
    assert answer.code == 3
    assert "steps.csv: is a link, which may lead out of the run" in answer.err
    assert victim.read_text().count("\n") == 99


def test_status_json_may_be_lost(lrexp: Callable, paused: Path) -> None:
    (paused / "status.json").write_text("[]")
    assert lrexp("resume", "run").code == 0
    assert status(paused)["seeds"] == [0, 1]
    assert status(paused)["status"] == "complete"


def test_a_run_that_was_interrupted_before_it_could_go_on_leaves_nothing(
    lrexp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before order.json is written there is nothing to resume, and nothing is kept."""
    config, before, seen = write_own(tmp_path / "project"), os.replace, []

    def interrupted(source: Any, target: Any) -> None:
        if Path(target).name == "order.json":
            seen.append({path.name for path in Path(target).parent.rglob("*")})
            signal.raise_signal(signal.SIGINT)
        before(source, target)

    patch_system(monkeypatch, "replace", interrupted)
    answer = lrexp("compare", config, "--out", tmp_path / "run")
    assert answer.code == 130
    assert "nothing was written" in answer.err
    assert "resume" not in answer.err
    assert not (tmp_path / "run").exists()
    own = tmp_path / "mine"  # that the user made, with rights of its own
    own.mkdir(mode=0o700)
    assert lrexp("compare", config, "--out", own).code == 130
    assert (list(own.iterdir()), own.stat().st_mode & 0o777) == ([], 0o700)
    assert len(seen) == 2
    assert all({"config.yaml", "sizes.py"} <= names for names in seen)


INTERRUPTED = """\
from pathlib import Path
from torch import nn

class Net(nn.Linear):
    def __init__(self):
        super().__init__(64, 10)

    def forward(self, x):
        left = Path("calls")
        if left.exists():
            left.write_text(str(int(left.read_text()) - 1))
            if left.read_text() == "0":
                raise KeyboardInterrupt
        return super().forward(x)
"""


def test_an_interruption_before_the_end_of_a_step_never_removes_a_run(
    lrexp: Callable, tmp_path: Path
) -> None:
    config = write_own(tmp_path / "project")
    edit(config, "own_model:make", "own_model:Net")
    (tmp_path / "project/own_model.py").write_text(INTERRUPTED)
    run = interrupted(lrexp, tmp_path, "compare", config)
    files = [path for path in run.rglob("*") if path.is_file() and path.name != "status.json"]
    before = {path: path.read_bytes() for path in files}
    for call in itertools.count(1):  # while all is loaded, and at last in the first step
        (tmp_path / "calls").write_text(str(call))
        answer = lrexp("resume", "run")
        assert answer.code == 130, answer.err
        assert {path: path.read_bytes() for path in files} == before, answer.err
        if "nothing was written" not in answer.err:
            break
    assert call > 1
    (tmp_path / "calls").unlink()
    assert lrexp("resume", "run").code == 0
