"""The lines that give a training of one's own the optimizer, LRs and length of a config.

Each framework has one function, from a `Recipe` to Python text. LRs are those of lrexp to rounding:
by a formula where one line says it, by the framework's own schedule where that is the same, and
otherwise by `lrexp.get_lr_scheduler`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from lrexp.config.schema import ExperimentConfig
from lrexp.errors import ConfigError, did_you_mean
from lrexp.schedules.build import SCHEDULES
from lrexp.schedules.schedule import Controller, Schedule

if TYPE_CHECKING:
    from lrexp.config.load import Overrides

_WARMUP = ("warmup", "warmup_start", "warmup_start_lr")
_FLOOR = ("min_lr", "final_div_factor")
_SHAPES = {  # of what is left of the way to the floor, at r from 0 to 1
    "linear": "1 - r",
    "cosine": "(1 + math.cos(math.pi * r)) / 2",
    "polynomial": "(1 - r) ** {power}",
}


@dataclass(frozen=True)
class Recipe:
    """What is told to a framework, with all durations in steps.

    Args:
        optimizer: class name, or import path.
        args: of the optimizer, without its LR.
        lr: the peak.
        schedule: name, and `params` as in a config.
        total_steps: updates of the training.
        accumulate, grad_clip: as in a config.
    """

    optimizer: str
    args: Mapping[str, Any]
    lr: float
    schedule: str
    params: Mapping[str, Any]
    total_steps: int
    accumulate: int
    grad_clip: float | None

    @property
    def warmup(self) -> int:
        """Steps of the warmup."""
        return int(self.params.get("warmup") or 0)

    @property
    def warmup_start(self) -> float | None:
        """The share of the peak that the warmup starts from; None for the peak over its steps."""
        if (start_lr := self.params.get("warmup_start_lr")) is not None:
            return float(start_lr) / self.lr
        return self.params.get("warmup_start")

    @property
    def low(self) -> float:
        """The floor of the LR."""
        factor = self.params.get("final_div_factor")
        return self.lr / factor if factor is not None else float(self.params.get("min_lr") or 0.0)

    @property
    def made(self) -> Schedule | Controller | None:
        """The schedule itself, None of one that is not lrexp's own."""
        factory = SCHEDULES.get(self.schedule)
        return factory and factory(self.lr, self.total_steps, **self.params)

    @property
    def has_formula(self) -> bool:
        """Whether a few lines without lrexp say the LR of every step."""
        own = {"power"} if self.schedule == "polynomial" else set()
        known = self.schedule == "constant" or self.schedule in _SHAPES
        return known and self.has_only(*_WARMUP, *_FLOOR, *own)

    @property
    def is_flat(self) -> bool:
        """Whether the LR never changes."""
        return self.schedule == "constant" and not self.warmup

    def has_only(self, *names: str) -> bool:
        """Whether the schedule is told nothing but what is named here."""
        return {key for key, value in self.params.items() if value is not None} <= {*names}


def recipe_of(settings: ExperimentConfig) -> Recipe:
    """Return the recipe of a resolved config.

    Raises:
        ConfigError: it has several optimizers or parameter groups, or a schedule that reacts to
            training or is no name of lrexp's.
    """
    optimizer, schedule = settings.optimizer, settings.schedule
    for key, given in (("parts", optimizer.parts), ("groups", optimizer.groups)):
        if given:
            what, remedy = "cannot be written as lines to paste", "Export a config without them."
            raise ConfigError.single(f"optimizer.{key}", what, given, remedy)
    recipe = Recipe(
        optimizer.name,
        optimizer.args,
        optimizer.lr,
        schedule.name,
        {key: _in_steps(value) for key, value in schedule.params.items()},
        _in_steps(settings.train.duration),
        settings.train.accumulate,
        settings.train.grad_clip,
    )
    if schedule.name in ("combined", "lambda") or not isinstance(recipe.made, Schedule):
        what = "cannot be written as lines to paste"
        remedy = "What can is one schedule of lrexp's own that does not react to training."
        raise ConfigError.single("schedule.name", what, schedule.name, remedy)
    return recipe


def export_config(
    config: str | Path | Mapping[str, Any],
    to: str,
    *,
    variant: str | None = None,
    overrides: Overrides = (),
    trust: Sequence[str] = (),
) -> str:
    """Return the lines that give a training of one's own the optimizer, LRs and length of a config.

    Args:
        config: a YAML file, a dict, or the directory of a run.
        to: torch, hf (transformers' Trainer), lightning, keras or timm.
        variant: which one; by default the config itself, of a finished comparison its best one.
        overrides, trust: as of `compare`; a run has those that it began with.

    Raises:
        ConfigError: the config is wrong, or cannot be written in lines for this framework.

    Example:
        >>> print(lrexp.export_config("configs/quickstart.yaml", "torch"))     # doctest: +SKIP
    """
    from lrexp.config.load import changes_of, load_config
    from lrexp.runs.plan import make_plan
    from lrexp.runs.reader import load_run
    from lrexp.runs.spec import resolved_config

    if to not in FRAMEWORKS:
        remedy = did_you_mean(to, FRAMEWORKS)
        raise ConfigError.single("to", "is no framework that lrexp knows", to, remedy)
    if not isinstance(config, Mapping) and Path(config).is_dir():
        run = load_run(Path(config))
        ranking = (run.summary or {}).get("ranking") or [{}]
        variant = variant or ranking[0].get("variant")
        resolved = load_config(run.path / "config.yaml", trust=trust)
    else:
        asked = load_config(config, changes_of(overrides), trust=trust)
        resolved = load_config(resolved_config(make_plan(asked)), trust=trust)
    if variant is not None and variant not in resolved.variants:
        remedy = did_you_mean(variant, resolved.variants)
        raise ConfigError.single("variant", "is no variant of the config", variant, remedy)
    settings = resolved.experiment if variant is None else resolved.variants[variant]
    return training_code(recipe_of(settings), to)


def training_code(recipe: Recipe, to: str) -> str:
    """Return the lines for a framework: torch, hf, lightning, keras or timm.

    Raises:
        ConfigError: the framework has nothing like the optimizer.

    Example:
        >>> recipe = Recipe("SGD", {}, 0.1, "constant", {}, 100, 1, None)
        >>> print(training_code(recipe, "torch"))
        import torch
        <BLANKLINE>
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    """
    return FRAMEWORKS[to](recipe)


def _torch(recipe: Recipe) -> str:
    if recipe.is_flat:
        return _file(recipe, "", _torch_optimizer(recipe))
    lines = f"{_torch_optimizer(recipe)}\n{_torch_scheduler(recipe)}"
    after = "# Call scheduler.step() after each optimizer.step()"
    return _file(
        recipe, _torch_lr_at(recipe), f"{lines}\n{after}; the training has {_length(recipe)}."
    )


def _lightning(recipe: Recipe) -> str:
    optimizer = _torch_optimizer(recipe, "self.parameters()")
    if recipe.is_flat:
        body = [optimizer, "return optimizer"]
    else:
        settings = '{"scheduler": scheduler, "interval": "step"}'
        returned = f'return {{"optimizer": optimizer, "lr_scheduler": {settings}}}'
        body = [optimizer, _torch_scheduler(recipe), returned]
    method = "def configure_optimizers(self):\n" + indent("\n".join(body), "    ")
    trainer = {
        "max_steps": recipe.total_steps,
        "accumulate_grad_batches": recipe.accumulate if recipe.accumulate > 1 else None,
        "gradient_clip_val": recipe.grad_clip,
    }
    return _file(
        recipe, _torch_lr_at(recipe), f"{method}\n\n\ntrainer = {_call('Trainer', trainer)}"
    )


def _hf(recipe: Recipe) -> str:
    lengths = {
        "max_steps": recipe.total_steps,
        "gradient_accumulation_steps": recipe.accumulate if recipe.accumulate > 1 else None,
        "max_grad_norm": recipe.grad_clip or 0.0,  # by default it clips at 1
    }
    if (named := _hf_names(recipe)) is not None:
        arguments = {"output_dir": "out", "learning_rate": recipe.lr, **named, **lengths}
        lines = f"args = {_call('TrainingArguments', arguments)}"
        spared = "# Of biases and norms, the Trainer decays no weights."
        lines += f"\n{spared}" if named["weight_decay"] else ""
        return f"from transformers import TrainingArguments\n\n{lines}"
    args = f"args = {_call('TrainingArguments', {'output_dir': 'out', **lengths})}"
    trainer = "trainer = Trainer(model=model, args=args, optimizers=(optimizer, scheduler))"
    if recipe.is_flat:
        scheduler = "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)"
    else:
        scheduler = _torch_scheduler(recipe)
    lines = "\n".join([_torch_optimizer(recipe), scheduler, args, trainer])
    return _file(
        recipe, _torch_lr_at(recipe), lines, "from transformers import Trainer, TrainingArguments"
    )


def _hf_names(recipe: Recipe) -> dict[str, Any] | None:
    """Return the arguments of TrainingArguments, None where they cannot say the same."""
    scheduler = _hf_scheduler(recipe)
    if recipe.optimizer != "AdamW" or not {*recipe.args} <= {"betas", "eps", "weight_decay"}:
        return None
    if scheduler is None or (recipe.warmup and recipe.warmup_start != 0):  # theirs is from 0
        return None
    beta1, beta2 = recipe.args.get("betas", (None, None))
    return {
        "lr_scheduler_type": scheduler[0],
        "lr_scheduler_kwargs": scheduler[1] or None,
        "warmup_steps": recipe.warmup or None,
        "adam_beta1": beta1,
        "adam_beta2": beta2,
        "adam_epsilon": recipe.args.get("eps"),
        "weight_decay": recipe.args.get("weight_decay", 0.01),
    }


def _hf_scheduler(recipe: Recipe) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the arguments that the same schedule has in transformers."""
    if recipe.schedule == "polynomial" and recipe.has_only(*_WARMUP, *_FLOOR, "power"):
        return "polynomial", {"lr_end": recipe.low, "power": recipe.params.get("power") or 1.0}
    if not recipe.has_only(*_WARMUP, *_FLOOR):
        return None
    if recipe.schedule == "constant":
        return "constant_with_warmup", {}
    if recipe.schedule == "cosine" and recipe.low:
        return "cosine_with_min_lr", {"min_lr": recipe.low}
    return (
        (recipe.schedule, {})
        if recipe.schedule in ("cosine", "linear") and not recipe.low
        else None
    )


_KERAS_WORDS = {"eps": "epsilon", "alpha": "rho"}
_KERAS: dict[str, dict[str, Any]] = {  # torch's defaults, where Keras has others
    "SGD": {},
    "Adam": {"eps": 1e-8},
    "AdamW": {"eps": 1e-8, "weight_decay": 0.01},
    "NAdam": {"eps": 1e-8},
    "Adamax": {"eps": 1e-8},
    "RMSprop": {"eps": 1e-8, "alpha": 0.99},
    "Adagrad": {"eps": 1e-10, "initial_accumulator_value": 0.0},
}
_KERAS_TAKES = {"momentum", "nesterov", "betas", "eps", "alpha", "centered", "amsgrad"}


def _keras(recipe: Recipe) -> str:
    if recipe.optimizer not in _KERAS:
        remedy = f"Keras has {', '.join(_KERAS)}."
        raise ConfigError.single("optimizer.name", "is not in Keras", recipe.optimizer, remedy)
    known = _KERAS_TAKES | _KERAS[recipe.optimizer].keys()
    if other := sorted({*recipe.args} - known):
        what, remedy = "means another thing in Keras, or nothing", "Leave it out."
        given = recipe.args[other[0]]
        raise ConfigError.single(f"optimizer.args.{other[0]}", what, given, remedy)
    args = {**_KERAS[recipe.optimizer], **recipe.args}
    if "betas" in args:
        args["beta_1"], args["beta_2"] = args.pop("betas")
    words: dict[str, Any] = {_KERAS_WORDS.get(key, key): value for key, value in args.items()}
    if recipe.grad_clip is not None:
        words["global_clipnorm"] = recipe.grad_clip
    if recipe.accumulate > 1:
        words["gradient_accumulation_steps"] = recipe.accumulate
    name = {"NAdam": "Nadam"}.get(recipe.optimizer, recipe.optimizer)
    before, lr = ("", repr(recipe.lr)) if recipe.is_flat else _keras_schedule(recipe)
    call = _call(f"keras.optimizers.{name}", {"learning_rate": _Code(lr), **words})
    text = f"{before}optimizer = {call}"
    note = f"# model.compile(optimizer=optimizer, ...); {_length(recipe)}."
    own_table = "LrSchedule" in before
    imported = "from lrexp.integrations.keras import LrSchedule" if own_table else ""
    lr_at = _lr_at(recipe) if own_table else ""
    return _file(recipe, lr_at, f"{text}\n{note}", imported)


def _keras_schedule(recipe: Recipe) -> tuple[str, str]:
    """Return the lines that make the schedule, and its name in them."""
    simple = recipe.has_only(*_WARMUP, *_FLOOR)
    if recipe.schedule == "linear" and simple and not recipe.warmup:
        words = {"end_learning_rate": recipe.low}
        made = _call("keras.optimizers.schedules.PolynomialDecay",
                     {"": recipe.lr, "decay_steps": recipe.total_steps, **words})  # fmt: skip
    elif (
        recipe.schedule == "cosine"
        and simple
        and (not recipe.warmup or recipe.warmup_start is not None)
    ):
        start = recipe.lr * (recipe.warmup_start or 0.0)
        words = {"decay_steps": recipe.total_steps - recipe.warmup, "alpha": recipe.low / recipe.lr}
        if recipe.warmup:
            words |= {"warmup_target": recipe.lr, "warmup_steps": recipe.warmup}
        first = start if recipe.warmup else recipe.lr
        made = _call("keras.optimizers.schedules.CosineDecay", {"": first, **words})
    elif isinstance(recipe.made, Schedule) and recipe.made.momentum is not None:
        what, remedy = "cycles the momentum, which Keras cannot", "Set cycle_momentum: false."
        raise ConfigError.single("schedule.name", what, recipe.schedule, remedy)
    else:
        made = f"LrSchedule(lr_at, total_steps={recipe.total_steps})"
    return f"schedule = {made}\n", "schedule"


def _timm(recipe: Recipe) -> str:
    updates = "# After update number n, from 1: scheduler.step_update(num_updates=n)"
    curves = {"cosine": "CosineLRScheduler", "linear": "PolyLRScheduler"}
    form = not recipe.warmup or recipe.warmup_start is not None
    if recipe.schedule not in curves or not form or not recipe.has_only(*_WARMUP, *_FLOOR):
        return _torch(recipe)  # timm's loop takes a scheduler of torch, too, stepped by hand
    words: dict[str, Any] = {
        "t_initial": recipe.total_steps - recipe.warmup,
        "lr_min": recipe.low,
        "power": 1.0 if recipe.schedule == "linear" else None,
        "warmup_t": recipe.warmup or None,
        "warmup_lr_init": recipe.lr * (recipe.warmup_start or 0.0) if recipe.warmup else None,
        "warmup_prefix": True if recipe.warmup else None,
        "t_in_epochs": False,
    }
    name = curves[recipe.schedule]
    call = _call(name, {"": _Code("optimizer"), **words})
    lines = f"{_torch_optimizer(recipe)}\nscheduler = {call}\n{updates}"
    imported = f"from timm.scheduler import {name}"
    return _file(recipe, "", f"{lines}; {_length(recipe)}.", imported)


FRAMEWORKS: dict[str, Callable[[Recipe], str]] = {
    "torch": _torch,
    "hf": _hf,
    "lightning": _lightning,
    "keras": _keras,
    "timm": _timm,
}


def _lr_at(recipe: Recipe) -> str:
    """Return the lines that define `lr_at`, step -> LR."""
    if not recipe.has_formula:
        return f"lr_at = {_by_lrexp(recipe)}"
    if recipe.schedule == "constant":
        rest = [f"return {recipe.lr!r}"]
    else:
        warmup, total, low, peak = recipe.warmup, recipe.total_steps, recipe.low, recipe.lr
        since = f"(step - {warmup}) / {total - warmup}" if warmup else f"step / {total}"
        fall = _SHAPES[recipe.schedule].format(power=recipe.params.get("power") or 1.0)
        way = f"{peak!r} * ({fall})" if low == 0 else f"{low!r} + ({peak!r} - {low!r}) * ({fall})"
        rest = [f"r = min({since}, 1.0)", f"return {way}"]
    return "\n".join(["def lr_at(step):", *(f"    {line}" for line in [*_rise(recipe), *rest])])


def _rise(recipe: Recipe) -> list[str]:
    if not recipe.warmup:
        return []
    start, steps = recipe.warmup_start, recipe.warmup
    share = f"(step + 1) / {steps}"
    if start is not None:
        share = f"({start!r} + {1 - start!r} * step / {steps})" if start else f"step / {steps}"
    return [f"if step < {steps}:", f"    return {recipe.lr!r} * {share}"]


def _by_lrexp(recipe: Recipe) -> str:
    own = {k: v for k, v in recipe.params.items() if k not in ("warmup", "min_lr")}
    arguments = {
        "max_lr": recipe.lr,
        "min_lr": recipe.params.get("min_lr"),
        "warmup_steps": recipe.warmup or None,
        "max_steps": recipe.total_steps,
        "decay_type": recipe.schedule,
        **own,
    }
    return _call("lrexp.get_lr_scheduler", arguments)


def _torch_optimizer(recipe: Recipe, parameters: str = "model.parameters()") -> str:
    name = recipe.optimizer
    name = name.partition(":")[2] if ":" in name else f"torch.optim.{name}"
    arguments = {"": _Code(parameters), "lr": recipe.lr, **recipe.args}
    return f"optimizer = {_call(name, arguments)}"


def _torch_scheduler(recipe: Recipe) -> str:
    if not recipe.has_formula:
        return f"scheduler = {_by_lrexp(recipe)}.to_torch(optimizer)"
    factor = f"lambda step: lr_at(step) / {recipe.lr!r}"
    return f"scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, {factor})"


def _torch_lr_at(recipe: Recipe) -> str:
    return _lr_at(recipe) if recipe.has_formula and not recipe.is_flat else ""


def _file(recipe: Recipe, lr_at: str, lines: str, imported: str = "") -> str:
    """Return the text with the imports that it needs at its head."""
    text = "\n\n\n".join(part for part in (lr_at, lines) if part)
    used = [name for name in ("math", "keras", "lrexp", "torch") if f"{name}." in text]
    heads = [f"import {name}" + ("\n" if name == "math" else "") for name in used]
    if ":" in recipe.optimizer and "torch.optim.lr_scheduler" in text:
        module, _, name = recipe.optimizer.partition(":")
        heads.append(f"from {module} import {name}")
    head = "\n".join([*heads, *([imported] if imported else [])])
    return f"{head}\n\n{'' if not lr_at else chr(10)}{text}"


@dataclass(frozen=True)
class _Code:
    """Text that stands in a call as it is."""

    text: str

    def __repr__(self) -> str:
        return self.text


def _call(name: str, arguments: Mapping[str, Any]) -> str:
    """Return the text of a call; an argument of None is left out, one without a name goes first."""
    words = [f"{key}={_text(value)}" if key else _text(value)
             for key, value in arguments.items() if value is not None]  # fmt: skip
    line = f"{name}({', '.join(words)})"
    return line if len(line) <= 84 else f"{name}(\n    " + ",\n    ".join(words) + ",\n)"


def _text(value: Any) -> str:
    """Return a value as Python text, in double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _length(recipe: Recipe) -> str:
    return f"the training has {recipe.total_steps} step" + "s" * (recipe.total_steps != 1)


def _in_steps(value: Any) -> Any:
    """Return whole steps of a resolved duration, anything else as it is."""
    if isinstance(value, list):
        return [_in_steps(item) for item in value]
    match = re.fullmatch(r"(\d+)st", value) if isinstance(value, str) else None
    return int(match[1]) if match else value
