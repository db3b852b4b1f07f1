"""What training yields: one record type per event, and the trial that it belongs to.

An engine turns tasks into a stream of records; files, progress and every other sink read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, TypeAlias, get_args

Kind: TypeAlias = Literal["compare", "range_test", "paired_control", "race"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Direction: TypeAlias = Literal["min", "max"]


@dataclass(frozen=True)
class Metric:
    """A number that is taken at each evaluation.

    Args:
        direction: which is better, the lowest or the highest; None where nobody knows.
        words: what people call it.
        function: (outputs, targets of the whole validation split) -> number; None where the
            training itself gives it.
    """

    direction: Direction | None
    words: str
    function: Callable[[Any, Any], float] | None = None


# Every metric with a name, by its column in evals.csv; `lrexp.register_metric` adds to them.
METRICS = {
    "train_loss": Metric("min", "training loss"),
    "val_loss": Metric("min", "validation loss"),
    "val_accuracy": Metric("max", "validation accuracy"),
}


def column_of(name: str) -> str:
    """Return the column of evals.csv that a metric is written to.

    Example:
        >>> [column_of(name) for name in ("train_loss", "loss", "f1_macro", "mine:euros")]
        ['train_loss', 'val_loss', 'val_f1_macro', 'val_euros']
    """
    short = name.rpartition(":")[2].rpartition(".")[2]
    return short if short in METRICS or short.startswith("val_") else f"val_{short}"


def words_of(column: str) -> str:
    """Return what people call the metric of a column.

    Example:
        >>> words_of("val_loss"), words_of("val_f1_macro"), words_of("val_rmse")
        ('validation loss', 'validation f1 macro', 'validation RMSE')
    """
    if column in METRICS:
        return METRICS[column].words
    short = column.removeprefix("val_")
    words = short.upper() if short in ("rmse", "mae", "mse") else short.replace("_", " ")
    return "validation " * (short != column) + words


@dataclass(frozen=True, order=True)
class TrialId:
    """One variant × one seed.

    Example:
        >>> TrialId("high", 3).name
        'high/seed-3'
    """

    variant: str
    seed: int

    @property
    def name(self) -> str:
        """The trial as files write it."""
        return f"{self.variant}/seed-{self.seed}"

    @classmethod
    def of(cls, name: str) -> TrialId:
        """Return the trial of a name.

        Raises:
            ValueError: it is none.
        """
        variant, _, seed = name.rpartition("/seed-")
        return cls(variant, int(seed))


@dataclass(frozen=True)
class Trial:
    """A trial, and what it is for.

    Args:
        id: which one.
        kind: what becomes of the config's own training: see `runs/trials.py`.
        total_steps: its length, in updates.
        lr: of a race, the base LR that it tries.
    """

    id: TrialId
    kind: Kind
    total_steps: int
    lr: float | None = None

    @property
    def is_training(self) -> bool:
        """Whether a stop by its rule means divergence; a range test ends like that as a rule."""
        return self.kind in ("compare", "race")


@dataclass(frozen=True)
class Group:
    """Trials that one engine trains in one go, in one process.

    Args:
        engine: a name in `ENGINES`.
        trials: one after the other, or as one stack where the engine is `vectorized`.
        stack: of a stack that goes on, all trials that it began with, in order; those not among
            `trials` have their results. Empty where it is `trials`.
    """

    engine: str
    trials: tuple[TrialId, ...]
    stack: tuple[TrialId, ...] = ()


@dataclass(frozen=True)
class Started:
    """The trial begins; for the second time where `again` says why."""

    trial: TrialId
    again: str | None = None


@dataclass(frozen=True)
class Steps:
    """Some consecutive updates: the LR used for each and the batch loss before it.

    `more` has further columns of steps.csv: `lr_1` of another optimizer, `effective_lr`.
    """

    trial: TrialId
    first: int
    epoch: list[int]
    lr: list[float]
    loss: list[float]
    more: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Measures taken after `step` updates (0: before training)."""

    trial: TrialId
    step: int
    epoch: float
    values: dict[str, float]


@dataclass(frozen=True)
class Ended:
    """The trial is over: all steps done, or stopped by its rule at `stopped_at` (its last step).

    `cause` is a sentence where a loss was not finite and the LR is not to blame.
    """

    trial: TrialId
    steps: int
    stopped_at: int | None
    seconds: float
    cause: str = ""


@dataclass(frozen=True)
class Failed:
    """The trial raised; the others go on."""

    trial: TrialId
    error: BaseException = field(compare=False)


@dataclass(frozen=True)
class _OfGroup:
    """A record of all trials of a group that are still being trained."""

    trials: tuple[TrialId, ...]

    @property
    def trial(self) -> TrialId:
        """The first of its trials."""
        return self.trials[0]


@dataclass(frozen=True)
class Checkpoint(_OfGroup):
    """All that a group needs to go on, bit for bit, after `step` updates.

    Args:
        trials: those of the group that are still being trained; all are at the same step.
        step: updates done; the records of each trial up to there came before this one.
        state: for `Task.state`; nested dicts with str keys, lists, tensors on the CPU, numbers,
            strings and None, so that `torch.load` reads it with `weights_only=True`.
    """

    step: int
    state: dict[str, Any] = field(compare=False, repr=False)


@dataclass(frozen=True)
class NoCheckpoint(_OfGroup):
    """A checkpoint was due, and there can be none: these trials go on, but begin anew if stopped.

    Args:
        trials: those of the group that are still being trained.
        why: a clause, such as "training changes the attribute `x`".
    """

    why: str


@dataclass(frozen=True)
class Interrupted(_OfGroup):
    """The group stopped because its `Pause` asked for it; nothing more comes of these trials.

    They go on from the group's last checkpoint; where it has none, at their first step.

    Args:
        trials: those that were still being trained.
        why: why no checkpoint could be taken right before this; None where one was.
    """

    why: str | None = None


Record: TypeAlias = (
    Started | Steps | Evaluation | Ended | Failed | Checkpoint | NoCheckpoint | Interrupted
)


def plain(record: Record) -> dict[str, Any]:
    """Return a record as JSON has it: the name of its kind, its trial, and its other fields.

    A number that is not finite is None, an exception its text; a checkpoint's tensors are left out.

    Example:
        >>> plain(Evaluation(TrialId("high", 3), 20, 1.0, {"val_loss": float("nan")}))
        {'record': 'Evaluation', 'trial': 'high/seed-3', 'step': 20, 'epoch': 1.0, \
'values': {'val_loss': None}}
    """
    found: dict[str, Any] = {"record": type(record).__name__, "trial": record.trial.name}
    for field_ in fields(record):
        value = getattr(record, field_.name)
        if field_.name == "trials":
            found["trials"] = [trial.name for trial in value]
        elif field_.name == "error":
            found["error"] = f"{type(value).__name__}: {value}"
        elif field_.name not in ("trial", "state"):
            found[field_.name] = _finite(value)
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Sink(Protocol):
    """Whoever wants the records of a run as they come: any function of a record.

    Of one trial `Started` comes first and `Ended` or `Failed` last. Every step comes once and in
    order, in chunks of any size; an evaluation comes after the steps before it. `Started.again`
    makes void what came before. Records of other trials come in between. A resumed run goes on
    where its checkpoints are: it is a new call, so append to files.

    A sink is called in the caller's thread, and training waits for it. One that raises gets no more
    records, with a warning, and the training goes on. Trials of worker processes are read back from
    their files: values have the digits of the files, and there is no `Checkpoint`.

    Example:
        >>> def losses(record: Record) -> None:
        ...     if isinstance(record, Steps):
        ...         print(record.trial.name, record.first, record.loss)
        >>> run = lrexp.compare("my.yaml", sinks=[losses])  # doctest: +SKIP
    """

    def __call__(self, record: Record) -> None:
        """Take one record."""


class Reporter(Protocol):
    """What a run tells the person who waits for it; what that looks like, it does not know."""

    def say(self, text: str, style: str = "") -> None:
        """Show a message of a line or more; `style` is "dim" or "yellow", or "" for plain."""

    def waiting(self, doing: str) -> AbstractContextManager[object]:
        """Show, while the context is open, that something without steps is going on."""

    def following(
        self, total_steps: Mapping[TrialId, int], begun: Mapping[TrialId, int]
    ) -> AbstractContextManager[Sink]:
        """Give the sink that shows the progress of these trials.

        Args:
            total_steps: lists the trials to come.
            begun: the steps done before of trials that go on from a checkpoint.
        """
