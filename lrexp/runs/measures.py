"""What the trials of a comparison came to: metrics, the last value and the best, and diagnoses.

A variant has mean, sd and each seed's value of both, and when the best was reached. What guessing
gets stands beside them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from lrexp.analysis.claims import Outcomes, Values, VariantSummary, judged, summarise
from lrexp.analysis.diagnosis import Diagnosis, combine_diagnoses, diagnose, final_loss
from lrexp.analysis.tried import Tried, tried
from lrexp.config.variants import axis_names, value_labels
from lrexp.records import Direction
from lrexp.runs.reader import Run, TrialRecord, cause_of

if TYPE_CHECKING:
    from lrexp.runs.plan import Plan, VariantPlan

SELECTIONS = ("final", "best")


def outcome_of(trial: TrialRecord) -> str:
    """Return how a trial ended."""
    return str((trial.result or {}).get("outcome", "failed"))


@dataclass(frozen=True)
class Measures:
    """The metrics of a comparison's trials.

    Args:
        run: as its files are.
        metric: the column of the one that ranks, select: by its last or its best value.
        directions: which values of each metric are better, where that is known.
        outcomes: variant -> seed -> how it ended.
    """

    run: Run
    metric: str
    select: str
    directions: Mapping[str, Direction]
    outcomes: Outcomes

    @cached_property
    def columns(self) -> list[str]:
        """Return the metrics that were taken: the one that ranks first, then as in evals.csv."""
        results = [trial.result or {} for trial in self.run.trials]
        taken = [name for r in results for name in {**r.get("final", {}), **r.get("best", {})}]
        return [c for c in dict.fromkeys([self.metric, *taken]) if c != "loss"]

    def values(self, column: str, which: str) -> Values:
        """Return variant -> seed -> the last (`final`) or the best value; None where there is none.

        `which` may be best_step and best_epoch, too.
        """
        return {name: self._known(name, column, which) for name in self.run.variants}

    def _known(self, name: str, column: str, which: str) -> dict[int, float | None]:
        trials = self.run.variants[name]
        return {t.seed: _number((t.result or {}).get(which, {}).get(column)) for t in trials}

    def of_variant(self, name: str, seeds: Sequence[int]) -> dict[str, Any]:
        """Return by column what the seeds of a variant that finished came to."""
        return {
            column: {
                "direction": self.directions.get(column),
                **{which: self._row(name, column, which, seeds) for which in SELECTIONS},
                **{w: self._seeds(name, column, w, seeds) for w in ("best_step", "best_epoch")},
            }
            for column in self.columns
        }

    def _seeds(
        self, name: str, column: str, which: str, seeds: Sequence[int]
    ) -> list[float | None]:
        """Return each seed's value; None of a seed that did not finish."""
        found = judged(self._known(name, column, which), self.outcomes[name])
        return [found.get(seed, ("", None))[1] for seed in seeds]

    def _row(self, name: str, column: str, which: str, seeds: Sequence[int]) -> dict[str, Any]:
        values = self._seeds(name, column, which, seeds)
        known = [value for value in values if value is not None]
        return {
            "mean": float(np.mean(known)) if known else None,
            "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
            "values": values,
        }

    def facts(
        self,
        ranking: Sequence[VariantSummary],
        seeds: Sequence[int],
        baselines: Mapping[str, Mapping[str, float]],
    ) -> dict[str, Any]:
        """Return what is to be said of the metrics besides the ranking.

        Returns:
            `metrics`: all columns; `other_order`: variants as the other selection ranks them, None
            where that is the same; `not_better`: (variant, column) where guessing is as good.
        """
        other = SELECTIONS[self.select == "final"]
        direction = self.directions.get(self.metric, "min")
        order = [row.variant for row in ranking]
        others = summarise(self.values(self.metric, other), self.outcomes, direction, seeds)
        by_other = [row.variant for row in others]
        is_same = by_other == order or all(row.mean is None for row in others)
        return {
            "metrics": self.columns,
            "other_order": None if is_same else by_other,
            "not_better": [pair for name in order for pair in self._not_better(name, baselines)],
        }

    def _not_better(
        self, name: str, baselines: Mapping[str, Mapping[str, float]]
    ) -> list[list[str]]:
        found = []
        for column, guess in baselines.get(name, {}).items():
            seeds = list(self.outcomes[name])
            mean = self._row(name, column, self.select, seeds)["mean"]
            sign = {"min": 1, "max": -1}.get(self.directions.get(column, ""), 0)
            if mean is not None and sign and sign * mean >= sign * guess:
                found.append([name, column])
        return found


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def measures_of(
    run: Run, metric: str, select: str, directions: Mapping[str, Direction]
) -> Measures:
    """Return the metrics of a run; see `Measures`."""
    outcomes = {name: {t.seed: outcome_of(t) for t in ts} for name, ts in run.variants.items()}
    return Measures(run, metric, select, directions, outcomes)


def trained_alike(run: Run, names: Sequence[str]) -> bool:
    """Return whether some of these variants had the same LR at every step."""
    first = [run.variants[name][0].steps["lr"] for name in names if run.variants.get(name)]
    return any(
        len(one) and len(other) and np.array_equal(one[: len(other)], other[: len(one)])
        for one, other in combinations(first, 2)
    )


def baselines(plan: Plan) -> dict[str, dict[str, float]]:
    """Return of each variant what guessing gets; variants with the same data and loss share it."""
    known: dict[Any, dict[str, float]] = {}
    found = {}
    for name, variant in plan.variants.items():
        key = (id(variant.data), repr(variant.settings.loss), variant.baseline)
        if key not in known:
            known[key] = {}
            with suppress(Exception):  # of user code, after all trials have ended well
                known[key] = _baseline(variant)
        found[name] = known[key]
    return found


def _baseline(variant: VariantPlan) -> dict[str, float]:
    from lrexp.engine.rng import preserved_rng
    from lrexp.workloads.metrics import on_cpu

    objective, val = variant.make_objective(), variant.data.val
    if val is None or variant.baseline.answers is None:
        return {}

    def loss(guess: Any, target: Any) -> float:
        guess = guess.to(target.dtype if target.is_floating_point() else guess.dtype)
        size = len(target) if getattr(objective, "is_sum", False) else 1
        return float(objective.loss(guess.to(variant.device), target.to(variant.device))) / size

    with preserved_rng(variant.device):
        targets = [on_cpu(objective.target(batch)) for batch in val.in_order()]
        found = variant.baseline.values(targets, loss, variant.metrics)
    return {column: value for column, value in found.items() if math.isfinite(value)}


def diagnoses_of(
    run: Run,
    loss_names: Mapping[str, str],
    of_parts: Collection[str] = (),
    lr_groups: Iterable[Mapping[float, str]] = (),
) -> dict[str, Diagnosis]:
    """Return what each variant did; ends are compared among variants with the same loss.

    Args:
        run: of the trials, loss_names: the loss of each variant.
        of_parts: variants whose step returns a loss for each optimizer.
        lr_groups: LR -> variant, for each set of variants that differ in nothing but their LR.
    """
    seen = {name: one for by_lr in lr_groups for name, one in _seen_from(run, by_lr).items()}
    best: dict[str, float] = {}
    for name, trials in run.variants.items():
        for trial in trials:
            end = final_loss(trial.steps["loss"], trial.evals)
            if outcome_of(trial) == "finished" and end is not None:
                best[loss_names[name]] = min(end, best.get(loss_names[name], end))
    combined = {}
    for name, trials in run.variants.items():
        ordered = _median_first(trials)
        end, has_parts = best.get(loss_names[name]), name in of_parts
        view = seen.get(name)
        found = [_diagnosis(trial, run, end, view, of_parts=has_parts) for trial in ordered]
        combined[name] = combine_diagnoses(found, [trial.seed for trial in ordered])
    return combined


def _seen_from(run: Run, by_lr: Mapping[float, str]) -> dict[str, Tried | None]:
    """Return what each of these variants sees of the others: means over the seeds."""
    ends: dict[float, float | None] = {}
    for lr, name in by_lr.items():
        trials = run.variants[name]
        found = [final_loss(trial.steps["loss"], trial.evals) for trial in trials]
        finished = all(outcome_of(trial) == "finished" for trial in trials)
        known = [end for end in found if end is not None]
        whole = bool(known) and finished and len(known) == len(found)
        ends[lr] = sum(known) / len(known) if whole else None
    return {name: tried(lr, ends) for lr, name in by_lr.items()}


def _median_first(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials, the one with the median end first: the sentence is about that one."""
    ends = [final_loss(trial.steps["loss"], trial.evals) for trial in trials]
    median = np.median([end for end in ends if end is not None] or [0.0])
    distance = [math.inf if end is None else abs(end - median) for end in ends]
    return [trials[i] for i in sorted(range(len(trials)), key=distance.__getitem__)]


def _diagnosis(
    trial: TrialRecord, run: Run, best_final: float | None, seen: Tried | None, *, of_parts: bool
) -> Diagnosis:
    return diagnose(
        trial.steps["loss"],
        trial.evals,
        outcome_of(trial),
        stopped_at=(trial.result or {}).get("stopped_at"),
        total_steps=run.status["total_steps"][trial.variant],
        best_final=best_final,
        seen=seen,
        cause=cause_of(trial),
        of_parts=of_parts,
    )


def mixed_hardware(run: Run) -> list[str]:
    """Return a line for the seeds whose trials were trained on several kinds of machine."""
    kinds: dict[int, set[str]] = {}
    for trial in run.trials:
        if isinstance(kind := (trial.result or {}).get("hardware"), str):
            kinds.setdefault(trial.seed, set()).add(kind)
    mixed = {seed: several for seed, several in kinds.items() if len(several) > 1}
    if not mixed:
        return []
    seeds = ", ".join(map(str, sorted(mixed)))
    found = " and ".join(sorted({kind for several in mixed.values() for kind in several}))
    return [
        f"Note: trials of seed {seeds} were trained on several kinds of machine ({found}), whose "
        "arithmetic differs in the last bits; part of a difference between them may be that."
    ]


def end_warnings(curves: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield where the best LR is the last that was tried: once for all curves of each side."""
    for end, side in (("lowest", "lower"), ("highest", "higher")):
        found = [curve for curve in curves if curve["best_is_end"] == end]
        if not found:
            continue
        named = [f"{c['best_lr']:g}{_with(c['settings'])}" for c in found[:_MOST_NAMED]]
        named += [f"{len(found) - _MOST_NAMED} more"] if len(found) > _MOST_NAMED else []
        yield (
            f"The best LR is the {end} that was compared ({'; '.join(named)}): the best of all may "
            f"lie {side}. Compare {side} ones too."
        )


_MOST_NAMED = 6  # curves that a warning names


def _with(settings: Mapping[str, object]) -> str:
    """Return what else a curve's variants set, as the names of variants say it."""
    labels = [label for k, v in settings.items() for label in value_labels(axis_names([k])[0], [v])]
    return f" with {', '.join(labels)}" if labels else ""
