"""How good the LRs are that finders suggest: regret against a dense grid of full trainings.

    python tests/benchmarks/finder_accuracy.py                    # the tuning half
    python tests/benchmarks/finder_accuracy.py --half held-out    # only to report

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
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accuracy import picture, table
from accuracy.contenders import Setting, contenders
from accuracy.controls import CONTROLS
from accuracy.grid import QUICK, Protocol
from accuracy.scores import as_tree, refusals, score
from accuracy.workloads import ALL, HELD_OUT, TUNING, chosen

import lrexp

NEVER_REFUSE = ("fixed default", "short grid", "budget grid")
SMALL = ["cancer MLP", "linear exact"]  # of the quick mode


def main(words: Sequence[str] | None = None) -> None:
    options = _options(words)
    torch.set_num_threads(1)
    setting = Setting(QUICK if options.quick else Protocol(), options.cache)
    works = chosen(options.half, options.workloads or (SMALL if options.quick else None))
    takers = contenders(with_peers=not options.no_peers)
    if options.contenders:
        takers = {name: taker for name, taker in takers.items() if name in options.contenders}
    rows, lands = score(works, takers, setting, _progress)
    asked = {name: taker for name, taker in takers.items() if name not in NEVER_REFUSE}
    controls = refusals([] if options.quick else CONTROLS, asked, setting, _progress)
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
    parser.add_argument("--half", choices=[TUNING, HELD_OUT, "all"], default=TUNING)
    parser.add_argument("--workloads", nargs="+", choices=[w.name for w in ALL], metavar="NAME")
    parser.add_argument("--contenders", nargs="+", metavar="NAME")
    parser.add_argument("--no-peers", action="store_true", help="only lrexp and the baselines")
    parser.add_argument("--cache", type=Path, default=Path("runs/finder-accuracy"))
    parser.add_argument("--out", type=Path, help="folder of the JSON and the plot (the cache)")
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    return parser.parse_args(words)


def _progress(doing: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{doing}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
