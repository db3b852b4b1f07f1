"""Keras 3: the LR finder as a callback, `ReduceLROnPlateau` with the usual presets, schedules.

`logs["loss"]` is the running mean of an epoch, which would shift the curve to the right; the
metrics are reset before each batch, so that it is that of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

import lrexp
from lrexp.integrations.attach import RisingLr, found_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class LRFinder(keras.callbacks.Callback):  # type: ignore[misc]
    """An LR range test as a callback of `model.fit`; the model is put back when it ends.

    Args:
        min_lr, max_lr: ends of the ramp, both used.
        steps: batches; an epoch may be shorter or longer, so give `fit` enough of them.
        stop_factor: ends the test when the smoothed loss is this far above its best.
        rule: which rule's LR is suggested.
        mean_frac: mean LR of the schedule that is to be used, as a share of its peak.

    Raises:
        ConfigError: the optimizer has a schedule, or the test has not run yet.

    Example:
        >>> finder = LRFinder(min_lr=1e-6, max_lr=1e-1, steps=100)       # doctest: +SKIP
        >>> model.fit(x, y, epochs=5, callbacks=[finder], verbose=0)     # doctest: +SKIP
        >>> finder.get_optimal_lr()                                      # doctest: +SKIP
        0.0021
    """

    def __init__(
        self,
        min_lr: float = 1e-6,
        max_lr: float = 1e-1,
        steps: int = 100,
        *,
        stop_factor: float = 4.0,
        rule: str = "auto",
        mean_frac: float = 1.0,
    ) -> None:
        super().__init__()
        self._ramp = {
            "min_lr": min_lr, "max_lr": max_lr, "steps": steps, "stop_factor": stop_factor,
        }  # fmt: skip
        RisingLr(**self._ramp)  # type: ignore[arg-type]  # refuses what is no ramp
        self._rule, self._mean_frac = rule, mean_frac
        self._rising: RisingLr | None = None
        self.result: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Keep weights, the optimizer's variables and its LR."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        if isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            what, given = "must have a fixed LR", type(optimizer._learning_rate).__name__
            remedy = "Compile the model with a number for this."
            raise lrexp.ConfigError.single("learning_rate", what, given, remedy)
        self._variables = [*self.model.variables, *optimizer.variables]
        self._before = [keras.ops.convert_to_numpy(variable) for variable in self._variables]
        self._rising = RisingLr(**self._ramp)  # type: ignore[arg-type]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set the LR of the next update."""
        assert self._rising is not None
        if not self._rising.is_over:
            self.model.optimizer.learning_rate = self._rising.lr
            self.model.reset_metrics()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take the loss, which was measured before the update."""
        assert self._rising is not None
        if not self._rising.is_over:
            self._rising.observe(float((logs or {})["loss"]))
        self.model.stop_training = self.model.stop_training or self._rising.is_over
        if self._rising.is_over:  # what the rest of an epoch trains is put back
            self.model.optimizer.learning_rate = 0.0

    def on_train_end(self, logs: Any = None) -> None:
        """Put everything back and read the curve."""
        assert self._rising is not None
        for variable, value in zip(self._variables, self._before, strict=True):
            variable.assign(value)
        self.result = found_by([self._rising.curve], self._rule, self._mean_frac)

    def get_optimal_lr(self) -> float | None:
        """Return the suggested LR, None when the curve has no usable signal."""
        return self._found().suggested_lr  # type: ignore[no-any-return]

    def plot_loss(self, ax: Axes | None = None) -> Axes:
        """Draw loss over LR, with the suggestion marked; return the Axes."""
        axes: Axes = self._found().plot(ax)
        return axes

    def _found(self) -> Any:
        if self.result is None:
            what, remedy = "has no result yet", "Pass it to model.fit(callbacks=[...]) first."
            raise lrexp.ConfigError.single("LRFinder", what, "nothing", remedy)
        return self.result


def get_lr_scheduler(**overrides: Any) -> Any:
    """Return `ReduceLROnPlateau(monitor="val_loss", patience=2, factor=0.5, min_lr=1e-6)`.

    Args:
        overrides: any argument of `keras.callbacks.ReduceLROnPlateau`.

    Example:
        >>> get_lr_scheduler(patience=5).patience                        # doctest: +SKIP
        5
    """
    usual = {"monitor": "val_loss", "patience": 2, "factor": 0.5, "min_lr": 1e-6}
    return keras.callbacks.ReduceLROnPlateau(**(usual | overrides))


class LrSchedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A schedule of lrexp for Keras: a table of its LRs, so that every backend can compile it.

    Args:
        schedule: a function of the step, as `lrexp.get_lr_scheduler` returns one.
        total_steps: length of the training; later steps keep the last LR.

    Example:
        >>> lr = lrexp.get_lr_scheduler(max_lr=1e-3, max_steps=1000)     # doctest: +SKIP
        >>> keras.optimizers.Adam(LrSchedule(lr, total_steps=1000))      # doctest: +SKIP
    """

    def __init__(self, schedule: Callable[[int], float], total_steps: int) -> None:
        self._lrs = [float(schedule(step)) for step in range(total_steps)]

    def __call__(self, step: Any) -> Any:
        """Return the LR of a step."""
        ops = keras.ops
        place = ops.clip(ops.cast(step, "int32"), 0, len(self._lrs) - 1)
        return ops.take(ops.convert_to_tensor(self._lrs, dtype="float32"), place)

    def get_config(self) -> dict[str, Any]:
        """Return the LRs, from which `from_config` makes it again."""
        return {"lrs": self._lrs}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LrSchedule:
        """Make it of its LRs."""
        lrs = config["lrs"]
        return cls(lambda step: lrs[step], len(lrs))
