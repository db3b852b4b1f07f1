"""What state a run is in, as far as its directory and its process tell.

A run that says `running` though its process is gone, or was silent too long on another host, is
`interrupted`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrexp.store.files import find_json
from lrexp.store.lock import LOCK, is_silent
from lrexp.store.owner import Owner


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
