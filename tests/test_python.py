"""The Python functions, as in a notebook."""

from __future__ import annotations

import copy
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import lrexp
from lrexp.report.ranking import verdict_lines

SETTINGS = {
    "optimizer": {"name": "SGD", "lr": 0.1},
    "train": {"duration": "2ep"},
    "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.01}}},
    "find_lr": {"budget": 0, "min_lr": 1e-4, "steps": 50, "seeds": 2},
}


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    bunch = load_digits()
    return torch.tensor(bunch.data / 16, dtype=torch.float32), torch.tensor(bunch.target)


def halves() -> tuple[Any, Any]:
    x, y = digits()
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.1), nn.ReLU(), nn.Linear(32, 10))


def test_every_public_name_is_there() -> None:
    for name in lrexp.__all__:
        assert getattr(lrexp, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lrexp.nothing  # noqa: B018


def test_compare_takes_a_dict_and_python_objects(tmp_path: Path) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    run = lrexp.compare(
        SETTINGS,
        model=make_model,
        data=halves(),
        loss=functional.cross_entropy,
        seeds=2,
        runs_dir=tmp_path,
    )
    assert [row["variant"] for row in run.summary["ranking"]] == ["a", "b"]
    assert [(t.variant, t.seed) for t in run.trials] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert run.trials[0].steps["loss"].shape == (2 * 18,)
    again = lrexp.load_run(run.path)
    assert again.summary == run.summary
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002


def test_a_module_instance_is_where_every_seed_starts_and_is_left_alone(tmp_path: Path) -> None:
    model = make_model()
    weights = copy.deepcopy(model.state_dict())
    run = lrexp.compare(
        SETTINGS, model=model, data=halves(), loss=functional.cross_entropy, runs_dir=tmp_path
    )
    with torch.no_grad():
        x, y = halves()[1]
        expected = functional.cross_entropy(copy.deepcopy(model).eval()(x), y).item()
    assert run.trials[0].evals["val_loss"][0] == pytest.approx(expected, rel=1e-5)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())


def test_objects_mix_with_sections_of_a_file(tmp_path: Path) -> None:
    config = tmp_path / "exp.yaml"
    config.write_text(
        "model: {name: mlp}\ndata: {name: digits}\nloss: cross_entropy\n"
        "optimizer: {name: SGD, lr: 0.1}\ntrain: {duration: 5st}\n"
        "compare: {variants: {only: {}}}\n"
    )
    run = lrexp.compare(config, data=halves(), runs_dir=tmp_path / "runs")
    assert run.summary["ranking"][0]["outcomes"] == {"finished": 1}


def test_a_built_in_model_fits_a_dataset_of_ones_own(tmp_path: Path) -> None:
    class Mine(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 128

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return torch.full((5,), i / 128), i % 3

    run = lrexp.compare(
        SETTINGS, model="mlp", data=Mine(), loss="cross_entropy", runs_dir=tmp_path,
        overrides={"train.duration": 2, "compare.variants": {"only": {}}, "data.batch_size": 16},
    )  # fmt: skip
    assert run.summary["ranking"][0]["outcomes"] == {"finished": 1}


def test_dataloaders_are_used_as_they_are(tmp_path: Path) -> None:
    (x, y), held_out = halves()
    train = DataLoader(TensorDataset(x, y), 48, shuffle=True)
    val = DataLoader(TensorDataset(*held_out), 200)
    given = {"model": make_model, "loss": functional.cross_entropy, "runs_dir": tmp_path}
    run = lrexp.compare(SETTINGS, data=(train, val), **given)
    assert len(run.trials[0].steps["loss"]) == 2 * (1200 // 48)
    found = lrexp.find_lr(SETTINGS, data=train, **given)  # no validation data is needed
    assert found.suggested_lr is not None


def test_names_may_stand_where_objects_do(tmp_path: Path) -> None:
    run = lrexp.compare(
        SETTINGS, model="mlp", data="digits", loss="cross_entropy", runs_dir=tmp_path,
        overrides=["train.duration=3st", "compare.variants={only: {}}"],
    )  # fmt: skip
    assert run.trials[0].steps["loss"].shape == (3,)


@pytest.mark.pictures
def test_find_lr_takes_objects_too(tmp_path: Path) -> None:
    found = lrexp.find_lr(
        SETTINGS, model=make_model, data=halves(), loss=functional.cross_entropy, runs_dir=tmp_path
    )
    assert found.suggested_lr is not None
    assert found.interval is not None
    assert found.interval[0] <= found.suggested_lr <= found.interval[1]
    assert found.run is not None
    assert (found.run.path / "plots/range_test.png").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": 3}, "model"),
        ({"loss": "mse_los"}, "^loss: is no loss"),
        ({"metrics": "r3"}, r"^metrics\[0\]: is no metric"),
        ({"loss": {"name": "mse_loss", "args": {"x": 1}}}, r"^loss\.args\.x: is not a parameter"),
        ({"data": "digts"}, "data"),
        ({"data": (torch.zeros(5, 64), torch.zeros(5, dtype=torch.long))}, "data.batch_size"),
        ({"loss": functional.mse_loss}, "loss"),
        ({"seeds": 0}, "compare.seeds"),
        ({"overrides": {"optimizer.rl": 1}}, "optimizer.rl"),
        ({"overrides": ["optimizer.rl=1"]}, "optimizer.rl"),
        ({"overrides": ["optimizer.lr"]}, "KEY=VALUE"),
        ({"model": lambda width: nn.Linear(64, width)}, "width"),
        ({"model": lambda: nn.Linear(64, 5)}, "5 outputs, and the data has 10 classes"),
        ({"model": nn.Identity}, "no parameter to train"),
    ],
)
def test_wrong_objects_are_explained(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "model": make_model, "data": halves(), "loss": functional.cross_entropy,
        "runs_dir": tmp_path / "runs",
    }  # fmt: skip
    with pytest.raises(lrexp.LrexpError, match=message):
        lrexp.compare(SETTINGS, **{**given, **changes})
    assert not (tmp_path / "runs").exists()


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    return copy.deepcopy((model.state_dict(), optimizer.state_dict()))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def warm_training() -> tuple[nn.Module, torch.optim.Optimizer, DataLoader]:
    """A model, optimizer and loader in the middle of a training."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(*digits()), 64, shuffle=True, generator=generator)
    for x, y in loader:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, optimizer, loader


def test_lr_finder_leaves_everything_as_it_was_and_the_training_bit_identical() -> None:
    def batches_after(find: bool) -> tuple[Any, list[torch.Tensor]]:
        model, optimizer, loader = warm_training()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        if find:
            finder = lrexp.LRFinder(model, optimizer, functional.cross_entropy)
            finder.run(loader, min_lr=1e-4, steps=50, seeds=2)
        assert all(map(torch.equal, grads, (p.grad for p in model.parameters())))
        for x, y in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return state_of(model, optimizer), [torch.rand(3), loader.generator.get_state()]

    with_find, without = batches_after(True), batches_after(False)
    assert same(with_find[0], without[0])
    assert same(with_find[1], without[1])


def test_lr_finder_leaves_everything_as_it_was_when_an_exception_flies() -> None:
    model, optimizer, loader = warm_training()
    before, rng, order = (
        state_of(model, optimizer),
        torch.get_rng_state(),
        loader.generator.get_state(),
    )
    calls = iter(range(1000))

    def failing_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if next(calls) == 7:
            raise ArithmeticError("step 7")
        return functional.cross_entropy(output, target)

    finder = lrexp.LRFinder(model, optimizer, failing_loss)
    with pytest.raises(lrexp.UserCodeError, match="step 7"):
        finder.run(loader)
    assert same(state_of(model, optimizer), before)
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(loader.generator.get_state(), order)
    assert model.training
    with pytest.raises(lrexp.LrexpError, match=r"Call run\(\) first"):
        finder.get_optimal_lr()


def test_lr_finder_is_told_of_a_schedule() -> None:
    torch.manual_seed(0)
    model = make_model()
    finder = lrexp.LRFinder(model, torch.optim.AdamW(model.parameters()), functional.cross_entropy)
    constant = finder.run(digits(), seeds=1)
    decaying = finder.run(digits(), seeds=1, mean_frac=0.5)
    assert constant.suggested_lr is not None
    assert decaying.suggested_lr == pytest.approx(2 * constant.suggested_lr)


def test_lr_finder_suggests_a_rate_that_trains(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters())
    finder = lrexp.LRFinder(model, optimizer, functional.cross_entropy)
    result = finder.run(DataLoader(TensorDataset(*digits()), 64, shuffle=True))
    lr = finder.get_optimal_lr()
    assert lr == result.suggested_lr
    assert lr is not None
    assert 3e-4 < lr < 0.3
    axes = finder.plot_loss()
    assert axes.get_xscale() == "log"
    axes.figure.savefig(tmp_path / "plot.png")

    def final_loss(rate: float) -> float:
        torch.manual_seed(1)
        twin = copy.deepcopy(model)
        opt = torch.optim.AdamW(twin.parameters(), lr=rate)
        x, y = digits()
        for i in range(100):
            rows = torch.arange(64 * i, 64 * (i + 1)) % len(x)
            opt.zero_grad()
            functional.cross_entropy(twin(x[rows]), y[rows]).backward()
            opt.step()
        with torch.no_grad():
            return functional.cross_entropy(twin.eval()(x), y).item()

    grid = {rate: final_loss(rate) for rate in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)}
    start, best = 2.3, min(grid.values())
    regret = (final_loss(lr) - best) / (start - best)
    assert regret < 0.15, (lr, grid)


def test_lr_finder_ramps_once_per_update_and_hits_both_ends() -> None:
    model = make_model()
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 1.0}, {"params": model[3].parameters(), "lr": 0.1}]
    )
    finder = lrexp.LRFinder(model, optimizer, functional.cross_entropy)
    result = finder.run(digits(), min_lr=1e-5, max_lr=1e-3, steps=30, seeds=1, mode="linear")
    (curve,) = result.curves
    assert curve.lr == pytest.approx(np.linspace(1e-5, 1e-3, 30))


def test_lr_finder_takes_any_iterable_of_batches() -> None:
    x, y = digits()
    batches = [(x[i : i + 64], y[i : i + 64]) for i in range(0, 1280, 64)]
    torch.manual_seed(0)
    model = make_model()
    finder = lrexp.LRFinder(
        model, torch.optim.SGD(model.parameters(), lr=0.1), functional.cross_entropy
    )
    result = finder.run(batches, min_lr=1e-4, seeds=2)
    assert result.suggested_lr is not None
    first = functional.cross_entropy(copy.deepcopy(model).eval()(batches[0][0]), batches[0][1])
    assert result.curves[0].loss[0] == pytest.approx(first.item(), abs=0.1)


@pytest.mark.parametrize(("model", "lr"), [(nn.Identity(), 0.1), (make_model(), 0.0)])
def test_lr_finder_explains_what_it_cannot_train(model: nn.Module, lr: float) -> None:
    parameters = list(model.parameters()) or [nn.Parameter(torch.zeros(1))]
    finder = lrexp.LRFinder(model, torch.optim.SGD(parameters, lr=lr), functional.cross_entropy)
    with pytest.raises(lrexp.ConfigError, match=r"has no parameter|must have an LR above 0"):
        finder.run(digits())


@pytest.mark.parametrize("change", [{"steps": 1}, {"min_lr": -1}, {"seeds": 0}, {"max_lr": 1e-9},
                                    {"stop_factor": 0.5}, {"rule": "best"}, {"mode": "log"}])  # fmt: skip
def test_lr_finder_explains_wrong_arguments(change: dict[str, Any]) -> None:
    model = make_model()
    finder = lrexp.LRFinder(
        model, torch.optim.SGD(model.parameters(), lr=0.1), functional.cross_entropy
    )
    with pytest.raises(lrexp.ConfigError, match=next(iter(change))):
        finder.run(digits(), **change)


def test_schedules_are_drawn_on_given_or_new_axes() -> None:
    import matplotlib.pyplot as plt

    a = lrexp.get_lr_scheduler(
        max_lr=1e-4, min_lr=1e-6, warmup_steps=1000, max_steps=50_000, decay_type="cosine"
    )
    b = lrexp.get_lr_scheduler(max_lr=1e-4, warmup_steps=10, max_steps=1000, decay_type="linear")
    both = lrexp.get_combined_lr_scheduler({(0, 10_000): a, (10_000, 30_000): b})
    steps = lrexp.get_multi_step_lr_scheduler(
        max_lr=1e-4, warmup_steps=2000, total_tokens=300_000_000_000, tokens_per_step=2048 * 2048,
        step_milestones=[0.5, 0.8, 0.9], step_factors=[0.5, 0.1, 0.01],
    )  # fmt: skip
    assert a(999) == pytest.approx(1e-4)
    assert both(10_000) == b(0)
    assert steps(int(0.5 * 71526)) == pytest.approx(0.5e-4)
    axes = lrexp.plot_lr_schedule(a, total_steps=50_000)
    assert len(axes.lines) == 1
    _, given = plt.subplots()
    assert lrexp.plot_lr_schedule({"a": a, "b": b}, total_steps=10_000, ax=given) is given
    assert len(given.lines) == 2
    plt.close("all")


SMALL = {
    "model": "linear", "data": "diabetes", "loss": "mse_loss", "device": "cpu",
    "optimizer": {"name": "SGD", "lr": 0.1}, "train": {"duration": 2},
}  # fmt: skip


def test_what_is_returned_is_shown_in_a_line(tmp_path: Path) -> None:
    config = {**SMALL, "find_lr": {"budget": 0, "steps": 20, "seeds": 1}}
    run = lrexp.compare(config, seeds=1, out=tmp_path / "run", draw=None)
    found = lrexp.find_lr(config, out=tmp_path / "test", draw=None)
    assert run.summary is not None
    best = run.summary["ranking"][0]["variant"]
    said = f"Run('experiment', compare, complete, 3 variants, 3 trials, best='{best}', path="
    assert repr(run) == f"{said}'{run.path}')"
    assert repr(found).startswith("RangeTest(suggested_lr=")
    assert repr(found).endswith(f"1 curves, path='{tmp_path / 'test'}')")
    assert len(found.per_seed) == 1


@pytest.mark.parametrize("more", [{}, {"metrics": ["r2"]}, {"seeds": 2}])
def test_a_run_without_a_name_is_called_experiment(tmp_path: Path, more: Any) -> None:
    assert lrexp.compare(SMALL, **more, out=tmp_path / "run", draw=None).name == "experiment"


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize("loss", ["binary_cross_entropy_with_logits", "torch.nn:BCEWithLogitsLoss"])
def test_a_number_is_a_weight_for_torchs_losses(loss: str, engine: str, tmp_path: Path) -> None:
    x, model = torch.randn(32, 3), nn.Linear(3, 1)
    y = (x[:, :1] > 1).float()
    config = {
        **SETTINGS, "loss": {"name": loss, "args": {"pos_weight": 10}}, "train": {"duration": 1},
        "data": {"batch_size": 32, "val_fraction": 0}, "compare": {"metric": "train_loss"},
    }  # fmt: skip
    run = lrexp.compare(
        config, model=model, data=(x, y), engine=engine, out=tmp_path / "run", draw=None
    )
    weight = torch.tensor(10.0)
    expected = functional.binary_cross_entropy_with_logits(model(x), y, pos_weight=weight).item()
    assert run.trials[0].steps["loss"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("args", "said"),
    [({"pos_weight": "much"}, "Change its argument pos_weight"), ({"weight": [1, 2, 3]}, None)],
)
def test_an_argument_that_a_loss_refuses_is_named(
    args: Any, said: str | None, tmp_path: Path
) -> None:
    name = "binary_cross_entropy_with_logits" if said else "cross_entropy"
    y = torch.arange(9) % 2
    with pytest.raises(lrexp.ConfigError, match=said or "a number for each class"):
        lrexp.compare(
            {**SETTINGS, "loss": {"name": name, "args": args}, "data": {"batch_size": 4}},
            model=lambda: nn.Linear(3, 1 if said else 2),
            data=(torch.randn(9, 3), y.float()[:, None] if said else y),
            runs_dir=tmp_path,
        )


def test_lrs_that_a_schedule_ignores_are_no_lrs(tmp_path: Path) -> None:
    args = {"max_lr": 0.05}
    lrs = [0.3, 0.1, 0.03, 0.01]
    config = {
        **SMALL, "schedule": {"name": "OneCycleLR", "args": args},
        "compare": {"grid": {"optimizer.lr": lrs}}, "optimizer": {"name": "Adam", "lr": 0.1},
    }  # fmt: skip
    told = Console(file=io.StringIO(), width=400)
    run = lrexp.compare(config, out=tmp_path / "run", draw=None, console=told)
    said = (
        "lr=0.3, lr=0.1, lr=0.03, lr=0.01 train with the same LRs, though optimizer.lr differs: "
        "schedule.args.max_lr sets them. Compare values of schedule.args.max_lr, or leave it out."
    )
    assert said in told.file.getvalue()
    assert run.summary is not None
    assert run.summary["lr_sensitivity"] == []
    assert run.summary["warnings"] == [said]
    config["schedule"] = {"name": "OneCycleLR"}
    other = lrexp.compare(config, out=tmp_path / "other", draw=None)
    assert other.summary is not None
    [curve] = other.summary["lr_sensitivity"]
    assert curve["lrs"] == sorted(lrs)
    assert not any("train with the same" in text for text in other.summary["warnings"])


def test_the_best_lrs_at_an_end_are_told_once_with_what_varies(tmp_path: Path) -> None:
    grid = {"optimizer.lr": [1e-5, 1e-4, 1e-3], "schedule": ["constant", "linear"]}
    run = lrexp.compare({**SMALL, "compare": {"grid": grid}}, out=tmp_path / "run", draw=None)
    assert run.summary is not None
    assert run.summary["warnings"] == [
        "The best LR is the highest that was compared (0.001 with schedule=constant; 0.001 with "
        "schedule=linear): the best of all may lie higher. Compare higher ones too."
    ]
    lines = Console(file=io.StringIO(), width=100)
    lines.print(verdict_lines(run.summary))
    said = lines.file.getvalue()
    assert "where most of" not in said  # of one seed
    assert "ends)" in said
