"""Train what `tests/analysis/labelled_curves.json` holds, and draw it to be labelled by hand.

    python tests/benchmarks/labelled_curves.py --out FOLDER

Writes `curves.json`, every fourth loss of six LRs of a comparison, and a contact sheet of each. The
labels are written by hand: a curve of the fixture that was trained anew is not labelled any more.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy.training import MIDDLE, plan_of, variant_of
from accuracy.workloads import WORKLOADS

from lrexp.engine.engines import ENGINES
from lrexp.engine.rng import preserved_rng
from lrexp.records import Ended, Evaluation, Failed, Steps

THIN = 4
STEPS = 1000
EVALS = 20
OFFSETS = (-2.2, -1.4, -0.6, 0.2, 1.0, 1.8)  # decades from the LR that is usual for the optimizer
COMPARISONS = [
    ("cancer MLP", "SGD", "constant"),
    ("digits BN CNN", "Adam", "cosine"),
    ("digits deep tanh", "SGD", "one_cycle"),
    ("text GPT", "AdamW", "cosine"),
    ("diabetes tiny", "Adam", "constant"),
    ("digits mislabelled", "AdamW", "constant"),
    ("iris tiny noisy", "SGD", "constant"),
    ("friedman Laplace NLL", "Adam", "linear"),
    ("small sine", "SGD", "constant"),
    ("ratings", "Adam", "constant"),
    ("digits fine-tuned", "Adam", "wsd"),
    ("photos denoiser", "SGD plain", "constant"),
    ("digits recurrent", "RMSprop", "one_cycle"),
    ("circuits raw inputs", "SGD", "cosine"),
    ("spirals deep ReLU", "Adam", "constant"),
    ("few digits fine-tuned", "SGD", "linear"),
]


def trained(name: str, optimizer: str, schedule: str) -> list[dict[str, Any]]:
    """Return the six curves of a comparison, lowest LR first."""
    work = replace(WORKLOADS[name], steps=STEPS, evals=EVALS)
    middle = MIDDLE[optimizer] + work.shift.get(optimizer, 0.0)
    lrs = [float(f"{10 ** (middle + offset):.2g}") for offset in OFFSETS]
    plans = plan_of(work, optimizer, {f"lr-{i}": variant_of(schedule, lr)
                                      for i, lr in enumerate(lrs)})  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    with preserved_rng(plans["lr-0"].device):
        for record in ENGINES["vectorized"]([plan.task(0) for plan in plans.values()]):
            if isinstance(record, Failed):
                raise record.error
            _note(found, record)
    of = f"{name}, {optimizer}, {schedule}"
    return [{"of": of, "lr": lr} | _thinned(found[f"lr-{i}"]) for i, lr in enumerate(lrs)]


def _note(found: dict[str, dict[str, Any]], record: Any) -> None:
    if not isinstance(record, Steps | Evaluation | Ended):
        return
    curve = found.setdefault(
        record.trial.variant,
        {"losses": [], "step": [], "val_loss": [], "train_loss": [], "stopped_at": None},
    )
    if isinstance(record, Steps):
        curve["losses"] += record.loss
    elif isinstance(record, Evaluation):
        curve["step"].append(record.step)
        for column in ("val_loss", "train_loss"):
            curve[column].append(record.values.get(column, math.nan))
    else:
        curve["stopped_at"] = record.stopped_at


def _thinned(curve: dict[str, Any]) -> dict[str, Any]:
    losses = curve["losses"][::THIN]
    if not np.isfinite(curve["losses"]).all():  # what ended it stays in
        losses.append(math.nan)
    stopped = curve["stopped_at"]
    return {
        "losses": _rounded(losses),
        "step": [step // THIN for step in curve["step"]],
        "val_loss": _rounded(curve["val_loss"]),
        "train_loss": _rounded(curve["train_loss"]),
        "stopped_at": None if stopped is None else stopped // THIN,
        "total": STEPS // THIN,
    }


def _rounded(values: list[float]) -> list[float | None]:
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]


def sheet(curves: list[dict[str, Any]], file: Path) -> None:
    """Draw the curves of a comparison beside each other: batches, evaluations, the range shared."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(curves), figsize=(4 * len(curves), 6), squeeze=False)
    for column, curve in enumerate(curves):
        for row, shared in enumerate((False, True)):
            axis = axes[row][column]
            axis.plot([math.nan if v is None else v for v in curve["losses"]], lw=0.5, alpha=0.6)
            for name, colour in (("val_loss", "C1"), ("train_loss", "C2")):
                values = [math.nan if v is None else v for v in curve[name]]
                axis.plot(curve["step"], values, color=colour, marker=".", label=name)
            if shared:
                axis.set_ylim(*_limits(curves))
        end = curve["val_loss"][-1] if curve["val_loss"] else None
        axes[0][column].set_title(f"[{column}] lr {curve['lr']:g} stop {curve['stopped_at']}\n"
                                  f"val {curve['val_loss'][0]} → {end}", fontsize=10)  # fmt: skip
    figure.suptitle(curves[0]["of"])
    figure.tight_layout()
    figure.savefig(file, dpi=60)
    plt.close(figure)


def _limits(curves: list[dict[str, Any]]) -> tuple[float, float]:
    every = [v for c in curves for v in c["val_loss"] + c["train_loss"] if v is not None]
    start = max(c["losses"][0] for c in curves if c["losses"][0] is not None)
    low, high = min(every), max(start, curves[0]["val_loss"][0])
    room = 0.15 * (high - low)
    return low - room, high + 2 * room


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    every = []
    for number, comparison in enumerate(COMPARISONS):
        curves = trained(*comparison)
        sheet(curves, out / f"{number:02d}.png")
        every += curves
        print(", ".join(comparison), flush=True)
    lines = ",\n".join(json.dumps(curve) for curve in every)
    (out / "curves.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
