"""Range-test curves whose landmarks are known, in closed form."""

from __future__ import annotations

import numpy as np

from lrexp.analysis.range_curve import Curve

Array = np.ndarray


def ramp_lrs(steps: int = 100, low: float = -7.0, high: float = 1.0) -> Array:
    return np.logspace(low, high, steps)


def sigmoid_valley(lr: Array, steepest: float = 1e-3, edge: float = 1e-1) -> Array:
    """Fall from 1 to 0 with the steepest point at `steepest`; blow up above `edge`."""
    x = np.log10(lr)
    fall = 1 / (1 + np.exp((x - np.log10(steepest)) / 0.25))
    return fall + np.maximum(0.0, 10 ** (2 * (x - np.log10(edge))) - 1)


def parabola_valley(lr: Array, minimum: float = 1e-2) -> Array:
    """Fall from 1, flat until two decades below `minimum`, to 0 there, and rise as it fell."""
    return np.minimum(1.0, ((np.log10(lr) - np.log10(minimum)) / 2) ** 2) + np.maximum(
        0.0, np.log10(lr) - np.log10(minimum) - 2
    )


def noisy(loss: Array, sd: float, seed: int) -> Array:
    return loss + sd * np.random.default_rng(seed).normal(size=len(loss))


def seeds_of(lr: Array, loss: Array, sd: float, count: int = 3, first: int = 0) -> list[Curve]:
    return [Curve(lr, noisy(loss, sd, seed)) for seed in range(first, first + count)]


def quadratic_range_test(lr: Array, curvatures: Array) -> Array:
    """Loss `½ Σ λ w²` before every step of gradient descent from w = 1: w ← (1 − lr·λ) w."""
    factors = 1 - lr[:, None] * curvatures[None, :]  # (steps, dimensions)
    with np.errstate(over="ignore"):
        weights = np.vstack([np.ones_like(curvatures), np.cumprod(factors, axis=0)[:-1]])
        return 0.5 * (curvatures * weights**2).sum(axis=1)


def decades(a: float, b: float) -> float:
    """Return how far apart two LRs are."""
    return abs(float(np.log10(a / b)))
