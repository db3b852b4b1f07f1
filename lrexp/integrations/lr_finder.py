"""`LRFinder`: the range test for a plain torch loop, without a config or a run directory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from lrexp.analysis.range_curve import Curve
from lrexp.analysis.signal import is_buried, paired_control
from lrexp.analysis.stopping import RangeTestStop, ramp
from lrexp.analysis.suggest import suggest
from lrexp.engine.device import pick_device
from lrexp.engine.rng import preserved_rng
from lrexp.engine.sequential import run_sequentially
from lrexp.engine.task import Task
from lrexp.errors import NOTHING, ConfigError, LrexpError, user_code, user_error
from lrexp.records import Ended, Evaluation, Failed, Steps, TrialId
from lrexp.report.result import RangeTest
from lrexp.runs.trials import NEVER
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.batches import Batches, Data, Facts, batch_on, size_of
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.losses import LossFunction, copy_loss, loss_floor
from lrexp.workloads.models import copy_of
from lrexp.workloads.objectives import (
    Objective,
    OwnStep,
    Step,
    check_step,
    fit_objective,
    layout,
    losses_of,
)
from lrexp.workloads.optimizers import Parts, fuse, needs_closure, set_mode
from lrexp.workloads.table import BATCH_SIZE
from lrexp.workloads.tensors import all_targets, is_of_arrays

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_COPIED = (
    "Set it to None first; instead of torch.nn.utils.weight_norm and spectral_norm take those of "
    "torch.nn.utils.parametrizations."
)


class LRFinder:
    """Finds a learning rate for a model, an optimizer and a loss.

    Works on copies: the model's weights and buffers, the optimizer's state, gradients, the
    loader's order and all random generators are the same after as before, also when a run raises.

    Args:
        model: the module to train, in the state to start from.
        optimizer: its optimizer, or several in a list; a copy of it, state included, is used.
            Parameter groups keep the ratios of their LRs.
        loss_fn: (output, target) or (output, target, weight) -> scalar tensor; None where the model
            returns its loss.
        device: where to train; None is where the model's parameters are.
        step: in place of a loss, (model, batch) -> scalar tensor, or a dict with it as `loss`; of
            several optimizers it may return a list, a loss for each.
        accumulate: batches per update.
        grad_clip: largest gradient norm.
        autocast: run forward and loss in this type, torch.bfloat16 or torch.float16.
        scaler: a `torch.amp.GradScaler` for float16; a copy of it is used.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(4, 1)
        >>> x = torch.randn(256, 4); y = x.sum(1, keepdim=True)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> finder = LRFinder(model, optimizer, torch.nn.functional.mse_loss)
        >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 32)
        >>> result = finder.run(loader, min_lr=1e-5, max_lr=10)
        >>> 0.001 < finder.get_optimal_lr() < 1
        True

    Source: Smith, Cyclical Learning Rates for Training Neural Networks (arXiv 1506.01186).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        loss_fn: LossFunction | None = None,
        device: str | torch.device | None = None,
        *,
        step: Step | None = None,
        accumulate: int = 1,
        grad_clip: float | None = None,
        autocast: torch.dtype | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        _check_kind("model", model, nn.Module, "Of several, make one that holds them.")
        _check_optimizers(optimizer, scaler, model)
        if step is not None and loss_fn is not None:
            what, remedy = "is not used: the step makes the loss", "Leave one of them out."
            raise ConfigError.single("loss_fn", what, NOTHING, remedy)
        if type(accumulate) is not int or accumulate < 1:
            raise ConfigError.single("accumulate", "must be at least 1", accumulate, "Give 1.")
        self.model, self.optimizer, self.loss_fn, self.step = model, optimizer, loss_fn, step
        self._optimizers = [optimizer] if isinstance(optimizer, Optimizer) else [*optimizer]
        self.accumulate, self.grad_clip = accumulate, grad_clip
        self.autocast, self.scaler = autocast, scaler
        self.device = _device_of(model) if device is None else pick_device(str(device))
        self.result: RangeTest | None = None

    def run(
        self,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        *,
        min_lr: float = 1e-7,
        max_lr: float = 10.0,
        steps: int = 100,
        seeds: int = 3,
        mode: Literal["exp", "linear"] = "exp",
        stop_factor: float = 4.0,
        rule: str = "auto",
        seed: int = 0,
        mean_frac: float = 1.0,
        part: int | None = None,
    ) -> RangeTest:
        """Ramp the LR from `min_lr` to `max_lr` over `steps` updates, once for each seed.

        A seed sets batch order and dropout; the weights are the model's own. Loaders shorter than
        `steps` batches are run through again.

        Args:
            train_loader: a DataLoader or any other iterable of batches, a dataset, or tensors as
                (inputs, targets) or nested.
            val_loader: validation data, of the same kinds: then the loss on all of it after each
                update is looked at instead of the update's own. That takes as long as it sounds.
            min_lr, max_lr: ends of the ramp, both used.
            steps: updates per seed, at least 2.
            seeds: how many tests are combined.
            mode: `exp` (equal ratios) or `linear` (equal differences).
            stop_factor: ends a test when the smoothed loss is this far above its best.
            rule: which rule's LR is suggested.
            seed: the first seed.
            mean_frac: mean LR of the schedule that is to be used, as a share of its peak; see
                `suggest`.
            part: of several optimizers, the number of the one whose LR rises, while the others stay
                at theirs; by default all rise together, and the LR is that of the first.

        Raises:
            ConfigError: an argument is wrong, or the loss does not fit the model's output.
            UserCodeError: the model, the loss or the loader raised.
        """
        if seeds < 1:
            raise ConfigError.single("seeds", "must be at least 1", seeds, "3 is usual.")
        parameters = list(self.model.parameters())
        if part is not None and not 0 <= part < len(self._optimizers):
            what = f"must be the number of an optimizer, below {len(self._optimizers)}"
            raise ConfigError.single("part", what, part, "Leave it out, or give another.")
        base_lr = self._optimizers[part or 0].param_groups[0]["lr"]
        if not any(parameter.requires_grad for parameter in parameters):
            what, remedy = "has no parameter that requires a gradient", "Unfreeze a layer."
            raise ConfigError.single("model", what, type(self.model).__name__, remedy)
        if not base_lr > 0:
            what, remedy = "must have an LR above 0", "Any will do: it is replaced."
            raise ConfigError.single("optimizer", what, base_lr, remedy)
        real = next((p.dtype for p in parameters if p.dtype.is_floating_point), torch.float32)
        with preserved_rng(self.device), _in_words_of_python():
            batches = _batches(train_loader).to(self.device, real)
            val = None if val_loader is None else _batches(val_loader, "val_loader")
            objective = self._objective(batches)
            scaler = self.scaler
            task = Task(
                trial=TrialId("range_test", seed),
                build=self._copies,
                objective=objective,
                train=batches,
                val=None if val is None else val.to(self.device, real),
                eval_every=0 if val is None else 1,
                accumulate=self.accumulate,
                grad_clip=self.grad_clip,
                autocast=self.autocast is not None,
                autocast_dtype=self.autocast or torch.bfloat16,
                make_scaler=None if scaler is None else lambda: copy.deepcopy(scaler),
                schedule=ramp(min_lr, max_lr, steps, mode),
                base_lr=base_lr,
                lead=part or 0,
                others_stay=part is not None,
                total_steps=steps,
                stop=RangeTestStop(
                    stop_factor if part is None else NEVER, loss_floor(objective.loss)
                ),
                device=self.device,
            )
            numbers = range(seed, seed + seeds)
            tests = [_steps(task, s) for s in numbers]
            curves = tuple(Curve(lr, loss) for lr, loss, _ in tests)
            causes = [cause for *_, cause in tests if cause]
            is_of_part = part is not None
            looks_again = (is_of_part or is_buried(curves)) and not causes
            control = _control(task, numbers) if looks_again else None
        shown = paired_control(curves, control, others_train=is_of_part)
        suggestion = suggest(curves, rule, mean_frac, control, causes, others_train=is_of_part)
        reason, note = map(_plain, (suggestion.reason, suggestion.note))
        suggestion = replace(suggestion, reason=reason, note=note)
        self.result = RangeTest(suggestion, curves, shown=tuple(shown or ()))
        return self.result

    def get_optimal_lr(self) -> float | None:
        """Return the suggested LR of the last run, None when it found no usable signal."""
        return self._last().suggested_lr

    def plot_loss(self, ax: Axes | None = None) -> Axes:
        """Draw loss over LR of the last run, with the suggestion marked; return the Axes."""
        return self._last().plot(ax)

    def _last(self) -> RangeTest:
        if self.result is None:
            raise ConfigError.single("LRFinder", "has no result yet", NOTHING, "Call run() first.")
        return self.result

    def _copies(self) -> tuple[nn.Module, Optimizer]:
        # one copy of both, so that the copied optimizer holds the copied parameters
        model, optimizers = copy_of((self.model, self._optimizers), "model", NOT_COPIED)
        for optimizer in optimizers:
            fuse(optimizer)
            set_mode(optimizer, "train")
        one = optimizers[0] if len(optimizers) == 1 else Parts(optimizers)
        return model.to(self.device), one

    def _objective(self, batches: Any) -> Objective:
        model, optimizer = self._copies()
        if not model.training:
            model.train()
        batch = next(iter(batches.epoch(0, 0)), None)
        if batch is None:
            what, remedy = "must give at least one batch", "Give it data."
            raise ConfigError.single("train_loader", what, "an empty loader", remedy)
        dtype, step, loss = self.autocast or torch.bfloat16, self.step, self.loss_fn
        with torch.autocast(self.device.type, dtype, enabled=self.autocast is not None):
            if step is not None:
                with user_code("the step"):
                    made = copy_loss(step)(model, batch)
                check_step("step", made, trains=True, model=model, optimizer=optimizer)
                return OwnStep(step, losses_of(made) is not None)
            split = layout(model, batch, loss)
            args, keywords, _ = split(batch)
            with user_code("the model"):
                output = model(*args, **keywords)
        known = all_targets(Data(batches, None, Facts()), lambda whole: split(whole)[2][0])
        make = None if loss is None else lambda: loss
        return fit_objective(make, batch, output, split, known=known)()


WORDS = {  # a key of a config, and what it is for a plain loop
    "data.batch_size": "the batch size",
    "data": "train_loader",
    "loss": "loss_fn",
    "": "loss_fn",
}


def _plain(words: str | None) -> str | None:
    """Return what is said of a range test without keys of a config."""
    return words and words.replace("find_lr.", "").replace(
        "data.batch_size", "the loader's batches"
    )


@contextmanager
def _in_words_of_python() -> Iterator[None]:
    """Let errors name arguments of `LRFinder` and not keys of a config; all become LrexpErrors."""
    try:
        with user_code("the loader"):
            yield
    except ConfigError as error:
        problems = []
        for problem in error.problems:
            section = problem.key.partition(".")[0]
            key = WORDS.get(problem.key, WORDS.get(section, problem.key))
            problems.append(replace(problem, key=key))
        raise ConfigError(problems) from error


def _check_optimizers(given: Any, scaler: object, model: nn.Module) -> None:
    """Refuse what is no optimizer of the model, nor several with parameters of their own."""
    optimizers = [given] if isinstance(given, Optimizer) else given
    are_several = isinstance(optimizers, list | tuple) and optimizers
    if not are_several or not all(isinstance(own, Optimizer) for own in optimizers):
        what, remedy = "must be a torch.optim.Optimizer, or a list of them", "Give one."
        raise ConfigError.single("optimizer", what, type(given).__name__, remedy)
    for own in optimizers:
        if needs_closure(type(own)):
            what = "needs a closure that evaluates the loss again, which a range test does not have"
            raise ConfigError.single(
                "optimizer", what, type(own).__name__, "Use another optimizer."
            )
    owned = [id(p) for own in optimizers for group in own.param_groups for p in group["params"]]
    if len(set(owned)) < len(owned):
        what, remedy = "share parameters", "Give each parameter to one optimizer."
        raise ConfigError.single("optimizer", what, f"{len(optimizers)} optimizers", remedy)
    known = set(map(id, model.parameters()))
    for own in optimizers:
        if known and not any(id(p) in known for group in own.param_groups for p in group["params"]):
            what, remedy = "holds no parameter of the model", "Make it of model.parameters()."
            raise ConfigError.single("optimizer", what, type(own).__name__, remedy)
    if scaler is not None and len(optimizers) > 1:
        what, remedy = "scales the loss of one optimizer alone", "Use torch.bfloat16 without one."
        raise ConfigError.single("scaler", what, f"{len(optimizers)} optimizers", remedy)


def _check_kind(name: str, value: object, kind: type, remedy: str) -> None:
    if not isinstance(value, kind):
        given = type(value).__name__
        raise ConfigError.single(name, f"must be one {kind.__name__}", given, remedy)


def _control(task: Task, seeds: Iterable[int]) -> list[list[float]]:
    """Return the losses of the same batches without learning, for each seed."""
    still = replace(task, schedule=Schedule(lambda _: 0.0), stop=RangeTestStop(NEVER))
    return [_steps(still, seed)[1] for seed in seeds]


def _steps(task: Task, seed: int) -> tuple[list[float], list[float], str]:
    """Return the LR and the loss of every step, and why one is not finite if the LR is innocent."""
    lr: list[float] = []
    loss: list[float] = []
    evaluated: list[float] = []
    cause = ""
    for record in run_sequentially([replace(task, trial=TrialId("range_test", seed))]):
        if isinstance(record, Failed):
            if isinstance(record.error, LrexpError):  # it says what is wrong
                raise record.error
            raise user_error(record.error, "the range test") from record.error
        if isinstance(record, Steps):
            lr += record.lr
            loss += record.loss
        if isinstance(record, Evaluation) and record.step > 0:  # of all steps so far
            evaluated.append(record.values["val_loss"])
        if isinstance(record, Ended):
            cause = record.cause
    return lr, evaluated if task.val is not None else loss, cause


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _batches(loader: Any, name: str = "train_loader") -> Batches:
    """Return the batches of a loader; what is no data of a known kind is an iterable of batches."""
    if isinstance(loader, Iterator):
        what = "must give its batches again and again; an iterator is used up after one pass"
        remedy = "Give the loader itself, or a list of batches."
        raise ConfigError.single(name, what, type(loader).__name__, remedy)
    if isinstance(loader, tuple | Mapping | DataLoader | Dataset):
        is_small = is_of_arrays(loader) and 0 < size_of(loader) < BATCH_SIZE
        return data_from_objects(loader, batch_size=size_of(loader) if is_small else None).train
    if isinstance(loader, str | bytes) or not isinstance(loader, Iterable):
        what, remedy = "must give batches", "Give a DataLoader, a dataset or tensors."
        raise ConfigError.single(name, what, type(loader).__name__, remedy)
    return GivenBatches(loader)


@dataclass(frozen=True)
class GivenBatches:
    """Batches as somebody else's loader makes them, in its order, again and again."""

    loader: Iterable[Any]
    device: torch.device | None = None
    dtype: torch.dtype | None = None
    num_samples: int | None = None
    batch_size: int = 0  # as the loader makes them
    batches_per_epoch: int | None = None

    @property
    def workers(self) -> int:
        """Processes that load the batches, where the loader says so."""
        return int(getattr(self.loader, "num_workers", 0))

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield the loader's batches without the first `start`."""
        for batch in islice(self.loader, start, None):
            yield batch_on(batch, self.device, self.dtype)

    def in_order(self) -> Iterator[Any]:
        """Yield the loader's batches."""
        yield from self.epoch(0, 0)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> GivenBatches:
        """Return the same batches on a device."""
        return replace(self, device=torch.device(device), dtype=dtype)
