"""lrexp: learning-rate experiments in PyTorch.

The public names. Each is imported when it is first used, so that `import lrexp` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lrexp import records
from lrexp.errors import ConfigError, InterruptedRunError, LrexpError, RunError, UserCodeError

if TYPE_CHECKING:
    from lrexp.analysis.rules import register_rule
    from lrexp.api import compare, dry_run, find_lr, resume
    from lrexp.integrations.attach import attach
    from lrexp.integrations.lr_finder import LRFinder
    from lrexp.report.page import write_report
    from lrexp.report.plots import plot_lr_schedule
    from lrexp.report.result import RangeTest
    from lrexp.report.run import Run, load_run
    from lrexp.report.training_code import export_config
    from lrexp.runs.executor import register_executor
    from lrexp.runs.judged import judge
    from lrexp.runs.trackers import export_run, register_tracker
    from lrexp.schedules.public import (
        AdaptiveCycleLR,
        get_combined_lr_scheduler,
        get_lr_scheduler,
        get_multi_step_lr_scheduler,
    )
    from lrexp.workloads.metrics import register_metric

__version__ = "0.2.0"

_HOMES = {
    "AdaptiveCycleLR": "lrexp.schedules.public",
    "LRFinder": "lrexp.integrations.lr_finder",
    "RangeTest": "lrexp.report.result",
    "Run": "lrexp.report.run",
    "attach": "lrexp.integrations.attach",
    "compare": "lrexp.api",
    "dry_run": "lrexp.api",
    "export_config": "lrexp.report.training_code",
    "export_run": "lrexp.runs.trackers",
    "find_lr": "lrexp.api",
    "get_combined_lr_scheduler": "lrexp.schedules.public",
    "get_lr_scheduler": "lrexp.schedules.public",
    "get_multi_step_lr_scheduler": "lrexp.schedules.public",
    "judge": "lrexp.runs.judged",
    "load_run": "lrexp.report.run",
    "plot_lr_schedule": "lrexp.report.plots",
    "register_executor": "lrexp.runs.executor",
    "register_metric": "lrexp.workloads.metrics",
    "register_rule": "lrexp.analysis.rules",
    "register_tracker": "lrexp.runs.trackers",
    "resume": "lrexp.api",
    "write_report": "lrexp.report.page",
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
    "attach",
    "compare",
    "dry_run",
    "export_config",
    "export_run",
    "find_lr",
    "get_combined_lr_scheduler",
    "get_lr_scheduler",
    "get_multi_step_lr_scheduler",
    "judge",
    "load_run",
    "plot_lr_schedule",
    "records",
    "register_executor",
    "register_metric",
    "register_rule",
    "register_tracker",
    "resume",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
