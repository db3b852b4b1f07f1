"""User code that misbehaves: its trial fails, with file and line; the others are as if alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from starting import Starter

CONFIG = """\
name: misbehaving
model: {{name: 'mine:Net'}}
data: {{name: 'mine:data', batch_size: 16}}
loss: {loss}
optimizer: {{name: SGD, lr: 0.05}}
engine: {engine}
train: {{duration: {steps}, eval_every: 10}}
compare: {{seeds: 2, variants: {{{bad} good: {{}}}}}}
"""
BAD = "bad: {{model.args: {{mode: {mode}}}}},"

MINE = """\
import os, random, sys, warnings
import numpy as np
import torch
from torch import nn

def data():
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    return (x[:48], x[:48].argmax(1)), (x[48:], x[48:].argmax(1))

class Net(nn.Module):
    def __init__(self, mode=""):
        super().__init__()
        self.layer, self.out = nn.Linear(4, 8), nn.Linear(8, 4)
        self.mode, self.calls, self.kept = mode, 0, []

    def forward(self, x):
        self.calls += self.training
        step = self.calls - 1
        misbehave = globals().get(self.mode)
        done = misbehave(self, x, step) if misbehave else None
        if done is not None:
            return done
        return self.out(torch.relu(self.layer(x)))

def raises_in_step_0(net, x, step):
    if net.training:
        raise ValueError("at once")  # LINE raises_in_step_0

def raises_in_step_1(net, x, step):
    if step == 1:
        raise ValueError("soon")  # LINE raises_in_step_1

def raises_in_step_300(net, x, step):
    if step == 300:
        raise KeyError("late")  # LINE raises_in_step_300

def raises_in_evaluation(net, x, step):
    if not net.training and step >= 9:
        raise ValueError("only in evaluation")  # LINE raises_in_evaluation

def raises_an_odd_error(net, x, step):
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError("no text")
    if step == 3:
        raise Odd  # LINE raises_an_odd_error

def exits(net, x, step):
    if step == 3:
        sys.exit("user code wants to go")  # LINE exits

def raises_no_exception(net, x, step):
    class Odd(BaseException):
        pass
    if step == 3:
        raise Odd("not even that")  # LINE raises_no_exception

def runs_out_of_stack(net, x, step):  # where it ends differs between versions of Python
    return runs_out_of_stack(net, x, step) if step == 3 else None  # LINE runs_out_of_stack

def runs_out_of_memory(net, x, step):
    if step == 3:
        return torch.empty(2**60)  # LINE runs_out_of_memory

def runs_out_of_device_memory(net, x, step):
    if step == 3:
        raise torch.OutOfMemoryError("CUDA out of memory.")  # LINE runs_out_of_device_memory

def has_no_memory_in_python(net, x, step):
    if step == 3:
        raise MemoryError  # LINE has_no_memory_in_python

def detaches(net, x, step):
    if step >= 3:
        return net.out(torch.relu(net.layer(x))).detach()

def returns_no_tensor(net, x, step):
    if step == 3:
        return "nothing"

def returns_another_shape(net, x, step):
    if step == 3:
        return net.out(torch.relu(net.layer(x)))[:, :2, None]

def changes_its_own_shape(net, x, step):
    if step == 3:
        net.layer = nn.Linear(4, 5)

def grows_a_parameter(net, x, step):
    if step == 3:
        net.out.weight.data = torch.zeros(4, 9)

def ends_in_nan(net, x, step):
    if step >= 3:
        return net.out(torch.relu(net.layer(x))) * float("nan")

def seeds_everything(net, x, step):
    random.seed(0); np.random.seed(0); torch.manual_seed(0)

def draws_everywhere(net, x, step):
    random.random(); np.random.rand(); torch.rand(3)

def changes_torch(net, x, step):
    if step == 3:
        torch.set_default_dtype(torch.float64)

def turns_gradients_off(net, x, step):
    if step == 3:
        torch.set_grad_enabled(False)

def turns_gradients_off_in_evaluation(net, x, step):
    if not net.training:
        torch.set_grad_enabled(False)

def changes_the_folder(net, x, step):
    if step == 3:
        os.mkdir(f"elsewhere-{os.getpid()}-{id(net)}")
        os.chdir(f"elsewhere-{os.getpid()}-{id(net)}")

def closes_stdout(net, x, step):
    if step == 3:
        sys.stdout = sys.stderr = None

def warns_as_errors(net, x, step):
    if step == 3:
        warnings.simplefilter("ignore")

def mutates_its_input(net, x, step):
    x.mul_(1.5)

def mutates_its_input_to_nan(net, x, step):
    x.fill_(float("nan"))

def mutates_its_weights(net, x, step):
    with torch.no_grad():
        net.layer.weight.fill_(0.5)

def keeps_everything(net, x, step):
    net.kept.append(net.layer(x))

def late_vector(output, target):
    return nn.functional.cross_entropy(output, target, reduction=_late("none", "mean"))

def late_detached(output, target):
    loss = nn.functional.cross_entropy(output, target)
    return _late(loss.detach(), loss)

def late_raising(output, target):
    if _late(True, False):
        raise KeyError("weights")  # LINE late_raising
    return nn.functional.cross_entropy(output, target)

def late_none(output, target):
    return _late(None, nn.functional.cross_entropy(output, target))

def late_number(output, target):
    return _late(1.0, nn.functional.cross_entropy(output, target))

calls = 0
def _late(then, before):
    global calls
    calls += torch.is_grad_enabled()
    return then if calls > 20 else before
"""

# what user code does | how its trial ends: failed, finished (with odd numbers), diverged | words
MODES = [
    ("raises_in_step_1", "failed", "ValueError: soon"),
    ("raises_in_evaluation", "failed", "ValueError: only in evaluation"),
    ("raises_an_odd_error", "failed", "Odd"),
    ("exits", "failed", "SystemExit: user code wants to go"),
    ("raises_no_exception", "failed", "Odd: not even that"),
    ("runs_out_of_stack", "failed", "RecursionError"),
    ("runs_out_of_memory", "failed", "memory"),
    ("runs_out_of_device_memory", "failed", "OutOfMemoryError: CUDA out of memory."),
    ("has_no_memory_in_python", "failed", "MemoryError"),
    ("detaches", "failed", "grad"),
    ("returns_no_tensor", "failed", "cross_entropy"),
    ("returns_another_shape", "failed", ""),
    ("changes_its_own_shape", "failed", "shape"),
    ("grows_a_parameter", "failed", "shape"),
    ("turns_gradients_off", "failed", "grad"),
    ("ends_in_nan", "diverged", ""),
    ("seeds_everything", "finished", ""),
    ("draws_everywhere", "finished", ""),
    ("changes_torch", "", ""),
    ("turns_gradients_off_in_evaluation", "", ""),
    ("changes_the_folder", "finished", ""),
    ("closes_stdout", "finished", ""),
    ("warns_as_errors", "finished", ""),
    ("mutates_its_input", "finished", ""),
    ("mutates_its_input_to_nan", "diverged", ""),
    ("mutates_its_weights", "finished", ""),
    ("keeps_everything", "finished", ""),
]


def line_of(mode: str) -> int:
    (line,) = (i for i, text in enumerate(MINE.splitlines(), 1) if text.endswith(f"# LINE {mode}"))
    return line


def write(
    folder: Path,
    bad: str = "",
    *,
    engine: str = "sequential",
    steps: int = 20,
    loss: str = "cross_entropy",
) -> None:
    (folder / "mine.py").write_text(dedent(MINE))
    (folder / "config.yaml").write_text(
        CONFIG.format(bad=bad, engine=engine, steps=steps, loss=loss)
    )


def trial_files(run: Path, variant: str = "good") -> dict[str, bytes]:
    found = {}
    for path in sorted(run.glob(f"trials/{variant}/*/*.csv")):
        found[str(path.relative_to(run))] = path.read_bytes()
    for path in sorted(run.glob(f"trials/{variant}/*/result.json")):
        result = json.loads(path.read_text())
        found[str(path.relative_to(run))] = json.dumps(
            {k: v for k, v in result.items() if k not in {"seconds", "steps_per_second"}}
        ).encode()
    return found


def outcomes(run: Path, variant: str) -> set[str]:
    paths = run.glob(f"trials/{variant}/*/result.json")
    return {json.loads(path.read_text())["outcome"] for path in paths}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the good variant, trained without a bad one."""
    import lrexp

    folder = tmp_path_factory.mktemp("alone")
    write(folder)
    run = lrexp.compare(folder / "config.yaml", out=folder / "run", draw=None)
    return trial_files(run.path)


@pytest.mark.parametrize(("mode", "outcome", "words"), MODES)
def test_one_misbehaving_variant(
    mode: str, outcome: str, words: str, lrexp: Callable, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    write(tmp_path, BAD.format(mode=mode))
    answer = lrexp("compare", "config.yaml", "--out", "run")
    assert "Traceback" not in answer.err
    assert Path.cwd() == tmp_path
    found = outcomes(tmp_path / "run", "bad")
    assert len(found) == 1
    if outcome:
        assert found == {outcome}
    assert answer.code == (3 if found == {"failed"} else 0), answer.err
    if found == {"failed"}:
        assert words in answer.err
        assert "variant bad, seed 0" in answer.err
        assert "variant bad, seed 1" in answer.err
        assert "2 of 4 trials failed." in answer.err
        if f"# LINE {mode}\n" in MINE:
            assert f"mine.py:{line_of(mode)}: in {mode}" in answer.err
    assert trial_files(tmp_path / "run") == alone


def test_a_model_that_cannot_train_is_found_before_anything_is(
    lrexp: Callable, tmp_path: Path
) -> None:
    write(tmp_path, BAD.format(mode="raises_in_step_0"))
    answer = lrexp("compare", "config.yaml", "--out", "run")
    assert answer.code == 3
    assert f"mine.py:{line_of('raises_in_step_0')}: in raises_in_step_0: ValueError" in answer.err
    assert not (tmp_path / "run").exists()


THREE = (
    "variants: {low: {optimizer.lr: 0.001}, mid: {optimizer.lr: 0.01}, high: {optimizer.lr: 0.1}}"
)


def test_trials_that_failed_are_nowhere_said_to_have_diverged(
    lrexp: Callable, tmp_path: Path
) -> None:
    write(tmp_path, loss="'mine:late_raising'")
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(config.read_text().replace("variants: { good: {}}", THREE))
    answer = lrexp("compare", "config.yaml", "--out", "run")
    assert answer.code == 3
    told = answer.out + answer.err
    assert "failed" in told
    assert "diverged" not in told
    summary = json.loads((run / "summary.json").read_text())
    for row in summary["ranking"]:
        assert row["diagnosis"]["word"] == "failed"
        assert row["outcomes"] == {"failed": 2}
    rows = list(csv.DictReader((run / "summary.csv").read_text().splitlines()))
    assert [(row["diverged"], row["failed"], row["diagnosis"]) for row in rows] == [
        ("0", "2", "failed")
    ] * 3
    assert {name for v in ("low", "mid", "high") for name in outcomes(run, v)} == {"failed"}
    [curve] = summary["lr_sensitivity"]
    assert (curve["best_lr"], curve["diverged"]) == (None, [0, 0, 0])


def test_a_trial_that_raises_late(lrexp: Callable, tmp_path: Path) -> None:
    write(tmp_path, BAD.format(mode="raises_in_step_300"), steps=320)
    answer = lrexp("compare", "config.yaml", "--out", "run")
    assert answer.code == 3
    assert f"mine.py:{line_of('raises_in_step_300')}: in raises_in_step_300" in answer.err
    result = json.loads((tmp_path / "run/trials/bad/seed-0/result.json").read_text())
    assert (result["outcome"], result["steps"]) == ("failed", 300)
    rows = (tmp_path / "run/trials/bad/seed-0/steps.csv").read_text().splitlines()
    assert len(rows) == 1 + 300  # all that was done before it
    assert outcomes(tmp_path / "run", "good") == {"finished"}


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("late_vector", "must return one number, got a tensor of shape (16,)"),
        ("late_detached", "the loss late_detached returned a loss without a gradient"),
        ("late_raising", "KeyError: 'weights'"),
        ("late_none", "returned NoneType"),
        ("late_number", "returned float"),
    ],
)
def test_a_loss_that_changes_its_mind(
    loss: str, words: str, lrexp: Callable, tmp_path: Path
) -> None:
    """Every trial has this loss, and each fails by itself."""
    write(tmp_path, loss=f"'mine:{loss}'")
    answer = lrexp("compare", "config.yaml", "--out", "run")
    assert answer.code == 3, answer.err
    assert words in answer.err
    assert "Traceback" not in answer.err
    assert "lrexp failed:" not in answer.err
    assert "2 of 2 trials failed." in answer.err
    assert "variant good, seed 1" in answer.err
    assert "mine.py:" in answer.err
    if f"# LINE {loss}\n" in MINE:
        assert f"mine.py:{line_of(loss)}: in {loss}" in answer.err


@pytest.mark.parametrize("engine", ["vectorized", "auto"])
@pytest.mark.parametrize(
    "mode", ["raises_in_step_1", "changes_its_own_shape", "mutates_its_input", "seeds_everything"]
)
def test_with_another_engine(engine: str, mode: str, lrexp: Callable, tmp_path: Path) -> None:
    """What a stack cannot do faithfully is refused by name, or trained by the loop."""
    write(tmp_path, BAD.format(mode=mode), engine=engine)
    answer = lrexp("compare", "config.yaml", "--out", "run")
    assert "Traceback" not in answer.err
    assert "lrexp failed:" not in answer.err
    if engine == "vectorized" and answer.code == 2:
        assert "engine" in answer.err
        return
    assert outcomes(tmp_path / "run", "good") == {"finished"}


def test_with_worker_processes(
    lrexp: Callable, tmp_path: Path, alone: dict[str, bytes], quick_workers: Starter
) -> None:
    modes = ["exits", "runs_out_of_memory", "mutates_its_input", "changes_torch", "closes_stdout"]
    bad = "".join(f"{m}: {{model.args: {{mode: {m}}}}}, " for m in modes)
    write(tmp_path, bad)
    answer = lrexp("compare", "config.yaml", "--out", "run", "--jobs", 2)
    assert answer.code == 3, answer.err
    assert trial_files(tmp_path / "run") == alone
    for mode in ("exits", "runs_out_of_memory"):
        assert outcomes(tmp_path / "run", mode) == {"failed"}
        assert f"mine.py:{line_of(mode)}: in {mode}" in answer.err
