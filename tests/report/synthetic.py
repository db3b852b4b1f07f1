"""Run directories as `compare` and `find-lr` leave them, made of formulas instead of trainings."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lrexp.analysis.race import Candidate

CONFIG = {
    "name": "digits-lr",
    "model": {"name": "mlp", "args": {"hidden": [128, 128]}},
    "data": {"name": "digits", "batch_size": 64, "val_fraction": 0.2, "args": {}},
    "optimizer": {"name": "SGD", "lr": 0.01, "args": {"momentum": 0.9}},
    "schedule": {"name": "constant"},
}
LRS = {"high": 0.5, "standard": 0.01, "low": 0.0001}


def write_status(path: Path, **changes: Any) -> None:
    path.mkdir(parents=True, exist_ok=True)
    status = {
        "status": "complete",
        "command": "compare",
        "name": "digits-lr",
        "host": platform.node(),
        "pid": os.getpid(),
        "started": "2026-11-21T21:03:01+00:00",
        "updated": "2026-11-21T21:04:11+00:00",
        "seconds": 70.0,
    }
    (path / "status.json").write_text(json.dumps(status | changes), encoding="utf-8")


def write_config(path: Path, variants: Mapping[str, Mapping[str, Any]], **changes: Any) -> None:
    section = {
        "seeds": 1,
        "metric": "val_loss",
        "variants": {k: dict(v) for k, v in variants.items()},
    }
    config = CONFIG | {"compare": section} | changes
    (path / "resolved.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def write_trial(
    path: Path,
    loss: np.ndarray,
    lr: np.ndarray | float,
    *,
    outcome: str | None = "finished",
    steps_per_epoch: int = 23,
    val: np.ndarray | None = None,
    accuracy: np.ndarray | None = None,
) -> None:
    """Write one trial; `val` has one value before training and one after every epoch."""
    path.mkdir(parents=True)
    lrs = np.broadcast_to(lr, loss.shape)
    rows = (
        f"{s},{s // steps_per_epoch},{float(a)!r},{x:.9g}\n"
        for s, (a, x) in enumerate(zip(lrs, loss, strict=True))
    )
    (path / "steps.csv").write_text("step,epoch,lr,loss\n" + "".join(rows), encoding="utf-8")
    if val is not None:
        names = ["train_loss", "val_loss"] + (["val_accuracy"] if accuracy is not None else [])
        lines = [",".join(["step", "epoch", *names])]
        for epoch, value in enumerate(val):
            before = loss[max(0, (epoch - 1) * steps_per_epoch) : epoch * steps_per_epoch]
            cells = [before.mean() if len(before) else np.nan, value]
            cells += [accuracy[epoch]] if accuracy is not None else []
            step = min(epoch * steps_per_epoch, len(loss))
            lines.append(
                ",".join(
                    [str(step), f"{step / steps_per_epoch:.6g}", *(f"{c:.12g}" for c in cells)]
                )
            )
        (path / "evals.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if outcome is not None:
        result = {
            "outcome": outcome,
            "stopped_at": len(loss) - 1 if outcome == "diverged" else None,
        }
        (path / "result.json").write_text(json.dumps(result), encoding="utf-8")


def learning(seed: int, rate: float, steps: int, floor: float = 0.05) -> np.ndarray:
    """Return a noisy loss that falls from 2.3 towards a floor."""
    rng = np.random.default_rng([seed, int(rate * 1e6)])
    clean = floor + (2.3 - floor) * np.exp(-rate * np.arange(steps))
    return clean * rng.lognormal(0.0, 0.18, steps)


def exploding(seed: int, steps: int = 13) -> np.ndarray:
    """Return a loss that leaves for infinity and ends in nan."""
    noise = np.random.default_rng(seed).lognormal(0.0, 0.2, steps)
    loss = 2.3 * np.exp(0.9 * np.arange(steps)) * noise
    loss[-1] = np.nan
    return loss


def validation(loss: np.ndarray, steps_per_epoch: int = 23) -> np.ndarray:
    """Return a smooth companion of a training loss, one value an epoch."""
    epochs = len(loss) // steps_per_epoch
    means = [loss[i * steps_per_epoch : (i + 1) * steps_per_epoch].min() for i in range(epochs)]
    return np.array([2.35, *(1.1 * np.array(means) + 0.05)])


def ranking(
    order: Sequence[str],
    values: Mapping[str, Sequence[float | None]],
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    metric: str = "val_loss",
) -> dict[str, Any]:
    """Return a summary of `compare`."""
    rows = []
    for rank, name in enumerate(order, 1):
        good = [v for v in values[name] if v is not None]
        lost = len(values[name]) - len(good)
        rows.append(
            {
                "variant": name,
                "rank": rank,
                "mean": float(np.mean(good)) if good and not lost else None,
                "sd": float(np.std(good, ddof=1)) if len(good) > 1 and not lost else None,
                "values": list(values[name]),
                "outcomes": {"finished": len(good), "diverged": lost},
                "diagnosis": DIAGNOSES["diverged" if lost else "converging well"],
                "settings": (settings or {}).get(name, {"optimizer.lr": LRS.get(name, 0.1)}),
            }
        )
    first = next(iter(values.values()))
    direction = "max" if metric.endswith("accuracy") else "min"
    return {
        "command": "compare",
        "metric": metric,
        "direction": direction,
        "seeds": list(range(len(first))),
        "ranking": rows,
    }


DIAGNOSES = {
    "diverged": {
        "word": "diverged",
        "sentence": "The loss left for infinity at step 12. Lower the LR, or warm up.",
    },
    "converging well": {
        "word": "converging well",
        "sentence": "The loss fell by 94 % and was still falling slowly at the end.",
    },
}


def write_compare(
    path: Path,
    *,
    seeds: int = 5,
    epochs: int = 10,
    lrs: Mapping[str, float] = LRS,
    validated: bool = True,
    summary: bool = True,
    **status: Any,
) -> Path:
    """Write a comparison of LRs: those of 0.4 and more diverge."""
    settings = {name: {"optimizer.lr": lr} for name, lr in lrs.items()}
    write_status(path, variants=list(lrs), seeds=list(range(seeds)), **status)
    write_config(path, settings)
    values: dict[str, list[float | None]] = {name: [] for name in lrs}
    for name, lr in lrs.items():
        for seed in range(seeds):
            bad = lr >= 0.4
            loss = exploding(seed, 11 + seed) if bad else learning(seed, 4 * lr, 23 * epochs)
            val = validation(loss) if validated else None
            outcome = "diverged" if bad else "finished"
            write_trial(path / f"trials/{name}/seed-{seed}", loss, lr, outcome=outcome, val=val)
            values[name].append(None if bad else float((loss if val is None else val)[-1]))
    if summary:
        order = sorted(lrs, key=lambda n: np.inf if None in values[n] else np.mean(values[n]))
        metric = "val_loss" if validated else "train_loss"
        (path / "summary.json").write_text(
            json.dumps(ranking(order, values, settings=settings, metric=metric)), encoding="utf-8"
        )
    return path


def write_find_lr(
    path: Path, *, seeds: int = 3, steps: int = 100, signal: bool = True, **summary: Any
) -> Path:
    """Write range tests with a valley between 1e-3 and 0.3, or without any descent."""
    lr = np.geomspace(1e-7, 10.0, steps)
    write_status(path, command="find-lr", variants=["range_test"], seeds=list(range(seeds)))
    write_config(path, {})
    for seed in range(seeds):
        noise = np.random.default_rng(seed).normal(0.0, 0.06, steps)
        fall = 1.9 / (1 + (3e-2 / lr) ** 1.6) if signal else 0.0
        loss = 2.3 - fall + (lr / (0.7 + 0.2 * seed)) ** 3 + noise
        end = int(np.argmax(loss > 9.0)) or steps
        write_trial(path / f"trials/range_test/seed-{seed}", loss[:end], lr[:end])
    good = {
        "suggested_lr": 0.047,
        "interval": [0.031, 0.068],
        "base_lr": 0.0047,
        "max_lr": 0.21,
        "rules": {"steepest": 0.03, "minimum": 0.036, "valley": 0.047, "slide": 0.21},
        "reason": None,
    }
    reason = "The loss never falls: over the whole range it stays within the noise of its start."
    none = dict.fromkeys(good, None) | {"rules": dict.fromkeys(good["rules"]), "reason": reason}
    result = {
        "command": "find-lr",
        "seeds": list(range(seeds)),
        **(good if signal else none),
        **summary,
    }
    (path / "summary.json").write_text(json.dumps(result), encoding="utf-8")
    return path


RACE_LOSSES = {  # horizon -> LR -> final loss; None diverged
    40: {0.01: [1.8, 1.7], 0.04: [0.9, 1.0], 0.16: [0.7, 0.8], 0.64: [None, 1.9]},
    80: {0.03: [0.5, 0.5], 0.12: [0.3, 0.6]},
}


def write_race(path: Path, *, until: int = 99, summary: bool = True) -> Path:
    """Write the files of a race, or of its first trials."""
    path.mkdir()
    owner = {"status": "complete" if summary else "interrupted", "num_trials": 12}
    facts = {"command": "find-lr", "name": "digits-lr", "seeds": [0, 1], "variants": ["range_test"]}
    (path / "status.json").write_text(json.dumps(owner | facts))
    trials = [
        (horizon, lr, seed, loss)
        for horizon, by_lr in RACE_LOSSES.items()
        for lr, losses in by_lr.items()
        for seed, loss in enumerate(losses)
    ]
    for horizon, lr, seed, loss in trials[:until]:
        folder = path / "trials" / Candidate(horizon, lr).name / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "steps.csv").write_text("step,epoch,lr,loss\n0,0,0.1,2.2\n")
        (folder / "evals.csv").write_text(
            f"step,epoch,train_loss,val_loss\n0,0,nan,2.1\n1,1,1,{loss or 1e9}\n"
        )
        outcome = "diverged" if loss is None else "finished"
        final = {} if loss is None else {"val_loss": loss}
        (folder / "result.json").write_text(json.dumps({"outcome": outcome, "final": final}))
    if summary:
        (path / "summary.json").write_text(json.dumps(RACE_SUMMARY))
    return path


RACE_SUMMARY = {
    "suggested_lr": 0.05, "interval": [0.03, 0.08], "base_lr": 0.01, "max_lr": 0.1, "reason": None,
    "within": 0.02, "extrapolated": True, "seeds": [0, 1], "budget": "4x",
    "spent": {"seconds": 12.34, "steps": 920, "trainings": 5.75},
    "range_test": {"suggested_lr": 0.02, "interval": [0.01, 0.03], "steps": 280},
    "race": {
        "steps": 640, "total_steps": 160, "guess": 2.0,
        "rungs": [
            {"horizon": 40, "seeds": [0, 1], "start": [2.1, 2.1], "lrs": [
                {"lr": 0.16, "losses": [0.7, 0.8], "mean": 0.75, "diverged": 0, "failed": False,
                 "regret": 0.0},
                {"lr": 0.32, "losses": [0.8, None], "mean": 0.9, "diverged": 0, "failed": False,
                 "regret": 0.1},
                {"lr": 0.64, "losses": [None, 1.9], "mean": 2.0, "diverged": 1, "failed": True,
                 "regret": 0.9},
            ]},
        ],
    },
}  # fmt: skip
