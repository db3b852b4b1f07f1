"""The runs in a folder and the state of each, read without curves, numpy or torch.

A run that says `running` though its process is gone, or was silent too long on another host, is
`interrupted`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lrexp.errors import NOTHING, ConfigError, Problem, RunError
from lrexp.runs.files import find_json
from lrexp.runs.lock import LOCK, Owner, is_silent
from lrexp.runs.writer import NEW


def read_status(path: Path) -> dict[str, Any]:
    """Return status.json with the true status: `interrupted` for a run whose process is gone."""
    status = find_json(path / "status.json") or {}
    said = status.get("status", "interrupted")
    gone = said == "running" and _is_left_behind(path, Owner.from_plain(status))
    return status | {"status": "interrupted" if gone else said}


def _is_left_behind(path: Path, owner: Owner | None) -> bool:
    """Return whether the process that wrote a run is gone, or as good as gone."""
    if owner is not None and owner.can_be_seen:
        return owner.is_gone()
    lock = path / LOCK
    return is_silent(lock if lock.exists() else path / "status.json")


@dataclass(frozen=True)
class RunEntry:
    """What a list of runs tells of one run."""

    path: Path
    name: str
    command: str
    status: str  # running | complete | failed | interrupted
    best_variant: str | None  # of a comparison that has ended
    suggested_lr: float | None  # of a range test that has ended
    started: datetime | None  # with time zone
    trials_ended: int | None = None  # of a run that has not ended
    num_trials: int | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the entry as JSON has it."""
        started = self.started.isoformat() if self.started else None
        return {**asdict(self), "path": str(self.path), "started": started}


def list_runs(directory: str | Path) -> list[RunEntry]:
    """Return the runs that lie in a directory, newest first; other contents are passed over.

    Raises:
        ConfigError: there is no such directory.
    """
    directory = Path(directory)
    if not directory.is_dir():
        what, remedy = "is not a folder of runs", "Give the folder that holds the runs."
        raise ConfigError([Problem("", what, NOTHING, remedy, str(directory))])
    named = (path for path in directory.iterdir() if not path.name.endswith(NEW))
    folders = [path for path in named if (path / "status.json").is_file()]
    entries = [_entry(path) for path in folders]
    oldest = datetime.min.replace(tzinfo=timezone.utc)
    return sorted(entries, key=lambda e: (e.started or oldest, e.path.name), reverse=True)


def _entry(path: Path) -> RunEntry:
    try:
        status = read_status(path)
        summary = find_json(path / "summary.json") or {}
    except RunError:  # one damaged run does not hide the others
        return RunEntry(path, path.name, "?", "damaged", None, None, None)
    ranking = summary.get("ranking")
    first = ranking[0] if isinstance(ranking, list) and ranking else None
    best = first.get("variant") if isinstance(first, dict) else None
    lr = summary.get("suggested_lr")
    is_open = status["status"] in ("running", "interrupted")
    planned = status.get("num_trials")
    return RunEntry(
        path=path,
        trials_ended=sum(1 for _ in path.glob("trials/*/*/result.json")) if is_open else None,
        num_trials=planned if is_open and type(planned) is int else None,
        name=str(status.get("name", path.name)),
        command=str(status.get("command", "?")),
        status=str(status["status"]),
        best_variant=best if isinstance(best, str) else None,
        suggested_lr=lr if type(lr) in (int, float) else None,
        started=_time(status.get("started")),
    )


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text))
        return time if time.tzinfo else time.astimezone()
    except (ValueError, OverflowError, OSError):  # no time, or none that this system's zone has
        return None
