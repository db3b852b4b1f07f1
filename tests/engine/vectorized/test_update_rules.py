"""Coefficients: each copy's and each step's own, whatever else is in the table."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lrexp.engine.vectorized.update_rules import RULES, hard_flags, numbers_of, soft_flags

ARGS = {
    torch.optim.SGD: {"momentum": 0.9, "weight_decay": 0.1},
    torch.optim.Adam: {"betas": (0.87, 0.993)},
    torch.optim.AdamW: {"betas": (0.87, 0.993), "weight_decay": 0.1},
    torch.optim.RAdam: {"betas": (0.87, 0.993)},
    torch.optim.RMSprop: {"alpha": 0.97, "momentum": 0.9},
    torch.optim.Adagrad: {"lr_decay": 0.01},
}


def table(cls: type[torch.optim.Optimizer], copies: int, first: int, steps: int) -> np.ndarray:
    """All coefficients of some steps, (coefficients, steps, copies)."""
    optimizer = cls([torch.nn.Parameter(torch.ones(1))], lr=0.1, **ARGS[cls])
    group = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    numbers = numbers_of([group] * copies)
    flags = hard_flags(group, optimizer) | soft_flags(numbers) | {"cycles": False}
    t = np.arange(first + 1, first + 1 + steps, dtype=np.float64)[:, None]
    lr = np.broadcast_to(0.1 / t, (steps, copies))
    momentum = np.broadcast_to(numbers["momentum"], (steps, copies))
    return np.stack(RULES[cls].coefficients(numbers, flags, lr, momentum, t))


def test_every_rule_is_here() -> None:
    assert ARGS.keys() == RULES.keys()


@pytest.mark.parametrize("cls", ARGS)
def test_bits_depend_neither_on_the_other_copies_nor_on_where_the_table_begins(
    cls: type[torch.optim.Optimizer],
) -> None:
    whole = table(cls, 9, 0, 20_000)
    for copies, first, steps in (
        (1, 0, 600),
        (2, 3, 200),
        (5, 17, 100),
        (9, 256, 256),
        (7, 599, 1),
    ):
        part = table(cls, copies, first, steps)
        for column in range(copies):
            np.testing.assert_array_equal(part[:, :, column], whole[:, first : first + steps, 0])
