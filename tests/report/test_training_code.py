"""`lrexp export CONFIG --to torch` and its like: the lines are run, and their LRs are those of lrexp."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine.small_tasks import PARAMETERS
from torch import nn

from lrexp import ConfigError, export_config
from lrexp.config.load import load_config
from lrexp.report.training_code import FRAMEWORKS
from lrexp.runs.lengths import plan_schedules
from lrexp.schedules.build import SCHEDULES
from lrexp.schedules.schedule import Schedule

STEPS = 30
SECTIONS: list[dict[str, Any]] = [
    {"name": "constant"},
    {"name": "constant", "warmup": "10%"},
    {"name": "constant", "warmup": 4, "warmup_start": 0},
    {"name": "linear"},
    {"name": "linear", "warmup": 4, "min_lr": 1e-3},
    {"name": "linear", "warmup": 4, "warmup_start": 0},
    {"name": "cosine", "min_lr": 1e-3},
    {"name": "cosine", "warmup": "10%", "final_div_factor": 100},
    {"name": "cosine", "warmup": 5, "warmup_start": 0, "min_lr": 1e-3},
    {"name": "cosine", "warmup": 5, "warmup_start_lr": 1e-3},
    {"name": "cosine", "num_cycles": 1.25, "warmup": 5, "warmup_start": 0},
    {"name": "polynomial", "power": 2, "min_lr": 1e-4},
    {"name": "polynomial", "power": 2, "warmup": 5, "warmup_start": 0},
    {"name": "exponential", "warmup": 3, "min_lr": 1e-3},
    {"name": "wsd", "warmup": 3, "decay": "20%"},
    {"name": "one_cycle", "cycle_momentum": False},
    {"name": "cosine_restarts", "cycle": 10},
    {"name": "step", "size": 7},
]


def config_of(schedule: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "model": "mlp",
        "data": "digits",
        "loss": "cross_entropy",
        "optimizer": {"name": "AdamW", "lr": 0.05},
        "schedule": schedule,
        "train": {"duration": STEPS},
        **changes,
    }


def expected(config: dict[str, Any]) -> list[float]:
    return list(plan_schedules(load_config(config))["standard"].trace())


def run(text: str, **scope: Any) -> dict[str, Any]:
    names = {"model": nn.Linear(2, 1), **scope}
    exec(compile(text, "<exported>", "exec"), names)
    return names


def followed(optimizer: torch.optim.Optimizer, step: Callable[[int], object]) -> list[float]:
    """Return the LR of each update; `step(n)` is called after update number n, from 1."""
    lrs = []
    for update in range(STEPS):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        step(update + 1)
    return lrs


def by_torch(text: str) -> list[float]:
    names = run(text)
    scheduler = names.get("scheduler")
    return followed(names["optimizer"], lambda n: scheduler and scheduler.step())


def by_lightning(text: str) -> list[float]:
    names = run(text, Trainer=dict)
    assert names["trainer"]["max_steps"] == STEPS
    made = names["configure_optimizers"](nn.Linear(2, 1))
    if isinstance(made, torch.optim.Optimizer):
        return followed(made, lambda n: None)
    assert made["lr_scheduler"]["interval"] == "step"
    return followed(made["optimizer"], lambda n: made["lr_scheduler"]["scheduler"].step())


def by_hf(text: str) -> list[float]:
    pytest.importorskip("transformers", reason="transformers 5 needs Python 3.11")
    from transformers import get_scheduler

    names = run(text)
    args = names["args"]
    assert args.max_steps == STEPS
    if "trainer" in names:
        scheduler = names["scheduler"]
        return followed(names["optimizer"], lambda n: scheduler.step())
    optimizer = torch.optim.AdamW(nn.Linear(2, 1).parameters(), lr=args.learning_rate)
    warmup = args.get_warmup_steps(STEPS)
    options = args.lr_scheduler_kwargs
    scheduler = get_scheduler(args.lr_scheduler_type, optimizer, warmup, STEPS, options)
    return followed(optimizer, lambda n: scheduler.step())


def by_keras(text: str) -> list[float]:
    pytest.importorskip("keras", reason="Keras needs Python 3.11")
    names = run(text)
    schedule = names.get("schedule")
    if schedule is None:
        return [float(names["optimizer"].learning_rate)] * STEPS
    assert names["optimizer"]._learning_rate is schedule
    return [float(schedule(step)) for step in range(STEPS)]


def by_timm(text: str) -> list[float]:
    pytest.importorskip("timm")
    names = run(text)
    scheduler = names.get("scheduler")
    if hasattr(scheduler, "step_update"):
        return followed(names["optimizer"], lambda n: scheduler.step_update(num_updates=n))
    return by_torch(text)


FOLLOWED = {
    "torch": by_torch,
    "hf": by_hf,
    "lightning": by_lightning,
    "keras": by_keras,
    "timm": by_timm,
}


@pytest.mark.filterwarnings("ignore")  # of imports, and of updates without gradients
@pytest.mark.parametrize("to", FRAMEWORKS)
@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: "-".join(map(str, section)))
def test_the_lines_give_the_lrs_of_lrexp(
    section: dict[str, Any], to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    config = config_of(section)
    lrs = FOLLOWED[to](export_config(config, to))
    tolerance = 1e-7 if to == "keras" else 1e-13  # Keras counts in float32
    assert lrs == pytest.approx(expected(config), rel=10 * tolerance, abs=0.05 * tolerance)


NAMES = sorted(SCHEDULES.keys() - {"combined", "lambda"})
REACT = [
    n for n in NAMES if not isinstance(SCHEDULES[n](0.1, 30, **PARAMETERS.get(n, {})), Schedule)
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in NAMES if name not in REACT])
def test_every_schedule_that_does_not_react_is_written_for_torch(name: str) -> None:
    config = config_of({"name": name, **PARAMETERS.get(name, {})})
    assert by_torch(export_config(config, "torch")) == pytest.approx(expected(config), rel=1e-12)


@pytest.mark.parametrize("name", ["combined", *REACT])
def test_schedules_that_react_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.name: cannot be written"):
        export_config(config_of({"name": name, **PARAMETERS.get(name, {})}), "torch")


def test_a_momentum_that_is_cycled_is_cycled_there(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(
        {"name": "one_cycle"}, optimizer={"name": "SGD", "lr": 0.1, "args": {"momentum": 0.9}}
    )
    names = run(export_config(config, "torch"))
    momenta = []
    for _ in range(STEPS):
        momenta.append(names["optimizer"].param_groups[0]["momentum"])
        names["optimizer"].step()
        names["scheduler"].step()
    assert (min(momenta), max(momenta)) == (pytest.approx(0.85, abs=0.01), 0.95)
    with pytest.raises(ConfigError, match="cycles the momentum, which Keras cannot"):
        export_config(config, "keras")


def test_the_optimizer_is_that_of_the_config() -> None:
    args = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
    config = config_of({"name": "cosine"}, optimizer={"name": "SGD", "lr": 0.1, "args": args})
    config["train"] |= {"accumulate": 2, "grad_clip": 0.5}
    optimizer = run(export_config(config, "torch"))["optimizer"]
    assert isinstance(optimizer, torch.optim.SGD)
    assert {key: optimizer.defaults[key] for key in args} == args
    trainer = run(export_config(config, "lightning"), Trainer=dict)["trainer"]
    assert trainer == {"max_steps": STEPS, "accumulate_grad_batches": 2, "gradient_clip_val": 0.5}
    with pytest.raises(ConfigError, match=r"optimizer\.args\.weight_decay: means another thing"):
        export_config(config, "keras")


@pytest.mark.parametrize(
    ("changes", "to", "said"),
    [
        ({}, "jax", "is no framework"),
        ({"schedule": "plateau"}, "torch", r"schedule\.name: cannot be written"),
        ({"schedule": "StepLR"}, "torch", r"schedule\.name: cannot be written"),
        (
            {"optimizer": {"name": "SGD", "lr": 0.1, "groups": [{"match": ".*", "lr_scale": 2}]}},
            "torch",
            "groups",
        ),
        ({"optimizer": {"name": "Rprop", "lr": 0.1}}, "keras", "is not in Keras"),
    ],
)
def test_what_cannot_be_written_is_refused(changes: dict[str, Any], to: str, said: str) -> None:
    config = {**config_of({"name": "cosine"}), **changes}
    if changes.get("schedule") == "StepLR":
        config["schedule"] = {"name": "StepLR", "args": {"step_size": 3}}
    with pytest.raises(ConfigError, match=said):
        export_config(config, to)


def test_a_comparison_gives_the_lines_of_its_best_variant(lrexp: Callable, tmp_path: Any) -> None:
    config = config_of({"name": "constant"}, optimizer={"name": "SGD", "lr": 1e-3})
    config["compare"] = {"variants": {"low": {"optimizer.lr": 1e-5}, "high": {"optimizer.lr": 0.1}}}
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    assert lrexp("compare", "c.yaml", "--out", "run").code == 0
    assert "lr=0.1)" in lrexp("export", "run", "--to", "torch").out
    assert "lr=1e-05)" in lrexp("export", "run", "--to", "torch", "--variant", "low").out
    answer = lrexp("export", "c.yaml", "--to", "torch", "--set", "optimizer.lr=0.25")
    assert "lr=0.25)" in answer.out
    answer = lrexp("export", "c.yaml", "--to", "mlflow")
    assert answer.code == 2
    assert "is no framework" in answer.err
