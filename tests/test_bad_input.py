"""Bad configs and command lines: the exit code, all problems at once, where, and what to do.

Every row is run as a command. No row may show a traceback or write a run directory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BASE = """\
name: bad
model: {name: mlp, args: {hidden: [4]}}
data: {name: digits, batch_size: 64}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1}
schedule: constant
train: {duration: 1ep, eval_every: 1ep}
compare: {variants: {a: {}}}
"""
MINE = """\
import torch
from torch import nn

def model(in_features, fails=False):
    if fails:
        raise ValueError("no such depth")
    return nn.Linear(in_features, 10)

class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
    def forward(self, x):
        raise RuntimeError("broken forward")

class RaisesLater(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.calls = 0
    def forward(self, x):
        self.calls += 1
        if self.calls > 5:
            raise RuntimeError("broken at call 6")
        return self.layer(x)

def no_module():
    return 3

def raising_data():
    raise OSError("no such bucket")

def tiny_data():
    return torch.randn(5, 64), torch.randint(0, 10, (5,))

def triples():
    return torch.utils.data.TensorDataset(torch.randn(99, 64), torch.zeros(99), torch.zeros(99))

def vector_loss(output, target):
    return (output.sum(1) - target) ** 2

def raising_loss(output, target):
    raise KeyError("weights")
"""

# name | what replaces a line of BASE (matched by its key) or the whole file | code | words to find
CONFIGS: list[tuple[str, str | bytes, int, list[str]]] = [
    ("unknown key", "modle: {name: mlp}", 2, ["bad.yaml:9: modle:", "Did you mean 'model'?"]),
    ("unknown nested key", "train: {durration: 1ep}", 2, ["bad.yaml:7: train.durration:", "duration"]),
    ("duplicate key", "name: again", 2, ["bad.yaml:9: name:", "line 1"]),
    ("two problems", "train: {duration: -1, grad_clip: x}", 2, ["train.duration:", "train.grad_clip:"]),
    ("problems of all sections", "optimizer: {name: SDG, lr: -1}\nmodel: {name: mpl}", 2,
     ["optimizer.name:", "Did you mean 'SGD'?", "optimizer.lr:", "Did you mean 'mlp'?"]),
    ("lr true", "optimizer: {name: SGD, lr: true}", 2, ["bad.yaml:5: optimizer.lr:", "got true"]),
    ("lr nan", "optimizer: {name: SGD, lr: .nan}", 2, ["bad.yaml:5: optimizer.lr:", "nan"]),
    ("lr inf", "optimizer: {name: SGD, lr: .inf}", 2, ["bad.yaml:5: optimizer.lr:", "inf"]),
    ("lr zero", "optimizer: {name: SGD, lr: 0}", 2, ["optimizer.lr:", "got 0"]),
    ("lr negative", "optimizer: {name: SGD, lr: -1e-3}", 2, ["optimizer.lr:", "-0.001"]),
    ("lr text", "optimizer: {name: SGD, lr: fast}", 2, ["optimizer.lr:", "'fast'"]),
    ("lr null", "optimizer: {name: SGD, lr: null}", 2, ["optimizer.lr:", "null"]),
    ("lr missing", "optimizer: {name: SGD}", 2, ["bad.yaml:5: optimizer.lr:"]),
    ("lr list", "optimizer: {name: SGD, lr: [1]}", 2, ["optimizer.lr:"]),
    ("seed text", "seed: zero", 2, ["bad.yaml:9: seed:", "'zero'"]),
    ("seed is a float", "seed: 1.5", 2, ["seed:", "1.5"]),
    ("section is a list", "train: [1ep]", 2, ["bad.yaml:7: train:"]),
    ("precision", "precision: fp16", 2, ["precision:", "bf16"]),
    ("engine", "engine: warp", 2, ["engine:", "sequential"]),
    ("device", "device: tpu", 2, ["device:", "'tpu'"]),
    ("metric", "compare: {metric: val_los}", 2, ["compare.metric:", "val_loss"]),
    ("metric without validation", "data: {name: digits, val_fraction: 0}", 2, ["compare.metric:", "val_fraction"]),
    ("no such optimizer", "optimizer: {name: Adm, lr: 1}", 2, ["bad.yaml:5: optimizer.name:", "Adam"]),
    ("no such schedule", "schedule: cosin", 2, ["bad.yaml:6: schedule", "Did you mean 'cosine'?"]),
    ("no such loss", "loss: cross_entrpy", 2, ["bad.yaml:4: loss", "cross_entropy"]),
    ("no such data", "data: {name: digts}", 2, ["bad.yaml:3: data.name:", "digits"]),
    ("unknown torchvision model", "model: {name: resnet17}", 2, ["bad.yaml:2: model.name:", "resnet18"]),
    ("unknown torchvision data", "data: {name: FashionMNST}", 2, ["data.name:", "FashionMNIST"]),
    ("unknown model argument", "model: {name: mlp, args: {hiden: [3]}}", 2, ["model.args.hiden:", "hidden"]),
    ("unknown fact", "model: {name: mlp, args: {out_features: $num_clases}}", 2, ["$num_classes"]),
    ("unknown optimizer argument", "optimizer: {name: SGD, lr: 1, args: {momentun: 0.9}}", 2, ["momentun", "momentum"]),
    ("lr among the arguments", "optimizer: {name: SGD, lr: 1, args: {lr: 2}}", 2, ["optimizer.args.lr:"]),
    ("optimizer refuses", "optimizer: {name: SGD, lr: 1, args: {nesterov: true}}", 2, ["optimizer.args:", "momentum"]),
    ("closure optimizer", "optimizer: {name: LBFGS, lr: 1}", 2, ["optimizer.name:", "closure"]),
    ("unknown schedule parameter", "schedule: {name: cosine, warmpu: 5}", 2, ["schedule.warmpu:", "warmup"]),
    ("schedule parameter type", "schedule: {name: cosine, min_lr: low}", 2, ["schedule.min_lr:", "'low'"]),
    ("torch schedule argument", "schedule: {name: StepLR, args: {step_sise: 3}}", 2, ["step_sise", "step_size"]),
    ("torch schedule needs argument", "schedule: {name: StepLR}", 2, ["schedule", "step_size"]),
    ("warmup longer than training", "schedule: {name: cosine, warmup: 500st}", 2, ["bad.yaml:6: schedule.warmup:", "22"]),
    ("size rounds to nothing", "schedule: {name: step, size: 1%}", 2, ["schedule.size:", "1%"]),
    ("duration rounds to nothing", "train: {duration: 3sa}", 2, ["bad.yaml:7: train.duration:", "3sa"]),
    ("unit unknown", "train: {duration: 3min}", 2, ["train.duration:", "ep"]),
    ("tokens without tokens", "train: {duration: 300tok}", 2, ["train.duration:", "token"]),
    ("percent of itself", "train: {duration: 50%}", 2, ["train.duration:"]),
    ("milestones unsorted", "schedule: {name: multi_step, milestones: [50%, 20%], factors: [.5, .1]}", 2, ["schedule.milestones"]),
    ("milestones and factors differ", "schedule: {name: multi_step, milestones: [50%], factors: [.5, .1]}", 2, ["factors"]),
    ("floor above the peak", "schedule: {name: cosine, min_lr: 3}", 2, ["schedule.min_lr:", "3"]),
    ("momentum to cycle is missing", "optimizer: {name: Adagrad, lr: 0.1}\nschedule: one_cycle", 2, ["schedule.name", "'one_cycle'", "Set schedule.cycle_momentum: false"]),
    ("momentum to cycle, as asked for", "optimizer: {name: Adagrad, lr: 0.1}\nschedule: {name: one_cycle, cycle_momentum: true}", 2, ["schedule.cycle_momentum", "got true"]),
    ("momentum to cycle by torch's class", "optimizer: {name: Adagrad, lr: 0.1}\nschedule: OneCycleLR", 2, ["schedule.name", "Set schedule.args.cycle_momentum: false"]),
    ("momentum of a class, as asked for", "optimizer: {name: Adagrad, lr: 0.1}\nschedule: {name: OneCycleLR, args: {cycle_momentum: true}}", 2, ["schedule.args.cycle_momentum", "got true"]),
    ("group matches nothing", "optimizer: {name: SGD, lr: 1, groups: [{match: head, lr_scale: 2}]}", 2, ["optimizer.groups[0].match:", "head"]),
    ("group pattern", "optimizer: {name: SGD, lr: 1, groups: [{match: '(', lr_scale: 2}]}", 2, ["optimizer.groups[0].match:"]),
    ("output does not fit", "loss: mse_loss", 2, ["bad.yaml:4: loss: mse_loss does not fit", "y.float()"]),
    ("data smaller than a batch", "data: {name: digits, batch_size: 5000}", 2, ["bad.yaml:3: data.batch_size:", "5000"]),
    ("accumulate over an epoch", "train: {duration: 5st, accumulate: 500}", 2, ["train.accumulate:", "500"]),
    ("batch size zero", "data: {name: digits, batch_size: 0}", 2, ["data.batch_size:"]),
    ("variant changes a wrong key", "compare: {variants: {a: {optimiser.lr: 1}}}", 2, ["compare.variants.a", "optimizer"]),
    ("variant with a bad value", "compare: {variants: {a: {optimizer.lr: -1}, b: {schedule: csine}}}", 2,
     ["compare.variants.a.optimizer.lr:", "compare.variants.b.schedule"]),
    ("variant outside the run", "compare: {variants: {../../up: {}}}", 2, ["compare.variants"]),
    ("variant that is too long to warm up", "compare: {variants: {a: {schedule: {name: cosine, warmup: 99}}}}", 2,
     ["bad.yaml:8: compare.variants.a.schedule", "22"]),
    ("variants and grid", "compare: {variants: {a: {}}, grid: {optimizer.lr: [1]}}", 2, ["compare", "grid"]),
    ("find_lr range", "find_lr: {min_lr: 1, max_lr: 0.1}", 2, ["find_lr"]),
    ("find_lr steps", "find_lr: {steps: 1}", 2, ["find_lr.steps:"]),
    ("find_lr rule", "find_lr: {rule: steepst}", 2, ["find_lr.rule:", "steepest"]),
    ("standard library", "model: {name: 'os:system'}", 2, ["model.name:", "--trust"]),
    ("installed package", "model: {name: 'yaml:load'}", 2, ["model.name:", "--trust"]),
    ("no such module", "model: {name: 'mien:model'}", 2, ["model.name:", "mien"]),
    ("no such attribute", "model: {name: 'mine:modle'}", 2, ["model.name:", "model"]),
    ("private attribute", "model: {name: 'mine:__builtins__'}", 2, ["model.name:"]),
    ("own model without an argument", "model: {name: 'mine:model'}", 2, ["model.args", "in_features"]),
    ("own model raises", "model: {name: 'mine:model', args: {in_features: 64, fails: true}}", 3, ["mine.py:6", "no such depth"]),
    ("own forward raises", "model: {name: 'mine:Raises'}", 3, ["mine.py:", "broken forward"]),
    ("own data raises", "data: {name: 'mine:raising_data'}", 3, ["mine.py:", "no such bucket"]),
    ("own data is tiny", "data: {name: 'mine:tiny_data'}", 2, ["data.batch_size:"]),
    ("own data has two inputs", "data: {name: 'mine:triples'}", 2, ["model: cannot be called with", "2 inputs"]),
    ("own model is no module", "model: {name: 'mine:no_module'}", 2, ["model.name:", "nn.Module"]),
    ("own loss gives a vector", "loss: mine:vector_loss", 2, ["loss", "one number"]),
    ("own loss raises", "loss: mine:raising_loss", 3, ["mine.py:", "weights"]),
    ("csv is missing", "data: {name: csv, args: {path: none.csv, target: y}}", 2, ["data.args.path:", "none.csv"]),
    ("dataset is not there", "data: {name: MNIST, args: {root: nowhere}}", 2, ["data.args", "download"]),
    ("tab", b"name:\tbad\n\tmodel: x\n", 2, ["bad.yaml:1", "tab"]),
    ("not utf-8", "name: caf\u00e9".encode("latin-1"), 2, ["bad.yaml", "UTF-8"]),
    ("empty", b"", 2, ["bad.yaml", "empty"]),
    ("only a comment", b"# nothing\n", 2, ["bad.yaml", "empty"]),
    ("a list", b"- a\n- b\n", 2, ["bad.yaml", "mapping"]),
    ("syntax", b"name: [1, 2\nmodel: {", 2, ["bad.yaml:"]),
    ("python tag", b"name: !!python/object/apply:os.system ['touch canary']\n", 2, ["bad.yaml:1", "tag"]),
    ("nul", b"name: a\x00b\n", 2, ["bad.yaml"]),
    ("alias bomb", "\n".join(
        ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
        + [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
     ).encode(), 2, ["bad.yaml:"]),
    ("deep", b"name: " + b"[" * 2000 + b"]" * 2000, 2, ["bad.yaml"]),
]  # fmt: skip


def write_config(folder: Path, change: str | bytes) -> Path:
    path = folder / "bad.yaml"
    if isinstance(change, bytes):
        path.write_bytes(change)
        return path
    lines = BASE.splitlines()
    for new in change.split("\n"):
        key = new.split(":")[0]
        at = [i for i, line in enumerate(lines) if line.startswith(f"{key}:")]
        if at and key != "name":
            lines[at[0]] = new
        else:
            lines.append(new)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(("change", "code", "words"), [row[1:] for row in CONFIGS],
                         ids=[row[0] for row in CONFIGS])  # fmt: skip
def test_a_bad_config_is_explained(
    change: str | bytes, code: int, words: list[str], lrexp: Callable, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    config = write_config(tmp_path, change)
    answer = lrexp("compare", config.name)
    assert answer.code == code, answer.err
    assert [word for word in words if word not in answer.err] == [], answer.err
    assert "Traceback" not in answer.err + answer.out
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "canary").exists()


def test_the_base_of_the_table_is_good(lrexp: Callable, tmp_path: Path) -> None:
    config = write_config(tmp_path, "seed: 0")
    answer = lrexp("validate", config.name)
    assert answer.code == 0, answer.err


COMMANDS: list[tuple[str, list[str], list[str]]] = [
    ("no such command", ["comparee"], ["comparee"]),
    ("no config", ["compare"], ["CONFIG"]),
    ("no such option", ["compare", "good.yaml", "--sedes", "3"], ["--sedes"]),
    ("missing file", ["compare", "none.yaml"], ["none.yaml", "does not exist"]),
    ("a directory", ["compare", "."], ["directory"]),
    ("seeds zero", ["compare", "good.yaml", "--seeds", "0"], ["--seeds"]),
    ("seeds text", ["compare", "good.yaml", "--seeds", "many"], ["--seeds", "integer"]),
    ("set without value", ["compare", "good.yaml", "--set", "optimizer.lr"], ["--set", "KEY=VALUE"]),
    ("set unknown key", ["compare", "good.yaml", "--set", "optimizer.rl=1"], ["--set optimizer.rl", "lr"]),
    ("set bad value", ["compare", "good.yaml", "--set", "optimizer.lr=-1"], ["--set optimizer.lr", "-1"]),
    ("set bad yaml", ["compare", "good.yaml", "--set", "optimizer.lr=[1"], ["--set"]),
    ("bad device", ["compare", "good.yaml", "--device", "gpu"], ["--device: ", "gpu"]),
    ("misspelt section", ["compare", "good.yaml", "--set", "optimzer.lr=1"], ["--set optimzer.lr", "optimizer"]),
    ("no such cuda device", ["compare", "good.yaml", "--device", "cuda:99"], ["device", "CUDA"]),
    ("bad engine", ["compare", "good.yaml", "--engine", "warp"], ["engine", "warp"]),
    ("out exists", ["compare", "good.yaml", "--out", "full"], ["--out", "full", "empty"]),
    ("write into no folder", ["find-lr", "good.yaml", "--write", "no/tuned.yaml"], ["--write", "no/tuned.yaml"]),
    ("write over the config", ["find-lr", "good.yaml", "--write", "good.yaml"], ["--write", "--force"]),
    ("a picture of another kind", ["schedule", "good.yaml", "--out", "lr.txt"], ["--out", ".png"]),
    ("plot nothing", ["plot"], ["RUN"]),
    ("plot no run", ["plot", "nowhere"], ["nowhere", "run directory"]),
    ("plot a folder", ["plot", "full"], ["full", "run directory"]),
    ("runs of nothing", ["runs", "nowhere"], ["nowhere"]),
    ("init over a file", ["init", "good.yaml"], ["good.yaml", "--force"]),
    ("write over nothing", ["find-lr", "good.yaml", "--set", "find_lr.steps=1"], ["find_lr.steps"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "expected"), [row[1:] for row in COMMANDS],
                         ids=[row[0] for row in COMMANDS])  # fmt: skip
def test_a_bad_command_line_is_explained(
    words: list[str], expected: list[str], lrexp: Callable, tmp_path: Path
) -> None:
    (tmp_path / "good.yaml").write_text(BASE)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    answer = lrexp(*words)
    assert answer.code == 2, answer.err
    plain = " ".join(answer.err.replace("│", " ").split())
    assert [word for word in expected if word not in plain] == [], plain
    assert "Traceback" not in answer.err + answer.out
    assert not (tmp_path / "runs").exists()


def test_user_code_that_raises_while_training_fails_its_trial_and_the_run(
    lrexp: Callable, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    change = (
        "compare: {variants: {good: {}, bad: {model.name: 'mine:RaisesLater', model.args: {}}}}"
    )
    config = write_config(tmp_path, change)
    answer = lrexp("compare", config.name, "--out", "run")
    assert answer.code == 3, answer.err
    assert "Validation loss" in answer.out  # what the other trial gave
    assert "1 of 2 trials failed. The run is in run." in answer.err
    assert "mine.py:24: in forward: RuntimeError: broken at call 6" in answer.err
    assert "Traceback" not in answer.err
    assert '"outcome": "finished"' in (tmp_path / "run/trials/good/seed-0/result.json").read_text()
    failed = json.loads((tmp_path / "run/trials/bad/seed-0/result.json").read_text())
    assert (failed["outcome"], failed["steps"]) == (
        "failed",
        4,
    )  # one call was the evaluation before training
    assert "ended it at step 4 of" in answer.out
    assert "Next:" not in answer.out
    debugged = lrexp("compare", config.name, "--debug")
    assert debugged.code == 3
    assert "RuntimeError: broken at call 6" in debugged.err
    assert "raise RuntimeError" in debugged.err  # the line of the user's own file
    assert '"status": "failed"' in (tmp_path / "run/status.json").read_text()


def test_a_disk_that_refuses_is_exit_code_3(
    lrexp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.yaml").write_text(BASE)
    (tmp_path / "file").touch()
    answer = lrexp("compare", "good.yaml", "--runs-dir", "file/runs")
    assert answer.code == 3, answer.err
    assert "cannot be written" in answer.err

    opened = Path.open

    def full_disk(self: Path, *args: object, **kwargs: object) -> object:
        if self.name == "evals.csv":
            raise OSError(28, "No space left on device")
        return opened(self, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full_disk)
    answer = lrexp("compare", "good.yaml", "--out", "run")
    assert answer.code == 3, answer.err
    assert "evals.csv: cannot be written: No space left on device" in answer.err
    assert '"status": "failed"' in (tmp_path / "run/status.json").read_text()


def test_debug_shows_the_traceback(lrexp: Callable, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: 3\n")
    for words in (("validate", "bad.yaml", "--debug"), ("--debug", "validate", "bad.yaml")):
        answer = lrexp(*words)
        assert answer.code == 2
        assert "Traceback" in answer.err
    assert "Traceback" not in lrexp("validate", "bad.yaml").err


def test_the_program_itself_ends_with_the_code_of_its_command(tmp_path: Path) -> None:
    def started(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lrexp", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = started("init", "new.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Wrote new.yaml" in done.stdout
    refused = started("init", "new.yaml", "--debug")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Traceback" in refused.stderr
    assert "new.yaml" in refused.stderr


def test_torch_and_torchvision_that_do_not_match_are_explained(
    lrexp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "broken" / "torchvision"
    package.mkdir(parents=True)
    mismatch = 'raise RuntimeError("operator torchvision::nms does not exist")\n'
    (package / "__init__.py").write_text(mismatch)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path / "broken")
    for change in ("model: {name: resnet18}", "data: {name: MNIST, args: {root: x}}"):
        answer = lrexp("validate", write_config(tmp_path, change).name)
        assert answer.code == 2, answer.err
        assert "torchvision" in answer.err
        assert "pip install" in answer.err
        assert "Traceback" not in answer.err
    assert lrexp("validate", write_config(tmp_path, "seed: 0").name).code == 0  # needs it not
