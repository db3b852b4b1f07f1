"""What the mean that a loss returns is taken over: the calls of torch's losses inside it tell.

A mean over a split is that of its batches, each weighed by what its own mean is over: samples,
numbers, or the targets that count. It does not matter who calls the loss: a config, a function of
the user's own, or the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Count: TypeAlias = Tensor | int

OF_CLASSES = ("cross_entropy", "nll_loss")  # a mean over targets that count, by their weights
OF_SAMPLES = (
    "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss",
    "cosine_embedding_loss", "triplet_margin_loss", "margin_ranking_loss", "ctc_loss",
)  # fmt: skip
OF_NUMBERS = (
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "kl_div", "poisson_nll_loss", "gaussian_nll_loss",
    "soft_margin_loss", "hinge_embedding_loss",
)  # fmt: skip


@dataclass(frozen=True)
class LossCall:
    """A call of one of torch's losses."""

    name: str
    arguments: dict[str, Any]

    @property
    def ignored(self) -> int | None:
        """Return the class number that marks targets that do not count."""
        return self.arguments.get("ignore_index") if self.name in OF_CLASSES else None

    @property
    def count(self) -> Count | None:
        """Return what the mean is over; None where it is over samples, or no mean is taken."""
        if self.arguments.get("reduction", "mean") != "mean" or self.name in OF_SAMPLES:
            return None
        output: Tensor = self.arguments["input"]
        target: Tensor = self.arguments["target"]
        if self.name in OF_NUMBERS:
            return int(output.numel())
        if target.is_floating_point():  # shares of the classes
            return int(output.numel() // output.shape[min(1, output.dim() - 1)])
        counts: Tensor = target != self.arguments["ignore_index"]
        weight: Tensor | None = self.arguments["weight"]
        if weight is None:
            return counts.sum()
        return (weight[torch.where(counts, target, 0)] * counts).sum()


class _SeenError(Exception):
    """Ends a loss where it calls one of torch's."""


class LossCalls(TorchFunctionMode):
    """Notes the calls of torch's losses; not of those inside them.

    Args:
        is_peeking: end at the first of them, before it computes anything.
    """

    def __init__(self, *, is_peeking: bool = False) -> None:
        super().__init__()
        self.calls: list[LossCall] = []
        self._is_peeking = is_peeking

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch."""
        kwargs = kwargs or {}
        if func in _signatures():
            bound = _signatures()[func].bind(*args, **kwargs)
            bound.apply_defaults()
            self.calls.append(LossCall(func.__name__, bound.arguments))
            if self._is_peeking:
                raise _SeenError
        return func(*args, **kwargs)

    def only(self) -> LossCall | None:
        """Return the call, if there was one and no other."""
        return self.calls[0] if len(self.calls) == 1 else None

    def count(self, samples: int) -> Count:
        """Return what the mean is over: samples, where that does not show."""
        call = self.only()
        count = None if call is None else call.count
        return samples if count is None else count


def first_call(loss: Callable[..., Any], *arguments: Any) -> LossCall | None:
    """Return the first of torch's losses that a loss calls, before this computes anything.

    Example:
        >>> loss = torch.nn.CrossEntropyLoss(ignore_index=0)
        >>> first_call(loss, torch.zeros(2, 3), torch.tensor([0, 1])).ignored
        0
    """
    with suppress(Exception), LossCalls(is_peeking=True) as seen:  # what is wrong shows later
        loss(*arguments)
    return seen.calls[0] if seen.calls else None


@cache
def _signatures() -> dict[Callable[..., Any], inspect.Signature]:
    losses = [getattr(functional, name) for name in OF_CLASSES + OF_SAMPLES + OF_NUMBERS]
    return {loss: inspect.signature(loss) for loss in losses}
