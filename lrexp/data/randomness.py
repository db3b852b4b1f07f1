"""Random numbers apart from the caller's.

User datasets draw from the global generators of torch, Python and numpy. Here they get seeded
ones while they run, and afterwards the caller finds its own where it left them: loading data must
not change the dropout masks of the training around it.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def reseed(seed: int, generators: Sequence[torch.Generator] = ()) -> None:
    """Seed the global generators (CPU) of torch, Python and, where imported, numpy.

    Args:
        seed: 0 <= seed < 2**63.
        generators: further torch generators to seed, e.g. a sampler's own.
    """
    # Not torch.manual_seed: that also reseeds CUDA, which the training around us is using.
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed % 2**32)
    for generator in generators:
        generator.manual_seed(seed)


@contextmanager
def random_state_kept(generators: Sequence[torch.Generator] = ()) -> Iterator[None]:
    """Put every global generator (and `generators`) back to its present state at the end."""
    state = _captured(generators)
    try:
        yield
    finally:
        _restore(state, generators)


def drawn_apart(
    make: Callable[[], Iterable[T]], seed: int, generators: Sequence[torch.Generator] = ()
) -> Iterator[T]:
    """Yield the items of `make()`, whose random numbers start at `seed` and are its own.

    Between two items the caller's generators stand where the caller left them, and the items do
    not depend on what the caller draws.
    """
    with random_state_kept(generators):
        reseed(seed, generators)
        iterator = iter(make())
        inside = _captured(generators)
    while True:
        with random_state_kept(generators):
            _restore(inside, generators)
            try:
                item = next(iterator)
            except StopIteration:
                return
            inside = _captured(generators)
        yield item


def _captured(generators: Sequence[torch.Generator]) -> tuple[Any, ...]:
    numpy = sys.modules.get("numpy")
    return (
        torch.default_generator.get_state(),
        random.getstate(),
        numpy.random.get_state() if numpy else None,
        [generator.get_state() for generator in generators],
    )


def _restore(state: tuple[Any, ...], generators: Sequence[torch.Generator]) -> None:
    of_torch, of_python, of_numpy, of_generators = state
    torch.default_generator.set_state(of_torch)
    random.setstate(of_python)
    if of_numpy is not None:
        sys.modules["numpy"].random.set_state(of_numpy)
    for generator, own in zip(generators, of_generators, strict=True):
        generator.set_state(own)
