"""Several optimizers in one training: by hand, as torch has them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from stopping import After, contents
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer

import lrexp
from lrexp import api
from lrexp.config.document import document_from_dict, with_lrs
from lrexp.config.load import load_config
from lrexp.workloads.seeds import permutation

G = torch.Generator().manual_seed(0)
X = torch.randn(64, 6, generator=G)
Y = X.sum(1, keepdim=True)
STEPS = 8
MUON: dict[str, Any] = {"ndim": 2, "match": "0", "name": "Muon", "lr": 0.02}
PARTS = {"parts": [MUON, {"name": "AdamW", "lr": 0.003}]}
STACKED = {"parts": [{"ndim": 2, "name": "SGD", "lr": 0.1}, {"name": "Adam", "lr": 0.01}]}
CONFIG: dict[str, Any] = {
    "device": "cpu",
    "optimizer": PARTS,
    "data": {"batch_size": 16, "val_fraction": 0.0},
    "train": {"duration": STEPS, "eval_every": 4},
    "compare": {"metric": "train_loss", "variants": {"a": {}}},
}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))


def given(**more: Any) -> dict[str, Any]:
    return {"model": net(), "data": (X, Y), "loss": functional.mse_loss, "draw": None, **more}


def compared(tmp_path: Path, **config: Any) -> lrexp.Run:
    return lrexp.compare(CONFIG | config, **given(), runs_dir=tmp_path)


def muon_and_adam(model: nn.Module, lr: float = 0.02, other: float = 0.003) -> list[Optimizer]:
    first, *rest = model.parameters()
    return [Muon([first], lr=lr), AdamW(rest, lr=other)]


def batches() -> Any:
    for epoch in itertools.count():
        yield from permutation(0, epoch, len(X)).split(16)


def by_hand(model: nn.Module, optimizers: Sequence[Optimizer], shares: Any = None) -> list[float]:
    """Return the losses of a training; `shares` are factors of the base LRs, (steps, optimizers)."""
    base = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    shares = np.ones((STEPS, len(base))) if shares is None else shares
    losses = []
    for share, rows in zip(shares, batches(), strict=False):
        loss = functional.mse_loss(model(X[rows]), Y[rows])
        model.zero_grad()
        loss.backward()
        for optimizer, lr, factor in zip(optimizers, base, share, strict=True):
            optimizer.param_groups[0]["lr"] = lr * factor
            optimizer.step()
        losses.append(loss.item())
    return losses


def close(expected: Any) -> Any:
    return pytest.approx(np.asarray(expected), rel=3e-5)


def test_a_schedule_scales_the_lr_of_each_part(tmp_path: Path) -> None:
    run = compared(tmp_path, schedule={"name": "linear", "min_lr": 0.002})
    steps, model = run.trials[0].steps, net()
    shape = 1 - 0.9 * np.arange(STEPS) / STEPS  # from 1 to 0.1
    assert steps["lr"] == close(0.02 * shape)
    assert steps["lr_1"] == close(0.003 * shape)
    shares = np.stack([shape, shape], axis=1)
    assert steps["loss"] == close(by_hand(model, muon_and_adam(model), shares))


def test_a_grid_reaches_into_parts_and_is_called_by_their_names(tmp_path: Path) -> None:
    grid = {"optimizer.parts.0.lr": [0.02, 0.1], "optimizer.parts[1].lr": [0.003, 0.03]}
    run = compared(tmp_path, compare={"metric": "train_loss", "grid": grid})
    assert list(run.variants)[1] == "Muon.lr=0.02,AdamW.lr=0.03"
    for trial, lrs in zip(run.trials, itertools.product(*grid.values()), strict=True):
        model = net()
        assert trial.steps["loss"] == close(by_hand(model, muon_and_adam(model, *lrs)))


def test_without_variants_all_parts_go_up_and_down_together(tmp_path: Path) -> None:
    run = compared(tmp_path, compare={"metric": "train_loss"})
    assert list(run.variants) == ["high", "standard", "low"]
    model = net()
    assert run.trials[0].steps["loss"] == close(by_hand(model, muon_and_adam(model, 0.2, 0.03)))


def sgd_and_adam(model: Any) -> list[Optimizer]:
    weights = [model[0].weight, model[2].weight]
    return [SGD(weights, lr=0.1), Adam([model[0].bias, model[2].bias], lr=0.01)]


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_parts_that_have_stacked_forms_are_stacked(engine: str, tmp_path: Path) -> None:
    two = {"a": {}, "b": {"optimizer.parts.0.lr": 0.2, "optimizer.parts.1.lr": 0.02}}
    compare = {"metric": "train_loss", "variants": two}
    run = compared(tmp_path, optimizer=STACKED, compare=compare, engine=engine)
    groups = json.loads((run.path / "engine.json").read_text())["stages"][0]["units"]
    assert [group["engine"] for group in groups] == [engine] * len(groups)
    for trial, factor in zip(run.trials, (1, 2), strict=True):
        model = net()
        shares = np.full((STEPS, 2), factor)
        assert trial.steps["loss"] == close(by_hand(model, sgd_and_adam(model), shares))
        assert trial.steps["lr_1"] == close([0.01 * factor] * STEPS)


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize("part", [None, 0, 1])
def test_a_range_test_ramps_all_parts_or_one(part: int | None, engine: str, tmp_path: Path) -> None:
    find_lr = {"min_lr": 1e-4, "max_lr": 1e-2, "steps": STEPS, "seeds": 1, "part": part}
    config = CONFIG | {"optimizer": STACKED, "find_lr": find_lr, "engine": engine}
    found = lrexp.find_lr(config, **given(), out=tmp_path / "run")
    lrs, stays = np.geomspace(1e-4, 1e-2, STEPS), np.ones(STEPS)
    shares = np.stack(
        [stays if part == 1 else lrs / 0.1, stays if part == 0 else lrs / (0.01 if part else 0.1)],
        axis=1,
    )
    model = net()
    expected = by_hand(model, sgd_and_adam(model), shares)
    assert found.curves[0].lr == close(lrs)
    assert found.curves[0].loss == close(expected)
    steps = lrexp.load_run(tmp_path / "run").trials[0].steps
    other = 0 if part == 1 else 1
    assert steps[f"lr_{other}"] == close(shares[:, other] * (0.1, 0.01)[other])


@pytest.mark.parametrize("part", [None, 1])
def test_the_range_test_of_a_loop_takes_several_optimizers(part: int | None) -> None:
    model = net()
    finder = lrexp.LRFinder(model, muon_and_adam(model), functional.mse_loss)
    data = [(X[rows], Y[rows]) for rows in itertools.islice(batches(), STEPS)]
    found = finder.run(data, min_lr=1e-4, max_lr=1e-2, steps=STEPS, seeds=1, part=part)
    lrs = np.geomspace(1e-4, 1e-2, STEPS)
    shares = [lrs / 0.02, lrs / 0.02] if part is None else [np.ones(STEPS), lrs / 0.003]
    expected = by_hand(model, muon_and_adam(model), np.stack(shares, axis=1))
    assert found.curves[0].loss == close(expected)


def test_a_race_tries_lrs_of_one_part(tmp_path: Path) -> None:
    find_lr = {"min_lr": 1e-4, "max_lr": 3, "steps": 30, "seeds": 2, "part": 1, "race": True}
    train = {"duration": 60, "eval_every": 30}
    data = {"batch_size": 16, "val_fraction": 0.25}
    config = CONFIG | {"optimizer": STACKED, "find_lr": find_lr, "train": train, "data": data}
    lrexp.find_lr(config | {"schedule": "linear"}, **given(), out=tmp_path / "run")
    raced = lrexp.load_run(tmp_path / "run").of_kind("race")
    assert len({trial.lr for trial in raced}) > 1
    for trial in raced:
        assert trial.lr is not None
        assert trial.steps["lr_0"] == close(trial.steps["lr"] / trial.lr * 0.1)


@pytest.mark.parametrize("name", ["sequential", "vectorized", "prodigyopt"])
def test_an_interrupted_training_of_parts_goes_on_bit_by_bit(name: str, tmp_path: Path) -> None:
    optimizer: dict[str, Any] = STACKED if name == "vectorized" else PARTS
    if name == "prodigyopt":
        pytest.importorskip("prodigyopt")
        optimizer = {"parts": [MUON, {"name": "prodigyopt:Prodigy", "lr": 1.0}]}
    two = {"a": {}, "b": {"optimizer.parts.0.lr": 0.05}}
    engine = "vectorized" if name == "vectorized" else "sequential"
    changes = {"optimizer": optimizer, "engine": engine}
    config = CONFIG | changes | {"compare": {"metric": "train_loss", "variants": two}}
    trust = ["prodigyopt"]
    straight = lrexp.compare(config, **given(), out=tmp_path / "straight", trust=trust)
    with pytest.raises(lrexp.InterruptedRunError):
        lrexp.compare(config, **given(), out=tmp_path / "run", stop=After(5), trust=trust)
    objects = {"model": net(), "data": (X, Y), "loss": functional.mse_loss}
    resumed = lrexp.resume(tmp_path / "run", **objects, trust=trust)
    assert contents(resumed.path) == contents(straight.path)
    header = (straight.path / "trials/a/seed-0/steps.csv").read_text().partition("\n")[0]
    assert header == "step,epoch,lr,loss,lr_1" + ",effective_lr_1" * (name == "prodigyopt")


def gan() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"g": nn.Linear(6, 6), "d": nn.Linear(6, 1)})


def gan_losses(model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    real = batch[0]
    fake = model["g"](real.flip(0))
    score = functional.softplus
    d_loss = score(-model["d"](real)).mean() + score(model["d"](fake)).mean()
    return score(-model["d"](fake)).mean(), d_loss


def gan_step(model: Any, batch: Any) -> dict[str, Any]:
    g_loss, d_loss = gan_losses(model, batch)
    return {"losses": [g_loss, d_loss], "loss": d_loss, "g": g_loss}


GAN = {
    "parts": [
        {"match": "g", "name": "Adam", "lr": 0.01},
        {"match": "d", "name": "Adam", "lr": 0.003},
    ]
}


def gan_by_hand(shares: Any) -> list[float]:
    """Return the losses of the discriminator, where both losses are of the same weights."""
    model: Any = gan()
    optimizers = Adam(model["g"].parameters()), Adam(model["d"].parameters())
    found = []
    for lrs, rows in zip(shares, batches(), strict=False):
        losses = gan_losses(model, (X[rows], Y[rows]))
        gradients = [
            torch.autograd.grad(loss, [*model[name].parameters()], retain_graph=True)
            for name, loss in zip("gd", losses, strict=True)
        ]
        for name, own, optimizer, lr in zip("gd", gradients, optimizers, lrs, strict=True):
            for parameter, gradient in zip(model[name].parameters(), own, strict=True):
                parameter.grad = gradient
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
        found.append(losses[1].item())
    return found


def test_losses_of_parts_are_no_stack(tmp_path: Path) -> None:
    config = CONFIG | {"optimizer": GAN, "engine": "vectorized"}
    with pytest.raises(lrexp.ConfigError, match="its step returns a loss for each optimizer"):
        lrexp.compare(config, model=gan(), data=(X, Y), step=gan_step, runs_dir=tmp_path, draw=None)


@pytest.mark.parametrize("engine", ["sequential", "auto"])
def test_a_step_may_return_a_loss_for_each_part(engine: str, tmp_path: Path) -> None:
    config = CONFIG | {"optimizer": GAN, "engine": engine, "metrics": []}
    run = lrexp.compare(
        config, model=gan(), data=((X, Y), (X, Y)), step=gan_step, out=tmp_path / "run", draw=None
    )
    expected = gan_by_hand([(0.01, 0.003)] * STEPS)
    assert run.trials[0].steps["loss"] == close(expected)
    assert {"val_loss", "val_g"} <= run.trials[0].evals.keys()


def test_accumulated_losses_of_parts_are_means(tmp_path: Path) -> None:
    parts = [{**part, "name": "SGD"} for part in GAN["parts"]]
    runs = [
        lrexp.compare(
            CONFIG | {"optimizer": {"parts": parts}, "train": {"duration": 4, "accumulate": count}},
            model=gan(), data=(torch.ones(64, 6), Y), step=lambda m, b: list(gan_losses(m, b)),
            runs_dir=tmp_path, draw=None,
        )
        for count in (1, 2)
    ]  # fmt: skip
    one, other = (run.trials[0].steps["loss"] for run in runs)
    assert one == close(other)
    assert one[-1] < one[0]


def test_a_gan_is_range_tested_in_a_loop_by_hand() -> None:
    model: Any = gan()
    optimizers = [Adam(model["g"].parameters(), 0.01), Adam(model["d"].parameters(), 0.003)]
    data = [(X[rows], Y[rows]) for rows in itertools.islice(batches(), STEPS)]
    finder = lrexp.LRFinder(model, optimizers, step=gan_step)
    found = finder.run(data, min_lr=1e-4, max_lr=1e-2, steps=STEPS, seeds=1)
    lrs = np.geomspace(1e-4, 1e-2, STEPS)
    assert found.curves[0].loss == close(gan_by_hand(zip(lrs, lrs * 0.3, strict=True)))


def swapped(model: Any, batch: Any) -> list[Tensor]:
    real = batch[0]
    fake = model["g"](real)
    return [model["d"](real).mean() + model["d"](fake.detach()).mean(), model["d"](fake).mean()]


# optimizer | step | what is said
WRONG_LOSSES: list[tuple[Any, Any, str]] = [
    ({"name": "Adam", "lr": 0.1}, gan_step, r"step: must return a loss for each optimizer: there is 1 .*2 losses.*optimizer.parts"),
    (GAN, lambda m, b: [gan_losses(m, b)[0]], r"step: must return a loss for each optimizer: there are 2 .*1 losses"),
    (GAN, swapped, r"step: returns a loss 0 that depends on no parameter of the optimizer 0 .*g.weight"),
    (GAN, lambda m, b: gan_losses(m, b)[1].repeat(2), r"step: must return one number .*\(2,\).*as a list, one for each"),
    (GAN, lambda m, b: [], "step: must return a loss for each optimizer: there are 2 .*0 losses"),
    (GAN, lambda m, b: [0.5, 0.5], "step: must return one number"),
]  # fmt: skip


@pytest.mark.parametrize(("optimizer", "step", "said"), WRONG_LOSSES, ids=range(len(WRONG_LOSSES)))
def test_losses_that_are_not_those_of_the_parts(
    optimizer: Any, step: Any, said: str, tmp_path: Path
) -> None:
    config = CONFIG | {"optimizer": optimizer}
    with pytest.raises(lrexp.ConfigError, match=said):
        lrexp.compare(config, model=gan(), data=(X, Y), step=step, runs_dir=tmp_path, draw=None)


# optimizer | find_lr | key | what is said
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"parts": [MUON]}, {}, "optimizer.parts", "0.bias"),
    ({"parts": [{**MUON, "match": "9"}, PARTS["parts"][1]]}, {}, "optimizer.parts[0].match", "no trainable"),
    ({"parts": [{"name": "Muon", "lr": 0.1}]}, {}, "optimizer.parts[0].name", "two dimensions"),
    ({"name": "Muon", "lr": 0.1}, {}, "optimizer.name", "optimizer.parts"),
    ({"parts": [{"name": "Muom", "lr": 0.1}]}, {}, "optimizer.parts[0].name", "Muon"),
    ({"parts": [{"name": "LBFGS", "lr": 0.1}]}, {}, "optimizer.parts[0].name", "closure"),
    ({"parts": [{"name": "SGD", "lr": 0.1, "args": {"mom": 1}}]}, {}, "optimizer.parts[0].args.mom", "SGD"),
    ({"parts": [{"name": "SGD"}]}, {}, "optimizer.parts[0].lr", "is required"),
    ({"parts": [{"name": "SGD", "lr": 0.1, "grops": []}]}, {}, "optimizer.parts[0].grops", "groups"),
    ({**PARTS, "lr": 0.1}, {}, "optimizer.lr", "optimizer.parts.0.lr"),
    (PARTS, {"part": 2}, "find_lr.part", "has 2"),
    ({"name": "SGD", "lr": 0.1}, {"part": 0}, "find_lr.part", "has 0"),
    ({"args": {}}, {}, "optimizer.name", "is required"),
]  # fmt: skip


@pytest.mark.parametrize(("optimizer", "find_lr", "key", "said"), REFUSED, ids=range(len(REFUSED)))
def test_parts_that_are_refused(
    optimizer: Any, find_lr: Any, key: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(lrexp.ConfigError) as raised:
        compared(tmp_path, optimizer=optimizer, find_lr=find_lr)
    assert raised.value.problems[0].key == key
    assert said in str(raised.value)


ONE = [nn.Parameter(torch.ones(1))]
# optimizers of a loop | what is said
WRONG_OPTIMIZERS: list[tuple[Any, str]] = [
    ([], r"^optimizer: must be a torch.optim.Optimizer, or a list of them \(got 'list'\)"),
    ("Adam", r"^optimizer: must be .*'str'"),
    ([SGD(ONE), Adam(ONE)], "^optimizer: share parameters"),
]


@pytest.mark.parametrize(("optimizer", "said"), WRONG_OPTIMIZERS, ids=range(len(WRONG_OPTIMIZERS)))
def test_what_is_no_optimizer_is_refused(optimizer: Any, said: str) -> None:
    with pytest.raises(lrexp.ConfigError, match=said):
        lrexp.LRFinder(gan(), optimizer, step=gan_step)


def test_a_model_without_forward_is_told_so() -> None:
    model: Any = gan()
    finder = lrexp.LRFinder(model, Adam(model.parameters()), functional.mse_loss)
    with pytest.raises(lrexp.ConfigError, match=r"^model: has no forward .*ModuleDict.*step"):
        finder.run((X, Y))


@pytest.mark.parametrize(
    ("part", "lrs"), [(None, (0.04, 0.006)), (0, (0.04, 0.003)), (1, (0.02, 0.04))]
)
def test_a_found_lr_is_written_where_it_belongs(part: int | None, lrs: tuple[float, ...]) -> None:
    source = {
        "model": "mlp", "data": "digits", "loss": "cross_entropy", "find_lr": {"part": part},
        "optimizer": {"parts": [{"ndim": 2, "name": "SGD", "lr": 0.02}, {"name": "Adam", "lr": 0.003}]},
    }  # fmt: skip
    document = document_from_dict(source)
    optimizer = load_config(document).experiment.optimizer
    text = with_lrs(document, optimizer.lrs_at(0.04, part))
    assert tuple(load_config(yaml.safe_load(text)).experiment.optimizer.lrs.values()) == lrs


def test_the_traces_of_parts_without_training(tmp_path: Path) -> None:
    config = CONFIG | {
        "model": "mlp",
        "data": "digits",
        "loss": "cross_entropy",
        "schedule": "linear",
    }
    drawn = api.schedule(config, out=tmp_path / "lr.png", csv=tmp_path / "lr.csv")
    assert list(drawn.lr) == ["a", "a (lr_1)"]
    assert drawn.lr["a (lr_1)"] == close(0.15 * drawn.lr["a"])
    assert (tmp_path / "lr.csv").read_text().startswith("step,a,a (lr_1)\n")


def test_groups_of_a_part_and_the_resolved_config(tmp_path: Path) -> None:
    last = {"name": "AdamW", "lr": 0.003, "groups": [{"ndim": 1, "weight_decay": 0, "lr_scale": 2}]}
    run = compared(
        tmp_path, optimizer={"parts": [MUON, last]}, train={"duration": 4, "eval_every": 4}
    )
    model: Any = net()
    groups = [
        {"params": [model[2].weight]},
        {"params": [model[0].bias, model[2].bias], "weight_decay": 0, "lr": 0.006},
    ]
    optimizers = Muon([model[0].weight], lr=0.02), AdamW(groups, lr=0.003)
    losses = []
    for rows in itertools.islice(batches(), 4):
        losses.append((loss := functional.mse_loss(model(X[rows]), Y[rows])).item())
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    assert run.trials[0].steps["loss"] == close(losses)
    assert run.config["optimizer"].keys() == {"parts"}


@pytest.mark.parametrize("parts", [False, True], ids=["one", "parts"])
def test_the_effective_lr_of_prodigy_is_in_the_trace(parts: bool, tmp_path: Path) -> None:
    prodigyopt = pytest.importorskip("prodigyopt")
    one = {"name": "prodigyopt:Prodigy", "lr": 1.0, "args": {"d0": 1e-3}}
    section = {"parts": [{"ndim": 2, "name": "SGD", "lr": 0.1}, one]} if parts else one
    run = lrexp.compare(
        CONFIG | {"optimizer": section}, **given(),
        runs_dir=tmp_path, trust=["prodigyopt"],
    )  # fmt: skip
    model: Any = net()
    weights, biases = [model[0].weight, model[2].weight], [model[0].bias, model[2].bias]
    prodigy = prodigyopt.Prodigy(biases if parts else model.parameters(), lr=1.0, d0=1e-3)
    optimizers = [SGD(weights, lr=0.1), prodigy] if parts else [prodigy]
    effective, losses = [], []
    for rows in itertools.islice(batches(), STEPS):
        losses.append((loss := functional.mse_loss(model(X[rows]), Y[rows])).item())
        model.zero_grad()
        loss.backward()
        effective.append(prodigy.param_groups[0]["d"])
        for optimizer in optimizers:
            optimizer.step()
    steps = run.trials[0].steps
    assert steps["loss"] == close(losses)
    assert steps["effective_lr_1" if parts else "effective_lr"] == close(effective)
    assert effective[-1] > 1.2 * effective[0]


class Pull(nn.Module):
    """Two numbers with losses of their own: that of `a` also rises as `b` is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))


def pulled(model: Any, batch: Any, *, helps: float) -> dict[str, Any]:
    of_a = (helps * model.a**2 + 0.5 * (model.b - 1) ** 2 + 2 * model.b.detach()).mean()
    of_b = ((model.b - 3) ** 2).mean()
    return {"losses": [of_a, of_b]}


@pytest.mark.parametrize("in_a_loop", [False, True])
@pytest.mark.parametrize("helps", [1.0, 0.0])
def test_a_part_is_judged_by_what_it_does_to_its_own_loss(
    helps: float, in_a_loop: bool, tmp_path: Path
) -> None:
    def step(model: Any, batch: Any) -> dict[str, Any]:
        return pulled(model, batch, helps=helps)

    test = {"min_lr": 1e-4, "max_lr": 10.0, "steps": 60, "seeds": 1, "part": 0}
    if in_a_loop:
        model = Pull()
        optimizers = [SGD([model.a], 0.1), SGD([model.b], 0.01)]
        found = lrexp.LRFinder(model, optimizers, step=step).run([(X, Y)], **test)
    else:
        parts = [{"match": p, "name": "SGD", "lr": lr} for p, lr in (("a", 0.1), ("b", 0.01))]
        config = CONFIG | {"optimizer": {"parts": parts}, "find_lr": {**test, "budget": 0}}
        out = tmp_path / "run"
        found = lrexp.find_lr(config, model=Pull, data=(X, Y), step=step, out=out, draw=None)
    assert found.curves[0].loss[0] == pytest.approx(helps + 0.5)  # its own, before any update
    assert len(found.curves[0].loss) == 60 or helps  # what others do ends no test
    if helps:  # a² is stable below 1, where its curve falls
        assert found.suggested_lr is not None
        assert 0.01 < found.suggested_lr < 1
    else:
        assert found.reason is not None
        assert "nothing diverged" in found.reason
        assert "other parts" in found.reason


def test_a_gan_is_not_called_unstable_for_a_loss_that_rises(tmp_path: Path) -> None:
    config = CONFIG | {"optimizer": GAN}
    run = lrexp.compare(
        config, model=gan(), data=(X, Y), step=gan_step, out=tmp_path / "run", draw=None
    )
    assert run.summary is not None
    assert run.summary["ranking"][0]["diagnosis"]["word"] == "trained against each other"


def test_parts_of_one_class_are_told_apart_by_their_numbers(tmp_path: Path) -> None:
    grid = {"optimizer.parts.1.lr": [0.003, 0.03]}
    found = [load_config(document_from_dict({
        "model": "mlp", "data": "digits", "loss": "cross_entropy", "compare": {"grid": grid},
        "optimizer": {"parts": [{"ndim": 2, "name": first, "lr": 0.02}, {"name": "Adam", "lr": 0.003}]},
    })) for first in ("Adam", "SGD")]  # fmt: skip
    assert list(found[0].variants) == ["Adam-1.lr=0.003", "Adam-1.lr=0.03"]
    assert list(found[1].variants) == ["Adam.lr=0.003", "Adam.lr=0.03"]
