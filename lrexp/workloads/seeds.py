"""Every random number of an experiment starts here: a seed and the role it plays.

Roles are hashed, not added, so that neighbouring seeds and epochs share nothing. The order of an
epoch is a pure function of (seed, epoch), so nothing about it has to be saved. Code of the user
draws from seeded global generators, and the caller finds its own where it left them.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *roles: object) -> int:
    """Return a seed of 63 bits for one role of `seed`.

    The first 8 bytes of sha256("seed/role/role/..."), without the sign bit.

    Args:
        seed: the seed of a trial, any whole number.
        roles: what the numbers are for, e.g. `"order", epoch`; compared by their text.

    Example:
        >>> derive_seed(0, "order", 3) == derive_seed(0, "order", 3) < 2**63
        True
    """
    text = "/".join(str(part) for part in (seed, *roles))
    first = hashlib.sha256(text.encode()).digest()[:8]
    return int.from_bytes(first, "big") & (2**63 - 1)


def permutation(seed: int, epoch: int, num_samples: int) -> torch.Tensor:
    """Return the order in which `seed` visits the samples in `epoch`, (num_samples,), int64, CPU.

    Example:
        >>> sorted(permutation(0, 0, 4).tolist())
        [0, 1, 2, 3]
    """
    import torch

    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(num_samples, generator=generator)


T = TypeVar("T")


def reseed(seed: int, generators: Sequence[torch.Generator] = ()) -> None:
    """Seed the global generators (CPU) of torch, Python and, where imported, numpy.

    Args:
        seed: 0 <= seed < 2**63.
        generators: further torch generators to seed, e.g. a sampler's own.
    """
    import torch

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
    import torch

    numpy = sys.modules.get("numpy")
    return (
        torch.default_generator.get_state(),
        random.getstate(),
        numpy.random.get_state() if numpy else None,
        [generator.get_state() for generator in generators],
    )


def _restore(state: tuple[Any, ...], generators: Sequence[torch.Generator]) -> None:
    import torch

    of_torch, of_python, of_numpy, of_generators = state
    torch.default_generator.set_state(of_torch)
    random.setstate(of_python)
    if of_numpy is not None:
        sys.modules["numpy"].random.set_state(of_numpy)
    for generator, own in zip(generators, of_generators, strict=True):
        generator.set_state(own)
