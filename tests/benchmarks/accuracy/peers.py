"""The LR finders of other packages at their defaults, one range test each.

All get the weights, batches and loss of lrexp's own test with the same seed; the range, the number
of steps, the smoothing and the stop are their own. Those that are not installed (the extra
`bench`) are left out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, Sampler, TensorDataset

from accuracy.answer import Answer
from accuracy.training import plan_of
from accuracy.workloads import Workload
from lrexp.engine.rng import preserved_rng
from lrexp.workloads.losses import LossFunction
from lrexp.workloads.tensors import ResidentBatches


@dataclass(frozen=True)
class Bench:
    """What a finder is given; `span` is a range other than its default, or empty."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: LossFunction
    loader: DataLoader[Any]
    span: tuple[float, ...]


Finder = Callable[[Bench], dict[str, "float | None"]]


class SameOrder(Sampler[list[int]]):
    """The rows of the batches of one seed, epoch after epoch as lrexp draws them."""

    def __init__(self, batches: ResidentBatches, seed: int) -> None:
        self.batches, self.seed, self.epoch = batches, seed, 0

    def __len__(self) -> int:
        return self.batches.batches_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        rows = self.batches.order(self.seed, self.epoch)[: len(self) * self.batches.batch_size]
        self.epoch += 1
        yield from rows.view(len(self), -1).tolist()


def torch_lr_finder(bench: Bench) -> dict[str, float | None]:
    from matplotlib.figure import Figure
    from torch_lr_finder import LRFinder

    low, high = bench.span or (1e-7, 10)  # as in its README; 10 is its default
    finder = LRFinder(bench.model, bench.optimizer, bench.loss, device="cpu")
    finder.range_test(bench.loader, start_lr=low, end_lr=high)
    _, lr = finder.plot(ax=Figure().subplots())
    return {"torch-lr-finder": lr}


def fastai(bench: Bench) -> dict[str, float | None]:
    import fastai.callback.all  # noqa: F401  # gives Learner lr_find and no_bar
    from fastai.basics import DataLoaders, Learner, OptimWrapper
    from fastai.callback.schedule import minimum, slide, steep, valley

    def optimizer(parameters: Any, **options: Any) -> Any:
        group = bench.optimizer.param_groups[0]
        names = {"momentum", "weight_decay"} & bench.optimizer.defaults.keys()
        options |= {name: group[name] for name in names}
        return OptimWrapper(parameters, type(bench.optimizer), **options)

    loaders = DataLoaders(bench.loader, bench.loader)
    learner = Learner(loaders, bench.model, loss_func=bench.loss, opt_func=optimizer)
    span = dict(zip(("start_lr", "end_lr"), bench.span, strict=bool(bench.span)))
    rules = {"valley": valley, "slide": slide, "minimum": minimum, "steep": steep}
    with learner.no_bar(), learner.no_logging():
        learner.lr_find(show_plot=False, suggest_funcs=None, **span)
    # what its lr_find does next, one rule at a time: there, one that raises takes the others along
    lrs, losses = (torch.tensor(x)[10:-5] for x in (learner.recorder.lrs, learner.recorder.losses))
    nans = losses.isnan().nonzero()
    end = int(nans[0]) if len(nans) else len(losses)
    found: dict[str, float | None] = {}
    for name, rule in rules.items():
        with contextlib.suppress(IndexError, ValueError, RuntimeError, ZeroDivisionError):
            found[f"fastai {name}"] = float(rule(lrs[:end], losses[:end], 100)[0])
    return found


def lightning(bench: Bench) -> dict[str, float | None]:
    from pytorch_lightning import LightningModule, Trainer
    from pytorch_lightning.tuner import Tuner

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lr = bench.model, 1e-3

        def training_step(self, batch: Any) -> Tensor:
            return bench.loss(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            for group in bench.optimizer.param_groups:
                group["lr"] = self.lr
            return bench.optimizer

    span = dict(zip(("min_lr", "max_lr"), bench.span, strict=bool(bench.span)))
    with tempfile.TemporaryDirectory() as folder:  # it writes a checkpoint
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=-1,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        finder = Tuner(trainer).lr_find(Module(), bench.loader, update_attr=False, **span)
    return {"Lightning": None if finder is None else finder.suggestion()}


FINDERS: dict[str, tuple[Finder, tuple[str, ...]]] = {  # package -> finder, names of its rules
    "fastai": (fastai, ("fastai valley", "fastai minimum", "fastai slide", "fastai steep")),
    "torch_lr_finder": (torch_lr_finder, ("torch-lr-finder",)),
    "pytorch_lightning": (lightning, ("Lightning",)),
}


def installed() -> list[str]:
    return [package for package in FINDERS if find_spec(package)]


def ask(package: str, work: Workload, optimizer: str, seed: int) -> dict[str, Answer]:
    """Return the answers of all rules of a package.

    An exception, and an LR that is not a positive number, are refusals.
    """
    finder, names = FINDERS[package]
    plan = plan_of(work, optimizer)["only"]
    task = plan.task(seed)
    model, made = task.build()
    assert isinstance(task.train, ResidentBatches)
    dataset = TensorDataset(*task.train.data)
    loader = DataLoader(dataset, batch_sampler=SameOrder(task.train, seed))
    span = (work.find_lr["min_lr"], work.find_lr["max_lr"]) if work.find_lr else ()
    found: dict[str, float | None] = {}
    reason = "no LR"
    with _counted() as updates, _silent(), preserved_rng(plan.device):
        torch.manual_seed(seed)
        try:
            found = finder(Bench(model, made, task.objective.loss, loader, span))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    lrs = {name: _positive(found.get(name)) for name in names}
    return {name: Answer(lr, updates[0], reason if lr is None else "") for name, lr in lrs.items()}


def _positive(lr: float | None) -> float | None:
    return float(lr) if lr is not None and math.isfinite(lr) and lr > 0 else None


@contextlib.contextmanager
def _counted() -> Iterator[list[int]]:
    updates = [0]

    def count(*_: object) -> None:
        updates[0] += 1

    hook = register_optimizer_step_post_hook(count)
    try:
        yield updates
    finally:
        hook.remove()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "torch_lr_finder"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    quiet = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        warnings.simplefilter("ignore")
        yield
