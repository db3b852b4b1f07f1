"""lrexp: learning-rate experiments in PyTorch.

The public names. Each is imported when it is first used, so that `import lrexp` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrexp.errors import (
    ConfigError,
    InterruptedRunError,
    LrexpError,
    RunError,
    UserCodeError,
)
from lrexp.lazy import imported_from

if TYPE_CHECKING:
    from lrexp.experiment import compare, find_lr, resume
    from lrexp.lr_finder import LRFinder, RangeTest
    from lrexp.report import plot_lr_schedule
    from lrexp.schedules import (
        AdaptiveCycleLR,
        get_combined_lr_scheduler,
        get_lr_scheduler,
        get_multi_step_lr_scheduler,
    )
    from lrexp.store import Run, load_run

__version__ = "0.1.0"

_HOMES = {
    "AdaptiveCycleLR": "lrexp.schedules",
    "LRFinder": "lrexp.lr_finder",
    "RangeTest": "lrexp.lr_finder",
    "Run": "lrexp.store",
    "compare": "lrexp.experiment",
    "find_lr": "lrexp.experiment",
    "get_combined_lr_scheduler": "lrexp.schedules",
    "get_lr_scheduler": "lrexp.schedules",
    "get_multi_step_lr_scheduler": "lrexp.schedules",
    "load_run": "lrexp.store",
    "plot_lr_schedule": "lrexp.report",
    "resume": "lrexp.experiment",
}

__all__ = [
    "AdaptiveCycleLR",
    "ConfigError",
    "InterruptedRunError",
    "LRFinder",
    "LrexpError",
    "RangeTest",
    "Run",
    "RunError",
    "UserCodeError",
    "__version__",
    "compare",
    "find_lr",
    "get_combined_lr_scheduler",
    "get_lr_scheduler",
    "get_multi_step_lr_scheduler",
    "load_run",
    "plot_lr_schedule",
    "resume",
]


__getattr__ = imported_from(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
