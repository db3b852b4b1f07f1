"""A race: short trainings that verify what a range test suggests, decided by pure functions.

`entrants` names the trials; which are trained next, and what they say in the end, follows from the
results so far and from nothing else. A race that was interrupted goes on where it was.
"""

from lrexp.race.answer import Verdict, verdict
from lrexp.race.basin import position, regrets
from lrexp.race.entrants import Entrant, entrant_of, rounded_lr
from lrexp.race.outset import Outset, outset
from lrexp.race.results import read_raced, trained_rungs
from lrexp.race.rungs import (
    Course,
    Raced,
    Rung,
    by_horizon,
    center,
    drift,
    next_rung,
    survivors,
)

__all__ = [
    "Course",
    "Entrant",
    "Outset",
    "Raced",
    "Rung",
    "Verdict",
    "by_horizon",
    "center",
    "drift",
    "entrant_of",
    "next_rung",
    "outset",
    "position",
    "read_raced",
    "regrets",
    "rounded_lr",
    "survivors",
    "trained_rungs",
    "verdict",
]
