"""Lightning: range tests of a LightningModule, from outside or as a callback of `Trainer.fit`.

Works with `pytorch_lightning` and `lightning.pytorch`, which are two trees of classes: the one that
the module comes from is used.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import lrexp
from lrexp.integrations.attach import RisingLr, found_by, show_no_fall
from lrexp.integrations.attach import unchanged as put_back_afterwards

_TREES = ("lightning.pytorch", "pytorch_lightning")
_NAMES = ("lr", "learning_rate")  # where Lightning's own finder puts its answer
_QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "limit_val_batches": 0,
}


def find_lr(
    module: Any,
    train_dataloaders: Any = None,
    datamodule: Any = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
    *,
    seeds: int = 3,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    steps: int = 100,
    stop_factor: float = 4.0,
    rule: str = "auto",
    mean_frac: float = 1.0,
) -> Any:
    """Run LR range tests on deep copies of a LightningModule and return what they suggest.

    The module, its optimizer and the generators stay as they are. The LR is set right before each
    update, so that the module's own scheduler has no say; groups keep their ratios.

    Args:
        module: with `configure_optimizers` of one optimizer.
        train_dataloaders, datamodule: as of `Trainer.fit`.
        trainer_kwargs: of the Trainer, such as `accumulate_grad_batches` and `precision`.
        seeds: how many tests are combined; a seed sets batch order and dropout.
        min_lr, max_lr, steps, stop_factor, rule, mean_frac: as of `lrexp.LRFinder.run`.

    Returns:
        A `lrexp.RangeTest`.

    Raises:
        ConfigError: manual optimization, or several optimizers.

    Example:
        >>> find_lr(module, train_loader).suggested_lr      # doctest: +SKIP
        0.0023
    """
    if not module.automatic_optimization:
        what, remedy = "is optimized by hand", "Use lrexp.attach inside its training_step's loop."
        raise lrexp.ConfigError.single("module", what, type(module).__name__, remedy)
    lightning = _tree_of(module)
    ramp: dict[str, Any] = {"min_lr": min_lr, "max_lr": max_lr, "steps": steps}

    def run(seed: int, rising: RisingLr) -> RisingLr:
        lightning.seed_everything(seed, verbose=False)
        given = {**(trainer_kwargs or {}), **_QUIET, "max_steps": steps, "max_epochs": -1}
        own = [*(given.pop("callbacks", None) or ()), _callback(lightning, rising)]
        trainer = lightning.Trainer(**given, callbacks=own)
        data = {"datamodule": copy.deepcopy(datamodule)} if datamodule is not None else {}
        with _several_optimizers_told():
            trainer.fit(_copied(module), train_dataloaders, **data)
        return rising

    with put_back_afterwards(module):
        curves = [run(s, RisingLr(**ramp, stop_factor=stop_factor)).curve for s in range(seeds)]
        control = None
        if show_no_fall(curves):  # the same batches once more, without learning
            control = [run(s, RisingLr(**ramp, still=True)).losses for s in range(seeds)]
    return found_by(curves, rule, mean_frac, control)


@contextmanager
def _several_optimizers_told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "multiple optimizers" not in str(error):
            raise
        what, remedy = "has several optimizers", "Use lrexp.LRFinder with a list of them."
        raise lrexp.ConfigError.single("module", what, "a list of them", remedy) from None


def _tree_of(module: Any) -> Any:
    """Return the package whose LightningModule this is."""
    parents = [parent.__module__ for parent in type(module).__mro__]
    for name in _TREES:
        if any(parent.startswith(f"{name}.") for parent in parents):
            return import_module(name)
    what, remedy = "must be a LightningModule", "Give one, or use lrexp.LRFinder."
    raise lrexp.ConfigError.single("module", what, type(module).__name__, remedy)


def _copied(module: Any) -> Any:
    """Return a deep copy that no trainer holds."""
    trainer, module._trainer = module._trainer, None
    try:
        return copy.deepcopy(module)
    finally:
        module._trainer = trainer


def _callback(lightning: Any, rising: RisingLr) -> Any:
    """Return the callback that raises the LR and sees the losses."""

    class Rising(lightning.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.losses: list[float] = []  # of the micro-batches of an update
            self.ratios: list[float] = []
            self.stepped = False

        def on_train_start(self, trainer: Any, module: Any) -> None:
            groups = trainer.optimizers[0].param_groups
            self.ratios = [float(group["lr"]) / float(groups[0]["lr"]) for group in groups]

        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            for group, ratio in zip(optimizer.param_groups, self.ratios, strict=True):
                group["lr"] = rising.lr * ratio
            self.stepped = True

        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if isinstance(outputs, Mapping):  # None where training_step skipped the batch
                raw = float(outputs["loss"]) * trainer.accumulate_grad_batches
                self.losses.append(raw)
            if self.stepped and self.losses:
                rising.observe(math.fsum(self.losses) / len(self.losses))
                self.losses, self.stepped = [], False
            trainer.should_stop = trainer.should_stop or rising.is_over

    return Rising()


class LRFinder:
    """A callback that finds the LR when `Trainer.fit` begins, and trains with it.

    The answer goes where Lightning's own finder puts it: `module.lr` or `module.learning_rate`, or
    the same in `hparams`, and into the optimizer's groups, whose ratios stay. Where there is no
    usable signal, the LR stays, with a warning.

    Args:
        options: as of `find_lr`: `seeds`, `min_lr`, `steps`, `trainer_kwargs`, ...

    Example:
        >>> Trainer(callbacks=[LRFinder(seeds=1)]).fit(module, loader)      # doctest: +SKIP
    """

    def __new__(cls, **options: Any) -> Any:
        """Return an instance of a class that both trees of Lightning take for a callback."""
        found = [import_module(name).Callback for name in _TREES if find_spec(name.split(".")[0])]
        return type("LRFinder", (_Finding, *dict.fromkeys(found)), {})(**options)


class _Finding:
    def __init__(self, **options: Any) -> None:
        self.options: dict[str, Any] = options
        self.result: Any = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the LR and put it in place."""
        kept = {
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
            "gradient_clip_val": trainer.gradient_clip_val,
            "precision": trainer.precision,
            "accelerator": "cpu" if pl_module.device.type == "cpu" else "auto",
            "devices": 1,
        }
        source = trainer.fit_loop._data_source
        given = {"train_dataloaders": source.instance} if trainer.datamodule is None else {}
        options = {"trainer_kwargs": kept, **self.options}
        self.result = find_lr(pl_module, datamodule=trainer.datamodule, **given, **options)
        lr = self.result.suggested_lr
        if lr is None:
            warnings.warn(f"No LR was found: {self.result.reason}", UserWarning, stacklevel=2)
            return
        _put(pl_module, lr)
        for optimizer in trainer.optimizers:
            first = optimizer.param_groups[0]["lr"]
            for group in optimizer.param_groups:
                group["lr"] = lr * group["lr"] / first
                if "initial_lr" in group:
                    group["initial_lr"] = group["lr"]
        for config in trainer.lr_scheduler_configs:
            if hasattr(config.scheduler, "base_lrs"):
                groups = config.scheduler.optimizer.param_groups
                config.scheduler.base_lrs = [group["lr"] for group in groups]


def _put(module: Any, lr: float) -> None:
    """Set the attribute that holds the LR, as Lightning's own finder names it."""
    hparams = getattr(module, "hparams", {})
    for name in _NAMES:
        if hasattr(module, name):
            setattr(module, name, lr)
            return
        if name in hparams:
            hparams[name] = lr
            return
