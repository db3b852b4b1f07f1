"""Which tasks train as one stack, and why others cannot.

Tasks share a stack when they compute the same (`Task.kind`), evaluate at the same steps and have
optimizers of one form; LR, schedule, momentum and weight decay may differ, and so may the seed. One
probe answers for all of a group.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lrexp.data import ResidentBatches
from lrexp.engine.probing import Facts, differing_constant, probe, why_not_stackable
from lrexp.engine.task import Task
from lrexp.engine.vectorized.copies import NotStackable, form


@dataclass(frozen=True)
class Family:
    """Tasks that may share stacks.

    Args:
        tasks: in the order given.
        facts: of a probe of the first; None when `reason` says why they cannot be stacked.
        by_seed: a stack may hold one seed only.
        raises: the reason is an exception of user code, which the trials themselves will raise.
    """

    tasks: tuple[Task, ...]
    facts: Facts | None = None
    by_seed: bool = False
    reason: str | None = None
    raises: bool = False

    def blocks(self, size: int) -> Iterator[tuple[Task, ...]]:
        """Yield stacks of at most `size` copies, as equal in size as can be."""
        seeds: dict[int, list[Task]] = {}
        for task in self.tasks:
            seeds.setdefault(task.trial.seed if self.by_seed else 0, []).append(task)
        for members in seeds.values():
            parts = -(-len(members) // max(1, size))
            bounds = [len(members) * i // parts for i in range(parts + 1)]
            for start, stop in pairwise(bounds):
                yield tuple(members[start:stop])


def families(tasks: Iterable[Task]) -> list[Family]:
    """Return the tasks in families; each was probed, exceptions of user code are reasons."""
    groups: dict[Hashable, list[Task]] = {}
    reasons: dict[Hashable, str] = {}
    raising: set[Hashable] = set()
    for task in tasks:
        key: Hashable
        try:
            key = (_settings(task), form(task))
        except NotStackable as why:
            key = (_settings(task), str(why))
            reasons[key] = str(why)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # the trial itself will raise it, with its place
            key = (_settings(task), "raises")
            reasons[key] = f"{type(error).__name__} was raised"
            raising.add(key)
        groups.setdefault(key, []).append(task)
    return [
        Family(tuple(group), reason=reasons[key], raises=key in raising)
        if key in reasons
        else _probed(group)
        for key, group in groups.items()
    ]


def _settings(task: Task) -> Hashable:
    data = (id(task.train), id(task.val))
    length = (task.total_steps, task.eval_every, task.accumulate)
    return task.kind, data, length, task.autocast, str(task.device)


def _probed(tasks: Sequence[Task]) -> Family:
    try:
        facts = probe(tasks[0])
        reason = why_not_stackable(facts) or _differing(tasks)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # as above
        why = f"{type(error).__name__} was raised in its first steps"
        return Family(tuple(tasks), reason=why, raises=True)
    if reason is not None:
        return Family(tuple(tasks), reason=reason)
    alone = facts.torch_random or facts.eval_random
    by_seed = alone or not isinstance(tasks[0].train, ResidentBatches)
    return Family(tuple(tasks), facts, by_seed)


def _differing(tasks: Sequence[Task]) -> str | None:
    """Return why models of different seeds cannot share their Python code, if so."""
    by_seed = {task.trial.seed: task for task in tasks}
    first, *others = (task.build()[0] for task in by_seed.values())
    phrases = (differing_constant(first, other) for other in others)
    return next((phrase for phrase in phrases if phrase is not None), None)
