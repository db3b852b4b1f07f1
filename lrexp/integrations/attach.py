"""A range test inside a loop that somebody else runs: the LR is set before each update.

`RisingLr` is the part without torch: which LR comes next, and when to stop. `attach` joins it to a
torch optimizer, and puts everything back afterwards, bit by bit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from lrexp.analysis.range_curve import Curve
from lrexp.analysis.signal import is_buried, paired_control
from lrexp.analysis.stopping import RangeTestStop, ramp
from lrexp.analysis.suggest import suggest
from lrexp.errors import NOTHING, ConfigError
from lrexp.report.result import RangeTest

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

NEVER = 1e30  # as a stop_factor


class RisingLr:
    """One ramp: `lr` is that of the next update, `observe` takes the loss measured before it.

    Args:
        min_lr, max_lr: ends of the ramp, both used.
        steps: updates, at least 2.
        mode: `exp` (equal ratios) or `linear`.
        stop_factor: ends the test when the smoothed loss is this far above its best.
        floor: the lowest value that the loss can have; None where it may be negative.
        still: the LR is 0 all along, for the control of `found_by`.

    Example:
        >>> rising = RisingLr(0.01, 1.0, steps=3)
        >>> while not rising.is_over:
        ...     rising.observe(loss=2.0)
        >>> [round(float(lr), 6) for lr in rising.curve.lr]
        [0.01, 0.1, 1.0]
    """

    def __init__(
        self,
        min_lr: float = 1e-7,
        max_lr: float = 10.0,
        steps: int = 100,
        *,
        mode: Literal["exp", "linear"] = "exp",
        stop_factor: float = 4.0,
        floor: float | None = None,
        still: bool = False,
    ) -> None:
        self._schedule = ramp(min_lr, max_lr, steps, mode)
        self._rule, self._steps = RangeTestStop(NEVER if still else stop_factor, floor), steps
        self._still = still
        self._state, self._stopped = self._rule.init(), False
        self._lrs: list[float] = []
        self._losses: list[float] = []

    @property
    def lr(self) -> float:
        """The LR of the next update."""
        return 0.0 if self._still else self._schedule(len(self._losses))

    @property
    def is_over(self) -> bool:
        """Whether all steps are done, or the loss has left its range."""
        return self._stopped or len(self._losses) >= self._steps

    @property
    def curve(self) -> Curve:
        """Loss over LR so far."""
        return Curve(self._lrs, self._losses)

    @property
    def losses(self) -> tuple[float, ...]:
        """The losses so far."""
        return tuple(self._losses)

    def observe(self, loss: float) -> None:
        """Take the loss that was measured before the update with `lr`."""
        self._lrs.append(self.lr)
        self._losses.append(float(loss))
        self._state, self._stopped = self._rule.update(self._state, float(loss))


def found_by(
    curves: Sequence[Curve],
    rule: str = "auto",
    mean_frac: float = 1.0,
    control: Sequence[Sequence[float]] | None = None,
) -> RangeTest:
    """Return what range tests of one ramp suggest; see `lrexp.LRFinder.run` for the arguments.

    Args:
        curves: of each seed.
        rule, mean_frac: as of `LRFinder.run`.
        control: losses of the same batches at LR 0, for curves that `show_no_fall`.
    """
    return RangeTest(
        suggest(curves, rule, mean_frac, control),
        tuple(curves),
        shown=tuple(paired_control(curves, control) or ()),
    )


def show_no_fall(curves: Sequence[Curve]) -> bool:
    """Return whether a fall may be buried in how batches differ: a control would show it."""
    return is_buried(curves)


def weighted_lr(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """Return the mean of log LR, weighted by `exp(-regret / 0.05)`, of the losses that are finite.

    `regret = loss / lowest - 1` for losses that are positive: the lowest of a few is luck.

    Example:
        >>> round(weighted_lr([0.01, 0.1, 1.0], [0.5, 0.4, 0.5]), 3)
        0.1
    """
    known = [(lr, loss) for lr, loss in zip(lrs, losses, strict=True) if math.isfinite(loss)]
    lowest = min(loss for _, loss in known)
    weights = [math.exp(-(loss - lowest) / (abs(lowest) or 1.0) / 0.05) for _, loss in known]
    total = sum(w * math.log(lr) for w, (lr, _) in zip(weights, known, strict=True))
    return math.exp(total / sum(weights))


class Attached:
    """A range test of a loop of one's own; see `attach`."""

    def __init__(
        self, optimizer: Optimizer, ramps: dict[str, Any], put_back: Callable[[], None]
    ) -> None:
        self._optimizer, self._ramps, self._put_back = optimizer, ramps, put_back
        # ratios of the groups stay, as a schedule keeps them
        first = optimizer.param_groups[0]["lr"]
        self._ratios = [float(group["lr"]) / float(first) for group in optimizer.param_groups]
        self._waiting: list[float] = []  # losses since the last update: micro-batches
        self.curves: list[Curve] = []
        self._rising: RisingLr | None = None

    @property
    def is_over(self) -> bool:
        """Whether the loop may end: all steps are done, or the loss has left its range."""
        return self._rising is not None and self._rising.is_over

    def observe(self, loss: Tensor | float) -> None:
        """Take the raw loss of a batch, not divided by accumulation, before its update."""
        self._waiting.append(float(loss.detach() if hasattr(loss, "detach") else loss))

    def begin(self) -> None:
        """Begin a ramp from the state at the start; the one before it is kept as a curve."""
        self.end()
        self._put_back()
        self._rising, self._waiting = RisingLr(**self._ramps), []

    def end(self) -> None:
        """Keep the curve of the ramp that was run."""
        if self._rising is not None and len(self._rising.curve.lr) > 1:
            self.curves.append(self._rising.curve)
        self._rising = None

    def before_update(self, *_: Any) -> None:
        """Set the LR of every group; the optimizer calls this right before each update."""
        rising = self._rising
        if rising is None or rising.is_over:
            return
        if not self._waiting:
            what, remedy = "saw no loss before an update", "Call observe(loss) for each batch."
            raise ConfigError.single("attach", what, NOTHING, remedy)
        for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = rising.lr * ratio
        rising.observe(math.fsum(self._waiting) / len(self._waiting))
        self._waiting = []

    def result(self, rule: str = "auto", mean_frac: float = 1.0) -> RangeTest:
        """Return what the ramps so far suggest.

        Raises:
            ConfigError: there was no update yet.
        """
        self.end()
        if not self.curves:
            what, remedy = "has seen no updates", "Run the loop first."
            raise ConfigError.single("attach", what, NOTHING, remedy)
        return found_by(self.curves, rule, mean_frac)


@contextmanager
def attach(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    steps: int = 100,
    mode: Literal["exp", "linear"] = "exp",
    stop_factor: float = 4.0,
    cache_dir: str | Path | None = None,
    also: Sequence[Any] = (),
) -> Iterator[Attached]:
    """Run a range test inside a loop of one's own, and put everything back afterwards.

    The LR is set right before each `optimizer.step()`, whatever a scheduler did, and advances with
    it: a step that a GradScaler skips does not count, and micro-batches make one step. At the end,
    also after an exception, weights, buffers, gradients, training flags, the optimizer's state and
    all random generators are what they were.

    Args:
        model: whose weights are put back.
        optimizer: of the model; the ratios of its groups' LRs are kept.
        min_lr, max_lr, steps, mode, stop_factor: as of `lrexp.LRFinder.run`.
        cache_dir: a folder for the state meanwhile; None keeps it in memory. For models that fit
            only once.
        also: further objects with `state_dict()` to put back, such as schedulers and a GradScaler.

    Raises:
        ConfigError: an update came without a loss.

    Example:
        >>> with lrexp.attach(model, optimizer, steps=100) as test:          # doctest: +SKIP
        ...     test.begin()
        ...     for x, y in loader:
        ...         loss = loss_fn(model(x), y)
        ...         test.observe(loss)
        ...         loss.backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        ...         if test.is_over:
        ...             break
        >>> test.result().suggested_lr                                       # doctest: +SKIP
    """
    ramps: dict[str, Any] = {"min_lr": min_lr, "max_lr": max_lr, "steps": steps}
    ramps |= {"mode": mode, "stop_factor": stop_factor}
    RisingLr(**ramps)  # refuses what is no ramp, before anything is touched
    with unchanged(model, optimizer, *also, cache_dir=cache_dir) as put_back:
        attached = Attached(optimizer, ramps, put_back)
        handle = optimizer.register_step_pre_hook(attached.before_update)
        try:
            yield attached
        finally:
            handle.remove()
            attached.end()


@contextmanager
def unchanged(
    model: nn.Module, *others: Any, cache_dir: str | Path | None = None
) -> Iterator[Callable[[], None]]:
    """Put a model, and what else has a `state_dict()`, back at the end; yield what does so at once.

    Gradients, training flags and the random generators of Python, NumPy and torch are put back,
    too.
    """
    import torch

    from lrexp.engine.rng import generator_states, restore_generators

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    flags = [(module, module.training) for module in model.modules()]
    tensors = [*model.parameters(), *model.buffers()]  # buffers that are not persistent, too
    gradients = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in tensors]
    extra = {name: v for name, v in model.state_dict().items() if name.endswith("_extra_state")}
    kept: Any = [tensor.detach().clone() for tensor in tensors]
    states: Any = copy.deepcopy([extra, *(other.state_dict() for other in others)])
    generators = generator_states(device)
    with TemporaryDirectory(dir=cache_dir) if cache_dir is not None else nullcontext() as folder:
        if folder is not None:
            torch.save((kept, states), Path(folder) / "state.pt")
            kept = states = None

        def put_back() -> None:
            values, plain = kept, states
            if folder is not None:  # our own file of a moment ago
                values, plain = torch.load(Path(folder) / "state.pt", weights_only=False)
            with torch.no_grad():
                for tensor, value in zip(tensors, values, strict=True):
                    tensor.copy_(value)
            model.load_state_dict(plain[0], strict=False)
            for other, state in zip(others, plain[1:], strict=True):
                other.load_state_dict(copy.deepcopy(state))
            for module, training in flags:
                module.training = training
            for parameter, gradient, value in gradients:
                if gradient is not None and value is not None:
                    gradient.copy_(value)
                parameter.grad = gradient
            restore_generators(generators, device)

        try:
            yield put_back
        finally:
            put_back()
