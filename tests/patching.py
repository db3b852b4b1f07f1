"""Replacing functions of the operating system, as every Python's pathlib uses them."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest


def patch_system(patch: pytest.MonkeyPatch, name: str, function: Callable[..., Any]) -> None:
    """Replace `os.NAME`, or `io.open`; also in pathlib, which before Python 3.11 kept its own."""
    patch.setattr(io if name == "open" else os, name, function)
    accessor = getattr(pathlib, "_NormalAccessor", None)
    if hasattr(accessor, name):
        patch.setattr(accessor, name, staticmethod(function))
