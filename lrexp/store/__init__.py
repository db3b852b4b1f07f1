"""The run directory: creating it, appending to it, going on with it, reading it.

Everything a run produced lies there as CSV, JSON, YAML and PNG; whatever is shown later is read
from it and from nothing else.
"""

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
from lrexp.store.lock import locked
from lrexp.store.read import Run, TrialRecord, list_runs, load_run
from lrexp.store.write import RunWriter, TrialWriter

__all__ = [
    "Position",
    "Run",
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
