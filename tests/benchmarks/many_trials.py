"""What a run of many trials costs whoever drives it: planning, following, summing up, looking.

    python tests/benchmarks/many_trials.py
    python tests/benchmarks/many_trials.py --trials 10 100 --seeds 1

Nothing is trained. An executor writes the files of every trial as a worker leaves them, so what
remains is the driver: seconds of its processor, which other work on the machine changes little.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import lrexp
from lrexp import api
from lrexp.records import Ended, Group, Record, TrialId
from lrexp.runs.executor import StopSignal
from lrexp.runs.files import write_json
from lrexp.runs.listing import list_runs
from lrexp.runs.spec import make_spec

STEPS = 20
FULL, QUICK = (10, 100, 1_000, 10_000), (10, 20)
HEAD = (
    "trials", "variants", "plan ms", "describe ms", "follow ms", "summarise ms", "all ms a trial",
    "plot s", "load ms", "runs ms", "memory MiB",
)  # fmt: skip


class Recorded:
    """An executor for nothing: it writes what workers leave of trainings that are long over."""

    def run(self, run: Path, groups: Sequence[Group], stop: StopSignal) -> None:
        """Write the files of every trial of these groups."""
        for group in groups:
            for trial in group.trials:
                write_trial(run, trial)


def write_trial(run: Path, trial: TrialId, steps: int = STEPS) -> None:
    """Write the folder of a trial that has finished."""
    folder = run / "trials" / trial.variant / f"seed-{trial.seed}"
    folder.mkdir(parents=True)
    last = 1 + sum(trial.variant.encode()) % 97 / 97 + trial.seed % 7 / 70
    rows = [f"{step},0,0.1,{last + 1 - step / steps}\n" for step in range(steps)]
    (folder / "steps.csv").write_text("step,epoch,lr,loss\n" + "".join(rows))
    evals = f"0,0,nan,{last + 1.5}\n{steps},1,{last},{last + 0.1}\n"
    (folder / "evals.csv").write_text("step,epoch,train_loss,val_loss\n" + evals)
    losses = {"train_loss": last, "val_loss": last + 0.1}
    result = {
        "variant": trial.variant, "seed": trial.seed, "kind": "compare", "outcome": "finished",
        "steps": steps, "stopped_at": None, "seconds": 0.1, "steps_per_second": 200.0,
        "final": {"loss": last, **losses}, "best": losses,
        "best_step": dict.fromkeys(losses, steps), "best_epoch": dict.fromkeys(losses, 1.0),
    }  # fmt: skip
    write_json(folder / "result.json", result)


def config(trials: int, seeds: int) -> dict[str, Any]:
    """Return a comparison of LRs of so many trials."""
    count = max(2, trials // seeds)
    lrs = [float(f"{1e-4 * 1e4 ** (i / count):.8g}") for i in range(count)]
    return {
        "model": "linear", "data": {"name": "linear", "batch_size": 64}, "loss": "mse_loss",
        "optimizer": {"name": "SGD", "lr": 0.1}, "engine": "sequential",
        "train": {"duration": STEPS, "eval_every": STEPS},
        "compare": {"seeds": seeds, "grid": {"optimizer.lr": lrs}},
    }  # fmt: skip


class Clock:
    """Seconds of this thread's processor, by what they went to."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._since = time.thread_time()

    def lap(self, name: str) -> None:
        """Give the time since the last call a name."""
        now = time.thread_time()
        self.spent[name] = now - self._since
        self._since = now


def drive(trials: int, seeds: int, out: Path) -> dict[str, float]:
    """Compare with the executor for nothing; return the seconds of each part of the driver."""
    given = config(trials, seeds)
    clock = Clock()
    make_spec("compare", given).plan()
    clock.lap("plan")
    left = max(2, trials // seeds) * seeds

    def hear(record: Record) -> None:
        nonlocal left
        if left == trials and "describe" not in clock.spent:
            clock.lap("describe")
        left -= isinstance(record, Ended)
        if not left and "follow" not in clock.spent:
            clock.lap("follow")

    lrexp.compare(
        given, executor=Recorded(), out=out, sinks=[hear], draw=lambda _: clock.lap("summarise")
    )
    clock.spent["describe"] -= clock.spent["plan"]  # it was planned once more
    return clock.spent


@contextmanager
def timed(spent: dict[str, float], name: str) -> Iterator[None]:
    """Note the seconds of a part."""
    clock = Clock()
    yield
    clock.lap(name)
    spent |= clock.spent


def look(run: Path, spent: dict[str, float]) -> None:
    """Load the run, draw it, and list it."""
    with timed(spent, "load"):
        loaded = lrexp.load_run(run)
        assert all(loaded.variants.values())
    with timed(spent, "runs"):
        assert list_runs(run.parent)[0].best_variant is not None
    with timed(spent, "plot"):
        api.plot([run])


def row(trials: int, seeds: int) -> list[str]:
    """Return the row of so many trials, measured in this process."""
    with tempfile.TemporaryDirectory() as name:
        drive(10, 5, Path(name) / "warm" / "run")
        look(Path(name) / "warm" / "run", {})
        run = Path(name) / "runs" / "run"
        spent = drive(trials, seeds, run)
        memory = peak_memory()
        look(run, spent)
    count = max(2, trials // seeds) * seeds
    parts = [spent[part] for part in ("plan", "describe", "follow", "summarise")]
    cells = [f"{1e3 * seconds:,.0f}" for seconds in parts]
    each, seen = f"{1e3 * sum(parts) / count:.2f}", (spent["load"], spent["runs"])
    return [
        f"{count:,}", f"{count // seeds:,}", *cells, each, f"{spent['plot']:.1f}",
        *(f"{1e3 * seconds:,.0f}" for seconds in seen), f"{memory:,.0f}",
    ]  # fmt: skip


def peak_memory() -> float:
    """Return the most memory that this process has had, in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: Sequence[str] | None = None, show: Callable[[str], None] = print) -> None:
    """Print a row for each number of trials, each measured in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--trials", type=int, nargs="+", default=FULL)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    parser.add_argument("--here", action="store_true", help="in this process, without a head")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if asked.here:
        show(f"| {' | '.join(row(asked.trials[0], asked.seeds))} |")
        return
    show(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    for trials in QUICK if asked.quick else asked.trials:
        words = ["--here", "--trials", str(trials), "--seeds", str(asked.seeds)]
        done = subprocess.run(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
        )
        show(done.stdout.rstrip())


if __name__ == "__main__":
    main()
