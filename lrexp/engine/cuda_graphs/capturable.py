"""Whether a training step can be captured as a CUDA graph and replayed faithfully.

A replay runs no Python code. So a step whose code decides, counts or draws random numbers on the
host, or waits for the device, has to stay eager.
"""

from __future__ import annotations

import inspect
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim import optimizer as hooks_of_torch

from lrexp.engine.task import Task
from lrexp.schedules.schedule import Schedule

# A capture costs 10 ms, or 100 where torch collects garbage before it; a replay saves about 0.3.
FEWEST_STEPS = 200
# Their fused kernels read the LR, and Adam's the step count, from device memory. The foreach and
# single-tensor SGD read a tensor LR with item(), which a capture forbids.
_OPTIMIZERS = (SGD, Adam, AdamW)


def why_not_capturable(
    task: Task, model: nn.Module, optimizer: Optimizer, fewest_steps: int = FEWEST_STEPS
) -> str | None:
    """Return why a task's updates are not captured, as far as that can be told beforehand."""
    if task.device.type != "cuda":
        return "it does not train on a GPU"
    if task.total_steps < fewest_steps:
        return "it is too short"
    if isinstance(task.schedule, Schedule) and task.schedule.momentum is not None:
        # torch's fused kernels take momentum and betas as numbers: a replay repeats them
        return "its schedule changes the momentum"
    if task.make_scaler is not None:
        return "its scaler reads gradients on the host"
    if torch.is_autocast_enabled(task.device.type):
        return "autocast is on around it, which may keep casts of old weights"
    return why_not_optimizer(optimizer) or why_not_model(model)


def why_not_optimizer(optimizer: Optimizer) -> str | None:
    """Return why an optimizer's step cannot be captured with an LR that changes, if it cannot."""
    if type(optimizer) not in _OPTIMIZERS:
        return "its optimizer is another than SGD, Adam and AdamW"
    if (
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or hooks_of_torch._global_optimizer_pre_hooks
        or hooks_of_torch._global_optimizer_post_hooks
    ):
        return "hooks are registered on its optimizer"
    for group in optimizer.param_groups:
        if not group.get("fused") or group.get("differentiable"):
            return "its optimizer does not use a fused kernel"
        if any(isinstance(number, Tensor) for number in _numbers(group)):
            return "its optimizer has tensors for numbers"
        if any(parameter.dtype is torch.float64 for parameter in group["params"]):
            return "it trains in float64, and captured kernels read the LR as float32"
    return None


def why_not_model(model: nn.Module) -> str | None:
    """Return why a model's forward and backward cannot be captured, if its modules tell that."""
    for module in model.modules():
        if isinstance(module, nn.RNNBase) and module.dropout:
            # cuDNN keeps the generator of these masks in memory that a seed does not reach
            return "dropout between recurrent layers is not reseeded by a replay"
        if isinstance(module, (torch.jit.ScriptModule, nn.DataParallel)):
            return f"it holds a {type(module).__name__}"
        if type(module).__name__ == "OptimizedModule":  # of torch.compile
            return "it is compiled"
        if any(
            hooks
            for name, hooks in vars(module).items()
            if name.endswith("_hooks") and "state_dict" not in name
        ):
            return "hooks are registered on it"
    for parameter in model.parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            return "hooks are registered on its parameters"
    return None


class Watch:
    """Compares what an update of a task leaves behind, apart from its tensors' numbers.

    Made right before the update.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        self._task, self._model = task, model
        self._waited = False
        self._before = self._state()

    @contextmanager
    def synchronisations(self) -> Iterator[None]:
        """Notice when the block waits for the device; other warnings are given after it."""
        if self._task.device.type != "cuda":
            yield
            return
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        for warning in caught:
            if "called a synchronizing CUDA operation" in str(warning.message):
                self._waited = True
            elif "Synchronization debug mode is a prototype" not in str(warning.message):
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )

    def why_it_waits(self) -> str | None:
        """Return what the block of `synchronisations` did that a capture forbids."""
        return "it waits for the device in every step" if self._waited else None

    def what_changed(self) -> str | None:
        """Return what the update changed that a replay would not change."""
        tensors, attributes, drawn = self._before
        tensors_now, attributes_now, drawn_now = self._state()
        if attributes is None or attributes_now is None:
            return "its attributes cannot be compared"
        if list(map(id, tensors)) != list(map(id, tensors_now)):
            return "its forward replaces a buffer by another tensor"
        for name in dict.fromkeys((*attributes, *attributes_now)):
            if attributes.get(name) != attributes_now.get(name):
                return f"the attribute `{name[1]}` changes in every step"
        if drawn != drawn_now:
            return "it draws random numbers on the host"
        return None

    def _state(self) -> tuple[list[Any], dict[tuple[str, str], Any] | None, Any]:
        tensors = [*self._model.parameters(), *self._model.buffers()]
        numpy = sys.modules.get("numpy")
        drawn = (
            random.getstate(),
            repr(numpy.random.get_state(legacy=False)) if numpy else None,
            torch.default_generator.get_state().tolist(),
        )
        try:
            return tensors, _attributes(self._model, self._task.objective.loss), drawn
        except Exception:  # objects of the user's code may raise anything when looked at
            return tensors, None, drawn


def _attributes(model: nn.Module, loss: Any) -> dict[tuple[str, str], Any]:
    """Return what modules, and the loss, keep in plain attributes, as far as its text shows it."""
    of_torch = set(vars(nn.Module())) - {"training"}
    loss = inspect.unwrap(loss)
    modules = [*model.named_modules()]
    if isinstance(loss, nn.Module):
        modules += loss.named_modules(prefix="loss")
    held = [
        (path, name, value)
        for path, module in modules
        for name, value in vars(module).items()
        if name not in of_torch
    ]
    if inspect.isfunction(loss):
        held += [("loss", *item) for item in inspect.getclosurevars(loss).nonlocals.items()]
    elif not isinstance(loss, nn.Module):
        held += [("loss", *item) for item in getattr(loss, "__dict__", {}).items()]
    return {(path, name): _mark(value) for path, name, value in held}


def _mark(value: Any) -> Any:
    if isinstance(value, Tensor):
        return id(value), None if value.is_inference() else value._version
    return repr(value)


def _numbers(group: dict[str, Any]) -> list[Any]:
    betas = group.get("betas", ())
    return [group["lr"], group["weight_decay"], group.get("momentum"), *betas]
