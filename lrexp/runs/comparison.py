"""What the seeds of a comparison allow to say: the parts of summary.json beside the ranking.

Verdicts against the reference, the floor of noise, the time to a target, the sensitivity to the
LR. All is made from the files of the run and from what its config declared before training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lrexp.analysis.claims import Outcomes, Values, VariantSummary, compare_to, judged
from lrexp.analysis.sensitivity import MIN_LRS, ROUNDING, lr_sensitivity
from lrexp.analysis.statistics import (
    ALPHA,
    MIN_SEEDS,
    floor_of_noise,
    median_with_misses,
    seeds_needed,
    time_to,
)
from lrexp.config.config import BEST, Config
from lrexp.config.schema import ExperimentConfig
from lrexp.runs.reader import Run, TrialRecord


@dataclass(frozen=True)
class Results:
    """The final metric of every trial of a run, and how the trial ended."""

    run: Run
    config: Config
    values: Values
    outcomes: Outcomes
    direction: Literal["min", "max"]
    seeds: Sequence[int]
    ranking: Sequence[VariantSummary]

    @property
    def metric(self) -> str:
        """The declared metric."""
        return self.config.experiment.compare.metric

    @property
    def reference(self) -> str:
        """The variant that the others are compared with."""
        name = self.config.reference
        by_result = name == BEST and name not in self.values
        return self.ranking[0].variant if by_result else name

    @property
    def sign(self) -> float:
        """Times the metric: a cost, of which lower is better."""
        return 1.0 if self.direction == "min" else -1.0

    def cost(self, variant: str, seed: int) -> float:
        """Return the cost of a trial: inf where it diverged, nan where it has none."""
        known = judged(self.values[variant], self.outcomes[variant])
        outcome, value = known.get(seed, ("failed", None))
        if value is None:
            return math.inf if outcome == "diverged" else math.nan
        return self.sign * value


def evidence(results: Results) -> dict[str, Any]:
    """Return the parts of summary.json that verdicts are made of, JSON's null for what is not.

    Example:
        >>> evidence(results)["comparisons"][0]["verdict"]      # doctest: +SKIP
        'no difference detected (Δ +0.0012, 95 % interval -0.0031 to 0.0055, p = 0.41, n = 10, low wins 4)'
    """  # noqa: E501
    comparable, warnings = _comparable(results)
    sensitivity = _sensitivity(results)
    by_result = results.reference != results.config.reference
    family = num_comparisons(len(comparable), chosen_by_result=by_result)
    comparisons = compare_to(
        {name: results.values[name] for name in comparable},
        results.outcomes,
        results.reference,
        results.direction,
        results.seeds,
        family=family,
    )
    return {
        "declared": {
            "metric": results.metric,
            "direction": results.direction,
            "steps": results.run.status["total_steps"],
            "reference": results.reference,
            "reference_is_best": by_result,
            "comparisons_corrected_for": family,
            "seeds_needed": seeds_needed(family),
            "alpha": ALPHA,
        },
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "noise": _noise(results),
        "time_to_target": _time_to_target(results, comparable),
        "lr_sensitivity": sensitivity,
        "warnings": [*warnings, *_end_warnings(sensitivity)],
    }


def num_comparisons(count: int, *, chosen_by_result: bool) -> int:
    """Return with how many comparisons a verdict shares its chance of error.

    With a reference that was declared, each other variant is compared with it; one that was chosen
    by its result could have been any of them, so all pairs count.
    """
    return count * (count - 1) // 2 if chosen_by_result else count - 1


def too_few_seeds(config: Config) -> str | None:
    """Return a sentence where a config has seeds for a verdict, but not for so many variants."""
    seeds, count = config.experiment.compare.seeds, len(config.variants)
    family = num_comparisons(count, chosen_by_result=config.reference == BEST)
    needed = seeds_needed(family)
    if not MIN_SEEDS <= seeds < needed:
        return None
    return (
        f"Too few seeds for a verdict: {count} variants make {family} comparisons, which take "
        f"{needed} seeds; compare.seeds is {seeds}."
    )


def _comparable(results: Results) -> tuple[list[str], list[str]]:
    """Return the variants whose metric means the same as the reference's, and what is left out."""
    variants, reference = results.config.variants, results.reference
    ranked = [row.variant for row in results.ranking]
    own = _measure(variants[reference], results.metric)
    found = [name for name in ranked if _measure(variants[name], results.metric) == own]
    others = [name for name in ranked if name not in found]
    if not others:
        return found, []
    what = f"{results.metric} of another loss or other data than that of {reference}"
    return found, [f"No verdict on {', '.join(others)}: {what} cannot be compared."]


def _measure(settings: ExperimentConfig, metric: str) -> str:
    data = settings.data.model_dump(exclude={"batch_size", "workers", "in_memory"})
    return repr((data, None if metric == "val_accuracy" else settings.loss))


def _noise(results: Results) -> dict[str, Any] | None:
    """Return how far the seeds of the reference lie apart, and what equal variants differ by."""
    row = next(row for row in results.ranking if row.variant == results.reference)
    floor = floor_of_noise([value for value in row.values if value is not None])
    groups: dict[str, list[VariantSummary]] = {}
    for other in results.ranking:
        key = repr(results.config.variants[other.variant].model_dump(exclude={"compare"}))
        groups.setdefault(key, []).append(other)
    equal = [_equal(group) for group in groups.values() if len(group) > 1]
    if floor is None and not equal:
        return None
    between = None if floor is None else {"variant": row.variant, **asdict(floor)}
    return {"between_seeds": between, "equal_variants": equal}


def _equal(group: Sequence[VariantSummary]) -> dict[str, Any]:
    columns = zip(*(row.values for row in group), strict=True)
    known = [[value for value in column if value is not None] for column in columns]
    gaps = [max(column) - min(column) for column in known if column]
    return {"variants": [row.variant for row in group], "highest": max(gaps, default=None)}


def _time_to_target(results: Results, comparable: Sequence[str]) -> dict[str, Any] | None:
    """Return when each variant first reached the target; None without one that can be reached."""
    declared = results.config.experiment.compare.target
    costs = [results.cost(results.reference, seed) for seed in results.seeds]
    costs = [cost for cost in costs if not math.isnan(cost)]
    reached = sorted(costs)[len(costs) // 2] if costs else math.inf  # by more than half
    target = results.sign * reached if declared is None else declared
    if not math.isfinite(target):
        return None
    initial = [_initial(results, [results.reference], seed) for seed in results.seeds]
    before = sorted(cost for cost in initial if not math.isnan(cost))
    middle = before[len(before) // 2] if before else math.inf
    if declared is None and reached >= middle - ROUNDING * abs(middle):
        return None  # the reference learned nothing: others have it before the first step
    per_step = {
        settings.data.batch_size * settings.train.accumulate
        for name, settings in results.config.variants.items()
        if name in comparable
    }
    unit = "step" if len(per_step) == 1 else "epoch"  # steps of other sizes are other work
    return {
        "target": target,
        "declared": declared is not None,
        "unit": unit,
        "variants": {name: _times(results, name, target, unit) for name in comparable},
    }


def _times(results: Results, name: str, target: float, unit: str) -> dict[str, Any]:
    times = []
    for trial in results.run.variants[name]:
        cost = results.cost(name, trial.seed)
        if not math.isnan(cost):
            known = (trial.evals[unit], trial.evals.get(results.metric, np.empty(0)))
            reached = time_to(target, *known, results.direction)
            times.append(math.inf if math.isinf(cost) else reached)
    return {
        "median": median_with_misses(times),
        "reached": sum(map(math.isfinite, times)),
        "of": len(times),
        "values": times,
    }


def _sensitivity(results: Results) -> list[dict[str, Any]]:
    """Return a curve for each set of variants that differ in nothing but their LR."""
    groups: dict[str, dict[float, str]] = {}
    for name, settings in results.config.variants.items():
        rest = settings.model_dump(exclude={"compare": True, "optimizer": {"lr"}})
        groups.setdefault(repr(rest), {}).setdefault(settings.optimizer.lr, name)
    return [
        _curve(results, [by_lr[lr] for lr in sorted(by_lr)], sorted(by_lr))
        for by_lr in groups.values()
        if len(by_lr) >= MIN_LRS
    ]


def _curve(results: Results, names: Sequence[str], lrs: Sequence[float]) -> dict[str, Any]:
    costs = np.array([[results.cost(name, seed) for seed in results.seeds] for name in names])
    initial = [_initial(results, names, seed) for seed in results.seeds]
    found = asdict(lr_sensitivity(lrs, costs, initial))
    signed = {
        "means": [None if mean is None else results.sign * mean for mean in found["means"]],
        "initial": results.sign * found["initial"],
    }
    shared = {
        key: _without_lr(key, value)
        for key, value in results.config.overrides[names[0]].items()
        if key != "optimizer.lr"
    }
    values = {
        "values": [[results.sign * cost for cost in row] for row in costs.tolist()],
        "diverged": np.isinf(costs).sum(axis=1).tolist(),
    }
    return {"settings": shared, "variants": list(names), **found, **signed, **values}


def _initial(results: Results, names: Sequence[str], seed: int) -> float:
    """Return the cost of a seed before training, which all its variants share."""
    for trial in results.run.trials:
        if trial.variant in names and trial.seed == seed:
            value = _before_training(trial, results.metric)
            if math.isfinite(value):
                return results.sign * value
    return math.nan


def _before_training(trial: TrialRecord, metric: str) -> float:
    """Return the first evaluation; a training loss has none before the first step but its own."""
    values = trial.steps["loss"] if metric == "train_loss" else trial.evals.get(metric, np.empty(0))
    return float(values[0]) if len(values) else math.nan


def _without_lr(key: str, value: Any) -> Any:
    if key == "optimizer" and isinstance(value, Mapping):
        return {name: item for name, item in value.items() if name != "lr"}
    return value


def _end_warnings(curves: Sequence[Mapping[str, Any]]) -> list[str]:
    texts = []
    for curve in curves:
        end, lr = curve["best_is_end"], curve["best_lr"]
        if end is not None:
            side = "lower" if end == "lowest" else "higher"
            of = f" of {curve['variants'][0]} and its like" if len(curves) > 1 else ""
            texts.append(
                f"The best LR{of}, {lr:g}, is the {end} that was compared: the best of all may lie "
                f"{side}. Compare {side} ones too."
            )
    return texts
