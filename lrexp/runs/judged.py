"""Verdicts on what has been trained already: a run judged anew, or tables of other programs.

Nothing is trained; all three give the same statement, which `lrexp judge` and `verdict` print.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lrexp.analysis import statistics
from lrexp.analysis.claims import (
    NO_DIFFERENCE,
    TOO_FEW,
    UNDECIDED,
    Comparison,
    Direction,
    Outcomes,
    Values,
    compare_to,
    summarise,
)
from lrexp.analysis.unpaired import compare_groups
from lrexp.errors import NOTHING, ConfigError, did_you_mean
from lrexp.records import column_of
from lrexp.runs.measures import SELECTIONS, Measures, measures_of
from lrexp.runs.reader import Run
from lrexp.runs.results import Table, direction_of, read_results

_WORDS = {NO_DIFFERENCE: "equivalent", UNDECIDED: "undecided", TOO_FEW: "too few seeds"}


def judge(
    files: str | Path | Sequence[str | Path],
    by: str | None = None,
    metric: str | None = None,
    pair: str | None = None,
    *,
    direction: str | None = None,
    reference: str | None = None,
) -> dict[str, Any]:
    """Return the verdicts on results made elsewhere.

    With `pair` differences are taken pair by pair (exact sign flips, Student's interval); a seed
    pairs trainings only if it fixes initial weights and batches in every variant. Without, Welch's
    t compares the means, and Mann-Whitney has to agree.

    Args:
        files: one or more, CSV or JSON lines.
        by: the column that names the variants; None where every column of numbers is one.
        metric: the column of the result.
        pair: the column that pairs trainings.
        direction: `min` or `max`; by the metric's name if not given.
        reference: the variant that others are compared with; by default the best, and then p is
            corrected for all pairs of variants.

    Raises:
        ConfigError: a file or column cannot be used.

    Example:
        >>> lrexp.judge("results.csv", by="lr", pair="seed", metric="val_loss")  # doctest: +SKIP
    """
    given = [files] if isinstance(files, str | Path) else list(files)
    table = read_results(given, by, metric, pair)
    which = direction_of(table.metric, direction)
    return {"source": table.source, **_of_table(table, which, reference)}


def _of_table(table: Table, direction: Direction, reference: str | None) -> dict[str, Any]:
    pairs = list(dict.fromkeys(key for row in table.values.values() for key in row))
    place = {key: number for number, key in enumerate(pairs)}
    values = {
        name: {place[key]: value for key, value in row.items()}
        for name, row in table.values.items()
    }
    outcomes = {
        name: {n: "finished" if abs(v) < float("inf") else "diverged" for n, v in row.items()}
        for name, row in values.items()
    }
    return {
        "metric": table.metric,
        "pair": table.pair,
        **statement(values, outcomes, direction, reference, paired=table.pair is not None),
        "warnings": [*table.notes, *_unpaired_rows(table, len(pairs))],
    }


def _unpaired_rows(table: Table, count: int) -> list[str]:
    lacking = {name: count - len(row) for name, row in table.values.items()}
    if table.pair is None or not any(lacking.values()):
        return []
    rows = ", ".join(f"{name} {n}" for name, n in lacking.items() if n)
    return [f"Values of {table.pair} that a variant lacks are left out of its pairs: {rows}."]


def judge_run(
    run: Run, reference: str | None = None, metric: str | None = None, select: str | None = None
) -> dict[str, Any]:
    """Return the verdicts on a comparison's run for another reference, metric or selection.

    Args:
        run: that has ended, or whose trials so far are to be judged.
        reference: a variant; that of the run if None.
        metric: a metric of the config, or its column in evals.csv; that of the run if None.
        select: `final` or `best`; that of the run if None.

    Raises:
        ConfigError: the run has no such variant or metric, or is no comparison.
    """
    known = run.summary or {}
    if run.command != "compare" or not run.trials:
        what, remedy = "holds no comparison", "Give the directory of lrexp compare."
        raise ConfigError.single("RUN", what, str(run.path), remedy)
    declared = known.get("declared") or {}
    select = select or str(known.get("select") or "final")
    if select not in SELECTIONS:
        raise ConfigError.single("--select", "must be final or best", select, "Give one of them.")
    directions = _directions(known)
    column = column_of(metric) if metric else str(known.get("metric") or "val_loss")
    measures = measures_of(run, column, select, directions)
    _check_metric(measures, column)
    by_result = bool(declared.get("reference_is_best"))
    reference = reference or (None if by_result else declared.get("reference"))
    found = statement(
        measures.values(column, select),
        measures.outcomes,
        directions.get(column) or direction_of(column, None),
        reference,
        seeds=list(run.status.get("seeds") or ()) or None,
    )
    left = [] if known else ["Not all trials have ended: these are the ones that have."]
    return {"run": str(run.path), "metric": column, "select": select, **found, "warnings": left}


def _directions(summary: Mapping[str, Any]) -> dict[str, Direction]:
    """Return which values of each metric are better, as the run has kept it."""
    found: dict[str, Direction] = {"val_loss": "min", "train_loss": "min", "val_accuracy": "max"}
    for row in summary.get("ranking") or ():
        for column, facts in (row.get("metrics") or {}).items():
            if facts.get("direction") in ("min", "max"):
                found[column] = facts["direction"]
    if summary.get("direction") in ("min", "max"):
        found[str(summary.get("metric"))] = summary["direction"]
    return found


def _check_metric(measures: Measures, column: str) -> None:
    measured = [
        name
        for name in measures.columns
        if any(
            v is not None for row in measures.values(name, "final").values() for v in row.values()
        )
    ]
    if column not in measured:
        what = "was not measured in this run"
        raise ConfigError.single("--metric", what, column, did_you_mean(column, measured))


def statement(
    values: Values,
    outcomes: Outcomes,
    direction: Direction,
    reference: str | None,
    *,
    seeds: Sequence[int] | None = None,
    paired: bool = True,
) -> dict[str, Any]:
    """Return ranking and verdicts as `judge --json` has them."""
    ranking = summarise(values, outcomes, direction, seeds)
    if reference is not None and reference not in values:
        remedy = did_you_mean(reference, values)
        raise ConfigError.single("--reference", "is no variant", reference, remedy)
    by_result = reference is None
    chosen = ranking[0].variant if reference is None else reference
    family = statistics.num_comparisons(len(values), chosen_by_result=by_result)
    if paired:
        found = compare_to(values, outcomes, chosen, direction, seeds, family=family)
    else:
        rows = {
            name: [math.inf if value is None else value for value in row.values()]
            for name, row in values.items()
        }
        found = compare_groups(rows, chosen, direction, family=family)
    order = {row.variant: row.rank for row in ranking}
    return {
        "direction": direction,
        "reference": chosen,
        "reference_is_best": by_result,
        "paired": paired,
        "alpha": statistics.ALPHA,
        "comparisons_corrected_for": family,
        "ranking": [
            {key: value for key, value in asdict(row).items() if key != "difference"}
            for row in ranking
        ],
        "comparisons": [
            {**_plain(c), "paired": paired} for c in sorted(found, key=lambda c: order[c.variant])
        ],
    }


def _plain(c: Comparison) -> dict[str, Any]:
    verdict = _WORDS.get(c.kind) or ("better" if c.better == c.variant else "worse")
    return {
        "variant": c.variant,
        "reference": c.reference,
        "n": c.n,
        "difference": c.mean,
        "interval": c.interval,
        "p": c.p,
        "p_holm": c.p_holm,
        "wins": c.wins,
        "verdict": verdict,
        "seeds_needed": c.seeds_needed,
        "sentence": c.verdict,
        "margin": c.margin,
        "diverged": c.diverged,
        "differences": c.differences,
        "kind": c.kind,
        "better": c.better,
        "mann_whitney_p": c.check_p,
    }


def power_of(run: Run, difference: str | float) -> dict[str, Any]:
    """Return how many seeds a difference takes, by how the seeds of a run differed.

    Args:
        run: a comparison of two seeds at least.
        difference: in the metric's unit, or a share of the reference's mean (`1%`).

    Raises:
        ConfigError: it is no positive number, or the run has too few seeds to know.
    """
    judged = judge_run(run)
    means = {row["variant"]: row["mean"] for row in judged["ranking"]}
    size = _size_of(difference, means[judged["reference"]])
    family = max(1, judged["comparisons_corrected_for"])
    rows = []
    for c in judged["comparisons"]:
        known = [d for d in c["differences"] if d is not None]
        sd = statistics.sd_of(known)
        count = None if sd is None else statistics.seeds_for(size, sd, statistics.ALPHA / family)
        least = statistics.seeds_needed(family)
        seeds = None if count is None else max(count, least)
        rows.append({"variant": c["variant"], "sd": sd, "n": len(known), "seeds": seeds})
    if all(row["sd"] is None for row in rows):
        what, remedy = "has too few seeds to know how they differ", "Train two seeds at least."
        raise ConfigError.single("RUN", what, str(run.path), remedy)
    return {
        "run": str(run.path),
        "metric": judged["metric"],
        "reference": judged["reference"],
        "difference": size,
        "power": statistics.POWER,
        "comparisons_corrected_for": family,
        "comparisons": rows,
    }


def _size_of(difference: str | float, mean: float | None) -> float:
    text = str(difference).strip()
    is_share = text.endswith("%")
    try:
        size = abs(float(text.removesuffix("%")))
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        remedy = "Give e.g. 1%, or a number in the metric's unit."
        raise ConfigError.single("--difference", "must be a positive size", difference, remedy)
    if not is_share:
        return size
    if not mean:
        what = "is a share of a mean that the reference has not"
        raise ConfigError.single("--difference", what, NOTHING, "Give it in the metric's unit.")
    return size / 100 * abs(mean)
