"""What a model's outputs say of targets, and scikit-learn's scorers of that.

Whether they are classes, a yes or no, several labels or numbers is decided once, on the first
batch. A scorer is given what it would be given of an estimator of scikit-learn.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from lrexp.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

MetricFunction: TypeAlias = Callable[[Any, Any], float]  # (outputs, targets) -> number
Kind: TypeAlias = Literal["classes", "binary", "labels", "numbers"]
_NUMBERS = {"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "poisson_nll_loss"}
_SHARES = {"binary_cross_entropy"}  # that take probabilities
# What autograd calls the operations that take another shape, and those that give any number.
_VIEWS = ("View", "Reshape", "Unsafe", "Squeeze", "Unsqueeze", "Select", "Slice", "ToCopy")
_UNBOUNDED = ("Add", "Mm", "Bmm", "Mv", "Baddbmm", "Convolution", "Mkldnn", "Linear")
_DISTANCES = {"hinge_embedding_loss"}  # that take no answers
# Errors, of which lower is better; scikit-learn has scorers of them, which are negative.
ERRORS = {
    "rmse": "neg_root_mean_squared_error",
    "mae": "neg_mean_absolute_error",
    "mse": "neg_mean_squared_error",
}


@dataclass(frozen=True)
class Answers:
    """What outputs mean beside their targets.

    Args:
        kind: a class of several, yes or no, several of these, or numbers.
        is_probability: outputs are probabilities; else logits.
        class_dim: of classes, which dimension of the output they are.
        has_signs: a no is -1.
        ignored: of classes, the one that marks targets that do not count.
    """

    kind: Kind
    is_probability: bool = False
    class_dim: int = 1
    has_signs: bool = False
    ignored: int | None = None

    def decided(self, output: Tensor) -> Tensor:
        """Return the answer: a class, or a bool for each label."""
        if self.kind == "classes":
            return output.argmax(self.class_dim)
        return output > (0.5 if self.is_probability else 0.0)

    def truth(self, target: Tensor, output: Tensor) -> Tensor:
        """Return the target in the form of the answer."""
        if self.kind == "classes":
            return target.argmax(1) if target.shape == output.shape else target
        return target.reshape(output.shape) > (0.0 if self.has_signs else 0.5)

    def count_correct(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor | int]:
        """Return how many answers are right, and how many there are."""
        truth = self.truth(target, output)
        right = self.decided(output) == truth
        if self.ignored is None:
            return right.sum(), right.numel()
        counts = truth != self.ignored
        return (right & counts).sum(), counts.sum()

    def shares(self, rows: Tensor) -> Tensor:
        """Return the probability of each class or label, (samples, classes)."""
        if not self.is_probability:
            rows = rows.softmax(1) if self.kind == "classes" else rows.sigmoid()
        if self.kind != "binary":
            return rows
        return rows[:, None] * rows.new_tensor([-1.0, 1.0]) + rows.new_tensor([1.0, 0.0])

    def flat(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs as rows and the targets beside them, without those that do not count."""
        if self.kind == "numbers":
            rows = output.reshape(len(output), -1)
            return rows.squeeze(1), target.reshape(rows.shape).squeeze(1)
        truth = self.truth(target, output)
        if self.kind != "classes":
            rows = output.reshape(len(output), -1) if self.kind == "labels" else output.reshape(-1)
            return rows, truth.reshape(rows.shape).long()
        rows = output.movedim(self.class_dim, -1).flatten(0, -2)
        truth = truth.reshape(-1)
        counts = truth != (truth.min() - 1 if self.ignored is None else self.ignored)
        return rows[counts], truth[counts]


def fit_answers(
    output: Any, target: Any, loss: str | None = None, ignored: int | None = None
) -> Answers | None:
    """Return what outputs mean, seen on a first batch; None where they are no answers to targets.

    Args:
        output, target: of the batch.
        loss: its name in torch.nn.functional; None of the user's own, or of a model's.
        ignored: class number of targets that do not count.
    """
    import torch

    if not all(isinstance(x, torch.Tensor) and x.dim() and x.numel() for x in (output, target)):
        return None
    if output.is_complex() or target.is_complex() or loss in _DISTANCES:
        return None
    if loss == "cross_entropy" and target.shape == output.shape and output.dim() > 1:
        return Answers("classes")  # one-hot targets, or shares
    if _are_classes(output, target, loss):
        is_tokens = output.dim() == 3 and output.shape[:2] == target.shape  # (batch, time, classes)
        dim = -1 if is_tokens else 1
        is_share = loss != "cross_entropy" and _are_shares(output, dim)  # that one takes logits
        return Answers("classes", is_share, dim, ignored=ignored)
    return _of_pairs(output, target, loss) if target.numel() == output.numel() else None


def _are_classes(output: Tensor, target: Tensor, loss: str | None) -> bool:
    if target.is_floating_point() or output.dim() != target.dim() + 1:
        return False
    return output.shape[1] > 1 or loss == "cross_entropy"


def _of_pairs(output: Tensor, target: Tensor, loss: str | None) -> Answers | None:
    """Return what outputs mean, one for each target."""
    values = {float(value) for value in target.flatten()[:1000]}
    if loss in _NUMBERS or not (values <= {0, 1} or values <= {-1, 1}):
        return Answers("numbers") if output.is_floating_point() else None
    is_share = loss in _SHARES or (not loss and _may_be_shares(output))
    kind: Kind = "binary" if output.numel() == len(output) else "labels"
    return Answers(kind, is_share, has_signs=-1 in values)


def _may_be_shares(output: Tensor) -> bool:
    """Return whether outputs lie from 0 to 1, and not by chance: those of a layer are logits."""
    if not bool(((output >= 0) & (output <= 1)).all()):
        return False
    node: Any = output.grad_fn
    while node is not None and node.name().startswith(_VIEWS):
        node = node.next_functions[0][0]
    return node is None or not node.name().startswith(_UNBOUNDED)


def _are_shares(output: Tensor, dim: int) -> bool:
    import torch

    sums = output.sum(dim)
    return bool((output >= 0).all()) and bool(torch.isclose(sums, torch.ones_like(sums)).all())


def scorer(name: str, answers: Answers) -> MetricFunction:
    """Return the function that scores outputs as scikit-learn's scorer of this name does.

    One of `ERRORS` is positive.
    """
    from sklearn.metrics import get_scorer

    score, estimator_of = get_scorer(ERRORS.get(name, name)), _estimator_of(answers)
    sign = -1.0 if name in ERRORS else 1.0

    def of_split(output: Any, target: Any) -> float:
        rows, truth = answers.flat(output.double(), target)
        if not bool(rows.isfinite().all()):
            return math.nan  # a training that diverges; scikit-learn would raise
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that are never predicted: early on
            return sign * float(score(estimator_of(rows), rows, truth.numpy()))

    return of_split


def _estimator_of(answers: Answers) -> Callable[[Any], Any]:
    """Return rows of outputs -> an estimator of scikit-learn that gives these back."""
    import numpy as np
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Fitted(BaseEstimator):  # type: ignore[misc]
        def __sklearn_is_fitted__(self) -> bool:
            return True

        def fit(self, inputs: Any, targets: Any) -> Any:
            return self

    class Numbers(RegressorMixin, Fitted):  # type: ignore[misc]
        def predict(self, rows: Any) -> Any:
            return rows.numpy()

    class Classes(ClassifierMixin, Fitted):  # type: ignore[misc]
        classes_: Any = np.arange(2)

        def predict(self, rows: Any) -> Any:
            return replace(answers, class_dim=1).decided(rows).long().numpy()

        def predict_proba(self, rows: Any) -> Any:
            return answers.shares(rows).numpy()

        def decision_function(self, rows: Any) -> Any:
            is_pair = answers.kind == "classes" and rows.shape[1] == 2
            return (rows[:, 1] - rows[:, 0] if is_pair else rows).numpy()

    def of(rows: Any) -> Any:
        if answers.kind == "numbers":
            return Numbers()
        made = Classes()
        if answers.kind != "binary":
            count = rows.shape[1]
            made.classes_ = [np.arange(2)] * count if answers.kind == "labels" else np.arange(count)
        return made

    return of


def check_scorer(
    name: str, answers: Answers | None, output: Any, target: Any, numbers: Mapping[str, str]
) -> None:
    """Refuse what is no scorer, and one that does not fit the targets, as `f1` for three classes.

    It scores made-up outputs, in which every class occurs.

    Raises:
        ConfigError: with key "".
    """
    if not is_scorer(name):
        what = "is no metric: neither a scorer of scikit-learn nor a number that the step logs"
        raise ConfigError.single("", what, name, metric_remedy(name, [*numbers, *scorer_names()]))
    if answers is None:
        what = "needs outputs of the model, and targets to compare them with"
        raise ConfigError.single("", what, name, "Let the step log it as a number.")
    words, rows, truth = _example(answers, output.detach().cpu(), target.detach().cpu())
    plain = replace(answers, class_dim=1, ignored=None, has_signs=False, is_probability=True)
    try:
        scorer(name, plain)(rows, truth)
    except Exception as error:
        said = str(error).strip().split("\n")[0][:200]
        macro = f"{name}_macro"
        remedy = f"Use {macro}." if is_scorer(macro) else "Choose another scorer."
        raise ConfigError.single("", f"does not fit {words}: {said}", name, remedy) from error


def _example(answers: Answers, output: Tensor, target: Tensor) -> tuple[str, Tensor, Tensor]:
    """Return what the targets are, and outputs that are all right, beside their targets."""
    import torch

    rows, truth = answers.flat(output.double(), target)
    if answers.kind == "classes":
        classes = torch.arange(rows.shape[1]).repeat(2)
        return f"{rows.shape[1]} classes", torch.eye(rows.shape[1]).double()[classes], classes
    if answers.kind == "numbers":
        return "numbers", torch.cat([truth, truth]).double(), torch.cat([truth, truth]).double()
    truth = torch.tensor([0, 1]).repeat(2)
    if answers.kind == "labels":
        return "several labels", *(truth[:, None].repeat(1, rows.shape[1]),) * 2
    return "two classes", truth.double(), truth


def is_scorer(name: str) -> bool:
    """Return whether scikit-learn has a scorer of this name.

    Example:
        >>> is_scorer("f1_macro"), is_scorer("f1_makro")
        (True, False)
    """
    return name in scorer_names()


def scorer_names() -> list[str]:
    """Return `ERRORS` and the names of scikit-learn's scorers, of which higher is better."""
    from sklearn.metrics import get_scorer_names

    return [*ERRORS, *get_scorer_names()]


def metric_remedy(name: str, known: Sequence[str]) -> str:
    """Return what to write in place of an unknown name: a close one, or how to name one's own.

    Example:
        >>> metric_remedy("root_mean_squared_error", ["rmse", "neg_root_mean_squared_error"])
        "Did you mean 'rmse'?"
    """
    short = name.lower().removeprefix("val_").removeprefix("neg_")
    words = {f"neg_{short}", f"neg_{short}_error", short.removesuffix("_loss")}
    for error, scorer_name in ERRORS.items():
        if words & {error, scorer_name}:
            return f"Did you mean {error!r}?"
    close = did_you_mean(name, known)
    return close if close.startswith("Did") else "Your own: package.module:function."
