"""The LR range test: its ramp, when it stops, and what its curve says.

`ramp` gives the LRs, a stop rule watches the losses, `combine` makes one curve of several seeds,
the rules read LRs off it, and `suggest` gives the answer with an interval or refuses with a reason.
"""

from lrexp.finder.curve import CombinedCurve, Curve, combine
from lrexp.finder.divergence import DivergenceState, DivergenceStop
from lrexp.finder.ramp import ramp
from lrexp.finder.rules import RULES, auto, minimum, slide, steepest, valley
from lrexp.finder.signal import is_buried
from lrexp.finder.stop import RangeTestState, RangeTestStop, StopRule, first_stop
from lrexp.finder.suggest import Suggestion, suggest

__all__ = [
    "RULES",
    "CombinedCurve",
    "Curve",
    "DivergenceState",
    "DivergenceStop",
    "RangeTestState",
    "RangeTestStop",
    "StopRule",
    "Suggestion",
    "auto",
    "combine",
    "first_stop",
    "is_buried",
    "minimum",
    "ramp",
    "slide",
    "steepest",
    "suggest",
    "valley",
]
