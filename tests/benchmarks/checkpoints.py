"""What checkpoints and rows cost: one checkpoint, whole trainings with and without, asking for one.

    OMP_NUM_THREADS=1 python tests/benchmarks/checkpoints.py
    OMP_NUM_THREADS=1 python tests/benchmarks/checkpoints.py --parts long

Contenders take turns within a run, every second round in the opposite order; figures are medians
over the rounds, with the smallest and the largest in brackets. Files go where Python's `tempfile`
puts them: TMPDIR chooses the disk.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import math
import statistics
import tempfile
import time
import timeit
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from measuring import spread
from recording import RUNS, UNITS, Case, Recorded, TimedPause, train

import lrexp
from lrexp.engine.read_back import CHUNK_SECONDS
from lrexp.engine.stop import CHECKPOINT_SECONDS, Pause

PARTS = ("one", "run", "due", "long")
NO_END = 100_000_000  # steps of a training that is ended by its pause
LARGE = 50_000_000  # parameters: fewer checkpoints, for the sake of the disk
MINUTE = f"of {CHECKPOINT_SECONDS:.0f} s"
ONE_HEAD = (
    "unit", "parameters", "file MB", "file / parameters", "capture ms", "writing ms", "in all ms",
    "/ the same bytes by hand", f"{MINUTE} (largest)",
)  # fmt: skip
RUN_HEAD = (
    "unit", "s", "checkpoints", "with / without", "in CPU time", "extra ms each", "timed ms each",
    f"{MINUTE}, timed", "files / none", "in CPU time", "rows, timed", "µs a row", "ms a trial",
)  # fmt: skip


def one_checkpoint(case: Case, count: int) -> list[str]:
    """Return the row of one checkpoint, beside a file with the same bytes written by hand."""
    count = count if case.parameters() < LARGE else max(2, count // 4)
    by_hand, sizes = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def after() -> None:
            (file,) = (folder / "checkpoints").glob("*.safetensors")
            sizes.append(file.stat().st_size)
            by_hand.append(_written_by_hand(file.read_bytes(), folder / "by-hand"))

        pause = TimedPause(0.0, count, after)
        train(case, NO_END, folder, pause)
    parameters = case.parameters()
    writing = [a - b for a, b in zip(pause.taken, pause.captured, strict=True)]
    ratios = [a / b for a, b in zip(pause.taken, by_hand, strict=True)]
    middle, most = (100 * f(pause.taken) / CHECKPOINT_SECONDS for f in (statistics.median, max))
    return [
        case.name, f"{parameters / 1e6:,.3g} M", f"{sizes[-1] / 1e6:,.3g}",
        f"{sizes[-1] / (4 * parameters):.2f}", _ms(pause.captured), _ms(writing), _ms(pause.taken),
        spread(ratios, ".1f"), f"{middle:.2f} % ({most:.2f} %)",
    ]  # fmt: skip


def whole_runs(case: Case, seconds: float, interval: float, rounds: int) -> list[str]:
    """Return the row of trainings with checkpoints, without, and without any file."""
    on, off, nothing = _take_turns(
        case, _suitable_steps(case, seconds), rounds, (interval, None, "thrown away")
    )
    extra = [
        (a.seconds - b.seconds) / max(1, len(a.checkpoints)) for a, b in zip(on, off, strict=True)
    ]
    timed = [statistics.mean(a.checkpoints or [math.nan]) for a in on]
    return [
        case.name, f"{statistics.median(r.seconds for r in off):.1f}",
        f"{statistics.median(len(r.checkpoints) for r in on):.0f}",
        _ratio(on, off), _cpu_ratio(on, off), _ms(extra), _ms(timed),
        f"{100 * statistics.median(timed) / CHECKPOINT_SECONDS:.2f} %",
        _ratio(off, nothing), _cpu_ratio(off, nothing),
        spread([r.row_seconds / r.seconds for r in off], ".2%"),
        f"{statistics.median(r.row_seconds / r.rows for r in off) * 1e6:.1f}",
        _ms(r.trial_seconds / case.copies for r in off),
    ]  # fmt: skip


def long_run(case: Case, seconds: float, rounds: int) -> None:
    """Measure and print trainings with the default interval, and without checkpoints."""
    steps = _suitable_steps(case, seconds)
    on, off = _take_turns(case, steps, rounds, (CHECKPOINT_SECONDS, None))
    shares = [sum(r.checkpoints) / r.seconds for r in on]
    print(
        f"{case.name}: {statistics.median(r.seconds for r in off):.0f} s, "
        f"{statistics.median(len(r.checkpoints) for r in on):.0f} checkpoints; with / without "
        f"{_ratio(on, off, '.4f')}; checkpoints, timed: {spread(shares, '.4%')} of the run"
    )


def asking() -> None:
    """Measure and print what it costs to ask whether a checkpoint is due."""
    pause, number = Pause(), 100_000
    times = [taken / number for taken in timeit.repeat(pause.due, number=number, repeat=7)]
    share = statistics.median(times) / CHUNK_SECONDS
    print(
        f"Pause.due(): {spread([1e9 * t for t in times], '.0f')} ns; asked every {CHUNK_SECONDS} s, "
        f"{share:.6%} of the run"
    )


def _take_turns(
    case: Case, steps: int, rounds: int, contenders: Sequence[float | str | None]
) -> list[list[Recorded]]:
    """Return the trainings of each: seconds between checkpoints, None, or "thrown away"."""
    found: list[list[Recorded]] = [[] for _ in contenders]
    turns = list(zip(contenders, found, strict=True))
    for i in range(rounds):
        for interval, trainings in turns[:: 1 if i % 2 == 0 else -1]:
            with tempfile.TemporaryDirectory() as folder:
                into = None if isinstance(interval, str) else Path(folder)
                pause = TimedPause(interval) if isinstance(interval, float) else None
                trainings.append(train(case, steps, into, pause))
    return found


def _suitable_steps(case: Case, seconds: float) -> int:
    """Return steps that take about so long, found by trying, which also warms up."""
    steps, taken = 10, 0.0
    start_up = train(case, steps, None).seconds
    while taken < min(1.0, seconds):
        steps *= 2
        taken = train(case, steps, None).seconds - start_up
    return math.ceil(steps * seconds / taken)


def _written_by_hand(data: bytes, path: Path) -> float:
    """Return the seconds that it takes to write a file, flush it to the disk and rename it."""
    temporary = path.with_suffix(".tmp")
    begun = time.perf_counter()
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return time.perf_counter() - begun


def _ms(seconds: Iterable[float]) -> str:
    return spread([1000 * value for value in seconds], ".1f")


def _ratio(ours: Sequence[Recorded], theirs: Sequence[Recorded], digits: str = ".3f") -> str:
    return spread([a.seconds / b.seconds for a, b in zip(ours, theirs, strict=True)], digits)


def _cpu_ratio(ours: Sequence[Recorded], theirs: Sequence[Recorded]) -> str:
    return spread([a.cpu / b.cpu for a, b in zip(ours, theirs, strict=True)], ".3f")


def _row(cells: Sequence[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def read_options(words: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=21, help="checkpoints of each unit")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a training")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between checkpoints")
    parser.add_argument("--long-seconds", type=float, default=130.0, help="of a long training")
    parser.add_argument("--long-rounds", type=int, default=2)
    parser.add_argument("--parts", nargs="+", default=list(PARTS[:3]), choices=PARTS)
    parser.add_argument("--quick", action="store_true", help="the smallest only: no figures")
    options = parser.parse_args(None if words is None else list(words))
    if options.quick:
        options.rounds, options.count, options.seconds, options.interval = 1, 2, 0.6, 0.0
        options.long_seconds, options.long_rounds = 0.6, 1
    return options


def main(words: Iterable[str] | None = None) -> None:
    options = read_options(words)
    torch.set_num_threads(1)
    units, runs = (UNITS[:1], RUNS[:1]) if options.quick else (UNITS, RUNS)
    print(f"lrexp {lrexp.__version__}, torch {torch.__version__}; files in {tempfile.gettempdir()}")
    if "one" in options.parts:
        _row(ONE_HEAD)
        _row(["---"] * len(ONE_HEAD))
        for case in units:
            _row(one_checkpoint(case, options.count))
    if "run" in options.parts:
        _row(RUN_HEAD)
        _row(["---"] * len(RUN_HEAD))
        for case in runs:
            _row(whole_runs(case, options.seconds, options.interval, options.rounds))
    if "due" in options.parts:
        asking()
    if "long" in options.parts:
        long_run(runs[-2 if len(runs) > 1 else 0], options.long_seconds, options.long_rounds)


if __name__ == "__main__":
    main()
