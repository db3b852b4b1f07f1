"""Every optimizer, schedule and network, in a stack and one by one: the same numbers.

By default each pair of them is met; --long meets all of them together.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine.comparing import assert_equal, losses, train
from engine.small_tasks import NETS, OPTIMIZERS, PARAMETERS, PER_EPOCH, make_task, with_schedules
from pairwise import pairs_left_out, pairwise_cover

from lrexp.engine.vectorized.update_rules import RULES
from lrexp.schedules.build import SCHEDULES

COVER = pairwise_cover(list(OPTIMIZERS), list(SCHEDULES), list(NETS))
STACKS: dict[tuple[str, str], list[str]] = {}  # (network, optimizer) -> schedules
for _optimizer, _schedule, _net in COVER:
    STACKS.setdefault((_net, _optimizer), []).append(_schedule)


def test_the_tables_above_are_complete() -> None:
    assert {cls for cls, *_ in OPTIMIZERS.values()} == set(RULES)
    assert PARAMETERS.keys() <= SCHEDULES.keys()


def test_each_pair_is_among_the_stacks_below() -> None:
    rows = [(o, schedule, n) for (n, o), names in STACKS.items() for schedule in names]
    assert pairs_left_out(rows, list(OPTIMIZERS), list(SCHEDULES), list(NETS)) == set()


@pytest.mark.parametrize(("net", "optimizer"), STACKS)
def test_each_pair_of_optimizer_schedule_and_network_trains_as_one_by_one(
    net: str, optimizer: str
) -> None:
    assert_equal(with_schedules(net, optimizer, STACKS[net, optimizer]))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns(optimizer: str) -> None:
    (records,) = train("sequential", with_schedules("MLP", optimizer, ["constant"])).values()
    learned = losses(records)
    falls = sum(learned[-PER_EPOCH:]) < sum(learned[:PER_EPOCH])
    assert falls == ("maximize" not in optimizer)


@pytest.mark.long
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_and_schedule_trains_every_network_as_one_by_one(
    net: str, optimizer: str
) -> None:
    evaluated = {"eval_every": 10, "val": make_task(net).val}
    stacked = assert_equal([replace(task, **evaluated) for task in with_schedules(net, optimizer)])
    assert {trial.variant for trial in stacked} == SCHEDULES.keys()
