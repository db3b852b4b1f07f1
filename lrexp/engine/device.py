"""Choosing the device."""

from __future__ import annotations

import torch

from lrexp.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    `auto` is CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: the device does not exist here; the key is `device`.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "mps" and not torch.backends.mps.is_available():
        raise _missing(name, "this build of torch sees no Apple GPU")
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise _missing(name, "torch sees no CUDA device")
        index = int(name.partition(":")[2] or torch.cuda.current_device())
        count = torch.cuda.device_count()
        if index >= count:
            raise _missing(name, f"torch sees {count} CUDA device(s), numbered from 0")
        return torch.device("cuda", index)
    return torch.device(name)


def _missing(name: str, why: str) -> ConfigError:
    return ConfigError.single("device", why, name, "Use device: auto, or --device cpu.")
