"""From a checked config to tasks: load data, resolve units, build schedules, probe the model.

Everything that can be found wrong before training is found here, for all variants at once. What
variants share is made once: data that several use is loaded once, and within a seed every variant
with the same model starts from a deep copy of the same initial weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrexp.lazy import imported_from

if TYPE_CHECKING:
    from lrexp.plan.make import make_plan, plan_one
    from lrexp.plan.race import can_have, race_task
    from lrexp.plan.range_test import RANGE_TEST, UNTRAINED, range_test_task, untrained_task
    from lrexp.plan.schedules import PlannedSchedule, plan_schedules
    from lrexp.plan.variant import Plan, VariantPlan
    from lrexp.plan.workshop import Objects

__all__ = [
    "RANGE_TEST",
    "UNTRAINED",
    "Objects",
    "Plan",
    "PlannedSchedule",
    "VariantPlan",
    "can_have",
    "make_plan",
    "plan_one",
    "plan_schedules",
    "race_task",
    "range_test_task",
    "untrained_task",
]

__getattr__ = imported_from(
    __name__,
    {
        "Objects": "lrexp.plan.workshop",
        "Plan": "lrexp.plan.variant",
        "PlannedSchedule": "lrexp.plan.schedules",
        "RANGE_TEST": "lrexp.plan.range_test",
        "UNTRAINED": "lrexp.plan.range_test",
        "VariantPlan": "lrexp.plan.variant",
        "can_have": "lrexp.plan.race",
        "make_plan": "lrexp.plan.make",
        "plan_one": "lrexp.plan.make",
        "plan_schedules": "lrexp.plan.schedules",
        "race_task": "lrexp.plan.race",
        "range_test_task": "lrexp.plan.range_test",
        "untrained_task": "lrexp.plan.range_test",
    },
)
