"""The built-in schedules by the names that a config uses."""

from __future__ import annotations

from collections.abc import Callable

from lrexp.schedules.adaptive_cycle import adaptive_cycle
from lrexp.schedules.combine import combined
from lrexp.schedules.cycles import cosine_restarts, cyclic
from lrexp.schedules.decays import constant, cosine, exponential, linear, polynomial, rex
from lrexp.schedules.from_function import from_function
from lrexp.schedules.milestones import multi_step, step
from lrexp.schedules.one_cycle import one_cycle
from lrexp.schedules.open_ended import inverse_sqrt, wsd
from lrexp.schedules.plateau import plateau
from lrexp.schedules.schedule import Controller, Schedule

SCHEDULES: dict[str, Callable[..., Schedule | Controller]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "exponential": exponential,
    "polynomial": polynomial,
    "inverse_sqrt": inverse_sqrt,
    "wsd": wsd,
    "cosine_restarts": cosine_restarts,
    "one_cycle": one_cycle,
    "cyclic": cyclic,
    "step": step,
    "multi_step": multi_step,
    "combined": combined,
    "rex": rex,
    "plateau": plateau,
    "adaptive_cycle": adaptive_cycle,
    "lambda": from_function,
}
