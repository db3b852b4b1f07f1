"""A million tiny steps in one run: memory stays flat."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lrexp.runs.reader import load_run

from .torture import environment

CONFIG = """\
name: soak
model: {{name: linear}}
data: {{name: linear, batch_size: 8, args: {{samples: 64, features: 2}}}}
loss: mse_loss
optimizer: {{name: SGD, lr: 0.01}}
engine: {engine}
train: {{duration: {steps}, eval_every: 10%}}
compare: {{variants: {variants}}}
"""


def resident(pid: int) -> float:
    """Return the memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def soak(
    folder: Path, engine: str, steps: int, variants: str
) -> tuple[list[float], list[float], float]:
    """Return the memory over time, first of the training alone, and the seconds it took."""
    (folder / "soak.yaml").write_text(CONFIG.format(engine=engine, steps=steps, variants=variants))
    words = [
        sys.executable,
        "-m",
        "lrexp",
        "compare",
        "soak.yaml",
        "--out",
        "run",
        "--quiet",
        "--jobs",
        "1",
    ]
    start, sizes, training = time.monotonic(), [], []
    with subprocess.Popen(words, cwd=folder, env=environment(draws=True)) as process:
        while process.poll() is None:
            if list(folder.glob("run/trials/*/*/evals.csv")):  # it trains
                sizes.append(resident(process.pid))
                if not list(folder.glob("run/trials/*/*/result.json")):  # then curves are read
                    training.append(sizes[-1])
            time.sleep(0.5)
    assert process.returncode == 0
    return training, sizes, time.monotonic() - start


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("engine", "steps", "variants"),
    [
        ("sequential", 1_000_000, "{a: {}}"),
        ("vectorized", 1_000_000, "{a: {}, b: {optimizer.lr: 0.001}}"),
    ],
    ids=["sequential", "vectorized"],
)
def test_a_million_steps(engine: str, steps: int, variants: str, tmp_path: Path) -> None:
    training, sizes, seconds = soak(tmp_path, engine, steps, variants)
    quarter = len(training) // 4
    early, late = max(training[quarter : 2 * quarter]), max(training[3 * quarter :])
    print(
        f"\n{engine}: {steps:,} steps in {seconds:.0f} s; resident memory {training[0]:.0f} MB at the "
        f"beginning, {early:.0f} MB in the second quarter, {late:.0f} MB in the last, {max(sizes):.0f} "
        "MB with summary and pictures"
    )
    assert late < early + 10
    for trial in load_run(tmp_path / "run").trials:
        assert len(trial.steps["step"]) == steps
