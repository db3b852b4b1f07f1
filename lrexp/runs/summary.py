"""What a run comes to: summary.json, made from the files of its trials.

What its seeds allow to say is made in `comparison.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from lrexp.analysis.diagnosis import Diagnosis, combine_diagnoses, diagnose
from lrexp.analysis.race import Course, Raced, by_horizon, drift, regrets, survivors
from lrexp.analysis.race_answer import Verdict, verdict
from lrexp.analysis.ranking import VariantSummary, summarise
from lrexp.analysis.suggest import CYCLE, Suggestion
from lrexp.analysis.trace import final_loss
from lrexp.config.config import Config
from lrexp.runs.comparison import Results, evidence
from lrexp.runs.reader import RANGE_TEST, Draw, Run, TrialRecord, cause_of, load_run
from lrexp.runs.session import Session
from lrexp.runs.stages import RangeTests
from lrexp.runs.trial_files import HIGHER_IS_BETTER


def conclude(session: Session, draw: Draw) -> None:
    """Write what a run comes to and draw it, once its trials have ended.

    Raises:
        FailedTrialsError: trials failed.
    """
    made = _of_comparison if session.spec.command == "compare" else _of_find_lr
    with session.options.reporter.waiting("Drawing"):
        session.writer.summary(made(session))
        draw(load_run(session.run))
    session.raise_failures()


def _of_comparison(session: Session) -> dict[str, Any]:
    return comparison_summary(load_run(session.run), session.plan.config)


def _of_find_lr(session: Session) -> dict[str, Any]:
    """Return the summary of range tests, and of the race that followed, if one did."""
    plan, findings = session.plan, session.findings
    tests = findings.tests
    if tests is None:  # some have failed
        rule, share = plan.config.experiment.find_lr.rule, plan.variants[RANGE_TEST].mean_frac
        tests = RangeTests(load_run(session.run), rule, share)
        if not tests.seeds:
            session.raise_failures()
    if findings.course is None or findings.start is None:
        return range_test_summary(tests.suggestion, tests.seeds)
    session.raise_failures()
    summary = race_summary(tests, findings.course, findings.raced)
    notes = [note for note in (findings.start.note, summary["note"]) if note]
    return {**summary, "note": " ".join(notes) or None}


def comparison_summary(run: Run, config: Config) -> dict[str, Any]:
    """Return summary.json of a comparison whose trials have all ended."""
    metric = config.experiment.compare.metric
    outcomes = {name: {t.seed: _outcome(t) for t in ts} for name, ts in run.variants.items()}
    values = {name: {t.seed: _final(t, metric) for t in ts} for name, ts in run.variants.items()}
    direction: Literal["min", "max"] = "max" if metric in HIGHER_IS_BETTER else "min"
    seeds = list(run.status["seeds"])
    ranking = summarise(values, outcomes, direction, seeds)
    diagnoses = _diagnoses(run, {name: str(v.loss) for name, v in config.variants.items()})
    results = Results(run, config, values, outcomes, direction, seeds, ranking)
    found = evidence(results)
    verdicts = {comparison["variant"]: comparison["verdict"] for comparison in found["comparisons"]}
    return {
        "command": "compare",
        "metric": metric,
        "direction": direction,
        "seeds": seeds,
        "ranking": [
            {
                **_row(row),
                "diagnosis": asdict(diagnoses[row.variant]),
                "settings": config.overrides[row.variant],
                "verdict": verdicts.get(row.variant),
            }
            for row in ranking
        ],
        **found,
    }


def range_test_summary(suggestion: Suggestion, seeds: Sequence[int]) -> dict[str, Any]:
    """Return summary.json of a range test."""
    return {
        "command": "find-lr",
        "suggested_lr": suggestion.suggested_lr,
        "interval": suggestion.interval,
        "base_lr": suggestion.base_lr,
        "max_lr": suggestion.max_lr,
        "rules": suggestion.rules,
        "reason": suggestion.reason,
        "note": suggestion.note,
        "seeds": list(seeds),
        "per_seed": suggestion.per_seed,
        "mean_frac": suggestion.mean_frac,
        "readings": suggestion.readings,
        "stability_edge": suggestion.edge,
    }


def race_summary(tests: RangeTests, course: Course, done: Sequence[Raced]) -> dict[str, Any]:
    """Return summary.json of range tests and the race that followed.

    Args:
        tests: the range tests.
        course: what the race started from.
        done: its rungs.
    """
    suggestion = tests.suggestion
    answer, rungs = verdict(course, done), by_horizon(done)
    base_lr, max_lr = _cycle(answer, suggestion)
    return {
        **range_test_summary(suggestion, tests.seeds),
        "suggested_lr": answer.lr,
        "interval": answer.interval,
        "base_lr": base_lr,
        "max_lr": max_lr,
        "reason": answer.reason,
        "note": answer.note,
        "estimated_regret": answer.regret,
        "range_test": {
            "suggested_lr": suggestion.suggested_lr,
            "interval": suggestion.interval,
            "reason": suggestion.reason,
            "steps": tests.steps,
        },
        "race": {
            "budget": course.budget,
            "budget_steps": course.budget_steps,
            "steps": sum(raced.rung.steps for raced in done),
            "total_steps": course.total_steps,
            "rungs": [_rung(course, raced, raced is not rungs[-1]) for raced in rungs],
        },
    }


def _cycle(answer: Verdict, suggestion: Suggestion) -> tuple[float | None, float | None]:
    """Return base and max LR: those of the range test, if it has any, and the answer between."""
    if answer.lr is None:
        return None, None
    base = answer.lr / CYCLE if suggestion.base_lr is None else suggestion.base_lr
    top = answer.lr if suggestion.max_lr is None else suggestion.max_lr
    return min(base, answer.lr), max(top, answer.lr)


def _rung(course: Course, raced: Raced, is_halved: bool) -> dict[str, Any]:
    """Return what the LRs of one horizon came to, loss by loss, and which did not go on."""
    rung, regret = raced.rung, regrets(raced.start, raced.losses)
    kept = survivors(raced) if is_halved else rung.lrs
    return {
        "horizon": rung.horizon,
        "seeds": list(rung.seeds),
        "start": list(raced.start),
        "drift": drift(course, rung.horizon),
        "lrs": [
            {
                "lr": lr,
                "losses": [loss if math.isfinite(loss) else None for loss in losses],
                "diverged": sum(not math.isfinite(loss) for loss in losses),
                "regret": float(value),
                "dropped": lr not in kept,
            }
            for lr, losses, value in zip(rung.lrs, raced.losses, regret, strict=True)
        ],
    }


def _diagnoses(run: Run, loss_names: Mapping[str, str]) -> dict[str, Diagnosis]:
    """Return what each variant did; ends are compared among variants with the same loss."""
    best: dict[str, float] = {}
    for name, trials in run.variants.items():
        for trial in trials:
            end = final_loss(trial.steps["loss"], trial.evals)
            if _outcome(trial) == "finished" and end is not None:
                best[loss_names[name]] = min(end, best.get(loss_names[name], end))
    combined = {}
    for name, trials in run.variants.items():
        ordered = _median_first(trials)
        found = [_diagnosis(trial, run, best.get(loss_names[name])) for trial in ordered]
        combined[name] = combine_diagnoses(found, [trial.seed for trial in ordered])
    return combined


def _median_first(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials, the one with the median end first: the sentence is about that one."""
    ends = [final_loss(trial.steps["loss"], trial.evals) for trial in trials]
    median = np.median([end for end in ends if end is not None] or [0.0])
    distance = [math.inf if end is None else abs(end - median) for end in ends]
    return [trials[i] for i in sorted(range(len(trials)), key=distance.__getitem__)]


def _diagnosis(trial: TrialRecord, run: Run, best_final: float | None) -> Diagnosis:
    return diagnose(
        trial.steps["loss"],
        trial.evals,
        _outcome(trial),
        stopped_at=(trial.result or {}).get("stopped_at"),
        total_steps=run.status["total_steps"][trial.variant],
        best_final=best_final,
        cause=cause_of(trial),
    )


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


def _outcome(trial: TrialRecord) -> str:
    return str((trial.result or {}).get("outcome", "failed"))


def _final(trial: TrialRecord, metric: str) -> float | None:
    value = (trial.result or {}).get("final", {}).get(metric)
    return None if value is None else float(value)
