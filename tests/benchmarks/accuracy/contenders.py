"""Who takes part: name -> a function from a cell to one answer for every group of seeds.

A new contender is one function and one line in `contenders`. One that trains keeps its answers with
`remembered`; they are asked for anew where the file is deleted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TypeAlias

from accuracy import peers
from accuracy.answer import Answer
from accuracy.grid import Cell, Protocol, control, curve_seconds, curves, slug
from accuracy.races import looked_at, mean_frac, search
from accuracy.short_grids import budget_grid, short_grid
from accuracy.training import DEFAULT_LR
from accuracy.workloads import Workload
from lrexp.config.rule_names import RULES


@dataclass(frozen=True)
class Setting:
    """The protocol, and where results are kept."""

    protocol: Protocol
    cache: Path

    @property
    def seeds(self) -> list[int]:
        """The first seed of every group, for contenders that use one."""
        return [group[0] for group in self.protocol.groups]


SEARCHES = {"lrexp find-lr": None, "lrexp find-lr 1x": "1x", "lrexp find-lr 4x": "4x"}
Contender: TypeAlias = Callable[[Cell, Setting], list[Answer]]


def contenders(*, with_peers: bool = True) -> dict[str, Contender]:
    """Return all contenders that can run here, lrexp's own first."""
    ours: dict[str, Contender] = {f"lrexp {rule}": partial(_by_rule, rule) for rule in RULES}
    ours |= {name: partial(_search, name, budget) for name, budget in SEARCHES.items()}
    others: dict[str, Contender] = {
        "fixed default": _default,
        "short grid": _short_grid,
        "budget grid": _budget_grid,
    }
    for package in peers.installed() if with_peers else ():
        for name in peers.FINDERS[package][1]:
            others[name] = partial(_peer, package, name)
    return ours | others


def _by_rule(rule: str, cell: Cell, setting: Setting) -> list[Answer]:
    share = mean_frac(cell.work, cell.schedule)  # all that a rule looks at of the schedule
    return _read(rule, cell.work, cell.optimizer, share, setting)


@cache
def _read(
    rule: str, work: Workload, optimizer: str, share: float, setting: Setting
) -> list[Answer]:
    """Return what a rule reads off lrexp's range tests at their defaults."""
    answers = []
    groups = curves(work, optimizer, setting.protocol, setting.cache)
    still = control(work, setting.protocol, setting.cache)
    seconds = curve_seconds(work, optimizer, setting.protocol, setting.cache)
    for group, losses in zip(groups, still, strict=True):
        found, steps = looked_at(group, losses, rule, share)
        answers.append(Answer(found.suggested_lr, steps, found.reason or "", seconds))
    return answers


def _search(name: str, budget: str | None, cell: Cell, setting: Setting) -> list[Answer]:
    def compute() -> dict[str, list[Answer]]:
        groups = curves(cell.work, cell.optimizer, setting.protocol, setting.cache)
        still = control(cell.work, setting.protocol, setting.cache)
        found = search(cell, groups, still, setting.seeds, budget)
        tested = curve_seconds(cell.work, cell.optimizer, setting.protocol, setting.cache)
        return {name: [replace(a, seconds=a.seconds + tested) for a in found]}

    return remembered(cell, name, setting, compute)[name]


def _default(cell: Cell, setting: Setting) -> list[Answer]:
    return [Answer(DEFAULT_LR[cell.optimizer], 0)]


def _short_grid(cell: Cell, setting: Setting) -> list[Answer]:
    compute = partial(_named, "short grid", short_grid, cell, setting)
    return remembered(cell, "short-grid", setting, compute)["short grid"]


def _budget_grid(cell: Cell, setting: Setting) -> list[Answer]:
    compute = partial(_named, "budget grid", budget_grid, cell, setting)
    return remembered(cell, "budget-grid", setting, compute)["budget grid"]


def _named(
    name: str, grid: Callable[[Cell, list[int]], list[Answer]], cell: Cell, setting: Setting
) -> dict[str, list[Answer]]:
    return {name: grid(cell, setting.seeds)}


def _peer(package: str, name: str, cell: Cell, setting: Setting) -> list[Answer]:
    def compute() -> dict[str, list[Answer]]:
        begun = time.perf_counter()
        asked = [peers.ask(package, cell.work, cell.optimizer, seed) for seed in setting.seeds]
        each = (time.perf_counter() - begun) / len(setting.seeds)
        asked = [{r: replace(a, seconds=each) for r, a in found.items()} for found in asked]
        return {rule: [answers[rule] for answers in asked] for rule in asked[0]}

    # no peer looks at the schedule
    return remembered(replace(cell, schedule="any"), package, setting, compute)[name]


def remembered(
    cell: Cell, name: str, setting: Setting, compute: Callable[[], dict[str, list[Answer]]]
) -> dict[str, list[Answer]]:
    """Return the answers kept in a file of the cell; compute them where there are none."""
    work = cell.work
    file = setting.cache / "answers" / slug(name) / f"{Path(cell.file).stem}.json"
    key = [work.version, work.steps, work.batch_size, setting.seeds]
    if file.exists():
        saved = json.loads(file.read_text(encoding="utf-8"))
        if saved["key"] == key:
            return {n: [Answer(**a) for a in answers] for n, answers in saved["answers"].items()}
    made = compute()
    tree = {"key": key, "answers": {n: [asdict(a) for a in each] for n, each in made.items()}}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(tree, indent=1), encoding="utf-8")
    part.replace(file)  # never half a file
    return made
