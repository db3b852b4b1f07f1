"""Which parameters and buffers a training step changes, and how: in place or by replacing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.engine.probing.fingerprint import version


class Watch:
    """Follows the parameters and buffers of a model through updates.

    Attributes:
        mutated_buffers: names of buffers changed in place so far.
        mutated_parameters: names of parameters changed by anyone but the optimizer.
        reassigned: names of both that became other tensors, or that came or went.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model = model
        self.mutated_buffers: set[str] = set()
        self.mutated_parameters: set[str] = set()
        self.reassigned: set[str] = set()
        self._buffers = _snapshot(dict(model.named_buffers()))
        self._parameters = _snapshot(dict(model.named_parameters()))
        optimizer.register_step_pre_hook(lambda *_: self._before_step())

    def _before_step(self) -> None:
        self.mutated_parameters |= self._compare(
            self._parameters, dict(self._model.named_parameters())
        )

    def after_update(self) -> None:
        """Look at the buffers, and take the parameters as the optimizer left them for the next."""
        self.mutated_buffers |= self._compare(self._buffers, dict(self._model.named_buffers()))
        parameters = dict(self._model.named_parameters())
        self.reassigned |= _replaced(self._parameters, parameters)
        self._buffers = _snapshot(dict(self._model.named_buffers()))
        self._parameters = _snapshot(parameters)

    def after_evaluation(self) -> None:
        """Look at everything once more."""
        self._before_step()
        self.after_update()

    def _compare(self, before: dict[str, _Seen], now: Mapping[str, Tensor]) -> set[str]:
        gone = _replaced(before, now)
        self.reassigned |= gone
        return {name for name, seen in before.items() if name not in gone and seen.changed()}


@dataclass(frozen=True, eq=False)
class _Seen:
    """A tensor and what it was."""

    tensor: Tensor
    version: int | None
    value: Tensor

    def changed(self) -> bool:
        if version(self.tensor) != self.version or self.tensor.shape != self.value.shape:
            return True
        now, then = self.tensor.detach(), self.value  # `tensor.data = ...` has no new version
        return not bool(((now == then) | (now.isnan() & then.isnan())).all())


def _snapshot(tensors: Mapping[str, Tensor]) -> dict[str, _Seen]:
    return {name: _Seen(t, version(t), t.detach().clone()) for name, t in tensors.items()}


def _replaced(before: dict[str, _Seen], now: Mapping[str, Tensor]) -> set[str]:
    return {
        name
        for name in before.keys() | now.keys()
        if name not in before or name not in now or before[name].tensor is not now[name]
    }
