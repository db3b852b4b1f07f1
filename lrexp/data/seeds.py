"""Every random number of an experiment starts here: a seed and the role it plays.

Roles are hashed, not added, so that neighbouring seeds and neighbouring epochs share nothing.
The order of an epoch is thereby a pure function of (seed, epoch): nothing about it has to be
saved to continue in the middle of an epoch, and every variant of a seed sees the same batches.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

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
