"""Metrics of a whole validation split: scikit-learn's scorers, functions of the user's own.

A metric is declared in `records.METRICS` or with `register_metric`; scorers are known by
scikit-learn, which is imported where one of them is asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from lrexp.errors import NOTHING, ConfigError, UserCodeError
from lrexp.records import METRICS, Direction, Metric, column_of, words_of
from lrexp.workloads.answers import (
    ERRORS,
    Answers,
    MetricFunction,
    check_scorer,
    is_scorer,
    scorer,
)

if TYPE_CHECKING:
    from torch import Tensor

Function = TypeVar("Function", bound=Callable[[Any, Any], Any])
NAME = r"[A-Za-z_][A-Za-z0-9_@.+-]{0,63}"  # a column: no comma, no end of a line
BUILT_IN = frozenset(METRICS)
MOST_NUMBERS = 50_000_000  # of outputs, that a baseline makes


def register_metric(
    name: str, direction: Direction | None = None
) -> Callable[[Function], Function]:
    """Register a metric under the name that a config's `metrics` and `compare.metric` give it.

    The function is called as `function(output, target)` with all outputs and targets of the
    validation split, on the CPU, and returns a number; its column is `val_<name>`.

    Args:
        name: letters, digits and `_`.
        direction: min where lower is better, max where higher is; else a comparison that it ranks
            has to say it (`compare.direction`).

    Raises:
        ConfigError: the name is taken or cannot name a column, or there is no such direction.

    Example:
        >>> @register_metric("largest_error", direction="min")
        ... def largest_error(output, target):
        ...     return (output - target).abs().max()
        >>> del METRICS["val_largest_error"]
    """
    column = column_of(name)
    if not re.fullmatch(NAME, name) or column in BUILT_IN:
        what = "is taken" if column in BUILT_IN else "cannot name a column"
        raise ConfigError.single("name", what, name, "Give another, of letters, digits and _.")
    if direction not in ("min", "max", None):
        raise ConfigError.single("direction", "must be min or max", direction, "A loss has min.")

    def register(function: Function) -> Function:
        METRICS[column] = Metric(direction, words_of(column), function)
        return function

    return register


def given_metrics(given: Any, prefix: str) -> tuple[list[str], dict[str, Metric] | None]:
    """Return metrics given in Python as a config names them, and those that it cannot hold.

    Args:
        given: names, or functions, registered or not; or one.
        prefix: stands before the name of a function, as a module would.

    Returns:
        The names, and by column the functions; None where there is none.

    Raises:
        ConfigError: a function has no name for a column.
    """
    if isinstance(given, str) or callable(given):
        given = [given]
    names, found = [], dict[str, Metric]()
    registered = {id(m.function): column for column, m in METRICS.items() if m.function}
    for i, item in enumerate(given):
        own = item if isinstance(item, str) else getattr(item, "__name__", "")
        column = registered.get(id(item)) or column_of(str(own))
        unknown = Metric(None, words_of(column), None if isinstance(item, str) else item)
        metric = METRICS.get(column, unknown)
        if isinstance(item, str) and (":" in item or metric.function is None):
            names.append(item)  # of the config, or of a scorer
            continue
        if not callable(metric.function) or not re.fullmatch(NAME, column) or column in BUILT_IN:
            what = "must be a name, or a function with a name of its own"
            remedy = "Define it with def, or register it: lrexp.register_metric(name)."
            raise ConfigError.single(f"metrics[{i}]", what, repr(item)[:80], remedy)
        names.append(f"{prefix}:{column.removeprefix('val_')}")
        found[column] = metric  # registered or not, it travels to worker processes
    return names, found or None


def direction_of(
    name: str, known: Mapping[str, Metric] = METRICS, declared: Mapping[str, Direction] = {}
) -> Direction | None:
    """Return which values of a metric are better; None where nobody knows.

    Args:
        name: as a config has it.
        known: metrics by column.
        declared: directions by column, as `compare.direction` gives one.

    Example:
        >>> [direction_of(name) for name in ("val_loss", "neg_log_loss", "rmse", "mine:euros")]
        ['min', 'max', 'min', None]
    """
    column = column_of(name)
    if column in known and known[column].direction is not None:
        return known[column].direction
    if column in declared:
        return declared[column]
    if ":" in name or column in known:
        return None
    short = column.removeprefix("val_")
    return "min" if short in ERRORS else "max" if is_scorer(short) else None


@dataclass(frozen=True)
class Metrics:
    """What an evaluation measures besides the loss and right answers.

    Args:
        functions: of outputs and targets, by column.
        numbers: of a step of the user's own, by column: their names.
        original: puts outputs, or targets, back into the unit they were given in.
    """

    functions: Mapping[str, MetricFunction] = field(default_factory=dict)
    numbers: Mapping[str, str] = field(default_factory=dict)
    original: Callable[[Any], Any] | None = None

    def __bool__(self) -> bool:
        return bool(self.functions or self.numbers)

    def kept(self, output: Any) -> Any:
        """Return of an output what has to be kept until the end of the split."""
        numbers = {c: output[name] for c, name in self.numbers.items() if name in output}
        return {"numbers": numbers} | ({"output": output} if self.functions else {})

    def of_split(self, outputs: Any, targets: Any) -> dict[str, float]:
        """Return the number of each function; nan where it fails on outputs that are not finite."""
        if self.original is not None:
            outputs, targets = self.original(outputs), self.original(targets)
        return {c: _number(c, f, outputs, targets) for c, f in self.functions.items()}


def _number(column: str, function: MetricFunction, outputs: Any, targets: Any) -> float:
    from torch.utils._pytree import tree_leaves

    try:
        value = function(outputs, targets)
    except Exception:
        if all(bool(leaf.isfinite().all()) for leaf in tree_leaves(outputs)):
            raise
        return math.nan  # the training diverges
    try:
        return float(value)
    except (TypeError, ValueError):
        name = column.removeprefix("val_")
        what = f"the metric {name} must return a number, and it returned {type(value).__name__}"
        raise UserCodeError(f"{what}.") from None


class Gathered:
    """Outputs, targets and numbers of a split, batch after batch."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._outputs: list[Any] = []
        self._targets: list[Any] = []
        self._sums: dict[str, tuple[Any, int]] = {}

    def add(self, kept: Any, target: Any, samples: int) -> None:
        """Take what `Metrics.kept` gave for a batch, and its targets."""
        for column, value in kept["numbers"].items():
            total, count = self._sums.get(column, (0.0, 0))
            self._sums[column] = total + _wide(value) * samples, count + samples
        if self._metrics.functions:
            self._outputs.append(on_cpu(kept["output"]))
            self._targets.append(on_cpu(target))

    def values(self) -> dict[str, float]:
        """Return every metric by its column."""
        numbers = {column: float(total / count) for column, (total, count) in self._sums.items()}
        if not self._outputs:
            return numbers
        return numbers | self._metrics.of_split(joined(self._outputs), joined(self._targets))


def _wide(value: Any) -> Any:
    import torch

    if not isinstance(value, torch.Tensor):
        return float(value)
    return value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64)


def on_cpu(tree: Any) -> Any:
    """Return tensors on the CPU, as numbers that NumPy has, too."""
    import torch
    from torch.utils._pytree import tree_map

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        leaf = leaf.detach().to("cpu")
        return leaf.float() if leaf.dtype == torch.bfloat16 else leaf

    return tree_map(moved, tree)


def joined(batches: Sequence[Any]) -> Any:
    """Return batches as one; a list of them where their samples have different shapes."""
    import torch
    from torch.utils._pytree import tree_flatten, tree_unflatten

    leaves = [tree_flatten(batch)[0] for batch in batches]
    spec = tree_flatten(batches[0])[1]
    try:
        whole = [
            (torch.cat if parts[0].dim() else torch.stack)(list(parts))
            for parts in zip(*leaves, strict=True)
        ]
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return list(batches)
    return tree_unflatten(whole, spec)


@dataclass(frozen=True)
class Asked:
    """The metrics that the variants of a config ask for: all of them measure the same.

    Args:
        names: by column.
        places: (key of the config, name) of those that one variant asks for itself; it may go
            without the others.
        ranks: whether one of them ranks the variants.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    places: Sequence[tuple[str, str]] = ()
    ranks: bool = False


def fit_metrics(
    asked: Asked,
    functions: Mapping[str, MetricFunction],
    answers: Answers | None,
    output: Any,
    target: Any,
) -> Metrics:
    """Return what to measure, of what was asked for.

    Args:
        asked: by whom.
        functions: of the user's own, by column.
        answers: what outputs mean.
        output, target: of a first batch; the output of a step of the user's own are its numbers.

    Raises:
        ConfigError: every metric that is not there or does not fit.
    """
    numbers = _numbers_of(output) if target is None else {}
    found, problems = dict[str, MetricFunction](), []
    for column in asked.names:
        try:
            if column == "val_accuracy":
                _require_classes(answers)
            elif column in functions:
                _require_target(target)
                found[column] = functions[column]
            elif column not in numbers and column not in BUILT_IN:
                short = column.removeprefix("val_")
                check_scorer(short, answers, output, target, numbers)
                assert answers is not None
                found[column] = scorer(short, answers)
        except ConfigError as error:  # noqa: PERF203 - all are reported
            mine = [(key, own) for key, own in asked.places if column_of(own) == column]
            problems += [replace(p, key=k, given=n) for p in error.problems for k, n in mine]
    if problems:
        raise ConfigError(problems)
    return Metrics(found, numbers)


def _numbers_of(output: Any) -> dict[str, str]:
    """Return the numbers that a step logs, by column."""
    if not isinstance(output, Mapping):
        return {}
    for name in output:
        if not re.fullmatch(NAME, str(name)) or column_of(str(name)) in BUILT_IN:
            what = "logs a number whose name is taken, or cannot name a column"
            raise ConfigError.single("step", what, name, "Use letters, digits and _.")
    return {column_of(str(name)): name for name in output}


def _require_classes(answers: Answers | None) -> None:
    if answers is None or answers.kind == "numbers":
        what, remedy = "needs targets that are classes", "Use val_loss or train_loss."
        raise ConfigError.single("", what, NOTHING, remedy)


def _require_target(target: Any) -> None:
    if target is None:
        what = "is a function of (output, target), and the batch names no target"
        raise ConfigError.single("", what, NOTHING, "Let the step log it as a number.")


@dataclass(frozen=True)
class Baseline:
    """What guessing gets: the most frequent class each time, or the mean.

    A loss of classes is that of their frequencies, which no other guess beats.

    Args:
        answers: what outputs mean; None where they are no answers, and there is no baseline.
        loss: its name in torch.nn.functional; None of any other.
        shape: of the output of a batch.
    """

    answers: Answers | None = None
    loss: str | None = None
    shape: tuple[int, ...] = ()

    def values(self, targets: Sequence[Any], loss: Any, metrics: Metrics) -> dict[str, float]:
        """Return each metric of the guess, by column.

        Args:
            targets: of the validation split, batch after batch, on the CPU.
            loss: (output, target) -> mean, metrics: that the training measures.
        """
        import torch

        target = joined(targets)
        if self.answers is None or not isinstance(target, torch.Tensor):
            return {}
        if len(target) * math.prod(self.shape[1:]) > MOST_NUMBERS:
            return {}
        found = {}
        guess = self._guess(target)
        if self.loss in _GUESSED:
            found["val_loss"] = loss(guess, target)
        if self.answers.kind != "numbers":
            right, made = self.answers.count_correct(guess, target)
            found["val_accuracy"] = right / made
        if metrics.original is not None:
            guess = self._guess(metrics.original(target))
            target = metrics.original(target)
        for column, function in metrics.functions.items():
            with suppress(Exception):  # a correlation with a constant, say
                found[column] = function(guess, target)
        values = {column: float(value) for column, value in found.items()}
        return {column: value for column, value in values.items() if math.isfinite(value)}

    def _guess(self, target: Tensor) -> Tensor:
        """Return the same output for every sample, in the form of the model's outputs."""
        import torch

        assert self.answers is not None
        shape = (len(target), *self.shape[1:])
        if self.answers.kind == "classes" and self.answers.class_dim == -1:
            shape = (*target.shape, self.shape[-1])  # (batch, time, classes)
        rows, truth = self.answers.flat(torch.zeros(shape, dtype=torch.float64), target)
        if self.answers.kind == "classes":
            shares = torch.bincount(truth, minlength=rows.shape[1]) / len(truth)
            one = shares if self.answers.is_probability else shares.clamp(min=1e-12).log()
            places = [1] * len(shape)
            places[self.answers.class_dim] = len(one)
            return one.double().reshape(places).expand(shape)
        mean = truth.double().mean(0)
        if self.answers.kind != "numbers" and not self.answers.is_probability:
            mean = torch.logit(mean, eps=1e-12)
        return torch.zeros(shape, dtype=torch.float64) + mean.reshape(self.shape[1:] or ())


_GUESSED = (
    "cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits",
    "mse_loss",
)  # fmt: skip
