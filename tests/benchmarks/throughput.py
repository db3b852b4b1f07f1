"""How many trials a second: K copies trained by lrexp's engines, beside loops written by hand.

    OMP_NUM_THREADS=1 python tests/benchmarks/throughput.py
    python tests/benchmarks/throughput.py --device cuda --json h200.json

Contenders take turns within each cell of the table (a workload and a K), and a ratio is the median
over the rounds of (ours / theirs) within a round, with the smallest and the largest. Everyone does
the same updates; a training that did fewer ends the benchmark. In this process one thread is used.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import platform
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from finders import range_tests
from measuring import (
    RUN_SECONDS,
    Sample,
    contenders,
    flops_per_step,
    matmul_peak,
    ratios,
    spread,
    suitable_steps,
    take_turns,
)
from memory import memory_table
from nets import WORKLOADS, Workload
from whole_commands import MANY_STEPS, reads, whole_commands

import lrexp

LETTERS = {"usual": "(a) usual", "tuned": "(b) tuned", "graphed": "(c) graphed"}
PARTS = ("table", "memory", "range-test", "commands", "reads")
EVERYONE = ("usual", "tuned", "graphed", "sequential", "vectorized", "processes", "auto")


def cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure_cell(
    work: Workload, copies: int, options: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    """Return the samples of every contender for one workload and one K."""
    begun = time.perf_counter()
    left_out = {} if options.contenders else spared(work, copies, device)
    names = [name for name in options.contenders or EVERYONE if name not in left_out]
    these = contenders(work, copies, device, options.jobs, names)
    steps, alone_rate = dict.fromkeys(these, 20), 100.0
    if not options.quick:
        # the start of many trials takes longer, and is as much less certain
        steps, alone_rate = suitable_steps(these, options.seconds * max(1, copies / 8) ** 0.5)
    peak = matmul_peak(device)
    samples = take_turns(these, steps, options.rounds, alone_rate)
    taken = time.perf_counter() - begun
    return {
        "steps": steps, "samples": samples, "peak": peak,
        "left_out": left_out, "took": taken,
    }  # fmt: skip


def spared(work: Workload, copies: int, device: torch.device) -> dict[str, str]:
    """Return who is left out of a cell where `--contenders` does not ask for him, and why."""
    if copies == 1:
        return {"processes": "one worker is the sequential engine"}
    why: dict[str, str] = {}
    if work.name == "MLP 16-32-2" and copies != 8:
        why["processes"] = "measured at K = 8"
    if work.name == "ResNet-9" and device.type == "cpu":
        why["sequential"] = "as at K = 1"
        why["vectorized"] = "a round would take half a minute"
    return why


def rows_of(work: Workload, copies: int, cell: Mapping[str, Any], flops: int) -> list[list[str]]:
    """Return the rows of one cell: a contender each."""
    samples: dict[str, list[Sample]] = cell["samples"]
    rows = []
    for name, values in samples.items():
        rate = statistics.median(value.rate for value in values)
        against = [
            spread(ratios(values, samples[other])) if other in samples and name != other else "-"
            for other in LETTERS
        ]
        share = rate * flops / cell["peak"] / values[-1].cores
        start_up = statistics.median(value.start_up for value in values)
        rows.append(
            [work.name, str(copies), LETTERS.get(name, name), f"{rate:,.{0 if rate >= 100 else 2}f}", *against,
             f"{share:.1%}", f"{max(0.0, start_up):.1f}"]
        )  # fmt: skip
    return rows


def table(options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Measure and print the table, cell by cell; return all that was measured."""
    head = ["workload", "K", "contender", "trial-steps/s", "× (a)", "× (b)", "× (c)",
            "of FLOP peak", "start-up s"]  # fmt: skip
    print("| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|")
    measured, notes = [], []
    for name in options.workloads:
        work = WORKLOADS[name]
        flops = flops_per_step(work)
        usual = work.copies if device.type == "cpu" else work.gpu_copies
        if not options.copies and work.note:
            notes.append(f"{name}: K = {', '.join(map(str, usual))}; {work.note}.")
        notes.append(f"{name}: {flops / 1e6:,.1f} MFLOP per step in products and convolutions.")
        for copies in options.copies or usual:
            cell = measure_cell(work, copies, options, device)
            for row in rows_of(work, copies, cell, flops):
                print("| " + " | ".join(row) + " |", flush=True)
            notes += [
                f"{name}, K = {copies}: auto chose {said} in {count} of {options.rounds} rounds."
                for said, count in Counter(s.said for s in cell["samples"].get("auto", ())).items()
            ]
            notes += [
                f"{name}, K = {copies}: no row of {who}: {why}."
                for who, why in cell["left_out"].items()
            ]
            measured.append(as_json(name, copies, flops, cell))
    print("\n".join(f"- {note}" for note in notes))
    return measured


def as_json(name: str, copies: int, flops: int, cell: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "workload": name,
        "copies": copies,
        "flops_per_step": flops,
        "matmul_flops_per_second": cell["peak"],
        "steps": cell["steps"],
        "seconds_in_all": cell["took"],
        "rates": {who: [s.rate for s in samples] for who, samples in cell["samples"].items()},
        "start_up": {
            who: [s.start_up for s in samples] for who, samples in cell["samples"].items()
        },
    }


def introduce(options: argparse.Namespace, device: torch.device) -> None:
    """Print what is measured with, and who is missing."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    print(
        f"lrexp {lrexp.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {device} {name}, {cores()} core(s); {options.rounds} rounds "
        f"of {options.seconds} s; in this process {torch.get_num_threads()} thread, "
        f"OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']}; processes: {options.jobs} workers.\n"
        f"auto chooses for a run that takes {RUN_SECONDS} s one by one.\n"
        f"A product of 1024×1024 float32 matrices: {matmul_peak(device) / 1e9:,.0f} GFLOP/s."
    )
    there = contenders(WORKLOADS[options.workloads[0]], 1, device, options.jobs, EVERYONE)
    for missing in [name for name in options.contenders or EVERYONE if name not in there]:
        why = "needs a GPU" if missing == "graphed" else "not in this lrexp"
        print(f"No rows of {missing}: {why}.")
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        print(f"Load before this began: {os.getloadavg()[0]:.1f}. Others use this machine.")


def read_options(words: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.25, help="of a training, without start")
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--copies", nargs="+", type=int, help="K; by default fewer for slow ones")
    parser.add_argument("--contenders", nargs="+", choices=EVERYONE)
    parser.add_argument("--jobs", type=int, default=cores(), help="worker processes")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--quick", action="store_true", help="two rounds of few steps: no figures")
    options = parser.parse_args(None if words is None else list(words))
    if options.quick:
        options.rounds = 2
    return options


def main(words: Iterable[str] | None = None) -> None:
    options = read_options(words)
    device = torch.device(options.device)
    begun = time.perf_counter()
    torch.set_num_threads(1)
    introduce(options, device)
    found: dict[str, Any] = {"torch": torch.__version__, "device": str(device)}
    if "table" in options.parts:
        found["table"] = table(options, device)
    if "memory" in options.parts:
        found["memory"] = memory_table(options.workloads, device)
    if "range-test" in options.parts:
        found["range_test"] = range_tests(options.rounds)
    if "commands" in options.parts:
        found["commands"] = whole_commands(options.rounds)
    if "reads" in options.parts:
        steps = 20 if options.quick else MANY_STEPS
        found["reads"] = reads(1 if options.quick else options.rounds, many_steps=steps)
    print(f"\nTook {(time.perf_counter() - begun) / 60:.1f} minutes.")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
