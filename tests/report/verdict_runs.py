"""Finished comparisons with verdicts, made of formulas: real summaries of synthetic trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lrexp.config.load import load_config
from lrexp.runs.files import write_json
from lrexp.runs.reader import Run, load_run
from lrexp.runs.summary import comparison_summary

from .synthetic import CONFIG, write_config, write_status, write_trial

LOST = float("inf")


def write_verdicts(
    path: Path,
    finals: Mapping[str, list[float]],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    start: float = 2.3,
    **compare: Any,
) -> Run:
    """Write a comparison in which every trial falls straight to its final value, or diverges."""
    settings = settings or {name: {"optimizer.weight": i} for i, name in enumerate(finals)}
    seeds = len(next(iter(finals.values())))
    steps = {"total_steps": dict.fromkeys(finals, 40)}
    write_status(path, variants=list(finals), seeds=list(range(seeds)), **steps)
    changed = {name: dict(settings[name]) for name in finals}
    section = {"seeds": seeds, "metric": "val_loss", "variants": changed, **compare}
    accuracy = compare.get("metric") == "val_accuracy"
    write_config(path, changed, compare=section, loss="cross_entropy")
    for name, values in finals.items():
        for seed, final in enumerate(values):
            end = 50.0 if final == LOST else final
            curve = np.linspace(0.1 if accuracy else start, end, 5)
            loss = np.linspace(start, 1.0 if accuracy else end, 40)
            trial = path / f"trials/{name}/seed-{seed}"
            outcome = "diverged" if final == LOST else "finished"
            given = {"accuracy": curve} if accuracy else {}
            write_trial(
                trial, loss, settings[name].get("optimizer.lr", 0.01), outcome=outcome,
                steps_per_epoch=10, val=[*loss[::10][:4].tolist(), loss[-1]] if accuracy else curve,
                **given,
            )  # fmt: skip
            metric = section["metric"]
            result = json.loads((trial / "result.json").read_text())
            result |= {"final": {} if final == LOST else {metric: final}}
            (trial / "result.json").write_text(json.dumps(result))
    config = load_config({**CONFIG, "loss": "cross_entropy", "compare": section})
    summary = comparison_summary(load_run(path), config)
    write_json(path / "summary.json", summary)
    return load_run(path)


SEEDS = 8
LRS = [0.001, 0.01, 0.1, 1.0, 10.0]


def around(mean: float, spread: float = 0.02) -> list[float]:
    return (mean + spread * np.linspace(-1, 1, SEEDS)).tolist()


def four_schedules(path: Path) -> Run:
    """Write a comparison with a variant that is better, one that is not, and one that diverges."""
    finals = {
        "base": around(1.0),
        "good": around(0.8, 0.03),
        "same": [value + 0.1 * (-1) ** i for i, value in enumerate(around(1.0))],
        "half_lost": [LOST] * 7 + [0.5],
    }
    settings: dict[str, dict[str, Any]] = {n: {"schedule.warmup": i} for i, n in enumerate(finals)}
    settings["same"] = settings["base"]  # A against A
    return write_verdicts(path, finals, settings)


def over_lr(path: Path, rows: Mapping[str, list[float]], **compare: Any) -> Run:
    """Write a comparison over LRs; every row is a schedule with a mean value for each LR."""
    finals, settings = {}, {}
    for schedule, means in rows.items():
        for lr, mean in zip(LRS, means, strict=True):
            name = f"{schedule}-{lr:g}"
            finals[name] = [LOST, *around(1.0)[1:]] if mean == LOST else around(mean)
            settings[name] = {"optimizer.lr": lr, "schedule": schedule}
    return write_verdicts(path, finals, settings, reference="best", **compare)
