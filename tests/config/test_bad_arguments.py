"""Bad arguments of every kind of callable, all told at once and in the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lrexp.config.checks import section_problems
from lrexp.config.names import Names

MINE = """
from typing import Literal
from torch.optim import SGD

def model(width: int, act: Literal["relu", "tanh"] = "relu"): ...
def data(path: str, sizes: list[int] = [1], **rest: float): ...
def schedule(lr: float, total_steps: int, power: float, steps: int | None = None): ...
class Optimizer(SGD):
    def __init__(self, params, lr: float, momentum: float = 0.0, sign: bool = False): ...
"""

# section | what stands in it | key: what is said (the start of it), each problem
TABLE: list[tuple[str, dict[str, Any], list[str]]] = [
    # the same four mistakes for every kind: misspelt, missing, type, range or choice
    ("schedule", {"name": "step", "sise": 3, "gamma": True, "min_lr": -1, "warmup_start": float("nan")}, [
        "schedule.sise: is not a parameter of step (got 3). Did you mean 'size'?",
        "schedule.gamma: must be a number in (0, 1] (got true). Give e.g. 0.5.",
        "schedule.min_lr: must be a number of at least 0 (got -1). Give e.g. 0.5.",
        "schedule.warmup_start: must be a finite number in [0, 1] (got nan). Give e.g. 0.5.",
        "schedule.size: is needed by step. Add it, e.g. size: 10%."]),
    ("schedule", {"name": "wsd", "decay_type": "1-sqr", "decay": 2.5, "warmup": None, "lr": 1}, [
        "schedule.decay_type: must be one of linear, cosine, 1-sqrt (got '1-sqr'). Did you mean '1-sqrt'?",
        "schedule.decay: must be a duration (got 2.5). Give e.g. 500, 10ep or 5%.",
        "schedule.warmup: must be a duration (got null). Give e.g. 500, 10ep or 5%.",
        "schedule.lr: is given to wsd already, by optimizer.lr (got 1). Remove it."]),
    ("schedule", {"name": "multi_step", "milestones": ["5%", -1, True], "factors": [1, "x"]}, [
        "schedule.milestones[2]: must be a duration (got true). Give e.g. 500, 10ep or 5%.",
        "schedule.factors[1]: must be a number of at least 0 (got 'x'). Write a number without quotes."]),
    ("schedule", {"name": "combined", "parts": [{"start": 0, "ends": 5, "schedule": {"name": "rex", "beta": 1}}]}, [
        "schedule.parts[0].ends: is not a parameter of a part (got 5). Did you mean 'end'?",
        "schedule.parts[0].end: is needed by a part. Add it, e.g. end: 10%.",
        "schedule.parts[0].schedule.beta: must be a number in [0, 1) (got 1). Give e.g. 0.5."]),
    ("schedule", {"name": "plateau", "factor": 1.0, "patience": 2.0, "threshold": "no"}, [
        "schedule.factor: must be a number in (0, 1) (got 1.0). Give e.g. 0.5.",
        "schedule.patience: must be a whole number of at least 0 (got 2.0). Give e.g. 2.",
        "schedule.threshold: must be a number of at least 0 (got 'no'). Write a number without quotes."]),
    ("schedule", {"name": "StepLR", "args": {"step_sise": 1, "gamma": float("inf"), "last_epoch": 2}, "interval": "batch"}, [
        "schedule.interval: must be one of epoch, step (got 'batch'). Known: epoch, step.",
        "schedule.args.step_sise: is not a parameter of StepLR (got 1). Did you mean 'step_size'?",
        "schedule.args.gamma: must be a finite number (got inf). Give e.g. 0.5.",
        "schedule.args.last_epoch: is given to StepLR already, by the step of the training (got 2). Remove it.",
        "schedule.args.step_size: is needed by StepLR. Add it, e.g. step_size: 2."]),
    ("schedule", {"name": "MultiStepLR", "args": {"milestones": [1, 2.5]}}, [
        "schedule.args.milestones[1]: must be a whole number (got 2.5). Give e.g. 2."]),
    ("schedule", {"name": "ReduceLROnPlateau", "args": {"factor": 2, "mode": "low", "cooldown": 0.5}}, [
        "schedule.args.mode: must be one of min, max (got 'low'). Known: max, min.",
        "schedule.args.cooldown: must be a whole number (got 0.5). Give e.g. 2."]),
    ("schedule", {"name": "mine:schedule", "args": {"pover": 1, "steps": "3", "lr": 1}, "warmup": "5%"}, [
        "schedule.args.pover: is not a parameter of schedule (got 1). Did you mean 'power'?",
        "schedule.args.steps: must be a whole number (got '3'). Write a number without quotes.",
        "schedule.args.lr: is given to schedule already, by optimizer.lr (got 1). Remove it.",
        "schedule.args.power: is needed by schedule. Add it, e.g. power: 0.5."]),
    ("model", {"name": "mlp", "args": {"hiden": [3], "hidden": [8, 0], "activation": "rleu", "dropout": 1, "batch_norm": "no"}}, [
        "model.args.hiden: is not a parameter of mlp (got [3]). Did you mean 'hidden'?",
        "model.args.hidden[1]: must be a whole number of at least 1 (got 0). Give e.g. 2.",
        "model.args.activation: must be one of relu, gelu, silu, tanh, sigmoid, leaky_relu, elu (got 'rleu'). Did you mean 'relu'?",
        "model.args.dropout: must be a number in [0, 1) (got 1). Give e.g. 0.5.",
        "model.args.batch_norm: must be true or false (got 'no'). Write true or false: yes, no, on and off are text."]),
    ("model", {"name": "cnn", "args": {"channels": [], "in_channels": "$in_chanels"}}, [
        "model.args.channels: must be a list with an item or more, each item a whole number of at least 1 (got []).",
        "model.args.in_channels: uses $in_chanels, which is no fact of the data (got '$in_chanels'). Did you mean '$in_channels'?"]),
    ("model", {"name": "mine:model", "args": {"wdth": 1, "act": "relo"}}, [
        "model.args.wdth: is not a parameter of mine:model (got 1). Did you mean 'width'?",
        "model.args.act: must be one of relu, tanh (got 'relo'). Did you mean 'relu'?",
        "model.args.width: is needed by mine:model. Add it, e.g. width: 2."]),
    ("model", {"name": "resnet18", "args": {"num_classes": 0, "weights": 1}}, [
        "model.args.num_classes: must be a whole number of at least 1 (got 0). Give e.g. 2.",
        "model.args.weights: must be text (got 1)."]),
    ("data", {"name": "spirals", "args": {"clases": 3, "classes": 1, "noise": -0.1, "seed": 1.5}}, [
        "data.args.clases: is not a parameter of spirals (got 3). Did you mean 'classes'?",
        "data.args.classes: must be a whole number of at least 2 (got 1). Give e.g. 2.",
        "data.args.noise: must be a number of at least 0 (got -0.1). Give e.g. 0.5.",
        "data.args.seed: must be a whole number of at least 0 (got 1.5). Give e.g. 2."]),
    ("data", {"name": "csv", "args": {"path": 3, "task": "regresion"}}, [
        "data.args.path: must be text (got 3). Correct it.",
        "data.args.task: must be one of regression, classification (got 'regresion'). Did you mean 'regression'?",
        "data.args.target: is needed by csv. Add it."]),
    ("data", {"name": "mine:data", "args": {"sizes": 3, "more": "x"}}, [
        "data.args.sizes: must be a list, each item a whole number (got 3). Give e.g. [2].",
        "data.args.path: is needed by mine:data. Add it."]),
    ("data", {"name": "MNIST", "args": {"rot": ".", "download": "yes", "size": 0, "train": True}}, [
        "data.args.rot: is not a parameter of MNIST (got '.'). Did you mean 'root'?",
        "data.args.download: must be true or false (got 'yes'). Write true or false: yes, no, on and off are text.",
        "data.args.size: must be a whole number of at least 1 (got 0). Give e.g. 2.",
        "data.args.train: is not a parameter of MNIST (got true).",
        "data.args.root: is needed by MNIST."]),
    ("optimizer", {"name": "SGD", "lr": 1, "args": {"momentun": 1, "momentum": "0.9", "nesterov": "no", "lr": 2}}, [
        "optimizer.args.momentun: is not a parameter of SGD (got 1). Did you mean 'momentum'?",
        "optimizer.args.momentum: must be a number (got '0.9'). Write a number without quotes.",
        "optimizer.args.nesterov: must be true or false (got 'no'). Write true or false: yes, no, on and off are text.",
        "optimizer.args.lr: is given to SGD already, by optimizer.lr (got 2). Remove it."]),
    ("optimizer", {"name": "Adam", "lr": 1, "args": {"betas": [0.9], "eps": float("nan"), "weight_decay": True}}, [
        "optimizer.args.betas: must be a list of 2: ",
        "optimizer.args.eps: must be a finite number (got nan). Give e.g. 0.5.",
        "optimizer.args.weight_decay: must be a number (got true). Give e.g. 0.5."]),
    ("optimizer", {"name": "mine:Optimizer", "lr": 1, "args": {"sign": 1, "beta": 2}}, [
        "optimizer.args.sign: must be true or false (got 1). Give e.g. true.",
        "optimizer.args.beta: is not a parameter of mine:Optimizer (got 2)."]),
]  # fmt: skip


@pytest.mark.parametrize(("section", "value", "expected"), TABLE)
def test_bad_arguments(
    section: str, value: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    problems = section_problems(section, value, Names((tmp_path,)))
    assert len(problems) == len(expected), list(map(str, problems))
    for problem, said in zip(problems, expected, strict=True):
        assert str(problem).startswith(said)
