"""Trainings of a workload through lrexp's own plans and engines, with all records kept in memory.

A plan of one (workload, optimizer) has a variant per schedule × LR, all trained from identical
weights on the same batches; so it is what `lrexp compare` would train, without the files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accuracy.workloads import Workload
from lrexp.config.load import load_config
from lrexp.engine.engines import ENGINES
from lrexp.engine.rng import preserved_rng
from lrexp.engine.task import Task
from lrexp.records import Evaluation, Failed, Steps, TrialId
from lrexp.runs.builder import Objects
from lrexp.runs.plan import VariantPlan, make_plan
from lrexp.runs.trials import range_test_task

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "Adam": {},
    "AdamW": {"weight_decay": 0.05},
    "RMSprop": {},
    "SGD plain": {},
}
CROSSED = ("SGD", "Adam", "AdamW")  # with every schedule of `CROSSED_SCHEDULES`
SCHEDULES: dict[str, Any] = {
    "constant": "constant",
    "cosine": {"name": "cosine", "warmup": "5%"},
    "one_cycle": "one_cycle",
    "linear": "linear",
    "wsd": {"name": "wsd", "warmup": "5%"},
}
CROSSED_SCHEDULES = ("constant", "cosine", "one_cycle", "linear")
MIDDLE = {
    "SGD": -1.5,
    "Adam": -2.5,
    "AdamW": -2.5,
    "RMSprop": -2.5,
    "SGD plain": -1.0,
}  # log10 of the LRs that are usually tried
DEFAULT_LR = {"SGD": 0.1, "Adam": 1e-3, "AdamW": 1e-3, "RMSprop": 1e-3, "SGD plain": 0.1}


@dataclass
class Outcome:
    """What became of one training.

    Args:
        val: (before, after) it, mean validation losses; inf after one that diverged.
        lowest: of the validation losses after the start.
        losses: of its batches, each before the update.
        lrs: used for these updates.
    """

    val: tuple[float, float] = (math.nan, math.inf)
    lowest: float = math.inf
    losses: list[float] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)

    def tail(self, steps: int) -> float:
        """Return the mean batch loss of the last tenth of `steps`, inf where not all were done."""
        last = self.losses[-max(5, steps // 10) :]
        return sum(last) / len(last) if len(self.losses) == steps else math.inf


def config_of(
    work: Workload, optimizer: str, variants: dict[str, dict[str, Any]], steps: int | None = None
) -> dict[str, Any]:
    """Return the config of a comparison; model, data and loss are Python objects."""
    steps = steps or work.steps
    return {
        "name": "accuracy",
        "device": "cpu",
        "data": {"name": "given", "batch_size": work.batch_size},
        "optimizer": {
            "name": optimizer.split(maxsplit=1)[0],  # `SGD plain` is SGD
            "lr": DEFAULT_LR[optimizer],
            "args": OPTIMIZERS[optimizer],
        },
        "train": {"duration": steps, "eval_every": max(1, steps // work.evals)},
        "compare": {"metric": "val_loss", "variants": variants},
        "find_lr": work.find_lr,
    }


def objects_of(work: Workload) -> Objects:
    return Objects(model=work.make_model, data=work.data(), loss=work.loss)


def plan_of(
    work: Workload,
    optimizer: str,
    variants: dict[str, dict[str, Any]] | None = None,
    steps: int | None = None,
) -> dict[str, VariantPlan]:
    """Return the plan of every variant."""
    objects = objects_of(work)
    config = config_of(work, optimizer, variants or {"only": {}}, steps)
    return make_plan(load_config(config, given=objects.sections), objects).variants


def variant_of(schedule: str, lr: float) -> dict[str, Any]:
    return {"schedule": SCHEDULES[schedule], "optimizer.lr": lr}


def train(
    plans: dict[str, VariantPlan], seeds: Sequence[int], engine: str
) -> dict[TrialId, Outcome]:
    """Train every variant × seed."""
    with preserved_rng(next(iter(plans.values())).device):
        return outcomes((plan.task(s) for s in seeds for plan in plans.values()), engine)


def range_tests(
    work: Workload, optimizer: str, seeds: Sequence[int], engine: str
) -> dict[int, Outcome]:
    """Run lrexp's own range test, as `lrexp find-lr` does, at its defaults."""
    plan = plan_of(work, optimizer)["only"]
    with preserved_rng(plan.device):
        found = outcomes((range_test_task(plan, seed) for seed in seeds), engine)
    return {trial.seed: outcome for trial, outcome in found.items()}


def outcomes(tasks: Iterable[Task], engine: str) -> dict[TrialId, Outcome]:
    """Train tasks and collect what comes."""
    found: dict[TrialId, Outcome] = {}
    for record in ENGINES[engine](list(tasks)):
        if isinstance(record, Failed):
            raise record.error
        outcome = found.setdefault(record.trial, Outcome())
        if isinstance(record, Steps):
            outcome.losses += record.loss
            outcome.lrs += record.lr
        elif isinstance(record, Evaluation):
            value = record.values["val_loss"]
            if record.step == 0:
                outcome.val = (value, outcome.val[1])
            else:
                value = value if math.isfinite(value) else math.inf
                outcome.val = (outcome.val[0], value)
                outcome.lowest = min(outcome.lowest, value)
    return found
