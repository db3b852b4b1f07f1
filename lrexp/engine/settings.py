"""Settings of torch and of the process that user code may change: each trial finds them as given.

Random generators are the business of `rng.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch


@contextmanager
def preserved_settings() -> Iterator[None]:
    """Give gradients, torch's defaults, the working directory and the like back their values.

    Example:
        >>> with preserved_settings():
        ...     torch.set_default_dtype(torch.float64)
        >>> torch.get_default_dtype()
        torch.float32
    """
    grad, dtype, device = torch.is_grad_enabled(), torch.get_default_dtype(), _default_device()
    threads, matmul = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    streams, folder = (sys.stdout, sys.stderr), _folder()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if _default_device() != device:
            torch.set_default_device(device)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_float32_matmul_precision() != matmul:  # setting it may warn
            torch.set_float32_matmul_precision(matmul)
        if (deterministic, warn_only) != (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ):
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        sys.stdout, sys.stderr = streams
        if folder is not None and _folder() != folder:
            with suppress(OSError):
                os.chdir(folder)


def _default_device() -> torch.device | None:
    known = getattr(torch, "get_default_device", None)
    return known() if known else None


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  # Path.cwd() takes four times as long
    except OSError:  # it was deleted
        return None
