"""Random numbers and settings of torch: repeatable inside a trial, untouched outside it."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch

from lrexp.workloads.seeds import derive_seed, random_state_kept, reseed


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
    devices = (torch.cuda, torch.backends.mps, torch.xpu)
    if any(device.is_available() for device in devices):
        torch.manual_seed(seed)  # for devices that are missing it notes tracebacks: up to 2 ms
    reseed(seed)


def generator_states(device: torch.device) -> dict[str, Any]:
    """Return the states of the global generators, the device's too, as numbers and tensors.

    Example:
        >>> states = generator_states(torch.device("cpu"))
        >>> first = torch.rand(1), random.random()
        >>> restore_generators(states, torch.device("cpu"))
        >>> (torch.rand(1), random.random()) == first
        True
    """
    version, words, gauss = random.getstate()
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
    }
    if numpy := sys.modules.get("numpy"):
        # unsigned 32-bit words; torch files know numpy's arrays as code, tensors as data
        kind, words, position, has_gauss, gauss = numpy.random.get_state()
        words = torch.tensor(words.tolist())
        states["numpy"] = [kind, words, int(position), int(has_gauss), float(gauss)]
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_generators(states: Mapping[str, Any], device: torch.device) -> None:
    """Put the global generators into states that `generator_states` returned."""
    torch.set_rng_state(states["torch"])
    python = states["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    if "numpy" in states and (numpy := sys.modules.get("numpy")):
        kind, words, *rest = states["numpy"]
        numpy.random.set_state((kind, words.numpy().astype("uint32"), *rest))
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    if device.type == "mps":
        torch.mps.set_rng_state(states["mps"])


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
