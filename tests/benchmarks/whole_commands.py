"""Wall time of a whole `lrexp compare`, imports to pictures, beside one script written by hand.

The experiment is that of configs/quickstart.yaml with one seed. The scripts of `by_hand.py` train
the same variants for the same steps, evaluate as often, and write the same CSV columns and two
pictures of the same size. Both must have written as many rows of steps.
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

from lrexp.config import read_document, to_yaml

ROOT = Path(__file__).parents[2]
SCRIPT = str(Path(__file__).with_name("by_hand.py"))
VARIANTS = (3, 16)


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
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        subprocess.run(
            [*words, out], check=True, capture_output=True, env={**os.environ, "PYTHONPATH": path}
        )
        taken = time.perf_counter() - begun
        files = list(Path(out).rglob("steps.csv"))
        pictures = list(Path(out).rglob("*.png"))
        if len(pictures) != 2:
            raise RuntimeError(f"{' '.join(words)} drew {len(pictures)} pictures instead of 2")
        return taken, sum(len(file.read_text().splitlines()) - 1 for file in files)
