"""Devices: choosing one, and its free memory."""

from __future__ import annotations

import os
from pathlib import Path

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


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device in bytes; for a CPU what its machine could give."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return min(_available(), _control_group_limit())


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
        return sizes["MemAvailable"] * 1024
    except (OSError, KeyError, ValueError, IndexError):  # not Linux
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        return 4 * 2**30


def _control_group_limit() -> int:
    """Return what a container may still take; a great number where nothing limits it."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii").strip()
        return max(0, int(limit) - int(used))
    except (OSError, ValueError):  # no such group, or "max"
        return 2**62
