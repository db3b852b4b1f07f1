"""AdaptiveCycleLR against OneCycleLR: each with its LR tuned on equal budget, ten seeds, verdicts.

    python tests/benchmarks/adaptive_vs_onecycle.py

For each workload both schedules train the same grid of peak LRs on the same tuning seeds; the LR
of the lowest mean validation loss is taken. Then both train with it on ten other seeds, and
`lrexp compare` says what may be said. How soon is judged by a loss 5 % above the one that OneCycleLR
ended at in the tuning runs: declared before the seeds that are judged are trained.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

import lrexp

CONFIGS = Path(__file__).parents[2] / "configs"
SCHEDULES = {
    "one_cycle": {"name": "one_cycle", "cycle_momentum": False},
    "adaptive": {"name": "adaptive_cycle", "window_size": "2%", "patience": "10%"},
}
NEAR = 1.05  # times the loss that OneCycleLR ended at: the target


@dataclass(frozen=True)
class Effort:
    """How much is trained: the LRs that each schedule tries, and the seeds of the two parts."""

    lrs: tuple[float, ...]
    tuning: range
    judged: range


FULL = Effort(
    lrs=(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
    tuning=range(1000, 1003),
    judged=range(10),
)
QUICK = Effort(lrs=(0.005, 0.01), tuning=range(1000, 1001), judged=range(2))


@dataclass(frozen=True)
class Workload:
    """A config of the repository, and what is changed in it."""

    config: str
    changes: Mapping[str, Any] = field(default_factory=dict)


ADAM = {"name": "Adam", "lr": 0.01}
WORKLOADS = {
    "voiced sound": Workload("adaptive_vs_onecycle.yaml"),
    "digits": Workload("quickstart.yaml", {"optimizer": ADAM, "train.duration": "20ep"}),
    "spirals": Workload("adaptive.yaml", {"train.duration": "40ep"}),
    "text": Workload(
        "gpt.yaml",
        {
            "data.args.path": argparse.__file__,  # a text that every Python has
            "model.args.dropout": 0.0, "train.duration": "600st", "train.eval_every": "5%",
        },
    ),
    "diabetes": Workload(
        "quickstart.yaml",
        {
            "data": {"name": "diabetes", "batch_size": 32, "val_fraction": 0.2},
            "loss": "mse_loss", "optimizer": ADAM, "train.duration": "20ep",
        },
    ),
}  # fmt: skip


def tuned_lrs(
    work: Workload, effort: Effort, folder: Path, console: Console
) -> tuple[dict[str, float], float]:
    """Return each schedule's best LR, and the loss whose reaching is timed."""
    variants = {
        f"{name} {lr}": {"schedule": schedule, "optimizer.lr": lr}
        for name, schedule in SCHEDULES.items()
        for lr in effort.lrs
    }
    run = _compare(work, variants, effort.tuning, folder, console)
    means = {row["variant"]: _mean(row) for row in run.summary["ranking"]}
    best = {name: min(effort.lrs, key=lambda lr: means[f"{name} {lr}"]) for name in SCHEDULES}
    return best, NEAR * means[f"one_cycle {best['one_cycle']}"]


def judged(
    work: Workload,
    seeds: range,
    lrs: Mapping[str, float],
    target: float,
    folder: Path,
    console: Console,
) -> lrexp.Run:
    """Return the run that decides: ten other seeds, each schedule with its LR."""
    variants = {
        name: {"schedule": schedule, "optimizer.lr": lrs[name]}
        for name, schedule in SCHEDULES.items()
    }
    return _compare(work, variants, seeds, folder, console, target=target)


def _compare(
    work: Workload,
    variants: Mapping[str, Any],
    seeds: range,
    folder: Path,
    console: Console,
    **declared: Any,
) -> lrexp.Run:
    compare = {
        "seeds": len(seeds), "metric": "val_loss", "reference": next(iter(variants)),
        "variants": variants, **declared,
    }  # fmt: skip
    overrides = {**work.changes, "schedule": "constant", "seed": seeds[0], "compare": compare}
    return lrexp.compare(CONFIGS / work.config, overrides=overrides, out=folder, console=console)


def _mean(row: Mapping[str, Any]) -> float:
    """Return a variant's mean loss; where a seed diverged, it is no candidate."""
    diverged = row["outcomes"].get("diverged", 0) or row["mean"] is None
    return math.inf if diverged else float(row["mean"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row per workload, and write all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--quick", action="store_true", help="two LRs, two seeds: does it run?")
    parser.add_argument("--json", type=Path, help="where all summaries go")
    options = parser.parse_args(arguments)
    effort = QUICK if options.quick else FULL
    found = {}
    console = Console(stderr=True)
    for name in options.workloads:
        with tempfile.TemporaryDirectory() as folder:
            work = WORKLOADS[name]
            lrs, target = tuned_lrs(work, effort, Path(folder, "tuning"), console)
            run = judged(work, effort.judged, lrs, target, Path(folder, "judged"), console)
            found[name] = {"lrs": lrs, "target": target, "summary": run.summary}
            print(f"{name}: peak LRs {lrs}, target {target:.4g}")
            for row in run.summary["ranking"]:
                print(f"  {row['variant']:10} {row['mean']:.4f} ± {row['sd']:.4f}")
            for comparison in run.summary["comparisons"]:
                print(f"  {comparison['verdict']}")
            print(f"  time to target: {run.summary['time_to_target']}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
