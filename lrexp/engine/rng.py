"""Random numbers: repeatable inside a trial, untouched outside it.

Dropout masks are a pure function of (seed, step): the generators are seeded anew before every
update. So an evaluation, another engine or a resumed run cannot shift them, and every variant of
a seed sees the same masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lrexp.data import derive_seed
from lrexp.data.randomness import random_state_kept, reseed


class Reseed:
    """Seeds the generator of a device for one update (about a microsecond on a CPU)."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._first = derive_seed(seed, "dropout") % 2**62
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            self._generators.append(torch.cuda.default_generators[device.index or 0])
        self._mps = device.type == "mps"

    def __call__(self, step: int) -> None:
        """Seed for update `step`."""
        for generator in self._generators:
            generator.manual_seed(self._first + step)
        if self._mps:
            torch.mps.manual_seed(self._first + step)


@contextmanager
def preserved_rng(device: torch.device) -> Iterator[None]:
    """Give every global generator (Python, NumPy, torch, the device's) its state back at the end.

    Example:
        >>> before = torch.get_rng_state()
        >>> with preserved_rng(torch.device("cpu")):
        ...     _ = torch.rand(3)
        >>> bool((torch.get_rng_state() == before).all())
        True
    """
    devices = [device.index or 0] if device.type == "cuda" else []
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    with random_state_kept(), torch.random.fork_rng(devices=devices, enabled=bool(devices)):
        try:
            yield
        finally:
            if mps is not None:
                torch.mps.set_rng_state(mps)


def seed_everything(seed: int) -> None:
    """Seed every global generator, the devices' too; used before user code builds a model."""
    torch.manual_seed(seed)
    reseed(seed)
