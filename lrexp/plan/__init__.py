"""From a checked config to tasks: load data, resolve units, build schedules, probe the model.

Everything that can be found wrong before training is found here, for all variants at once. What
variants share is made once: data that several use is loaded once, and within a seed every variant
with the same model starts from a deep copy of the same initial weights.
"""

from lrexp.plan.make import make_plan, plan_one, plan_schedules
from lrexp.plan.race import can_have, race_task
from lrexp.plan.range_test import RANGE_TEST, UNTRAINED, range_test_task, untrained_task
from lrexp.plan.variant import Plan, VariantPlan, trace_lr
from lrexp.plan.workshop import Objects

__all__ = [
    "RANGE_TEST",
    "UNTRAINED",
    "Objects",
    "Plan",
    "VariantPlan",
    "can_have",
    "make_plan",
    "plan_one",
    "plan_schedules",
    "race_task",
    "range_test_task",
    "trace_lr",
    "untrained_task",
]
