"""Any class of torch.optim.lr_scheduler as a pure function of the step.

A torch scheduler can only be stepped forward, and it changes its optimizer. So it is stepped on a
stand-in optimizer, the values are kept in a table that grows as far as is asked, and the real
optimizer is never touched. This is the only module of the package that imports torch.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch.optim import lr_scheduler

from lrexp.errors import NOTHING, ConfigError, Problem, UserCodeError
from lrexp.schedules.controllers import Plateau, plateau
from lrexp.schedules.custom import checked_value
from lrexp.schedules.schedule import (
    FILLED,
    PerEpoch,
    Schedule,
    Steps,
    checked_schedule,
    ratios_of,
    set_lr,
    warmed,
)
from lrexp.schedules.signatures import (
    Count,
    Positive,
    Share,
    check_arguments,
    fits,
    named_parameters,
    require,
    under,
)

Interval = Literal["epoch", "step"]
_PER_STEP = ("OneCycleLR", "CyclicLR")  # stepped per batch in torch's documentation
# Filled in here, or meant for resuming by hand; `verbose` is deprecated and only warns.
_FILLED = {
    "optimizer": "the optimizer section",
    "last_epoch": "the step of the training",
    "verbose": "lrexp",
}

_INSTEAD = {
    "LambdaLR": "Use {name: lambda, function: package.module:name}, a function step -> factor.",
    "MultiplicativeLR": "Use {name: lambda, function: package.module:name}, step -> factor.",
    "SequentialLR": "Use {name: combined, parts: [...]}, or the warmup that every schedule takes.",
    "ChainedScheduler": "Use {name: combined, parts: [...]}, or one schedule with a warmup.",
}


def torch_class_names() -> list[str]:
    """Return the scheduler classes of the installed torch, the ones without a config form too."""
    return [
        name
        for name, value in vars(lr_scheduler).items()
        if not name.startswith("_") and name != "LRScheduler" and is_scheduler(value)
    ]


def torch_class(name: str) -> type | None:
    """Return the scheduler class of that name, None where there is none."""
    return getattr(lr_scheduler, name) if name in torch_class_names() else None


def is_scheduler(value: object) -> bool:
    """Whether `value` is a class of torch schedulers, a user's own included."""
    return isinstance(value, type) and issubclass(value, lr_scheduler.LRScheduler)


def is_plateau(scheduler: type) -> bool:
    """Whether the class reacts to a metric, and so needs `torch_plateau`."""
    return issubclass(scheduler, lr_scheduler.ReduceLROnPlateau)


def torch_problems(scheduler: type, args: Mapping[str, object]) -> list[Problem]:
    """Return what keeps the class, or its args, from being used from a config."""
    if scheduler.__name__ in _INSTEAD:
        rule = "takes Python objects, which a config cannot hold"
        return [Problem("name", rule, scheduler.__name__, _INSTEAD[scheduler.__name__])]
    if is_plateau(scheduler) and scheduler is not lr_scheduler.ReduceLROnPlateau:
        remedy = "Use plateau, or a controller of your own."
        return [Problem("name", "is a subclass of ReduceLROnPlateau", scheduler.__name__, remedy)]
    peak = {"max_lr": 1.0} if scheduler.__name__ in _PER_STEP else {}  # η, see `_completed`
    title, given = scheduler.__name__, {**peak, **args}
    known = named_parameters(scheduler)
    per_group = [
        Problem(name, "must be one value", value, "Each group scales it by its own lr_scale.")
        for name, value in args.items()
        if isinstance(value, list) and name in known and fits(1.0, known[name].annotation)
    ]
    if per_group:  # a list is one value per group of the optimizer
        return under("args", per_group)
    problems = check_arguments(scheduler, given, title=title, filled=_FILLED, finite=True)
    if is_plateau(scheduler) and not problems:  # `plateau` has the ranges, torch only the types
        problems = check_arguments(plateau, args, title=title, automatic=FILLED, finite=True)
    return under("args", problems)


@checked_schedule
def torch_schedule(
    lr: Positive,
    total_steps: Count,
    scheduler: type,
    steps_per_epoch: PerEpoch,
    *,
    args: dict[str, Any] | None = None,
    interval: Interval | None = None,
    warmup: Steps = 0,
    warmup_start: Share | None = None,
) -> Schedule:
    """The LR that this class gives after k calls of `step()`, k = s or the epochs begun before s.

    Epochs and steps count from the start of training; a warmup replaces the first W steps. The LR
    of step T − 1 is held from T on (several classes rise again, or raise, after their end).

    Args:
        scheduler: the class.
        steps_per_epoch: None where the data has no length.
        args: its arguments but for the optimizer. Where OneCycleLR and CyclicLR are given no
            max_lr it is η (one that is given is absolute), and OneCycleLR knows the total_steps.
        interval: epoch or step; step for OneCycleLR and CyclicLR, else epoch by default.

    Raises:
        ConfigError: the class refuses the args, or ends before the training does.
        UserCodeError: on evaluation, where the class raises or gives no LR.

    Example:
        >>> args = {"step_size": 2, "gamma": 0.5}
        >>> s = torch_schedule(1.0, 12, lr_scheduler.StepLR, 3, args=args)
        >>> [s(i) for i in (0, 5, 6, 11)]
        [1.0, 1.0, 0.5, 0.5]
    """
    kind = interval or ("step" if scheduler.__name__ in _PER_STEP else "epoch")
    per_epoch = steps_per_epoch
    if callable(per_epoch):
        per_epoch = per_epoch() if kind == "epoch" else None
    problems = torch_problems(scheduler, args or {})
    if kind == "epoch" and per_epoch is None:
        what = "epoch needs data with a length, whose steps per epoch are known"
        remedy = "Use interval: step, and count steps in args."
        problems.append(Problem("interval", what, kind, remedy))
    require(*problems)
    length = 1 if kind == "step" else per_epoch or 1
    last = (total_steps - 1) // length
    table = _Table(lr, scheduler, _completed(scheduler, args or {}, lr, last + 1))
    table.check(last)

    def values(step: int) -> tuple[float, float]:
        return table.values(min(step, total_steps - 1) // length)

    warm = warmed(lr, warmup, warmup_start, lambda step: values(step)[0])
    return Schedule(warm, (lambda step: values(step)[1]) if table.cycles_momentum else None)


@checked_schedule
def torch_plateau(
    lr: Positive,
    total_steps: Count,
    *,
    args: dict[str, Any] | None = None,
    monitor: str = "val_loss",
    warmup: Steps = 0,
    warmup_start: Share | None = None,
) -> Plateau:
    """ReduceLROnPlateau by its torch name: `plateau` with torch's defaults and `args`.

    It is stepped at every evaluation with the `monitor`.

    Example:
        >>> torch_plateau(0.1, 100, args={"patience": 3}).factor
        0.1
    """
    given = args or {}
    require(*torch_problems(lr_scheduler.ReduceLROnPlateau, given))
    known = named_parameters(lr_scheduler.ReduceLROnPlateau)
    # torch's default of mode is min; here it follows the monitor
    defaults = {n: p.default for n, p in known.items() if n not in (*_FILLED, "mode")}
    own: dict[str, Any] = {**defaults, **given}
    start: dict[str, Any] = {"warmup": warmup, "warmup_start": warmup_start}
    try:
        return plateau(lr, total_steps, monitor=monitor, **start, **own)
    except ConfigError as error:
        others = [p for p in error.problems if p.key not in own]
        in_args = under("args", [p for p in error.problems if p.key in own])
        raise ConfigError([*others, *in_args]) from None


class ScheduleLR(lr_scheduler.LRScheduler):
    """A schedule as a torch scheduler; see `Schedule.to_torch`."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule) -> None:
        self._schedule = schedule
        # of an optimizer that was loaded, the LRs that it began with
        lrs = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        given = float(optimizer.defaults.get("lr", 0.0))
        self._ratios = ratios_of(lrs, given if given in lrs and given > 0 else None)
        cycled = schedule.momentum is not None
        if cycled and not all({"momentum", "betas"} & {*g} for g in optimizer.param_groups):
            rule = f"has no momentum in {type(optimizer).__name__}, and the schedule cycles it"
            remedy = "Use another optimizer, or a schedule with cycle_momentum=False."
            raise ConfigError.single("optimizer", rule, NOTHING, remedy)
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the LR of each group at this step."""
        if self._schedule.momentum is not None:
            self._set_momentum(self._schedule.momentum(self.last_epoch))
        lr = self._schedule(self.last_epoch)
        return [lr * ratio for ratio in self._ratios]

    def state_dict(self) -> dict[str, Any]:
        """Return the step and the ratios of the groups; the schedule is code, and left out."""
        return {"last_epoch": self.last_epoch, "ratios": list(self._ratios)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from the step that `state_dict` wrote, and set the LRs of it."""
        if len(state_dict["ratios"]) != len(self._ratios):
            rule = f"must be {len(state_dict['ratios'])} as when saved"
            remedy = "Load it into an optimizer with the parameter groups it was saved with."
            raise ConfigError.single("param_groups", rule, len(self._ratios), remedy)
        self._ratios = list(state_dict["ratios"])
        self.last_epoch = state_dict["last_epoch"]
        self._last_lr = self.get_lr()
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            set_lr(group, float(lr))

    def _set_momentum(self, momentum: float) -> None:
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum


def _completed(
    scheduler: type, args: Mapping[str, Any], lr: float, num_values: int
) -> dict[str, Any]:
    """Return the args with what the training knows, for the classes that ask for it."""
    known: dict[str, Any] = {"max_lr": lr} if scheduler.__name__ in _PER_STEP else {}
    if scheduler.__name__ == "OneCycleLR" and not {"total_steps", "epochs"} & set(args):
        known["total_steps"] = num_values
    return {**known, **args}


class _Table:
    """LR and momentum after k steps of a torch scheduler, for k as far as was asked yet."""

    def __init__(self, lr: float, scheduler: type, args: Mapping[str, Any]) -> None:
        self._title = scheduler.__name__
        self._args = dict(args)
        parameter = torch.nn.Parameter(torch.zeros(1, device="cpu"))
        # momentum only for the classes that cycle it; nothing is ever optimized
        self._optimizer = torch.optim.SGD([parameter], lr=lr, momentum=0.9)
        try:
            self._scheduler = scheduler(self._optimizer, **args)
        except Exception as error:
            raise self._refusal(error) from None
        self._optimizer.step()  # torch warns about schedulers that step before their optimizer
        self.cycles_momentum = bool(getattr(self._scheduler, "cycle_momentum", False))
        self._lrs, self._momenta = array("d"), array("d")
        self._failure: UserCodeError | None = None

    def check(self, last: int) -> None:
        """Raise `ConfigError` where the first values fail or the class ends before `last`."""
        one_cycle = isinstance(self._scheduler, lr_scheduler.OneCycleLR)
        horizon = self._scheduler.total_steps if one_cycle else last + 1
        if horizon <= last:
            # torch takes total_steps, or else epochs × steps_per_epoch
            whole = self._args.get("total_steps") is not None
            key = "args.total_steps" if whole else "args.epochs"
            product = "" if whole else "epochs × steps_per_epoch "
            rule = f"{product}must be at least {last + 1}, the length of the training"
            remedy = "Raise it" if whole else "Raise one of them"
            remedy += f"; {self._title} cannot be stepped beyond it."
            raise ConfigError.single(key, rule, horizon, remedy)
        try:
            self.values(min(2, last))
        except UserCodeError as error:
            raise self._refusal(error.__cause__ or error) from None

    def values(self, index: int) -> tuple[float, float]:
        """Return LR and momentum after `index` steps."""
        while len(self._lrs) <= index:
            if self._failure is not None:  # what it would give next is anybody's guess
                raise self._failure
            try:
                self._append()
            except UserCodeError as error:
                self._failure = error
                raise
        return self._lrs[index], self._momenta[index]

    def _append(self) -> None:
        if self._lrs:
            try:
                self._scheduler.step()
            except Exception as error:
                message = f"{self._title} raised at its step {len(self._lrs)}: {error!r}"
                raise UserCodeError(message) from error
        group = self._optimizer.param_groups[0]
        lr = checked_value(group["lr"], len(self._lrs), self._title)
        self._momenta.append(float(group["momentum"]))
        self._lrs.append(lr)

    def _refusal(self, error: BaseException) -> ConfigError:
        rule = f"{self._title} refuses its arguments: {type(error).__name__}: {error}"
        remedy = "See the class in torch's documentation."
        return ConfigError.single("args", rule, self._args, remedy)
