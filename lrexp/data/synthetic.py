"""Data made by a formula: the best possible loss is known, and size and noise can be chosen.

The numbers depend on `data.args.seed` alone, not on the seeds of the trials, which all train on
the same data.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lrexp.data.argument_checks import raise_any, wrong_count, wrong_number
from lrexp.data.seeds import derive_seed
from lrexp.data.table import Rows, Table
from lrexp.errors import Problem

if TYPE_CHECKING:
    import torch


def linear(samples: int = 1000, features: int = 10, noise: float = 0.1, seed: int = 0) -> Table:
    """Return a linear regression, y = x·w + noise, with x and w from N(0, 1).

    The best mean squared error is noise².

    Args:
        samples: at least 2.
        features: at least 1.
        noise: standard deviation of the noise, 0 or more.
        seed: of w, x and noise, 0 or more.

    Example:
        >>> linear(samples=100, features=3).inputs.shape
        torch.Size([100, 3])
    """
    linear_rows(samples, features, noise, seed)
    generator = _generator(seed, "linear")
    weights = _normal((features, 1), generator)
    inputs = _normal((samples, features), generator)
    return Table(inputs, inputs @ weights + noise * _normal((samples, 1), generator))


def linear_rows(samples: int = 1000, features: int = 10, noise: float = 0.1, seed: int = 0) -> Rows:
    """Return how many there are; the arguments are those of `linear`."""
    raise_any(*_wrong(samples, noise, seed), wrong_count("data.args.features", features))
    return Rows(samples)


def sine(samples: int = 1000, noise: float = 0.1, seed: int = 0) -> Table:
    """Return one period of a sine, y = sin(πx) + noise, with x uniform in [-1, 1).

    Args:
        samples: at least 2.
        noise: standard deviation of the noise, 0 or more.
        seed: of x and noise, 0 or more.

    Example:
        >>> sine(samples=100).targets.shape
        torch.Size([100, 1])
    """
    import torch

    sine_rows(samples, noise, seed)
    generator = _generator(seed, "sine")
    inputs = 2 * torch.rand(samples, 1, generator=generator, dtype=torch.float64) - 1
    return Table(inputs, torch.sin(math.pi * inputs) + noise * _normal((samples, 1), generator))


def sine_rows(samples: int = 1000, noise: float = 0.1, seed: int = 0) -> Rows:
    """Return how many there are; the arguments are those of `sine`."""
    raise_any(*_wrong(samples, noise, seed))
    return Rows(samples)


def spirals(classes: int = 3, samples: int = 1500, noise: float = 0.02, seed: int = 0) -> Table:
    """Return spiral arms around the origin, one per class, each of one turn.

    Sample i is of class c = i mod classes. The k-th of an arm's m samples lies at r = k/m,
    θ = 2π(r + c/classes), with noise on both coordinates.

    Args:
        classes: arms, at least 2.
        samples: over all arms, at least one for each.
        noise: standard deviation of the noise, 0 or more; the arms are 1/classes apart.
        seed: of the noise, 0 or more.

    Example:
        >>> spirals(classes=2, samples=100).inputs.shape
        torch.Size([100, 2])

    Source:
        The spiral data of Stanford's CS231n, there with noise on the angle.
    """
    import torch

    spirals_rows(classes, samples, noise, seed)
    number = torch.arange(samples)
    labels = number % classes
    on_arm = (samples - 1 - labels) // classes + 1  # samples of the same class
    radius = (number // classes + 1).double() / on_arm
    angle = 2 * math.pi * (radius + labels / classes)
    arms = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)  # (samples, 2)
    generator = _generator(seed, "spirals")
    return Table(arms + noise * _normal((samples, 2), generator), labels, num_classes=classes)


def spirals_rows(classes: int = 3, samples: int = 1500, noise: float = 0.02, seed: int = 0) -> Rows:
    """Return how many there are; the arguments are those of `spirals`."""
    raise_any(*_wrong(samples, noise, seed), wrong_count("data.args.classes", classes, at_least=2))
    raise_any(wrong_count("data.args.samples", samples, at_least=classes))
    return Rows(samples)


def _wrong(samples: object, noise: object, seed: object) -> list[Problem | None]:
    return [
        wrong_count("data.args.samples", samples, at_least=2),
        wrong_number("data.args.noise", noise, at_least=0),
        wrong_count("data.args.seed", seed, at_least=0),
    ]


def _generator(seed: int, name: str) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, "data", name))


def _normal(shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    import torch

    return torch.randn(shape, generator=generator, dtype=torch.float64)
