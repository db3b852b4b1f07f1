"""The one place that imports torchvision: a build that does not fit torch gets an explanation.

Nothing that names no torchvision class comes here, so a broken torchvision breaks nothing else.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from lrexp.errors import ConfigError


def torchvision_module(name: str, key: str) -> Any:
    """Return the module `torchvision.<name>`.

    Args:
        name: `datasets` or `models`.
        key: of the config, that needs it.

    Raises:
        ConfigError: if torchvision is missing or was built for another torch, with both versions.
    """
    try:
        return import_module(f"torchvision.{name}")
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        # A mismatch shows as "operator torchvision::nms does not exist", or, on a second try, as
        # a half-imported module; an undefined symbol is an OSError or ImportError.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError.single(
            key,
            f"needs torchvision, and torchvision {_installed()} cannot be imported beside "
            f"torch {torch.__version__}: {reason}",
            f"torchvision.{name}",
            "Install a pair that fits: pip install --upgrade torch torchvision "
            "(both in one command, from the same index).",
        ) from error


def _installed() -> str:
    try:
        return version("torchvision")
    except PackageNotFoundError:
        return "(not installed)"
