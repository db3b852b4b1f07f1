"""Wall time of whole commands: `lrexp compare` beside one script written by hand, and the reads.

`compare` is measured from imports to pictures. The experiment is that of configs/quickstart.yaml
with one seed. The scripts of `by_hand.py` train the same variants for the same steps, evaluate as
often, and write the same CSV columns and two pictures of the same size. Both must have written as
many rows of steps.

Commands that only read (`runs`, `plot`, `schedule`) are measured in the time that a bare process
takes to import matplotlib.pyplot: below that no picture can be had.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from by_hand import learning_rates
from measuring import spread

from lrexp.api import compare
from lrexp.config.document import read_document, to_yaml

ROOT = Path(__file__).parents[2]
SCRIPT = str(Path(__file__).with_name("by_hand.py"))
VARIANTS = (3, 16)
BARE = "import matplotlib.pyplot"
MANY_STEPS = 2_000  # of each of 36 variants × 3 seeds


def whole_commands(rounds: int) -> dict[str, list[float]]:
    """Measure and print; return the wall seconds of every contender."""
    print("\nWhole processes on digits, imports to pictures, wall seconds")
    print("| variants | contender | seconds | lrexp compare / it |\n| --- | --- | --- | --- |")
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for variants in VARIANTS:
            words = commands(variants, Path(folder))
            seconds: dict[str, list[float]] = {name: [] for name in words}
            rows = set()
            for i in range(rounds):
                for name in list(words)[:: 1 if i % 2 == 0 else -1]:
                    taken, written = timed(words[name])
                    seconds[name].append(taken)
                    rows.add(written)
            if len(rows) != 1:
                raise RuntimeError(f"not all did the same steps: {sorted(rows)} rows were written")
            for name, values in seconds.items():
                pairs = zip(seconds["lrexp compare"], values, strict=True)
                middle, ratio = statistics.median(values), spread([a / b for a, b in pairs])
                print(f"| {variants} | {name} | {middle:.2f} | {ratio} |", flush=True)
                measured[f"{name}, {variants} variants"] = values
    return measured


def commands(variants: int, folder: Path) -> dict[str, list[str]]:
    """Return the command lines; each takes the folder to write into as its last word."""
    config = folder / f"{variants}-variants.yaml"
    config.write_text(to_yaml(config_of(variants)))
    lrexp = [sys.executable, "-m", "lrexp", "compare", str(config), "--quiet", "--runs-dir"]
    return {
        "lrexp compare": lrexp,
        "usual script": [sys.executable, SCRIPT, "usual", str(variants)],
        "tuned script": [sys.executable, SCRIPT, "tuned", str(variants)],
    }


def config_of(variants: int) -> dict[str, Any]:
    """Return the quickstart with one seed and so many LRs, all of which train well."""
    config = dict(read_document(ROOT / "configs/quickstart.yaml").data)
    lrs = learning_rates(variants)
    config["device"] = "cpu"
    config["compare"] = {
        "seeds": 1,
        "metric": "val_loss",
        "variants": {f"lr-{i}": {"optimizer.lr": lr} for i, lr in enumerate(lrs)},
    }
    return config


def timed(words: list[str]) -> tuple[float, int]:
    """Return the wall seconds of a process, and the rows of steps that it wrote."""
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        subprocess.run([*words, out], check=True, capture_output=True, env=_environment())
        taken = time.perf_counter() - begun
        files = list(Path(out).rglob("steps.csv"))
        pictures = list(Path(out).rglob("*.png"))
        if len(pictures) != 2:
            raise RuntimeError(f"{' '.join(words)} drew {len(pictures)} pictures instead of 2")
        return taken, sum(len(file.read_text().splitlines()) - 1 for file in files)


def reads(rounds: int, *, many_steps: int = MANY_STEPS) -> dict[str, list[float]]:
    """Measure and print the commands that only read; return the wall seconds of each."""
    print("\nCommands that only read: whole processes, wall seconds")
    print(f"| command | seconds | it / `python -c '{BARE}'` |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        words = read_commands(Path(folder), many_steps)
        seconds: dict[str, list[float]] = {name: [] for name in words}
        for i in range(rounds + 1):  # one more: the first finds the files on disk, not in memory
            for name in list(words)[:: 1 if i % 2 == 0 else -1]:
                begun = time.perf_counter()
                subprocess.run(words[name], check=True, capture_output=True, env=_environment())
                seconds[name].append(time.perf_counter() - begun)
    measured = {name: values[1:] for name, values in seconds.items()}
    for name, values in measured.items():
        ratio = spread([a / b for a, b in zip(values, measured[BARE], strict=True)])
        print(f"| {name} | {spread(values)} | {ratio} |", flush=True)
    return measured


def read_commands(folder: Path, many_steps: int) -> dict[str, list[str]]:
    """Train what is to be read, and return the command lines."""
    runs, config = folder / "runs", ROOT / "configs/quickstart.yaml"
    few = compare(config, device="cpu", runs_dir=runs, draw=None)
    many = compare(many_trials(many_steps), device="cpu", runs_dir=runs, draw=None)
    steps = sum(len(trial.steps["step"]) for trial in many.trials)
    what = f"{len(many.trials)} trials, {steps:,} steps in all"
    lrexp = [sys.executable, "-m", "lrexp"]
    picture = str(folder / "lr.png")
    return {
        BARE: [sys.executable, "-c", BARE],
        "lrexp runs": [*lrexp, "runs", str(runs)],
        "lrexp schedule, quickstart": [*lrexp, "schedule", str(config), "--out", picture],
        f"lrexp plot, quickstart: {len(few.trials)} trials": [*lrexp, "plot", str(few.path)],
        f"lrexp plot, {what}": [*lrexp, "plot", str(many.path)],
    }


def many_trials(steps: int) -> dict[str, Any]:
    """Return a grid of 36 variants × 3 seeds, some of which diverge."""
    return {
        **read_document(ROOT / "configs/quickstart.yaml").data,
        "model": {"name": "mlp", "args": {"hidden": [32]}},
        "train": {"duration": steps, "eval_every": "5%"},
        "compare": {
            "seeds": 3,
            "grid": {
                "optimizer.lr": [0.001 * 10 ** (i / 3) for i in range(12)],
                "optimizer.args.momentum": [0.0, 0.5, 0.9],
            },
        },
    }


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}
