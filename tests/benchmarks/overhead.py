"""What one trial costs beside loops written by hand, and how long the commands take.

    python tests/benchmarks/overhead.py

Prints ratios measured in one run: the contenders take turns, and each ratio is the median over
the rounds of (ours / theirs) within a round, so that a machine whose speed drifts does not favour
either. All contenders do the same work: the same network on the same data (batch 64, SGD with
momentum) for the same number of updates. Ours is the whole path of a trial: engine, LR schedule,
stop rule, and rows written to steps.csv.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from ours import recorded
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import lrexp
from lrexp.config.load import load_config
from lrexp.engine.sequential import run_sequentially
from lrexp.runs.builder import Objects
from lrexp.runs.plan import make_plan

BATCH, LR, MOMENTUM = 64, 0.05, 0.9
CONFIG = {
    "name": "overhead",
    "device": "cpu",
    "data": {"name": "given", "batch_size": BATCH, "val_fraction": 0},
    "loss": "cross_entropy",
    "optimizer": {"name": "SGD", "lr": LR, "args": {"momentum": MOMENTUM}},
    "compare": {"metric": "train_loss", "variants": {"only": {}}},
}


@dataclass(frozen=True)
class Workload:
    """A network and its data: inputs (samples, features) and classes (samples,)."""

    make_model: Callable[[], nn.Module]
    inputs: torch.Tensor
    targets: torch.Tensor


def workloads() -> dict[str, Workload]:
    cancer, digits = load_breast_cancer(), load_digits()
    features = torch.tensor(cancer.data[:, :16], dtype=torch.float32)
    return {
        "MLP 16-32-2": Workload(
            lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2)),
            (features - features.mean(0)) / features.std(0),
            torch.tensor(cancer.target),
        ),
        "MLP 64-128-128-10": Workload(
            lambda: nn.Sequential(
                nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
            ),
            torch.tensor(digits.data / 16, dtype=torch.float32),
            torch.tensor(digits.target),
        ),
    }


def usual_loop(work: Workload, steps: int) -> None:
    """A DataLoader, a read-back every step, the optimizer's default kernel."""
    loader = DataLoader(
        TensorDataset(work.inputs, work.targets), BATCH, shuffle=True, drop_last=True
    )
    model = work.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    losses: list[float] = []
    while len(losses) < steps:
        for inputs, targets in loader:
            if len(losses) == steps:
                return
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())


def tuned_loop(work: Workload, steps: int) -> None:
    """Resident data by index, the fused optimizer, losses read back once at the end."""
    x, y, model = work.inputs, work.targets, work.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, fused=True)
    per_epoch = len(x) // BATCH
    losses: list[torch.Tensor] = []
    while len(losses) < steps:
        order = torch.randperm(len(x))
        for i in range(min(per_epoch, steps - len(losses))):
            rows = order[i * BATCH : (i + 1) * BATCH]
            loss = functional.cross_entropy(model(x.index_select(0, rows)), y.index_select(0, rows))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())
    torch.stack(losses).tolist()


def lrexp_trial(work: Workload, steps: int) -> None:
    """One trial as `lrexp compare` trains it, files included."""
    objects = Objects(model=work.make_model, data=(work.inputs, work.targets))
    config = {**CONFIG, "train": {"duration": steps, "eval_every": steps}}
    plan = make_plan(load_config(config, given=objects.sections), objects)
    tasks = list(plan.tasks([0]))
    with recorded(tasks) as files:
        for record in run_sequentially(tasks):
            files(record)


def seconds(contender: Callable[[Workload, int], None], work: Workload, steps: int) -> float:
    """Return the time per step without start-up: a long training minus a short one."""
    begun = time.perf_counter()
    contender(work, steps // 10)
    middle = time.perf_counter()
    contender(work, steps)
    ended = time.perf_counter()
    return ((ended - middle) - (middle - begun)) / (steps - steps // 10)


def loops(name: str, work: Workload, rounds: int, steps: int) -> None:
    contenders = {"lrexp": lrexp_trial, "tuned": tuned_loop, "usual": usual_loop}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender(work, steps // 10)  # warm up
    for i in range(rounds):
        for key in list(contenders)[:: 1 if i % 2 == 0 else -1]:
            times[key].append(seconds(contenders[key], work, steps))
    threads = torch.get_num_threads()
    print(f"{name}: one trial, {steps} steps, {threads} thread(s), {rounds} rounds")
    for key, values in times.items():
        print(f"  {key:6} {statistics.median(values) * 1e6:7.1f} us/step (median)")
    for other, target in (("tuned", 1.05), ("usual", 0.6)):
        ratios = [a / b for a, b in zip(times["lrexp"], times[other], strict=True)]
        print(
            f"  lrexp / {other}: {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f}; to reach: {target})"
        )


def commands(rounds: int) -> None:
    """Time whole processes, imports included."""
    root = Path(__file__).parents[2]
    start = [sys.executable, "-m", "lrexp"]
    quickstart = str(root / "configs/quickstart.yaml")
    with tempfile.TemporaryDirectory() as folder:
        rows = {
            "lrexp --help (to reach: 0.3 s)": ["--help"],
            "quickstart to plots (to reach: 20 s)": [
                "compare", quickstart, "--quiet", "--runs-dir", folder,
            ],
        }  # fmt: skip
        print("Commands, wall seconds: median (min to max)")
        for name, words in rows.items():
            taken = []
            for _ in range(rounds):
                begun = time.perf_counter()
                subprocess.run([*start, *words], check=True, capture_output=True)
                taken.append(time.perf_counter() - begun)
            print(
                f"  {name}: {statistics.median(taken):.2f} ({min(taken):.2f} to {max(taken):.2f})"
            )


def memory(steps: int) -> None:
    """Print the peak memory of a process that trains 1× and 20× as many tiny steps."""
    script = (
        "import sys, resource; sys.path.insert(0, sys.argv[2]); import overhead;"
        "overhead.lrexp_trial(overhead.workloads()['MLP 16-32-2'], int(sys.argv[1]));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    print("Peak memory of one trial")
    for n in (steps, 20 * steps):
        words = [sys.executable, "-c", script, str(n), str(Path(__file__).parent)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        print(f"  {n:>9,} steps: {int(done.stdout) / 1024:,.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    print(f"lrexp {lrexp.__version__}, torch {torch.__version__}")
    for name, work in workloads().items():
        loops(name, work, options.rounds, options.steps)
    commands(3)
    memory(5_000)


if __name__ == "__main__":
    main()
