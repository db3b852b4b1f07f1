"""Creating a run directory."""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from pathlib import Path

from lrexp.errors import ConfigError
from lrexp.store.files import disk_errors

MAX_NAME = 60


def create_run_directory(
    name: str, command: str, *, out: Path | None = None, runs_dir: Path = Path("runs")
) -> Path:
    """Create and return a new run directory: `out` itself, or a new one inside `runs_dir`.

    A new name is `20261121-210301-digits-lr-compare-3f9c`: local time, experiment, command, and
    four random digits; mkdir fails where a name is taken, so two commands never share one.

    Raises:
        ConfigError: `out` exists and is not an empty directory.
        RunError: the disk refuses.
    """
    if out is not None:
        check_free(out)
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        return out
    with disk_errors(runs_dir):
        runs_dir.mkdir(parents=True, exist_ok=True)
        while True:
            now = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
            path = runs_dir / f"{now}-{slug(name)}-{command}-{secrets.token_hex(2)}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path


def check_free(out: Path | None) -> None:
    """Raise ConfigError if `out` is taken: asked before anything that takes time."""
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        is_run = (out / "order.json").is_file()
        remedy = f"Give a new folder{f', or `lrexp resume {out}`' if is_run else ''}."
        raise ConfigError.single("--out", "exists and is not an empty folder", str(out), remedy)


def slug(name: str) -> str:
    """Return the name as a part of a folder name.

    Example:
        >>> slug("Digits: LR / momentum")
        'digits-lr-momentum'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_NAME] or "run"
