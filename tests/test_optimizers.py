"""What an optimizer of a config may be besides a class with arguments: by hand, as torch has it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lrexp
from lrexp.workloads.seeds import permutation

G = torch.Generator().manual_seed(0)
X = torch.randn(64, 6, generator=G)
Y = X.sum(1, keepdim=True)
STEPS = 8
CONFIG: dict[str, Any] = {
    "data": {"batch_size": 16},
    "train": {"duration": STEPS, "eval_every": 4},
    "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.02}}},
}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1))


def compared(tmp_path: Path, **config: Any) -> tuple[lrexp.Run, dict[str, Tensor]]:
    made: list[nn.Module] = []

    def make() -> nn.Module:
        made.append(net())
        return made[-1]

    given = {"data": ((X, Y), (X, Y)), "loss": functional.mse_loss, "runs_dir": tmp_path}
    return lrexp.compare(CONFIG | config, model=make, **given), made[0].state_dict()


def by_hand(initial: dict[str, Tensor], optimizer_of: Any) -> tuple[list[float], list[float]]:
    """Return the training losses, and those of evaluations."""
    model = net()
    model.load_state_dict(initial)
    optimizer = optimizer_of(model)
    order = torch.cat([permutation(0, epoch, len(X)) for epoch in range(2)]).split(16)
    losses, evaluated = [], []
    for step in range(STEPS + 1):
        if step % 4 == 0:
            getattr(optimizer, "eval", lambda: None)()
            with torch.no_grad():
                evaluated.append(functional.mse_loss(model(X), Y).item())
            getattr(optimizer, "train", lambda: None)()
        if step < STEPS:
            rows = order[step]
            loss = functional.mse_loss(model(X[rows]), Y[rows])
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return losses, evaluated


# groups of the config | whether a group, by its number, takes a parameter | what each sets
GROUPS: list[tuple[list[dict[str, Any]], list[Any], list[dict[str, Any]]]] = [
    (
        [{"match": ".*bias", "weight_decay": 0}, {"module": "LayerNorm", "weight_decay": 0}],
        [lambda n, p: n.endswith("bias"), lambda n, p: n.startswith("1.")],
        [{"weight_decay": 0}, {"weight_decay": 0}],
    ),
    (
        [{"ndim": 1, "weight_decay": 0.5, "lr_scale": 0.1, "betas": [0.5, 0.9]}],
        [lambda n, p: p.ndim == 1],
        [{"weight_decay": 0.5, "lr": 0.001, "betas": (0.5, 0.9)}],
    ),
    (
        [{"match": "3", "ndim": 2, "lr_scale": 2.0}],
        [lambda n, p: n == "3.weight"],
        [{"lr": 0.02}],
    ),
]


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize(("groups", "takes", "sets"), GROUPS, ids=range(len(GROUPS)))
def test_groups_take_arguments_of_their_own(
    groups: Any, takes: Any, sets: Any, engine: str, tmp_path: Path
) -> None:
    section = {"name": "AdamW", "lr": 0.01, "args": {"weight_decay": 0.2}, "groups": groups}
    run, initial = compared(tmp_path, optimizer=section, engine=engine)

    def optimizer_of(model: nn.Module) -> Any:
        own: list[list[Tensor]] = [[] for _ in (*takes, "rest")]
        for name, parameter in model.named_parameters():
            hits = (i for i, takes_it in enumerate(takes) if takes_it(name, parameter))
            own[next(hits, -1)].append(parameter)
        made = [{"params": p, **kw} for p, kw in zip(own, [*sets, {}], strict=True)]
        return torch.optim.AdamW(made, lr=0.01, weight_decay=0.2)

    losses, evaluated = by_hand(initial, optimizer_of)
    np.testing.assert_allclose(run.trials[0].steps["loss"], losses, rtol=2e-5)
    np.testing.assert_allclose(run.trials[0].evals["val_loss"], evaluated, rtol=2e-5)


def test_schedulefree_is_evaluated_at_its_average(tmp_path: Path) -> None:
    schedulefree = pytest.importorskip("schedulefree")
    section = {"name": "schedulefree:AdamWScheduleFree", "lr": 0.01}
    given = {"data": ((X, Y), (X, Y)), "loss": functional.mse_loss, "runs_dir": tmp_path}
    torch.manual_seed(0)
    start = net()
    run = lrexp.compare(
        CONFIG | {"optimizer": section}, model=start, trust=["schedulefree"], **given
    )
    losses, evaluated = by_hand(
        start.state_dict(), lambda m: schedulefree.AdamWScheduleFree(m.parameters(), lr=0.01)
    )
    np.testing.assert_allclose(run.trials[0].steps["loss"], losses, rtol=2e-5)
    np.testing.assert_allclose(run.trials[0].evals["val_loss"], evaluated, rtol=2e-5)
    finder = lrexp.LRFinder(
        start, schedulefree.AdamWScheduleFree(start.parameters(), lr=0.01), functional.mse_loss
    )
    assert len(finder.run((X, Y), steps=20, seeds=1).curves[0].loss) > 10


# groups | what is said
REFUSED: list[tuple[Any, str]] = [
    ([{"match": ".*", "weight_dekay": 0}], r"optimizer.groups\[0\].weight_dekay: .*weight_decay"),
    ([{"match": ".*", "weight_decay": "x"}], r"optimizer.groups\[0\].weight_decay: "),
    ([{"module": "Conv2d"}], r"optimizer.groups\[0\].module: matches no trainable parameter"),
    ([{"ndim": 1}, {"match": ".*bias"}], r"optimizer.groups\[1\].match: matches no trainable"),
    ([{"ndim": "x"}], r"optimizer.groups\[0\].ndim: "),
]


@pytest.mark.parametrize(("groups", "said"), REFUSED, ids=range(len(REFUSED)))
def test_groups_that_are_refused(groups: Any, said: str, tmp_path: Path) -> None:
    section = {"name": "AdamW", "lr": 0.01, "groups": groups}
    with pytest.raises(lrexp.ConfigError, match=said):
        compared(tmp_path, optimizer=section)


@pytest.mark.parametrize("name", ["LBFGS", "torch.optim:LBFGS"])
def test_an_optimizer_that_wants_a_closure_is_refused_in_every_path(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(lrexp.ConfigError, match=r"optimizer.name: needs a closure"):
        compared(tmp_path, optimizer={"name": name, "lr": 0.1})
    model = net()
    with pytest.raises(lrexp.ConfigError, match=r"^optimizer: needs a closure"):
        lrexp.LRFinder(model, torch.optim.LBFGS(model.parameters()), functional.mse_loss)


class Signs(torch.optim.Optimizer):
    """Steps by the sign of the gradient."""

    def __init__(self, params: Any, lr: float = 1.0, decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["decay"]).sub_(p.grad.sign(), alpha=group["lr"])


def signs(params: Any) -> torch.optim.Optimizer:
    return Signs(params, decay=0.5)


@pytest.mark.parametrize("in_config", [True, False])
@pytest.mark.parametrize(("made", "args"), [(Signs, {"decay": 0.5}), (signs, {})])
def test_an_optimizer_of_ones_own_is_given_as_an_object(
    made: Any, args: Any, in_config: bool, tmp_path: Path
) -> None:
    x, y, start = torch.randn(16, 3), torch.randn(16, 1), nn.Linear(3, 1)
    section = {"lr": 0.1, "args": args} | ({"name": made} if in_config else {})
    objects = {"model": start, "data": (x, y), "loss": nn.functional.mse_loss, "draw": None}
    objects |= {} if in_config else {"optimizer": made}
    config = {
        "optimizer": section, "data": {"batch_size": 16, "val_fraction": 0}, "device": "cpu",
        "train": {"duration": 4}, "compare": {"metric": "train_loss"}, "schedule": "linear",
    }  # fmt: skip
    run = lrexp.compare(config, **objects, out=tmp_path / "run")
    trial = next(trial for trial in run.trials if trial.variant == "standard")
    model, losses = copy.deepcopy(start), []
    own = Signs(model.parameters(), 0.1, 0.5)
    for step in range(4):
        own.param_groups[0]["lr"] = 0.1 * (1 - step / 4)
        loss = nn.functional.mse_loss(model(x), y)
        own.zero_grad()
        loss.backward()
        own.step()
        losses.append(loss.item())
    assert trial.steps["loss"] == pytest.approx(losses, rel=1e-5)
    with pytest.raises(
        lrexp.ConfigError, match=r"with data and loss and model and optimizer given"
    ):
        lrexp.resume(run.path, seeds=2)
    more = lrexp.resume(run.path, **objects | {"optimizer": made}, seeds=2)
    assert len(more.trials) == 6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.optim.LBFGS, "needs a closure"),
        (Signs([torch.ones(1)]), "must be a class, or a function of the parameters"),
        (lambda params: None, "must give a torch.optim.Optimizer"),
        (lambda params: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_makes_no_optimizer_is_refused(given: Any, said: str, tmp_path: Path) -> None:
    x = torch.randn(64, 3)
    with pytest.raises(lrexp.LrexpError, match=said):
        lrexp.compare(
            {"optimizer": {"lr": 0.1}, "data": {"batch_size": 8}}, model=nn.Linear(3, 1), data=(x, x[:, :1]), loss="mse_loss",
            optimizer=given, runs_dir=tmp_path,
        )  # fmt: skip
