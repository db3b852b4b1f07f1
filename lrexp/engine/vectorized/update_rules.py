"""Optimizers for K copies at once: each with its own LR, momentum, betas, weight decay.

The parameters of a group lie side by side as (copies, numbers). What differs from copy to copy or
from step to step is a coefficient, computed ahead on the host in double precision; what is left on
the device is a handful of elementwise operations without a branch. The formulas are those of
torch.optim; state begins at zero, as there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

Table: TypeAlias = NDArray[np.float64]  # (steps, copies)
Numbers: TypeAlias = Mapping[str, NDArray[np.float64]]  # name -> (copies,)
Flags: TypeAlias = Mapping[str, bool]


@dataclass(frozen=True)
class UpdateRule:
    """One optimizer.

    Args:
        num_states: flags -> tensors of state per group.
        coefficients: (numbers, flags, lr, momentum, t) -> tables; t is (steps, 1), from 1.
        apply: (flags, parameters, gradient, states, coefficients), all in place; the gradient may
            be overwritten. Shapes (copies, numbers) and, for coefficients, (copies, 1).
        first_state: the number that the states begin with; None for zero.
    """

    num_states: Callable[[Flags], int]
    coefficients: Callable[[Numbers, Flags, Table, Table, Table], list[Table]]
    apply: Callable[[Flags, Tensor, Tensor, Sequence[Tensor], Sequence[Tensor]], None]
    first_state: str | None = None


def hard_flags(group: Mapping[str, Any], optimizer: Optimizer) -> dict[str, bool]:
    """Return the flags that copies must share to be updated together."""
    flags = {name: bool(group.get(name)) for name in _HARD}
    decoupled = isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay")
    return flags | {"decoupled": bool(decoupled)}


def soft_flags(numbers: Numbers) -> dict[str, bool]:
    """Return the flags that say whether any copy makes use of a number."""
    return {name: bool(numbers[name].any()) for name in _SOFT}


def numbers_of(groups: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """Return the numbers of the same parameter group of every copy, name -> (copies,)."""
    plain = [dict(group) for group in groups]
    for group in plain:
        if "betas" in group:
            group["momentum"], group["beta2"] = group["betas"]
    return {name: np.array([float(g.get(name, 0.0)) for g in plain]) for name in _NUMBERS}


_HARD = ("nesterov", "amsgrad", "centered", "maximize")
_SOFT = ("momentum", "dampening", "weight_decay")

_NUMBERS = (
    "lr", *_SOFT, "beta2", "eps", "alpha", "lr_decay", "initial_accumulator_value",
)  # fmt: skip


def _power(base: NDArray[np.float64], t: Table) -> Table:
    """Return base ** t, (steps, copies), each number computed on its own.

    numpy's power rounds by where a number lies in the table, so by the step at which the table
    begins: and after a checkpoint it begins at another.
    """
    steps = t[:, 0].tolist()
    found: dict[bytes, NDArray[np.float64]] = {}  # by column; most often all are equal
    powers = []
    for column in np.broadcast_to(base, (len(t), base.shape[-1])).T:
        key = column.tobytes()
        if key not in found:
            found[key] = np.array(_powers(column.tolist(), steps))
        powers.append(found[key])
    return np.stack(powers, axis=1)


def _powers(bases: Sequence[float], exponents: Sequence[float]) -> list[float]:
    try:
        return list(map(math.pow, bases, exponents))
    except OverflowError:  # a momentum above 1, which a schedule may give
        return [float(np.float64(b) ** e) for b, e in zip(bases, exponents, strict=True)]


def _decay(f: Flags, p: Tensor, g: Tensor, decay: Tensor) -> None:
    """Shrink the parameters (decoupled), or add their share to the gradient (L2)."""
    if f["weight_decay"]:
        if f["decoupled"]:
            p.mul_(decay)
        else:
            g.addcmul_(p, decay)


def _decay_coefficient(n: Numbers, f: Flags, lr: Table) -> Table:
    return 1 - lr * n["weight_decay"] if f["decoupled"] else 0 * lr + n["weight_decay"]


# SGD: m = μm + (1 − dampening) g, the first m = g; p −= η·m, or η (g + μm) with nesterov.


def _sgd_coefficients(n: Numbers, f: Flags, lr: Table, momentum: Table, t: Table) -> list[Table]:
    share = np.where((t == 1) | (momentum == 0), 1.0, 1.0 - n["dampening"])
    return [-lr, momentum, *_kept(f, momentum, share), 0 * lr + n["weight_decay"]]


def _kept(f: Flags, momentum: Table, share: Table) -> list[Table]:
    """Return what m keeps of itself and takes of the new, and what it shares in the step.

    A schedule that lets the momentum be 0 for a while: torch leaves m alone meanwhile.
    """
    if not f["cycles"]:
        return [momentum, share]
    away = momentum == 0
    return [np.where(away, 1.0, momentum), np.where(away, 0.0, share), np.where(away, 0.0, 1.0)]


def _sgd(f: Flags, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Sequence[Tensor]) -> None:
    minus_lr, momentum, kept, share, *present, weight_decay = c
    _decay(f, p, g, weight_decay)
    if not f["momentum"]:
        p.addcmul_(g, minus_lr)
        return
    m, scaled = state[0], f["dampening"] or f["cycles"]
    torch.addcmul(g * share if scaled else g, m, kept, out=m)
    if f["nesterov"]:
        p.addcmul_(g.addcmul_(m, momentum), minus_lr)  # g itself where the momentum is 0
    elif present:
        p.addcmul_(torch.lerp(g, m, present[0]), minus_lr)
    else:
        p.addcmul_(m, minus_lr)


# Adam: m and v average g and g²; p −= η/(1 − β1^t) · m / (√v/√(1 − β2^t) + ε); AdamW p ·= 1 − ηλ.


def _adam_coefficients(n: Numbers, f: Flags, lr: Table, beta1: Table, t: Table) -> list[Table]:
    step = -lr / (1 - _power(beta1, t))
    scale = 1 / np.sqrt(1 - _power(n["beta2"], t))
    decay = _decay_coefficient(n, f, lr)
    return [step, scale, 1 - beta1, 0 * lr + 1 - n["beta2"], 0 * lr + n["eps"], decay]


def _adam(f: Flags, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Sequence[Tensor]) -> None:
    step, scale, one_minus_beta1, one_minus_beta2, eps, decay = c
    m, v = state[:2]
    _decay(f, p, g, decay)
    m.lerp_(g, one_minus_beta1)
    v.lerp_(g.mul_(g), one_minus_beta2)
    if f["amsgrad"]:
        v = torch.maximum(state[2], v, out=state[2])
    root = torch.sqrt(v, out=g).mul_(scale).add_(eps)
    p.addcmul_(torch.div(m, root, out=g), step)


# RAdam: as Adam without bias in v once its variance is tractable (ρ > 5), before that p −= η·m̂.


def _radam_coefficients(n: Numbers, f: Flags, lr: Table, beta1: Table, t: Table) -> list[Table]:
    beta2 = n["beta2"]
    power = _power(beta2, t)
    left, limit = 1 - power, 2 / (1 - beta2) - 1
    rho = limit - 2 * t * power / left
    tractable = rho > 5
    safe = np.where(tractable, rho, 6.0)
    top, bottom = (safe - 4) * (safe - 2) * limit, (limit - 4) * (limit - 2) * safe
    rectified = np.sqrt(top / bottom) * np.sqrt(left)
    step = -lr / (1 - _power(beta1, t))
    plain, scaled = np.where(tractable, 0.0, step), np.where(tractable, step * rectified, 0.0)
    decay = _decay_coefficient(n, f, lr)
    return [plain, scaled, 1 - beta1, 0 * lr + 1 - beta2, 0 * lr + n["eps"], decay]


def _radam(f: Flags, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Sequence[Tensor]) -> None:
    plain, scaled, one_minus_beta1, one_minus_beta2, eps, decay = c
    m, v = state
    _decay(f, p, g, decay)
    m.lerp_(g, one_minus_beta1)
    v.lerp_(g.mul_(g), one_minus_beta2)
    factor = torch.div(scaled, torch.sqrt(v, out=g).add_(eps), out=g).add_(plain)
    p.addcmul_(m, factor)


# RMSprop: v is the average of g²; p −= η·g/(√v + ε), with momentum m = μm + g/(√v + ε), p −= η·m.


def _rmsprop_coefficients(n: Numbers, f: Flags, lr: Table, mu: Table, t: Table) -> list[Table]:
    plain = [0 * lr + x for x in (1 - n["alpha"], n["eps"], n["weight_decay"])]
    return [-lr, *plain, *_kept(f, mu, np.ones_like(mu))]


def _rmsprop(f: Flags, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Sequence[Tensor]) -> None:
    minus_lr, one_minus_alpha, eps, weight_decay, kept, share, *present = c
    _decay(f, p, g, weight_decay)
    v, *others = state
    v.lerp_(g * g, one_minus_alpha)
    spread = v
    if f["centered"]:
        mean = others.pop().lerp_(g, one_minus_alpha)
        spread = torch.addcmul(v, mean, mean, value=-1)
    step = g.div_(spread.sqrt().add_(eps))
    if f["momentum"]:
        m = others.pop()
        torch.addcmul(step * share if present else step, m, kept, out=m)
        step = torch.lerp(step, m, present[0]) if present else m
    p.addcmul_(step, minus_lr)


# Adagrad: s += g²; p −= η/(1 + (t − 1)·decay) · g/(√s + ε).


def _adagrad_coefficients(n: Numbers, f: Flags, lr: Table, _: Table, t: Table) -> list[Table]:
    decayed = -lr / (1 + (t - 1) * n["lr_decay"])
    return [decayed, 0 * lr + n["eps"], 0 * lr + n["weight_decay"]]


def _adagrad(f: Flags, p: Tensor, g: Tensor, state: Sequence[Tensor], c: Sequence[Tensor]) -> None:
    minus_lr, eps, weight_decay = c
    _decay(f, p, g, weight_decay)
    total = state[0].addcmul_(g, g)
    p.addcmul_(g.div_(total.sqrt().add_(eps)), minus_lr)


_ADAM = UpdateRule(
    num_states=lambda flags: 3 if flags["amsgrad"] else 2,
    coefficients=_adam_coefficients,
    apply=_adam,
)

RULES: dict[type[Optimizer], UpdateRule] = {
    torch.optim.SGD: UpdateRule(
        num_states=lambda flags: int(flags["momentum"]),
        coefficients=_sgd_coefficients,
        apply=_sgd,
    ),
    torch.optim.Adam: _ADAM,
    torch.optim.AdamW: _ADAM,
    torch.optim.RAdam: UpdateRule(
        num_states=lambda flags: 2,
        coefficients=_radam_coefficients,
        apply=_radam,
    ),
    torch.optim.RMSprop: UpdateRule(
        num_states=lambda flags: 1 + flags["centered"] + flags["momentum"],
        coefficients=_rmsprop_coefficients,
        apply=_rmsprop,
    ),
    torch.optim.Adagrad: UpdateRule(
        num_states=lambda flags: 1,
        coefficients=_adagrad_coefficients,
        apply=_adagrad,
        first_state="initial_accumulator_value",
    ),
}
