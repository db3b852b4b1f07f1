"""What the torture tests share: small experiments, a way to start and kill commands, and what a
run must hold in the end.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starting import Started, Starter
from stopping import everything

PACKAGE = Path(__file__).parents[2]

# Dropout, momentum, statistics of batches, an incomplete last batch, noise of every generator.
# Checkpoints come often; the module is imported by every process that trains.
MINE = """\
import random
import numpy as np
import torch
from torch import nn
import lrexp.engine.read_back, lrexp.engine.stop
lrexp.engine.stop.CHECKPOINT_SECONDS, lrexp.engine.stop.MOST_SHARE = 0.02, 1.0
lrexp.engine.read_back.CHUNK_SECONDS = 0.01

def data():
    x = torch.randn(230, 6, generator=torch.Generator().manual_seed(1))
    y = (x[:, :3].sum(1) > 0).long() + 2 * (x[:, 3] > 0).long()
    return (x[:180], y[:180]), (x[180:], y[180:])

class Net(nn.Module):
    def __init__(self, width=12, noise=True):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 4)
        )
        self.noise = noise

    def forward(self, x):
        if self.training and self.noise:
            x = x + 0.01 * torch.randn_like(x) * (random.random() + float(np.random.rand()))
        return self.layers(x)

class Plain(nn.Module):
    def __init__(self, width=12):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, width), nn.Tanh(), nn.Dropout(0.2), nn.Linear(width, 4)
        )

    def forward(self, x):
        return self.layers(x)
"""
CONFIG = """\
name: torture
model: {{name: 'mine:{model}'}}
data: {{name: 'mine:data', batch_size: 16}}
loss: cross_entropy
optimizer: {{name: {optimizer}}}
engine: {engine}
train: {{duration: {steps}, eval_every: 37, accumulate: {accumulate}}}
compare:
  seeds: {seeds}
  variants:
    plateau: {{schedule: {{name: plateau, monitor: val_loss, patience: 1}}}}
    cosine: {{schedule: {{name: cosine, warmup: 5%}}}}
    cycle: {{schedule: {{name: one_cycle}}, optimizer.lr: 0.05}}
    wild: {{optimizer.lr: 1e6}}
find_lr: {{budget: 0, min_lr: 1e-5, max_lr: 10, steps: {steps}, seeds: 3, stop_factor: 1e9}}
"""
ADAMW = "AdamW, lr: 0.01, args: {weight_decay: 0.1}"
SGD = "SGD, lr: 0.1, args: {momentum: 0.9, nesterov: true}"


@dataclass(frozen=True)
class Kind:
    """A way to train that must survive."""

    command: str
    engine: str
    jobs: int = 1
    optimizer: str = SGD
    steps: int = 400
    seeds: int = 2
    accumulate: int = 1
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For the name of a test."""
        return "-".join([self.command, self.engine, str(self.jobs), *self.options]).replace(
            "--", ""
        )

    def write(self, folder: Path) -> None:
        """Write the config and the model."""
        model = "Plain" if self.engine == "vectorized" else "Net"
        (folder / "mine.py").write_text(MINE)
        (folder / "config.yaml").write_text(
            CONFIG.format(
                model=model,
                optimizer=self.optimizer,
                engine=self.engine,
                steps=self.steps,
                seeds=self.seeds,
                accumulate=self.accumulate,
            )
        )

    def words(self, run: str) -> list[str]:
        """Return the command line that begins a run."""
        return [
            self.command, "config.yaml", "--out", run, "--jobs", str(self.jobs), *self.options
        ]  # fmt: skip


def environment(*, draws: bool = False) -> dict[str, str]:
    """Return the environment of a command that finds the package, and draws pictures or not."""
    more = {"PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1", "LREXP_PLOTS": str(int(draws))}
    return {**os.environ, **more}


class Commands:
    """Runs commands one after the other, in processes that can be killed.

    What they print is in `out.txt` and `err.txt` of their folder.
    """

    def __init__(self, starter: Starter, *, draws: bool = False) -> None:
        self._starter, self._draws = starter, draws
        self._process: Started | None = None

    def begin(self, folder: Path, *words: object) -> int:
        """Start a command in a folder and return its pid."""
        with (folder / "out.txt").open("w") as out, (folder / "err.txt").open("w") as err:
            self._process = self._starter.start(
                ["-m", "lrexp", *words],
                cwd=folder,
                env=environment(draws=self._draws),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        return self._process.pid

    def ended(self) -> int:
        """Wait for the command and return its exit code; that of a signal is negative."""
        assert self._process is not None
        return self._process.wait()

    def run(self, folder: Path, *words: object) -> int:
        """Run a command to its end and return its exit code."""
        self.begin(folder, *words)
        return self.ended()

    def killed(
        self, folder: Path, seconds: float, *words: object, once: Callable[[], bool] | None = None
    ) -> int:
        """Run a command and kill it after some time; return its exit code, -9 where it was.

        With `once` the time begins when that is true.
        """
        self.begin(folder, *words)
        assert self._process is not None
        while once is not None and not once() and self._process.poll() is None:
            time.sleep(0.005)
        time.sleep(seconds)
        self._process.kill()
        return self.ended()


def differences(run: Path, reference: Path) -> list[str]:
    """Return what differs between two runs, in words."""
    one, other = everything(run), everything(reference)
    missing = [f"{name} is missing" for name in other.keys() - one.keys()]
    more = [f"{name} is too much" for name in one.keys() - other.keys()]
    differing = [
        f"{name} differs: {_first(one[name], other[name])}"
        for name in one.keys() & other.keys()
        if one[name] != other[name]
    ]
    return sorted([*missing, *more, *differing])


def _first(one: Any, other: Any) -> str:
    if isinstance(one, bytes) and isinstance(other, bytes):
        lines, expected = one.split(b"\n"), other.split(b"\n")
        for number, (a, b) in enumerate(zip(lines, expected, strict=False), 1):
            if a != b:
                return f"line {number}: {a[:80]!r} instead of {b[:80]!r}"
        return f"{len(lines)} lines instead of {len(expected)}"
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
        return "; ".join(f"{k}: {one.get(k)} instead of {other.get(k)}" for k in keys)
    return f"{one} instead of {other}"


def trains(run: Path) -> Callable[[], bool]:
    """Return what tells whether a row has been written since now."""
    before = _sizes(run)
    return lambda: any(size > before.get(path, 0) for path, size in _sizes(run).items())


def _sizes(run: Path) -> dict[Path, int]:
    sizes = {}
    for path in run.glob("trials/*/*/steps.csv"):
        with suppress(FileNotFoundError):
            sizes[path] = path.stat().st_size
    return sizes


def begun(run: Path) -> bool:
    """Return whether a run has come as far as its first trial."""
    return any(run.glob("trials/*/*/steps.csv"))
