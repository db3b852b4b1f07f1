"""What a run comes to: summary.json, made from the files of its trials.

Of a comparison that is the ranking, and what its seeds allow to say: verdicts against the
reference, the floor of noise, the time to a target, the sensitivity to the LR. All is made from the
files of the run and from what its config declared before training.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lrexp.analysis import statistics
from lrexp.analysis.claims import (
    Judged,
    Outcomes,
    Values,
    VariantSummary,
    compare_to,
    judged,
    summarise,
)
from lrexp.analysis.sensitivity import MIN_LRS, ROUNDING, lr_sensitivity
from lrexp.config.config import BEST, Config
from lrexp.config.schema import ExperimentConfig
from lrexp.records import Direction, column_of
from lrexp.runs.files import read_json
from lrexp.runs.found import summary_of_find_lr
from lrexp.runs.measures import (
    baselines,
    diagnoses_of,
    end_warnings,
    measures_of,
    mixed_hardware,
    trained_alike,
)
from lrexp.runs.plan import ignored_lr, lr_groups
from lrexp.runs.reader import Run, TrialRecord, load_run
from lrexp.runs.trial_files import DIRECTIONS

if TYPE_CHECKING:
    from lrexp.runs.train import Session


def conclude(session: Session) -> Run:
    """Write what a run comes to and draw it; then raise if trials have failed."""
    with session.options.reporter.waiting("Drawing"):
        run = load_run(session.run)
        if session.spec.command == "compare":
            plan = session.plan
            summary = comparison_summary(
                run, plan.config, plan.directions, baselines(plan), plan.of_parts
            )
        else:
            summary = summary_of_find_lr(session, run)
        for line in mixed_hardware(run):
            session.options.reporter.say(line, "yellow")
        session.writer.summary(summary)
        run = replace(run, summary=read_json(run.path / "summary.json"))
        session.options.draw(run)
    session.raise_failures()
    return run


def comparison_summary(
    run: Run,
    config: Config,
    directions: Mapping[str, Direction] = DIRECTIONS,
    baselines: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    of_parts: Collection[str] = (),
) -> dict[str, Any]:
    """Return summary.json of a comparison whose trials have all ended.

    Args:
        run: as its files are, config: that it was made with.
        directions: which values of each metric are better, where that is known.
        baselines: of each variant, what guessing gets of some metrics.
        of_parts: variants whose step returns a loss for each optimizer.
    """
    compare = config.experiment.compare
    metric = column_of(compare.metric)
    measures = measures_of(run, metric, compare.select, directions)
    outcomes, values = measures.outcomes, measures.values(metric, compare.select)
    direction: Direction = directions.get(metric, "min")
    seeds = list(run.status["seeds"])
    ranking = summarise(values, outcomes, direction, seeds)
    losses = {name: str(v.loss) for name, v in config.variants.items()}
    diagnoses = diagnoses_of(run, losses, of_parts, lr_groups(config))
    results = Results(run, config, values, outcomes, direction, seeds, ranking)
    found = evidence(results)
    verdicts = {comparison["variant"]: comparison["verdict"] for comparison in found["comparisons"]}
    return {
        "command": "compare",
        "metric": metric,
        "direction": direction,
        "select": compare.select,
        "seeds": seeds,
        **measures.facts(ranking, seeds, baselines),
        "ranking": [
            {
                **_row(row),
                "metrics": measures.of_variant(row.variant, seeds),
                "baseline": dict(baselines.get(row.variant, {})),
                "diagnosis": asdict(diagnoses[row.variant]),
                "settings": config.overrides[row.variant],
                "verdict": verdicts.get(row.variant),
            }
            for row in ranking
        ],
        **found,
    }


def _row(row: VariantSummary) -> dict[str, Any]:
    return {
        "variant": row.variant,
        "rank": row.rank,
        "mean": row.mean,
        "sd": row.sd,
        "values": list(row.values),
        "outcomes": row.outcomes,
        "difference": asdict(row.difference),
    }


@dataclass(frozen=True)
class Results:
    """The final metric of every trial of a run, and how the trial ended."""

    run: Run
    config: Config
    values: Values
    outcomes: Outcomes
    direction: Direction
    seeds: Sequence[int]
    ranking: Sequence[VariantSummary]

    @property
    def metric(self) -> str:
        """The column of the declared metric."""
        return column_of(self.config.experiment.compare.metric)

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

    @cached_property
    def _judged(self) -> dict[str, Judged]:
        return {name: judged(self.values[name], own) for name, own in self.outcomes.items()}

    def cost(self, variant: str, seed: int) -> float:
        """Return the cost of a trial: inf where it diverged, nan where it has none."""
        outcome, value = self._judged[variant].get(seed, ("failed", None))
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
    warnings += [
        ignored_lr(list(by_lr.values()), results.config)
        for by_lr in lr_groups(results.config)
        if trained_alike(results.run, list(by_lr.values()))
    ]
    by_result = results.reference != results.config.reference
    family = statistics.num_comparisons(len(comparable), chosen_by_result=by_result)
    compare = results.config.experiment.compare
    alpha = statistics.look_alpha(compare.looks, len(results.seeds))
    comparisons = compare_to(
        {name: results.values[name] for name in comparable},
        results.outcomes,
        results.reference,
        results.direction,
        results.seeds,
        family=family,
        alpha=alpha,
    )
    return {
        "declared": {
            "metric": results.metric,
            "direction": results.direction,
            "select": compare.select,
            "steps": results.run.status["total_steps"],
            "reference": results.reference,
            "reference_is_best": by_result,
            "comparisons_corrected_for": family,
            "seeds_needed": statistics.seeds_needed(family, alpha),
            "alpha": alpha,
            "looks": compare.looks,
        },
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "noise": _noise(results),
        "time_to_target": _time_to_target(results, comparable),
        "lr_sensitivity": sensitivity,
        "warnings": [*warnings, *end_warnings(sensitivity)],
    }


def too_few_seeds(config: Config) -> str | None:
    """Return a sentence where a config has seeds for a verdict, but not for so many variants."""
    seeds, count = config.experiment.compare.seeds, len(config.variants)
    family = statistics.num_comparisons(count, chosen_by_result=config.reference == BEST)
    needed = statistics.seeds_needed(family)
    if not statistics.MIN_SEEDS <= seeds < needed:
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
    if len(found) == len(ranked):
        return found, []
    same = set(found)
    others = [name for name in ranked if name not in same]
    what = f"{results.metric} of another loss or other data than that of {reference}"
    return found, [f"No verdict on {', '.join(others)}: {what} cannot be compared."]


def _measure(settings: ExperimentConfig, metric: str) -> str:
    data = settings.data.model_dump(exclude={"batch_size", "workers", "in_memory"})
    is_loss = metric in ("val_loss", "train_loss")
    return repr((data, settings.loss if is_loss else None))


def _noise(results: Results) -> dict[str, Any] | None:
    """Return how far the seeds of the reference lie apart, and what equal variants differ by."""
    row = next(row for row in results.ranking if row.variant == results.reference)
    floor = statistics.floor_of_noise([value for value in row.values if value is not None])
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
    before = sorted(_initial(results, [results.reference]).values())
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
            reached = statistics.time_to(target, *known, results.direction)
            times.append(math.inf if math.isinf(cost) else reached)
    return {
        "median": statistics.median_with_misses(times),
        "reached": sum(map(math.isfinite, times)),
        "of": len(times),
        "values": times,
    }


def _sensitivity(results: Results) -> list[dict[str, Any]]:
    """Return a curve for each set of variants that differ in nothing but their LR."""
    return [
        _curve(results, [by_lr[lr] for lr in sorted(by_lr)], sorted(by_lr))
        for by_lr in lr_groups(results.config)
        if len(by_lr) >= MIN_LRS and not trained_alike(results.run, list(by_lr.values()))
    ]


def _curve(results: Results, names: Sequence[str], lrs: Sequence[float]) -> dict[str, Any]:
    costs = np.array([[results.cost(name, seed) for seed in results.seeds] for name in names])
    before = _initial(results, names)
    initial = [before.get(seed, math.nan) for seed in results.seeds]
    found = asdict(lr_sensitivity(lrs, costs, initial))
    signed = {
        "means": [None if mean is None else results.sign * mean for mean in found["means"]],
        "initial": results.sign * found["initial"],
    }
    shared = {
        key: _without_lr(key, value)
        for key, value in results.config.overrides[names[0]].items()
        if key not in ("optimizer.lr", "optimizer.parts.0.lr", "optimizer.parts[0].lr")
    }
    values = {
        "values": [[results.sign * cost for cost in row] for row in costs.tolist()],
        "diverged": np.isinf(costs).sum(axis=1).tolist(),
    }
    return {"settings": shared, "variants": list(names), **found, **signed, **values}


def _initial(results: Results, names: Sequence[str]) -> dict[int, float]:
    """Return the cost of each seed before training, which all its variants share."""
    found: dict[int, float] = {}
    for trial in (trial for name in names for trial in results.run.variants[name]):
        if trial.seed not in found:
            value = _before_training(trial, results.metric)
            if math.isfinite(value):
                found[trial.seed] = results.sign * value
    return found


def _before_training(trial: TrialRecord, metric: str) -> float:
    """Return the first evaluation; a training loss has none before the first step but its own."""
    values = trial.steps["loss"] if metric == "train_loss" else trial.evals.get(metric, np.empty(0))
    return float(values[0]) if len(values) else math.nan


def _without_lr(key: str, value: Any) -> Any:
    if key == "optimizer" and isinstance(value, Mapping):
        return {name: item for name, item in value.items() if name != "lr"}
    return value
