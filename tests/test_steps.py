"""A training step of one's own: as a loop by hand has it, from YAML and Python, in each engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

import lrexp
from lrexp.workloads.seeds import permutation

N, STEPS = 96, 8
G = torch.Generator().manual_seed(0)
ANCHOR, OTHER = torch.randn(N, 6, generator=G), torch.randn(N, 6, generator=G)
SAME = ANCHOR + 0.1 * torch.randn(N, 6, generator=G)
TRIPLETS = (ANCHOR, SAME, OTHER)
MINE = """\
import torch
from torch import nn
from torch.nn.functional import triplet_margin_loss
def data():
    g = torch.Generator().manual_seed(0)
    a, n = torch.randn(96, 6, generator=g), torch.randn(96, 6, generator=g)
    p = a + 0.1 * torch.randn(96, 6, generator=g)
    return (a, p, n), (a, p, n)
def net():
    return nn.Linear(6, 4)
def step(model, batch):
    return triplet_margin_loss(*map(model, batch))
def step_of_one(model):
    return model.weight.sum()
def vector(model, batch):
    return model(batch[0])
class Scaled:
    def __call__(self, model, batch):
        return 2 * step(model, batch)
"""
CONFIG: dict[str, Any] = {
    "optimizer": {"name": "SGD", "lr": 0.1},
    "data": {"batch_size": 16},
    "train": {"duration": STEPS, "eval_every": 4},
    "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.02}}},
    "find_lr": {"budget": 0, "seeds": 1, "steps": 20},
}


def triplet(model: nn.Module, batch: Any) -> Tensor:
    anchor, same, other = map(model, batch)
    return functional.relu((anchor - same).norm(dim=1) - (anchor - other).norm(dim=1) + 1).mean()


def logging(model: nn.Module, batch: Any) -> dict[str, Any]:
    return {"loss": triplet(model, batch), "norm": model(batch[0]).norm(dim=1).mean()}


def net() -> nn.Module:
    return nn.Linear(6, 4)


def by_hand(initial: dict[str, Tensor], lr: float) -> tuple[list[float], float]:
    model = net()
    model.load_state_dict(initial)
    optimizer = torch.optim.SGD(model.parameters(), lr)
    losses = []
    order = torch.cat([permutation(0, epoch, N) for epoch in range(2)])
    for rows in order.split(16)[:STEPS]:
        loss = triplet(model, tuple(part[rows] for part in TRIPLETS))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses, triplet(model, TRIPLETS).item()


@pytest.mark.parametrize("step", [triplet, logging])
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_training_is_that_of_a_loop_by_hand(engine: str, step: Any, tmp_path: Path) -> None:
    made: list[nn.Module] = []

    def make() -> nn.Module:
        made.append(net())
        return made[-1]

    run = lrexp.compare(
        CONFIG | {"engine": engine},
        model=make, data=(TRIPLETS, TRIPLETS), step=step, runs_dir=tmp_path,
    )  # fmt: skip
    (stage,) = json.loads((run.path / "engine.json").read_text())["stages"]
    assert engine in str(stage)
    for trial, lr in zip(run.trials, (0.1, 0.02), strict=True):
        losses, val_loss = by_hand(made[0].state_dict(), lr)
        np.testing.assert_allclose(trial.steps["loss"], losses, rtol=1e-5)
        assert trial.evals["val_loss"][-1] == pytest.approx(val_loss, rel=1e-5)


def write(folder: Path, **changes: Any) -> Path:
    (folder / "mine.py").write_text(MINE)
    config = {"model": "mine:net", "step": "mine:step", **CONFIG, **changes}
    config["data"] = {"name": "mine:data", "batch_size": 16}
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return folder / "c.yaml"


def test_a_step_of_a_file(tmp_path: Path) -> None:
    run = lrexp.compare(write(tmp_path), out=tmp_path / "run")
    scaled = lrexp.compare(write(tmp_path, step="mine:Scaled"), out=tmp_path / "scaled")
    assert scaled.trials[0].steps["loss"][0] == pytest.approx(2 * run.trials[0].steps["loss"][0])
    found = lrexp.find_lr(write(tmp_path), out=tmp_path / "found")
    assert len(found.curves[0].loss) >= 10
    assert lrexp.load_run(tmp_path / "run").trials[0].result["outcome"] == "finished"


def test_evaluations_may_have_a_step_of_their_own(tmp_path: Path) -> None:
    def zero(model: nn.Module, batch: Any) -> Tensor:
        assert not model.training
        return model(batch[0]).sum() * 0 + 7

    for engine in ("sequential", "vectorized"):
        run = lrexp.compare(
            CONFIG | {"engine": engine}, model=net, data=(TRIPLETS, TRIPLETS), step=triplet,
            eval_step=zero, runs_dir=tmp_path,
        )  # fmt: skip
        assert run.trials[0].evals["val_loss"].tolist() == [7.0] * 3
        assert run.trials[0].steps["loss"][0] != 7.0


# changes of the config | what is said
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"loss": "mse_loss"}, r"loss: is not used: the step makes the loss. Leave one of them out"),
    ({"step": "mine:nothing"}, r"c.yaml:\d+: step: .*nothing"),
    ({"step": "step"}, r"c.yaml:\d+: step: "),
    ({"step": "mine:step_of_one"}, r"step: must take two arguments, \(model, batch\)"),
    ({"step": "mine:vector"}, r"step: must return one number .* \(16, 4\)"),
    ({"step": "os:system"}, r"step: .*--trust"),
    ({"eval_step": "mine:vector"}, r"eval_step: must return one number"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_step_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(lrexp.ConfigError, match=said):
        lrexp.compare(write(tmp_path, **changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# what a step returns | what is said
RETURNED: list[tuple[Callable[[Tensor], Any], str]] = [
    (lambda loss: None, "one number .* 'None'"),
    (lambda loss: loss.item(), "one number"),
    (lambda loss: {"d": loss, "g": loss}, "a dict of d, g.*add them up"),
    (lambda loss: loss.detach(), "without a gradient"),
    (lambda loss: {"loss": loss, "text": "x"}, "'text' is none"),
    (lambda loss: {"loss": loss[None]}, r"one number .* 'a tensor of \(1,\) float32'"),
    (lambda loss: loss * 1j, "one number .* complex64"),
    (lambda loss: {"loss": loss, "n": 1j * loss}, "'n' is none"),
]


@pytest.mark.parametrize(("change", "said"), RETURNED, ids=range(len(RETURNED)))
def test_what_is_no_loss_is_refused(change: Any, said: str, tmp_path: Path) -> None:
    def step(model: nn.Module, batch: Any) -> Any:
        return change(triplet(model, batch))

    with pytest.raises(lrexp.ConfigError, match=said):
        lrexp.compare(CONFIG, model=net, data=TRIPLETS, step=step, runs_dir=tmp_path)


class Annealed:
    """A step with a state: a margin that grows."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        self.calls += model.training
        return functional.triplet_margin_loss(*map(model, batch), margin=1 + 0.1 * self.calls)

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]


def test_every_trial_begins_with_the_same_step_and_goes_on_with_its_own(tmp_path: Path) -> None:
    given = {"model": net, "data": (TRIPLETS, TRIPLETS), "step": Annealed()}
    config = CONFIG | {"engine": "sequential", "compare": {"variants": {"a": {}, "b": {}}}}
    whole = lrexp.compare(config, **given, runs_dir=tmp_path)
    assert whole.trials[0].steps["loss"].tolist() == whole.trials[1].steps["loss"].tolist()
    asked = iter(range(100))
    with pytest.raises(lrexp.InterruptedRunError) as stopped:
        lrexp.compare(config, **given, runs_dir=tmp_path, stop=lambda: next(asked) == 2)
    resumed = lrexp.resume(stopped.value.run, **given)
    assert resumed.trials[0].steps["loss"].tolist() == whole.trials[0].steps["loss"].tolist()
