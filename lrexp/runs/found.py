"""summary.json of `find-lr`: the answer, what was tried, and what it took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lrexp.analysis.answer import Verdict, verdict
from lrexp.analysis.race import Raced, regrets
from lrexp.analysis.search import Search
from lrexp.analysis.suggest import CYCLE, Suggestion
from lrexp.runs.measures import outcome_of
from lrexp.runs.reader import RANGE_TEST, Run, TrialRecord, final_loss
from lrexp.runs.stages import Findings, RangeTests

if TYPE_CHECKING:
    from lrexp.runs.train import Session


def summary_of_find_lr(session: Session, run: Run) -> dict[str, Any]:
    """Return the summary of range tests, and of the trainings of several LRs, if any followed."""
    plan, findings = session.plan, session.findings
    tests = findings.tests
    if tests is None:  # some have failed
        rule, share = plan.config.experiment.find_lr.rule, plan.variants[RANGE_TEST].mean_frac
        tests = RangeTests(run, rule, share)
        if not tests.seeds:
            session.raise_failures()
    if findings.search is not None:
        session.raise_failures()
    seconds = session.writer.seconds
    return find_lr_summary(run, tests, findings, seconds)


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


def find_lr_summary(
    run: Run, tests: RangeTests, findings: Findings, seconds: float
) -> dict[str, Any]:
    """Return summary.json of range tests, and of the trainings of several LRs after them."""
    suggestion = tests.suggestion
    plain = range_test_summary(suggestion, tests.seeds) | _spent(run, findings, seconds)
    search, done = findings.search, findings.raced
    if search is None or findings.start is None:
        return plain
    if not search.horizons:
        note = "What the budget left after the range test buys no training: raise --budget."
        return {**plain, "note": " ".join(filter(None, [note, suggestion.note]))}
    answer = verdict(search, done)
    base_lr, max_lr = _cycle(answer, suggestion)
    start_note = None if answer.lr is None else findings.start.note
    return {
        **plain,
        "suggested_lr": answer.lr,
        "interval": answer.interval,
        "within": answer.within,
        "extrapolated": answer.is_extrapolated,
        "base_lr": base_lr,
        "max_lr": max_lr,
        "reason": answer.reason,
        "note": " ".join(filter(None, [start_note, *answer.notes])) or None,
        "range_test": {
            "suggested_lr": suggestion.suggested_lr,
            "interval": suggestion.interval,
            "reason": suggestion.reason,
            "steps": tests.steps,
        },
        "race": {
            "steps": sum(_steps(t) for t in run.of_kind("race")),
            "total_steps": search.total_steps,
            "guess": search.guess,
            "rungs": [_rung(search, raced) for raced in done],
        },
    }


def _spent(run: Run, findings: Findings, seconds: float) -> dict[str, Any]:
    """Return what find-lr spent, and every LR that it trained."""
    trained = run.of_kind("race")
    steps = sum(_steps(trial) for trial in run.trials)
    total = findings.search.total_steps if findings.search else None
    means = findings.means
    return {
        "budget": means.budget if means else None,
        "spent": {
            "seconds": round(seconds, 3),
            "steps": steps,
            "trainings": round(steps / total, 4) if total else None,
            "training_seconds": means.training if means else None,
        },
        "tried": [
            {"lr": t.lr, "seed": t.seed, "steps": t.total_steps, "loss": loss, "outcome": outcome}
            for t in sorted(trained, key=lambda t: (t.total_steps or 0, t.lr or 0, t.seed))
            for loss, outcome in [(_finite(final_loss(t)), outcome_of(t))]
        ],
    }


def _steps(trial: TrialRecord) -> int:
    return int((trial.result or {}).get("steps") or 0)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cycle(answer: Verdict, suggestion: Suggestion) -> tuple[float | None, float | None]:
    """Return base and max LR: those of the range test, if it has any, and the answer between."""
    if answer.lr is None:
        return None, None
    base = answer.lr / CYCLE if suggestion.base_lr is None else suggestion.base_lr
    top = answer.lr if suggestion.max_lr is None else suggestion.max_lr
    return min(base, answer.lr), max(top, answer.lr)


def _rung(search: Search, raced: Raced) -> dict[str, Any]:
    """Return what the LRs of one horizon came to, loss by loss; null where not trained."""
    rung, regret = raced.rung, regrets(raced.start, raced.losses, search.guess)
    rows = zip(rung.lrs, raced.losses, raced.means, raced.failed, regret, strict=True)
    return {
        "horizon": rung.horizon,
        "seeds": list(rung.seeds),
        "start": list(raced.start),
        "lrs": [
            {
                "lr": lr,
                "losses": [_finite(loss) for loss in losses],
                "mean": _finite(float(mean)),
                "diverged": sum(math.isinf(loss) for loss in losses),
                "failed": bool(failed),
                "regret": float(value),
            }
            for lr, losses, mean, failed, value in rows
        ],
    }
