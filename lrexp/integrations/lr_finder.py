"""`LRFinder`: the range test for a plain torch loop, without a config or a run directory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from lrexp.analysis.range_curve import Curve
from lrexp.analysis.signal import closer_look, is_buried
from lrexp.analysis.stopping import RangeTestStop, ramp
from lrexp.analysis.suggest import suggest
from lrexp.engine.device import pick_device
from lrexp.engine.rng import preserved_rng
from lrexp.engine.sequential import run_sequentially
from lrexp.engine.task import Task
from lrexp.errors import NOTHING, ConfigError, user_error
from lrexp.records import Ended, Failed, Steps, TrialId
from lrexp.report.result import RangeTest
from lrexp.runs.trials import NEVER
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.batches import Batches, Data, Facts, batch_on
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.losses import LossFunction, loss_floor
from lrexp.workloads.models import copy_of
from lrexp.workloads.objectives import Objective, fit_objective, layout
from lrexp.workloads.optimizers import fuse
from lrexp.workloads.tensors import all_targets

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
        optimizer: its optimizer; a copy of it, state included, is used. Parameter groups keep the
            ratios of their LRs.
        loss_fn: (output, target) or (output, target, weight) -> scalar tensor; None where the model
            returns its loss.
        device: where to train; None is where the model's parameters are.

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
        optimizer: Optimizer,
        loss_fn: LossFunction | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss_fn = model, optimizer, loss_fn
        self.device = _device_of(model) if device is None else pick_device(str(device))
        self.result: RangeTest | None = None

    def run(
        self,
        train_loader: Iterable[Any],
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
    ) -> RangeTest:
        """Ramp the LR from `min_lr` to `max_lr` over `steps` updates, once for each seed.

        A seed sets batch order and dropout; the weights are the model's own. Loaders shorter than
        `steps` batches are run through again.

        Args:
            train_loader: a DataLoader or any other iterable of batches, a dataset, or tensors as
                (inputs, targets) or nested.
            min_lr, max_lr: ends of the ramp, both used.
            steps: updates per seed, at least 2.
            seeds: how many tests are combined.
            mode: `exp` (equal ratios) or `linear` (equal differences).
            stop_factor: ends a test when the smoothed loss is this far above its best.
            rule: which rule's LR is suggested.
            seed: the first seed.
            mean_frac: mean LR of the schedule that is to be used, as a share of its peak; see
                `suggest`.

        Raises:
            ConfigError: an argument is wrong, or the loss does not fit the model's output.
            UserCodeError: the model, the loss or the loader raised.
        """
        if seeds < 1:
            raise ConfigError.single("seeds", "must be at least 1", seeds, "3 is usual.")
        base_lr = self.optimizer.param_groups[0]["lr"]
        parameters = list(self.model.parameters())
        if not parameters or not base_lr > 0:
            what = "needs a model with parameters and an optimizer with an LR above 0"
            raise ConfigError.single("LRFinder", what, base_lr, "Any LR will do: it is replaced.")
        if not any(parameter.requires_grad for parameter in parameters):
            what, remedy = "has no parameter that requires a gradient", "Set requires_grad."
            raise ConfigError.single("model", what, type(self.model).__name__, remedy)
        real = (p.dtype for p in parameters if p.dtype.is_floating_point)
        with preserved_rng(self.device):
            batches = _batches(train_loader).to(self.device, next(real, torch.float32))
            objective = self._objective(batches)
            task = Task(
                trial=TrialId("range_test", seed),
                build=self._copies,
                objective=objective,
                train=batches,
                schedule=ramp(min_lr, max_lr, steps, mode),
                base_lr=base_lr,
                total_steps=steps,
                stop=RangeTestStop(stop_factor, loss_floor(objective.loss)),
                device=self.device,
            )
            numbers = range(seed, seed + seeds)
            tests = [_steps(task, s) for s in numbers]
            curves = tuple(Curve(lr, loss) for lr, loss, _ in tests)
            causes = [cause for *_, cause in tests if cause]
            untrained = _untrained(task, numbers) if is_buried(curves) and not causes else None
        shown = tuple(closer_look(curves, untrained) or ())
        suggestion = suggest(curves, rule, mean_frac, untrained, causes)
        self.result = RangeTest(suggestion, curves, shown=shown)
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
        model, optimizer = copy_of((self.model, self.optimizer), "model", NOT_COPIED)
        fuse(optimizer)
        return model.to(self.device), optimizer

    def _objective(self, batches: Any) -> Objective:
        model, _ = self._copies()
        if not model.training:
            model.train()
        batch = next(iter(batches.epoch(0, 0)))
        split = layout(model, batch, self.loss_fn)
        args, keywords, _ = split(batch)
        try:
            output = model(*args, **keywords)
        except Exception as error:
            raise user_error(error, "the model") from error
        data = Data(batches, None, Facts())
        known = all_targets(data, lambda whole: split(whole)[2][0])
        loss = self.loss_fn
        make = None if loss is None else lambda: loss
        try:
            return fit_objective(make, batch, output, split, known=known)()
        except ConfigError as error:
            raise error.under("loss_fn") from None


def _untrained(task: Task, seeds: Iterable[int]) -> list[list[float]]:
    """Return the losses of the same batches without learning, for each seed."""
    still = replace(task, schedule=Schedule(lambda _: 0.0), stop=RangeTestStop(NEVER))
    return [_steps(still, seed)[1] for seed in seeds]


def _steps(task: Task, seed: int) -> tuple[list[float], list[float], str]:
    """Return the LR and the loss of every step, and why one is not finite if the LR is innocent."""
    lr: list[float] = []
    loss: list[float] = []
    cause = ""
    for record in run_sequentially([replace(task, trial=TrialId("range_test", seed))]):
        if isinstance(record, Failed):
            raise user_error(record.error, "the range test") from record.error
        if isinstance(record, Steps):
            lr += record.lr
            loss += record.loss
        if isinstance(record, Ended):
            cause = record.cause
    return lr, loss, cause


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _batches(loader: Any) -> Batches:
    """Return the batches of a loader; what is no data of a known kind is an iterable of batches."""
    if isinstance(loader, tuple | Mapping | DataLoader | Dataset):
        return data_from_objects(loader).train
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
