"""Learning-rate schedules: pure functions of the step, controllers that react, and any of torch's.

`build_schedule` makes one from a config's section; `SCHEDULES` has the factories by name. Only
`torch_adapter` imports torch, when a torch class is named.
"""

from lrexp.schedules.adaptive_cycle import AdaptiveCycle, AdaptiveCycleState
from lrexp.schedules.adaptive_cycle_lr import AdaptiveCycleLR
from lrexp.schedules.build import build_schedule, check_schedule, known_names
from lrexp.schedules.combine import Part
from lrexp.schedules.parameters import Parameter, parameters
from lrexp.schedules.plateau import Plateau, PlateauState
from lrexp.schedules.public import (
    get_combined_lr_scheduler,
    get_lr_scheduler,
    get_multi_step_lr_scheduler,
)
from lrexp.schedules.registry import SCHEDULES
from lrexp.schedules.schedule import Controller, Schedule, State, Steps

__all__ = [
    "SCHEDULES",
    "AdaptiveCycle",
    "AdaptiveCycleLR",
    "AdaptiveCycleState",
    "Controller",
    "Parameter",
    "Part",
    "Plateau",
    "PlateauState",
    "Schedule",
    "State",
    "Steps",
    "build_schedule",
    "check_schedule",
    "get_combined_lr_scheduler",
    "get_lr_scheduler",
    "get_multi_step_lr_scheduler",
    "known_names",
    "parameters",
]
