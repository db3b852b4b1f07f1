"""A range test of 100 steps on the small MLP: lrexp.LRFinder beside other finders.

All get the same weights, the same data and the same range, in which nothing diverges, with early
stops off. The clock runs from making the finder to its last result, imports done. Finders that
are not installed (the extra `bench`) are left out.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from measuring import spread
from nets import WORKLOADS, data
from torch import nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, TensorDataset

import lrexp

STEPS, MIN_LR, MAX_LR = 100, 1e-5, 0.3
BATCH = 64  # what lrexp takes where tensors come without a DataLoader
WORK = WORKLOADS["MLP 16-32-2"]

Finder = Callable[[nn.Module, DataLoader[Any]], object]


def ours(model: nn.Module, loader: DataLoader[Any]) -> object:
    return _lrexp(model, loader)


def ours_on_tensors(model: nn.Module, loader: DataLoader[Any]) -> object:
    """The tensors in place of the DataLoader: as many samples a batch."""
    return _lrexp(model, data(WORK.name))


def _lrexp(model: nn.Module, batches: Any) -> object:
    finder = lrexp.LRFinder(model, WORK.make_optimizer(model), functional.cross_entropy)
    finder.run(batches, min_lr=MIN_LR, max_lr=MAX_LR, steps=STEPS, seeds=1, stop_factor=1e9)
    return finder.get_optimal_lr()


def torch_lr_finder(model: nn.Module, loader: DataLoader[Any]) -> object:
    from torch_lr_finder import LRFinder

    finder = LRFinder(model, WORK.make_optimizer(model), nn.CrossEntropyLoss())
    finder.range_test(loader, start_lr=MIN_LR, end_lr=MAX_LR, num_iter=STEPS, diverge_th=math.inf)
    history = finder.history
    finder.reset()
    return history


def fastai(model: nn.Module, loader: DataLoader[Any]) -> object:
    import fastai.callback.all  # noqa: F401  # gives Learner lr_find and no_bar
    from fastai.basics import DataLoaders, Learner, OptimWrapper

    def optimizer(parameters: Any, **options: Any) -> Any:
        return OptimWrapper(parameters, torch.optim.SGD, momentum=0.9, **options)

    loaders = DataLoaders(loader, loader)
    learner = Learner(loaders, model, loss_func=nn.CrossEntropyLoss(), opt_func=optimizer)
    with learner.no_bar(), learner.no_logging():
        return learner.lr_find(
            start_lr=MIN_LR, end_lr=MAX_LR, num_it=STEPS, stop_div=False, show_plot=False
        )


def lightning(model: nn.Module, loader: DataLoader[Any]) -> object:
    from pytorch_lightning import LightningModule, Trainer
    from pytorch_lightning.tuner import Tuner

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lr = model, MIN_LR

        def training_step(self, batch: Any) -> torch.Tensor:
            return functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.model.parameters(), lr=self.lr, momentum=0.9)

    with tempfile.TemporaryDirectory() as folder:  # it writes a checkpoint
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=-1,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        return Tuner(trainer).lr_find(
            Module(), loader, min_lr=MIN_LR, max_lr=MAX_LR, num_training=STEPS,
            early_stop_threshold=None, update_attr=False,
        )  # fmt: skip


FINDERS: dict[str, tuple[Finder, str]] = {  # with the package that it needs
    "lrexp, DataLoader": (ours, "lrexp"),
    "lrexp, tensors": (ours_on_tensors, "lrexp"),
    "torch-lr-finder": (torch_lr_finder, "torch_lr_finder"),
    "fastai": (fastai, "fastai"),
    "Lightning": (lightning, "pytorch_lightning"),
}


def installed() -> dict[str, Finder]:
    return {name: finder for name, (finder, package) in FINDERS.items() if find_spec(package)}


def range_tests(rounds: int) -> dict[str, list[float]]:
    """Measure and print; return the seconds of every finder."""
    torch.set_num_threads(1)
    finders = installed()
    updates = {name: timed(finder)[1] for name, finder in finders.items()}  # imports and warm-up
    seconds: dict[str, list[float]] = {name: [] for name in finders}
    for i in range(rounds):
        for name in list(finders)[:: 1 if i % 2 == 0 else -1]:
            seconds[name].append(timed(finders[name])[0])
    print(f"\nRange test of {STEPS} steps on {WORK.name}, imports done")
    print("| finder | updates | ms | ours on the same DataLoader / it | ours on tensors / it |")
    print("| --- | --- | --- | --- | --- |")
    for name, values in seconds.items():
        against = [
            spread([a / b for a, b in zip(seconds[own], values, strict=True)])
            for own in ("lrexp, DataLoader", "lrexp, tensors")
        ]
        middle = statistics.median(values) * 1e3
        print(f"| {name} | {updates[name]} | {middle:.1f} | {' | '.join(against)} |", flush=True)
    for name in FINDERS.keys() - finders.keys():
        print(f"- {name} is not installed.")
    return seconds


def timed(finder: Finder) -> tuple[float, int]:
    """Return the seconds and the optimizer updates of one range test, its words swallowed."""
    torch.manual_seed(0)
    model = copy.deepcopy(WORK.make_model())
    dataset = TensorDataset(*data(WORK.name))
    loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True)
    updates = 0

    def count(*_: object) -> None:
        nonlocal updates
        updates += 1

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    hook = register_optimizer_step_post_hook(count)
    quiet = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
        ):
            warnings.simplefilter("ignore")
            begun = time.perf_counter()
            finder(model, loader)
            return time.perf_counter() - begun, updates
    finally:
        hook.remove()
