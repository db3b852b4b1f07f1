"""The run directory: creating it, appending to it, going on with it, reading it.

Everything a run produced lies there as CSV, JSON, YAML and PNG; whatever is shown later is read
from it and from nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrexp.lazy import imported_from

if TYPE_CHECKING:
    from lrexp.store.checkpoint import Position, SavedUnit, load_checkpoint, save_checkpoint
    from lrexp.store.create import check_free, create_run_directory
    from lrexp.store.environment import describe_environment
    from lrexp.store.files import (
        remove_directory,
        remove_temporary_files,
        to_json,
        trial_path,
        write_json,
        write_whole,
    )
    from lrexp.store.listing import RunEntry, list_runs
    from lrexp.store.lock import locked
    from lrexp.store.read import Run, TrialRecord, load_run
    from lrexp.store.write import RunWriter, TrialWriter

__all__ = [
    "Position",
    "Run",
    "RunEntry",
    "RunWriter",
    "SavedUnit",
    "TrialRecord",
    "TrialWriter",
    "check_free",
    "create_run_directory",
    "describe_environment",
    "list_runs",
    "load_checkpoint",
    "load_run",
    "locked",
    "remove_directory",
    "remove_temporary_files",
    "save_checkpoint",
    "to_json",
    "trial_path",
    "write_json",
    "write_whole",
]

__getattr__ = imported_from(
    __name__,
    {
        "Position": "lrexp.store.checkpoint",
        "Run": "lrexp.store.read",
        "RunEntry": "lrexp.store.listing",
        "RunWriter": "lrexp.store.write",
        "SavedUnit": "lrexp.store.checkpoint",
        "TrialRecord": "lrexp.store.read",
        "TrialWriter": "lrexp.store.write",
        "check_free": "lrexp.store.create",
        "create_run_directory": "lrexp.store.create",
        "describe_environment": "lrexp.store.environment",
        "list_runs": "lrexp.store.listing",
        "load_checkpoint": "lrexp.store.checkpoint",
        "load_run": "lrexp.store.read",
        "locked": "lrexp.store.lock",
        "remove_directory": "lrexp.store.files",
        "remove_temporary_files": "lrexp.store.files",
        "save_checkpoint": "lrexp.store.checkpoint",
        "to_json": "lrexp.store.files",
        "trial_path": "lrexp.store.files",
        "write_json": "lrexp.store.files",
        "write_whole": "lrexp.store.files",
    },
)
