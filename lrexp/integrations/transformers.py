"""Hugging Face's Trainer: range tests of any Trainer, and short trainings judged by `eval_loss`.

A copy of the Trainer trains, with its own data, collator, loss and optimizer; the Trainer, its
model and its optimizer stay as they are. The loss is that of the update, and NaN is not hidden.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

import lrexp
from lrexp.integrations.attach import RisingLr, found_by, show_no_fall, unchanged, weighted_lr

_FACTORS = (1 / 9, 1 / 3, 1.0, 3.0)  # LRs of a race, as multiples of what the range test says
_QUIET = {
    "save_strategy": "no",
    "eval_strategy": "no",
    "logging_strategy": "no",
    "load_best_model_at_end": False,
    "push_to_hub": False,
    "report_to": [],
    "disable_tqdm": True,
}


def find_lr(
    trainer: Any,
    race: bool = False,
    budget: float | None = None,
    *,
    seeds: int = 3,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    steps: int = 100,
    stop_factor: float = 4.0,
    rule: str = "auto",
    mean_frac: float = 0.5,
) -> Any:
    """Run LR range tests of a Trainer and return what they suggest for its `learning_rate`.

    Args:
        trainer: with `model_init`, or a model from which every test starts. Of a PEFT model the
            parameters that train are put back alone.
        race: try four LRs around the suggestion by short trainings under the Trainer's own
            schedule; the lowest `eval_loss` decides.
        budget: of a race: how many whole trainings it may take together; 1 by default.
        seeds: how many tests are combined; a seed sets batch order, dropout and, with
            `model_init`, weights.
        min_lr, max_lr, steps, stop_factor, rule: as of `lrexp.LRFinder.run`.
        mean_frac: mean LR of the Trainer's schedule as a share of its peak; ½ for its default,
            `linear`, and for `cosine`; 1 for `constant`.

    Returns:
        A `lrexp.RangeTest`; after a race with its suggestion, and the losses in `tried`.

    Raises:
        ConfigError: the Trainer has no training data, or no evaluation data for a race.

    Example:
        >>> find_lr(trainer).suggested_lr                   # doctest: +SKIP
        8.1e-05
    """
    if trainer.train_dataset is None:
        what, remedy = "has no train_dataset", "Give it one."
        raise lrexp.ConfigError.single("trainer", what, "None", remedy)
    if race and trainer.eval_dataset is None:
        what, remedy = "has no eval_dataset, by which a race judges", "Give it one."
        raise lrexp.ConfigError.single("trainer", what, "None", remedy)
    ramp: dict[str, Any] = {"min_lr": min_lr, "max_lr": max_lr, "steps": steps}

    def run(seed: int, rising: RisingLr) -> RisingLr:
        _train(trainer, seed, rising, {"max_steps": steps})
        return rising

    with unchanged(trainer.model):
        curves = [run(s, RisingLr(**ramp, stop_factor=stop_factor)).curve for s in range(seeds)]
        control = None
        if show_no_fall(curves):  # the same batches once more, without learning
            control = [run(s, RisingLr(**ramp, still=True)).losses for s in range(seeds)]
        found = found_by(curves, rule, mean_frac, control)
        if race and found.suggested_lr is not None:
            tried = _race(trainer, found.suggested_lr, budget or 1.0)
            lr = weighted_lr([lr for lr, _ in tried], [loss for _, loss in tried])
            suggestion = replace(found.suggestion, suggested_lr=lr, note=_said(tried))
            found = replace(found, suggestion=suggestion)
    return found


def _race(trainer: Any, lr: float, budget: float) -> list[tuple[float, float]]:
    """Return LRs around one, and the `eval_loss` after a short training with each."""
    length = _length(trainer)
    horizon = max(1, int(budget * length / len(_FACTORS)))
    tried = []
    for factor in _FACTORS:
        options = {"max_steps": min(horizon, length), "learning_rate": lr * factor}
        probe = _train(trainer, trainer.args.seed, None, options)
        tried.append((lr * factor, float(probe.evaluate()["eval_loss"])))
    return tried


def _said(tried: list[tuple[float, float]]) -> str:
    each = ", ".join(f"{lr:.2g}: {loss:.4g}" for lr, loss in tried)
    return f"Evaluation loss after short trainings, by LR: {each}."


def _length(trainer: Any) -> int:
    """Return the steps of the whole training."""
    args = trainer.args
    if args.max_steps > 0:
        return int(args.max_steps)
    batches = len(trainer.get_train_dataloader()) // args.gradient_accumulation_steps
    steps: float = args.num_train_epochs * max(1, batches)
    return max(1, math.ceil(steps))


class _Stop(TrainerCallback):
    """Ends a training once its ramp is over."""

    def __init__(self, rising: RisingLr | None) -> None:
        self._rising = rising

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._rising is not None and self._rising.is_over:
            control.should_training_stop = True


class _Rising:
    """What a Trainer does besides while the LR rises: it sees losses, and sets the LR."""

    rising: RisingLr | None
    waiting: list[float]
    is_share: bool | None

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        if self.is_share is None:
            self.is_share = self._gives_shares(model, inputs, num_items_in_batch)
        loss = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        self.waiting.append(float(loss))
        return loss

    def _gives_shares(self, model: Any, inputs: Any, count: Any) -> bool:
        """Return whether the losses of micro-batches add up to that of the update.

        Models that heed `num_items_in_batch` give such shares. Of those that take it and do not,
        transformers believes so, too, and does not divide.
        """
        trainer: Any = self
        believed = trainer.model_accepts_loss_kwargs and count is not None
        if not (believed or trainer.compute_loss_func is not None):
            return True  # then training_step divides
        losses = []
        for known in (count, None):
            with torch.no_grad(), torch.random.fork_rng():
                prepared = trainer._prepare_inputs(dict(inputs))
                losses.append(
                    float(trainer.compute_loss(model, prepared, num_items_in_batch=known))
                )
        return not math.isclose(*losses, rel_tol=1e-3)

    def create_optimizer(self, *given: Any, **named: Any) -> Any:
        optimizer = super().create_optimizer(*given, **named)  # type: ignore[misc]
        first = optimizer.param_groups[0]["lr"]
        ratios = [group["lr"] / first for group in optimizer.param_groups]

        def before_update(own: Any, *_: Any) -> None:
            if self.rising is not None and not self.rising.is_over:
                for group, ratio in zip(own.param_groups, ratios, strict=True):
                    group["lr"] = self.rising.lr * ratio
                count = 1 if self.is_share else len(self.waiting)
                self.rising.observe(math.fsum(self.waiting) / count)
            self.waiting = []

        optimizer.register_step_pre_hook(before_update)
        return optimizer


def _train(trainer: Any, seed: int, rising: RisingLr | None, options: dict[str, Any]) -> Any:
    """Train a copy of a Trainer, and return it."""
    probe = copy.copy(trainer)
    probe.__class__ = type("RangeTest", (_Rising, type(trainer)), {})
    probe.rising, probe.waiting, probe.is_share = rising, [], None
    with TemporaryDirectory() as folder:
        given = {**_QUIET, **options, "seed": seed, "output_dir": folder}
        probe.args = replace(trainer.args, **given)
        given_by_user = trainer.optimizer is not None and trainer.state.global_step == 0
        pair = (trainer.model, trainer.optimizer if given_by_user else None)
        probe.model, probe.optimizer = copy.deepcopy(pair)
        probe.model_wrapped, probe.lr_scheduler = probe.model, None
        if given_by_user and rising is not None:
            what, remedy = "has an optimizer of its own", "Pass `optimizer_cls_and_kwargs` instead."
            given_type = type(trainer.optimizer).__name__
            raise lrexp.ConfigError.single("trainer", what, given_type, remedy)
        own = [DefaultFlowCallback, _Stop(rising)]
        probe.callback_handler = CallbackHandler(  # type: ignore[no-untyped-call]
            own, probe.model, trainer.processing_class, None, None
        )
        probe.state, probe.control = TrainerState(), TrainerControl()
        probe.create_accelerator_and_postprocess()
        probe.train()
    return probe
