"""What `find-lr` decides once, after its range tests: what its budget buys; kept in search.json.

The clock is read here and nowhere else: a run that goes on later, or elsewhere, reads what was
decided, and so comes to the result it would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrexp.analysis.race import RaceStart
from lrexp.analysis.search import Costs, Search
from lrexp.config.budget import Budget
from lrexp.engine.choice import speeds
from lrexp.errors import ConfigError, RunError
from lrexp.records import Trial, TrialId
from lrexp.runs.files import find_json, write_json
from lrexp.runs.measures import baselines
from lrexp.runs.plan import Plan
from lrexp.runs.reader import RANGE_TEST
from lrexp.runs.timings import Timings
from lrexp.runs.trials import can_have, evaluation_steps, race_task

SEARCH = "search.json"
LEAST_SECONDS, SHARE = (
    20.0,
    0.1,
)  # the default budget: the greater of time, and a share of a training
STACK = 8  # copies that the cost of a stack is measured with


@dataclass(frozen=True)
class Means:
    """What a search may spend.

    Args:
        budget: as it was given, or the default.
        amount: what is left of it for trainings, in the unit of the costs.
        costs: in seconds, or in whole trainings.
        training: seconds of a whole training; None where no clock was read.
        guess: loss of the best constant answer, where it is known.
    """

    budget: str
    amount: float
    costs: Costs
    training: float | None = None
    guess: float | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return what search.json holds."""
        step = {str(copies): cost for copies, cost in self.costs.step.items()}
        costs = {"step": step, "setup": self.costs.setup, "evaluation": self.costs.evaluation}
        return {
            "budget": self.budget,
            "amount": self.amount,
            "costs": costs,
            "training": self.training,
            "guess": self.guess,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Means:
        """Return what `to_plain` wrote; ValueError and such where it is damaged."""
        costs = plain["costs"]
        step = {int(copies): float(cost) for copies, cost in costs["step"].items()}
        if not step or not all(copies > 0 and cost > 0 for copies, cost in step.items()):
            raise ValueError("a step costs something")
        guess, training = plain["guess"], plain["training"]
        return cls(
            str(plain["budget"]),
            float(plain["amount"]),
            Costs(step, float(costs["setup"]), float(costs["evaluation"])),
            None if training is None else float(training),
            None if guess is None else float(guess),
        )


def means_of(plan: Plan, run: Path, elapsed: Callable[[], float]) -> Means:
    """Return what the search of a run may spend: as it was decided, or decided and written now."""
    path = run / SEARCH
    if (plain := find_json(path)) is not None:
        try:
            return Means.from_plain(plain)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: is damaged: {error}. Run the config anew.") from error
    found = _measured(plan, elapsed)
    write_json(path, found.to_plain())
    return found


def search_of(plan: Plan, start: RaceStart, means: Means) -> Search:
    """Return the search of a run."""
    variant = plan.variants[RANGE_TEST]
    return Search(
        start_lr=start.lr,
        total_steps=variant.total_steps,
        budget=means.amount,
        costs=means.costs,
        seed=plan.config.experiment.seed,
        least_gain=start.least_gain,
        guess=means.guess,
        is_guess=start.is_guess,
        steps_per_epoch=variant.clock.steps_per_epoch,
        can_have=lambda lr: can_have(variant, plan.config, lr),
    )


def _measured(plan: Plan, elapsed: Callable[[], float]) -> Means:
    variant, settings = plan.variants[RANGE_TEST], plan.config.experiment.find_lr
    guess = baselines(plan)[RANGE_TEST].get("val_loss")
    budget = settings.spends
    if budget is not None and budget.unit == "x":
        costs = Costs({1: 1 / variant.total_steps})
        return Means(str(budget), budget.amount, costs, guess=guess)
    costs = costs_of(plan)
    training = costs.of(1, variant.total_steps)
    if budget is None:
        budget = Budget(max(LEAST_SECONDS, SHARE * training), "s")
    seconds = budget.amount * (training / 100 if budget.unit == "%" else 1.0)
    return Means(str(budget), max(0.0, seconds - elapsed()), costs, training, guess)


def costs_of(plan: Plan) -> Costs:
    """Measure a step of a training on its own, and in stacks."""
    variant = plan.variants[RANGE_TEST]
    lr, horizon = plan.config.experiment.tested_lr, variant.total_steps
    engine = plan.config.experiment.engine
    copies = 1 if engine == "sequential" else STACK
    trials = [
        Trial(TrialId(f"timed-{i}", plan.config.experiment.seed), "race", horizon, lr)
        for i in range(copies)
    ]
    tasks = [race_task(variant, plan.config, trial) for trial in trials]
    step, setup = speeds(tasks, Timings().machine())
    least = 1e-9  # what cannot be measured is not free
    step = {count: max(seconds, least) for count, seconds in step.items()}
    return Costs(step, setup, evaluation_steps(variant))


def check_budget(plan: Plan) -> str:
    """Return what find-lr will do; refuse, before training, what buys no training at all."""
    settings, variant = plan.config.experiment.find_lr, plan.variants[RANGE_TEST]
    budget, seeds = settings.spends, settings.seeds
    tests = f"{seeds} range test{'s' * (seeds > 1)} of {settings.steps:,} steps"
    if not variant.is_searched:
        return f"{tests}, and no trainings."
    if budget is None:
        amount = f"{LEAST_SECONDS:g} s in all, or {100 * SHARE:g} % of one training if that is more"
        return f"{tests}, then trainings of several LRs: {amount} (--budget)."
    if budget.unit != "x":
        of = " of the time of one training" if budget.unit == "%" else ""
        return f"{tests}, then trainings of several LRs: {budget}{of} in all (--budget)."
    costs = Costs({1: 1 / variant.total_steps})
    if not Search(1.0, variant.total_steps, budget.amount, costs).horizons:
        least = 4 * 4 / variant.total_steps
        what = "leaves less than 4 steps for each training "
        what += f"(a whole training has {variant.total_steps})"
        remedy = f"Give at least {least:.2g}, or raise train.duration."
        error = ConfigError.single("find_lr.budget", what, str(settings.budget or budget), remedy)
        raise error.placed(plan.config.document.place_of)
    return f"{tests}, then trainings of several LRs: {budget.amount:g} × a whole training's steps."
