"""What a command would train, where and for how long, without training or writing it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lrexp.engine.choice import Choice, longest
from lrexp.records import Group
from lrexp.runs.asked import Planned
from lrexp.runs.choosing import choice_of, devices_of
from lrexp.runs.executor import chosen_executor
from lrexp.runs.plan import Plan
from lrexp.runs.stages import Findings, Stage, stages
from lrexp.runs.timings import Timings
from lrexp.runs.trials import task_of

_UNITS = ((3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class DryRun:
    """What a command would train; prints as a few lines.

    Args:
        name: of the experiment.
        command: that would train it.
        groups: trials that one engine trains in one go, each group in one process.
        steps: updates of all trials together.
        executor: its name, and where that is known the groups that it trains at a time.
        devices: that they are trained on.
        reasons: why they are grouped so, as the run itself would say it.
        seconds: of training, from the timings that are kept of this machine; None where some of
            it was never measured here.
        bytes_per_stack: memory that the largest stack takes, where it was measured.
        note: what of the command cannot be known before.
    """

    name: str
    command: str
    groups: tuple[Group, ...]
    steps: int
    executor: tuple[str, int | None]
    devices: tuple[str, ...]
    reasons: tuple[str, ...]
    seconds: float | None
    bytes_per_stack: int | None
    note: str

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        executor, slots = self.executor
        return {
            "command": self.command,
            "groups": [
                {"engine": group.engine, "trials": [trial.name for trial in group.trials]}
                for group in self.groups
            ],
            "steps": self.steps,
            "executor": executor,
            "slots": slots,
            "devices": list(self.devices),
            "reasons": list(self.reasons),
            "seconds": self.seconds,
            "bytes_per_stack": self.bytes_per_stack,
            "note": self.note or None,
        }

    def __str__(self) -> str:
        trials = [trial for group in self.groups for trial in group.trials]
        variants, seeds = len({t.variant for t in trials}), len({t.seed for t in trials})
        product = f"{_count(variants, 'variant')} × {_count(seeds, 'seed')}"
        head = f"{self.command} {self.name}: {_count(len(trials), 'trial')} ({product})"
        lines = [f"{head}, {_count(self.steps, 'step')}"]
        lines += [f"  groups    {line}" for line in self._group_lines()]
        lines += [f"  engine    {reason}" for reason in self.reasons]
        executor, slots = self.executor
        at_once = "as many groups at once as there is room for"
        if slots is not None:
            at_once = "in this process" if slots == 1 else f"{slots} groups at once"
        lines.append(f"  executor  {executor}, {at_once}, on {', '.join(self.devices)}")
        if self.bytes_per_stack is not None:
            lines.append(f"  memory    about {self.bytes_per_stack / 1e6:,.0f} MB of a stack")
        lines.append(f"  time      {self._time()}")
        return "\n".join(lines + ([f"  note      {self.note}"] if self.note else []))

    def _group_lines(self) -> list[str]:
        sizes = Counter((group.engine, len(group.trials)) for group in self.groups)
        return [
            f"{_count(count, 'stack')} of {size} trials"
            if engine == "vectorized"
            else f"{_count(count, 'trial')}, each on its own"
            for (engine, size), count in sizes.items()
        ]

    def _time(self) -> str:
        if self.seconds is None:
            return "unknown: nothing of this kind was timed here; engine: auto measures it"
        size, unit = next((u for u in _UNITS if self.seconds >= u[0]), _UNITS[-1])
        where = " in one process" if self.executor[1] is None else ""
        return f"about {self.seconds / size:.2g} {unit}{where}, evaluations aside"


def look_ahead(planned: Planned) -> DryRun:
    """Return what a run would train first, as its engine would be chosen."""
    spec, plan, options = planned.spec, planned.plan, planned.options
    stage = next(stages(spec, plan, Path(), Findings()))
    choice = choice_of(spec, plan, stage, options)
    executor = chosen_executor(options.executor, planned.config)
    name = executor["name"] if isinstance(executor, dict) else type(executor).__name__
    slots = _slots(executor, choice)
    each = _seconds(plan, stage, choice)
    seconds = None if each is None else longest(each, slots or 1)
    is_test = spec.command == "find-lr"
    note = "what comes after the range tests depends on their results" if is_test else ""
    return DryRun(
        name=planned.config.experiment.name,
        command=spec.command,
        groups=choice.groups,
        steps=sum(task_of(plan, trial).total_steps for trial in stage.trials),
        executor=(str(name), slots),
        devices=tuple(devices_of(plan) or (str(plan.device),)),
        reasons=choice.reasons,
        seconds=seconds,
        bytes_per_stack=_largest(choice),
        note=note,
    )


def _slots(executor: Any, choice: Choice) -> int | None:
    """Return how many groups are trained at a time, None where only a cluster knows."""
    if isinstance(executor, dict) and executor["name"] in ("local", "processes"):
        return min(choice.jobs, len(choice.groups))
    return executor.get("slots") if isinstance(executor, dict) else None


def _seconds(plan: Plan, stage: Stage, choice: Choice) -> list[float] | None:
    """Return how long each group takes; what was not timed counts as the others of the run.

    A choice of engines times one trial of those that are declared alike.
    """
    timings, trials = Timings(), {trial.id: trial for trial in stage.trials}
    groups = [[task_of(plan, trials[id_]) for id_ in group.trials] for group in choice.groups]
    copies = [len(g.trials) if g.engine == "vectorized" else 0 for g in choice.groups]
    known = [timings.of_step(g, count) for g, count in zip(groups, copies, strict=True)]
    timed = [seconds for seconds in known if seconds is not None]
    if not timed:
        return None
    each = [median(timed) if seconds is None else seconds for seconds in known]
    steps = [sum(task.total_steps for task in tasks) for tasks in groups]
    return [one * count for one, count in zip(each, steps, strict=True)]


def _largest(choice: Choice) -> int | None:
    """Return the memory of the largest stack, from what was measured of a copy."""
    copies = max((len(g.trials) for g in choice.groups if g.engine == "vectorized"), default=0)
    families = choice.figures.get("families", [])
    sizes = [family.get("bytes_per_copy") or 0 for family in families]
    return max(sizes, default=0) * copies or None


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
