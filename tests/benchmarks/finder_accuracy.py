"""How good the LRs are that finders suggest: regret against a dense grid of full trainings.

    python tests/benchmarks/finder_accuracy.py                    # the tuning half
    python tests/benchmarks/finder_accuracy.py --half held-out    # only to report
    python tests/benchmarks/finder_accuracy.py --half long        # long trainings, only to report
    python tests/benchmarks/finder_accuracy.py --half long --remake-truth

Prints a table, writes a plot and a JSON. All that is trained is kept in `--cache` and not trained
again; the first run takes an hour or more on one core, the next ones take seconds.
See README.md beside this file for the protocol.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accuracy import picture, table
from accuracy.contenders import Setting, contenders
from accuracy.controls import CONTROLS
from accuracy.grid import LONG_PROTOCOL, QUICK, Protocol, cells, measured, truth_file
from accuracy.long_half import LONG, LONG_ALL, LONG_CONTROLS
from accuracy.regret import landscape
from accuracy.scores import as_tree, refusals, score
from accuracy.workloads import ALL, HELD_OUT, TUNING, Workload, chosen

import lrexp

NEVER_REFUSE = ("fixed default", "short grid", "budget grid")
SMALL = ["cancer MLP", "linear exact"]  # of the quick mode


def main(words: Sequence[str] | None = None) -> None:
    options = _options(words)
    torch.set_num_threads(1)
    is_long = options.half == LONG
    protocol = QUICK if options.quick else LONG_PROTOCOL if is_long else Protocol()
    setting = Setting(protocol, options.cache)
    works = _works(options)
    if options.remake_truth:
        _remake_truth(works, setting)
        return
    takers = contenders(with_peers=not options.no_peers)
    if options.contenders:
        takers = {name: taker for name, taker in takers.items() if name in options.contenders}
    rows, lands = score(works, takers, setting, _progress)
    nothing_to_find = LONG_CONTROLS if is_long else CONTROLS
    asked = {name: taker for name, taker in takers.items() if name not in NEVER_REFUSE}
    controls = refusals([] if options.quick else nothing_to_find, asked, setting, _progress)
    _progress("")
    title = f"Regret of suggested learning rates: {len(lands)} cells, {options.half} half"
    print(f"lrexp {lrexp.__version__}, torch {torch.__version__}\n\n{title}\n")
    parts = [table.summary(rows), table.by_workload(rows, works), table.doubts(lands)]
    if controls and any(controls.values()):
        parts.append(table.refused(controls))
    for lines in map(list, parts):
        if lines:
            print("\n".join(lines), end="\n\n")
    tree = {"half": options.half, "protocol": asdict(setting.protocol), **as_tree(rows, lands)}
    out = options.out or options.cache
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"accuracy-{options.half}.json"
    file.write_text(json.dumps(tree | {"controls": controls}, indent=1, allow_nan=False) + "\n")
    picture.draw(rows, title, file.with_suffix(".png"))
    picture.draw_seconds(rows, title, file.with_name(f"{file.stem}-seconds.png"))
    print(f"Wrote {file} and {file.with_suffix('.png')}")


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=[TUNING, HELD_OUT, LONG, "all"], default=TUNING)
    parser.add_argument(
        "--workloads", nargs="+", choices=[w.name for w in ALL + LONG_ALL], metavar="NAME"
    )
    parser.add_argument("--contenders", nargs="+", metavar="NAME")
    parser.add_argument("--no-peers", action="store_true", help="only lrexp and the baselines")
    parser.add_argument("--cache", type=Path, default=Path("runs/finder-accuracy"))
    parser.add_argument("--out", type=Path, help="folder of the JSON and the plot (the cache)")
    parser.add_argument(
        "--remake-truth", action="store_true", help="train the dense grids of the long half anew"
    )
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    options = parser.parse_args(words)
    if options.half == LONG and options.quick:
        parser.error("--quick is for the other halves: the truth of the long one is kept.")
    if options.remake_truth and options.half != LONG:
        parser.error("--remake-truth is for --half long; delete the cache of the others.")
    return options


def _works(options: argparse.Namespace) -> list[Workload]:
    names = options.workloads or (SMALL if options.quick else None)
    if options.half != LONG:
        return chosen(options.half, names)
    return [work for work in LONG_ALL if names is None or work.name in names]


def _remake_truth(works: list[Workload], setting: Setting) -> None:
    for cell in cells(works):
        truth_file(cell).unlink(missing_ok=True)
        began = time.perf_counter()
        land = landscape(measured(cell, setting.protocol, setting.cache))
        took, (low, high) = time.perf_counter() - began, land.good()
        print(f"{cell.name}: {took:.0f} s; best {land.best_lr:.3g}, good {low:.3g} to {high:.3g}, "
              f"loss {land.start:.4g} to {land.loss.min():.4g}", flush=True)  # fmt: skip


def _progress(doing: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{doing}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
