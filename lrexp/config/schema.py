"""The sections and keys of an experiment: types, ranges, defaults, one sentence on each.

Pydantic checks values strictly: `true` is no number, `.nan` is no rate. Short forms
(`schedule: cosine`) are written out before these models see them. Names and arguments are checked
in `names.py`, with the code they refer to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_serializer,
    model_validator,
)

from lrexp.config.fields import (
    OPEN,
    RULES,
    Arguments,
    Device,
    Duration,
    ExecutorConfig,
    InMemory,
    Length,
    Name,
    Pattern,
    SplitRule,
    Text,
    TrackerConfig,
    refusal,
)
from lrexp.config.find_lr import FindLrConfig
from lrexp.config.tree import NAMED_SECTIONS, OPTIONAL_SECTIONS
from lrexp.schedules.signatures import Count, Fraction, Positive


class ModelConfig(BaseModel):
    """What is trained."""

    model_config = RULES

    name: Text = Field(
        description="A built-in model, one of torchvision's, or an import path such as "
        "my_models:make_model.",
        examples=["mlp"],
    )
    args: Arguments = Field(
        default_factory=dict,
        description="Its arguments; $num_classes and other facts of the data may be used.",
        examples=[{"hidden": [128, 128]}],
    )


class DataConfig(BaseModel):
    """What it is trained on."""

    model_config = RULES

    name: Text = Field(
        description="A built-in dataset, one of torchvision's, or an import path to a function "
        "that returns (train, val) or train.",
        examples=["digits"],
    )
    batch_size: Count = Field(
        default=64, description="Samples per batch; a DataLoader has its own."
    )
    val_fraction: Fraction = Field(
        default=0.2,
        description="Share of the data that is kept for validation, where the data has no "
        "validation part of its own; 0 for DataLoaders and iterables where none is written.",
    )
    split: SplitRule = Field(
        default=None,
        description="How rows are split: random (the default of all but text), stratified, last, "
        "{column: NAME} whose cells say train and val or number the folds, or {groups: NAME} whose "
        "equal cells stay together.",
        examples=["last"],
    )
    args: Arguments = Field(
        default_factory=dict,
        description="Its arguments; path and root of built-in data start at the config's folder.",
    )
    workers: int = Field(
        default=0, ge=0, le=256, description="Processes that load batches, for data not in memory."
    )
    in_memory: InMemory = Field(
        default="auto", description="Whether all data is kept on the device: auto where it fits."
    )

    @property
    def options(self) -> dict[str, Any]:
        """Return how the data is batched, as `load_data` takes it: None for what is not written."""
        not_written = {"batch_size", "val_fraction"} - self.model_fields_set
        return {**self.model_dump(exclude={"name", "args"}), **dict.fromkeys(not_written)}


class LossConfig(BaseModel):
    """What is minimised."""

    model_config = RULES

    name: Text = Field(
        description="A loss of torch.nn.functional, or an import path to a function of "
        "(output, target) or (output, target, weight).",
        examples=["cross_entropy"],
    )
    args: Arguments = Field(
        default_factory=dict,
        description="Its other arguments; a list of numbers, and a number where torch "
        "wants a tensor, becomes one for torch's losses.",
        examples=[{"label_smoothing": 0.1}],
    )


class _Chosen(BaseModel):
    """Some of the parameters: those that fit all that is given."""

    match: Pattern | None = Field(
        default=None,
        description="Regular expression that starts matching at the start of parameter names.",
        examples=["head.*"],
    )
    ndim: int | None = Field(
        default=None, ge=0, description="Parameters of so many dimensions.", examples=[1]
    )
    module: Text | None = Field(
        default=None,
        description="Parameters of modules of this class, by its name.",
        examples=["LayerNorm"],
    )

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, dump: Any) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if value is not None}


class GroupConfig(_Chosen):
    """Parameters with an LR, or other arguments of their optimizer, of their own."""

    model_config = OPEN

    lr_scale: Positive = Field(
        default=1.0, description="Their LR, as a factor of the base LR.", examples=[10.0]
    )


class _OneOptimizer(BaseModel):
    """One optimizer."""

    model_config = RULES

    name: Text = Field(
        description="A class of torch.optim, or an import path to one.", examples=["SGD"]
    )
    lr: Positive = Field(
        description="The base LR: the peak that the schedule scales.", examples=[0.01]
    )
    args: Arguments = Field(
        default_factory=dict, description="Its other arguments.", examples=[{"momentum": 0.9}]
    )
    groups: list[GroupConfig] = Field(
        default_factory=list,
        description="Parameter groups with an LR or other arguments of their own; a parameter "
        "belongs to the first that takes it.",
        examples=[[{"match": "head.*", "lr_scale": 10}, {"ndim": 1, "weight_decay": 0}]],
    )


class PartConfig(_Chosen, _OneOptimizer):
    """Parameters with an optimizer of their own."""

    model_config = RULES


def _one_or_parts(schema: dict[str, Any]) -> None:
    schema.pop("required", None)
    schema |= {"if": {"required": ["parts"]}, "else": {"required": ["name", "lr"]}}


class OptimizerConfig(_OneOptimizer):
    """How the weights are updated; of several optimizers, name and lr are those of the first."""

    model_config = ConfigDict(**RULES, json_schema_extra=_one_or_parts)

    parts: list[PartConfig] = Field(
        default_factory=list,
        description="Several optimizers, in place of all else; a parameter belongs to the first "
        "that takes it.",
        examples=[[{"ndim": 2, "name": "Muon", "lr": 0.02}, {"name": "AdamW", "lr": 3e-4}]],
    )

    @model_validator(mode="before")
    @classmethod
    def _led_by_the_first(cls, value: Any) -> Any:
        parts = value.get("parts") if isinstance(value, Mapping) else None
        if not isinstance(parts, list) or not parts:
            return value
        if beside := [key for key in _OneOptimizer.model_fields if key in value]:
            what, key = "cannot stand beside optimizer.parts", beside[0]
            raise refusal(what, f"Write it in a part: optimizer.parts.0.{key}.", key)
        try:
            first = PartConfig.model_validate(parts[0])
        except ValidationError:  # reported as a problem of that part
            return {"name": "SGD", "lr": 1.0, **value}
        return {"name": first.name, "lr": first.lr, **value}

    @model_serializer(mode="wrap")
    def _as_written(self, dump: Any) -> dict[str, Any]:
        tree = dump(self)
        return {k: v for k, v in tree.items() if (k == "parts") == bool(self.parts)}

    @property
    def each(self) -> list[PartConfig]:
        """Return all optimizers: the parts, or the only one as a part that takes everything."""
        one = {key: getattr(self, key) for key in _OneOptimizer.model_fields}
        return self.parts or [PartConfig.model_construct(**one)]

    @property
    def lrs(self) -> dict[str, float]:
        """Return the base LRs by their dotted keys."""
        if not self.parts:
            return {"optimizer.lr": self.lr}
        return {f"optimizer.parts.{i}.lr": part.lr for i, part in enumerate(self.parts)}

    def lrs_at(self, lr: float, part: int | None) -> dict[str, float]:
        """Return base LRs by their dotted keys: of one part, or of the first and all in ratio.

        Example:
            >>> OptimizerConfig(name="SGD", lr=0.1).lrs_at(0.3, None)
            {'optimizer.lr': 0.3}
        """
        if part is not None:
            return {f"optimizer.parts.{part}.lr": lr}
        return {
            key: lr if own == self.lr else own * (lr / self.lr) for key, own in self.lrs.items()
        }


class ScheduleConfig(BaseModel):
    """The LR of every step; a built-in schedule's parameters stand beside its name.

    Every schedule takes a `warmup`, and the start of it: `warmup_start_lr`, an LR, or
    `warmup_start`, a share of the peak.
    """

    model_config = OPEN

    name: Text = Field(
        default="constant",
        description="A built-in schedule, a class of torch.optim.lr_scheduler (with args and "
        "interval), or an import path.",
        examples=["cosine"],
    )

    @property
    def params(self) -> dict[str, Any]:
        """Return the schedule's parameters as they stand in the file."""
        return dict(self.model_extra or {})


class TrainConfig(BaseModel):
    """How long and how each trial trains."""

    model_config = RULES

    duration: Length = Field(
        default="10ep", description="Length of training: 500st, 10ep, 2e6tok, 64000sa, or steps."
    )
    eval_every: Duration = Field(
        default="1ep", description="Time between evaluations: 500st, 1ep, 5%, ... or steps."
    )
    accumulate: Count = Field(default=1, description="Batches whose gradients make one step.")
    grad_clip: Positive | None = Field(
        default=None, description="Largest gradient norm; null does not clip.", examples=[1.0]
    )


class CompareConfig(BaseModel):
    """What `lrexp compare` compares."""

    model_config = RULES

    seeds: int = Field(
        default=1, ge=1, le=10_000, description="Trainings per variant, one per seed."
    )
    metric: Text = Field(
        default="val_loss",
        description="What ranks the variants: val_loss, train_loss, or a metric as in metrics.",
    )
    direction: Literal["min", "max"] | None = Field(
        default=None, description="Which is better of the metric, where that is not known."
    )
    select: Literal["final", "best"] = Field(
        default="final", description="Rank by the last evaluation, or by the best of each training."
    )
    looks: list[int] = Field(default=[], description="Seeds at which to judge until decided.")
    reference: Text | None = Field(
        default=None,
        description="The variant that the others are compared with; best is the one that ranks "
        "first, and p is corrected for all pairs. Default: standard, best of a grid, the first.",
        examples=["standard"],
    )
    target: float | None = Field(
        default=None,
        description="A value of the metric; the time until each variant first reaches it is "
        "reported. Default: where more than half of the seeds of the reference end.",
        examples=[0.1],
    )
    variants: dict[str, dict[str, Any]] | None = Field(
        default=None,
        description="What each variant changes, as dotted keys. Default: high, standard and low, "
        "at 10, 1 and 0.1 times optimizer.lr.",
        examples=[{"high": {"optimizer.lr": 0.5}}],
    )
    grid: dict[str, list[Any]] | None = Field(
        default=None,
        description="A list of values for each dotted key; every combination is a variant.",
        examples=[{"optimizer.lr": [0.1, 0.01]}],
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> CompareConfig:
        if self.variants is not None and self.grid is not None:
            raise refusal("cannot stand beside compare.variants", "Keep one of the two.", "grid")
        if self.looks != sorted({look for look in self.looks if 0 < look <= 10_000}):
            raise refusal("must be numbers of seeds that rise", "E.g. [6, 10, 15].", "looks")
        return self


class ExperimentConfig(BaseModel):
    """One experiment: a model, data, an optimizer, a schedule, and how long to train."""

    model_config = RULES

    name: Name = Field(default="experiment", description="Part of the name of each run's folder.")
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="The first seed; further ones are seed + 1, ..."
    )
    device: Device = Field(default="auto", description="auto, cpu, cuda, cuda:N or mps.")
    precision: Literal["fp32", "fp64", "bf16"] = Field(
        default="fp32", description="Numbers that are computed with; bf16 is mixed precision."
    )
    engine: Literal["auto", "sequential", "vectorized"] = Field(
        default="auto", description="How trials are trained; never changes what they give."
    )
    executor: ExecutorConfig = Field(
        default_factory=ExecutorConfig,
        description="Who starts worker processes, and where: a name, or a name and its options.",
        examples=["local"],
    )
    model: ModelConfig = Field(description="What is trained.", examples=["mlp"])
    data: DataConfig = Field(description="What it is trained on.", examples=["digits"])
    loss: LossConfig | None = Field(
        default=None,
        description="What is minimised; left out where the model returns its loss.",
        examples=["cross_entropy"],
    )
    log: list[TrackerConfig] = Field(
        default_factory=list,
        description="Trackers that get the numbers while training: names, or names with options.",
        examples=[["tensorboard"]],
    )
    metrics: list[Text] = Field(
        default_factory=list,
        description="Measured at each evaluation: accuracy, scorers of scikit-learn, import paths "
        "to functions of (output, target), registered names.",
        examples=[["accuracy", "f1_macro"]],
    )
    step: Text | None = Field(
        default=None,
        description="A training step of one's own in place of a loss: an import path to a function "
        "(model, batch) -> loss, or a dict with `loss` and further numbers to log; of several "
        "optimizers a list with a loss for each, or a dict with it as `losses`.",
        examples=["mine:step"],
    )
    eval_step: Text | None = Field(
        default=None,
        description="The step of evaluations, where it is another one.",
        examples=["mine:eval_step"],
    )
    optimizer: OptimizerConfig = Field(
        description="How the weights are updated.", examples=[{"name": "SGD", "lr": 0.01}]
    )
    schedule: ScheduleConfig = Field(
        default_factory=lambda: ScheduleConfig(name="constant"),
        description="The LR of every step: a name, or a name and its parameters.",
        examples=["cosine"],
    )
    train: TrainConfig = Field(
        default_factory=TrainConfig, description="How long and how each trial trains."
    )
    compare: CompareConfig = Field(
        default_factory=CompareConfig, description="What `lrexp compare` compares."
    )
    find_lr: FindLrConfig = Field(
        default_factory=FindLrConfig, description="The LR range test of `lrexp find-lr`."
    )

    @property
    def tested_lr(self) -> float:
        """Return the base LR that a range test replaces."""
        return self.optimizer.each[self.find_lr.part or 0].lr

    @model_validator(mode="after")
    def _part_exists(self) -> ExperimentConfig:
        part, parts = self.find_lr.part, self.optimizer.parts
        if part is not None and part >= len(parts):
            what = f"is the number of no part: optimizer.parts has {len(parts)}, counted from 0"
            raise refusal(what, "Leave it out, or give another.", "find_lr.part")
        return self


def json_schema() -> dict[str, Any]:
    """Return the schema that `# yaml-language-server: $schema=FILE` in a config points to.

    It knows the short forms (`schedule: cosine`) and the patterns of units; names and arguments
    are for `lrexp validate` to check.

    Example:
        >>> json_schema()["properties"]["loss"]["examples"]
        ['cross_entropy']
    """
    schema = ExperimentConfig.model_json_schema()
    for name, field in ExperimentConfig.model_fields.items():
        # left out where it equals the description of the section itself
        schema["properties"][name].setdefault("description", field.description)
        section = getattr(field.annotation, "__name__", "")
        if section in schema["$defs"]:
            entry = schema["properties"][name]
            for key in ("$ref", "allOf"):  # versions of pydantic differ
                entry.pop(key, None)
            entry["anyOf"] = _forms(name, {"$ref": f"#/$defs/{section}"})
        elif name in NAMED_SECTIONS:  # may be null
            entry = schema["properties"][name]
            entry["anyOf"] = [{"type": "string", "minLength": 1}, *entry["anyOf"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "lrexp experiment",
    }


def _forms(name: str, whole: dict[str, Any]) -> list[dict[str, Any]]:
    short = [{"type": "string", "minLength": 1}] if name in NAMED_SECTIONS else []
    empty = [{"type": "null"}] if name in OPTIONAL_SECTIONS else []  # all lines commented out
    return [*short, whole, *empty]
