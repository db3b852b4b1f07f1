"""Peak memory per copy: one training with one copy and one with more, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nets import WORKLOADS
from ours import available, train_in_processes

MANY = 16
FEWER = {"ResNet-9": 4}  # an unrolled step of 16 takes half a minute on one core
STEPS = 2

SCRIPT = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
import torch, memory
torch.set_num_threads(1)
print(json.dumps(memory.peak_bytes(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])))
"""


def memory_table(names: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
    """Measure and print the table; return what was measured, in bytes."""
    what = "allocated on the device" if device.type == "cuda" else "resident in the process"
    print(f"\nPeak memory {what}, MiB (of processes: the largest worker)")
    head = ["workload", "engine", "one copy", "more copies", "each one more"]
    print("| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|")
    measured = []
    for name in names:
        many = FEWER.get(name, MANY)
        # the others hold one copy at a time, in each worker
        for engine in [e for e in available(1) if e in ("sequential", "vectorized", "processes")]:
            sizes = (1, many) if engine == "vectorized" else (1,)
            try:
                peaks = [in_own_process(name, engine, copies, device) for copies in sizes]
            except subprocess.CalledProcessError as error:
                why = (error.stderr.strip().splitlines() or ["it died"])[-1]
                print(f"| {name} | {engine} | not measured: {why} | | |", flush=True)
                continue
            cells = [f"{peak / 2**20:,.1f}" for peak in peaks]
            if len(peaks) == 2:
                each = (peaks[1] - peaks[0]) / (many - 1) / 2**20
                cells = [cells[0], f"{cells[1]} (K = {many})", f"{each:,.2f}"]
            else:
                cells += ["-", "-"]
            print(f"| {name} | {engine} | {' | '.join(cells)} |", flush=True)
            measured.append({"workload": name, "engine": engine, "copies": sizes, "bytes": peaks})
    return measured


def in_own_process(name: str, engine: str, copies: int, device: torch.device) -> int:
    """Return the peak in bytes of a process that trains so many copies."""
    here = str(Path(__file__).parent)
    words = [sys.executable, "-c", SCRIPT, here, name, engine, str(copies), str(device)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def peak_bytes(name: str, engine: str, copies: int, device_name: str) -> int:
    """Train in this process and return its peak; of `processes`, that of the largest worker."""
    import resource

    work, device = WORKLOADS[name], torch.device(device_name)
    if engine == "processes":
        train_in_processes(work, copies, STEPS, device, jobs=1)
    else:
        available(1)[engine](work, copies, STEPS, device)
    if device.type == "cuda" and engine != "processes":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    if engine == "processes":
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    try:  # ru_maxrss remembers the size of the process that started this one
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
