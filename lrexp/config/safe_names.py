"""Names that are safe as folder names, in file systems of all kinds and in plots."""

from __future__ import annotations

import re

MAX_LENGTH = 64
SAFE_CHARACTERS = "A-Za-z0-9._=,+@% -"
NAME_PATTERN = rf"^[A-Za-z0-9]([{SAFE_CHARACTERS}]{{0,{MAX_LENGTH - 2}}}[A-Za-z0-9_=,+@%-])?$"

_TAKEN = re.compile(r"range_test|untrained|race-\d.*")  # see finder.trials and race.entrants
_NAME = re.compile(NAME_PATTERN[1:-1])
_DEVICES = {"con", "prn", "aux", "nul", *(f"{p}{i}" for p in ("com", "lpt") for i in range(10))}


def why_unsafe(name: str) -> str | None:
    """Return why a name cannot be the name of a folder, None when it can.

    Example:
        >>> why_unsafe("../up")
        'must start with a letter or digit'
    """
    if not name or len(name) > MAX_LENGTH:
        return f"must have 1 to {MAX_LENGTH} characters"
    if not re.match("[A-Za-z0-9]", name):
        return "must start with a letter or digit"
    if name.endswith((" ", ".")):
        return "must not end with a space or a dot"
    if not _NAME.fullmatch(name):
        return "may only hold the letters a-z, digits, spaces and ._-=,+@%"
    if name.partition(".")[0].strip().lower() in _DEVICES:
        return "is the name of a device on Windows"
    return None


def why_taken(name: str) -> str | None:
    """Return why a name cannot be a variant's though it is safe, None when it can."""
    return "is what find-lr calls its own trials" if _TAKEN.fullmatch(name) else None


def make_safe(text: str) -> str:
    """Return a safe name that resembles the text.

    Example:
        >>> make_safe("train:make_model")
        'train.make_model'
    """
    text = re.sub(r"[:/\\]+", ".", text)
    text = re.sub(rf"[^{SAFE_CHARACTERS}]+", "-", text)
    text = re.sub(r"^[^A-Za-z0-9]+", "", text)[:MAX_LENGTH].rstrip(" .-") or "x"
    return text if why_unsafe(text) is None else f"x{text}"[:MAX_LENGTH]
