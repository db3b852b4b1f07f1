"""Labels as files give them: floats, bools, from 1, -1 and +1, a column, one-hot.

Where their meaning is certain they are converted, batch by batch; else they are refused with the
line that mends them. A meaning that hangs on all values, as that of -1 and +1 does, is certain only
where all of them are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lrexp.errors import ConfigError
from lrexp.workloads.batches import Facts

Convert: TypeAlias = Callable[[Tensor], Tensor]

CLASSES = ("cross_entropy", "nll_loss", "multi_margin_loss")  # number classes from 0
SHARES = (  # between 0 and 1
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss",
)  # fmt: skip
SIGNS = ("soft_margin_loss", "hinge_embedding_loss")  # -1 and +1
NUMBERS = (
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "poisson_nll_loss", "gaussian_nll_loss",
)  # fmt: skip
FOR_TWO = "For two classes take binary_cross_entropy_with_logits"


@dataclass(frozen=True)
class Labels:
    """Targets of a loss, on their way to what it takes.

    Args:
        loss: its name in torch.nn.functional.
        output: of the model, for the first batch.
        target: of the first batch.
        known: all targets there are, the validation split's included; None where nobody knows.
        ignored: class number that marks targets which do not count.
    """

    loss: str
    output: Tensor
    target: Tensor
    known: Tensor | None = None
    ignored: int | None = None

    def conversion(self) -> Convert | None:
        """Return what makes the targets fit the loss; None where they do, or nothing helps.

        Raises:
            ConfigError: with key "", saying what to write.
        """
        if self.loss in CLASSES:
            return self._to_classes()
        if self.loss in SHARES:
            return self._to_shares()
        if self.loss in SIGNS:
            return self._to_signs()
        if self.loss in NUMBERS and not (self._is_real or self.target.is_complex()):
            self._require_pairs("y.float()[:, None]")
            dtype = self.output.dtype
            return lambda y: y.to(dtype)
        return None

    def _to_classes(self) -> Convert | None:
        output, target = self.output, self.target
        if self.loss == "cross_entropy" and (output.dim() == 1 or output.shape[1] == 1):
            self._refuse_one_output()
        if output.dim() < 2 or target.is_complex():
            return None
        if target.shape == output.shape:
            return self._of_one_hot()
        column: Convert | None = None
        if target.dim() == output.dim() == 2 and target.shape[1] == 1:
            column = _squeezed
        tokens = output.dim() == 3 and target.shape == output.shape[:2]
        if not tokens and column is None and target.shape != output.shape[:1] + output.shape[2:]:
            return None
        if self._is_real and not _is_whole(self.values):
            self._refuse(
                "takes classes, and the targets are no whole numbers",
                "For numbers use mse_loss and a model with one output per target.",
            )
        classes = output.shape[-1 if tokens else 1]
        return _chain(column, self._whole(classes), self._from_zero(classes))

    def _whole(self, classes: int) -> Convert | None:
        if not self._is_real:
            return torch.Tensor.long if self.target.dtype != torch.int64 else None
        if self.known is not None:
            return torch.Tensor.long
        # a later batch may hold 2.5: it is no class, and a class out of range raises
        return lambda y: torch.where(y == y.round(), y, classes).long()

    def _from_zero(self, classes: int) -> Convert | None:
        """Return what numbers the classes from 0, None where they are."""
        found = self._range()
        if found is None:
            return None
        low, high = found
        if self.is_signs and classes == 2:
            if self.known is None:
                self._refuse("takes classes from 0, and the labels are -1 and 1", "Give y > 0.")
            return _from_signs
        if high >= classes and low == 1 and high == classes:
            what = f"takes classes from 0, and the labels run from 1 to {high}"
            self._refuse(what, "Subtract 1: y - 1.")
        if low < 0 or (high >= classes and self.known is None):
            what = f"takes classes 0 to {classes - 1}, and the labels run from {low} to {high}"
            remedy = "Number the classes from 0, or set ignore_index where one means no label."
            if low >= 0:
                remedy = f"Number them from 0, or give the model {high + 1} outputs."
            self._refuse(what, remedy)
        return None

    def _of_one_hot(self) -> Convert | None:
        """Return class numbers of one-hot rows; shares of classes stay as they are."""
        values = self.values
        is_zero_one = bool(((values == 0) | (values == 1)).all())
        if not is_zero_one:
            if self._is_real and self.loss == "cross_entropy":
                return None  # shares of the classes
            self._refuse("takes one class per sample, not one number per output", "Give classes.")
        if not bool((values.sum(1) == 1).all()):
            what = "takes one class per sample, and some have none or several"
            self._refuse(what, "For several labels take binary_cross_entropy_with_logits.")
        if self._is_real and self.loss == "cross_entropy":
            return None
        return lambda y: y.to(torch.uint8).argmax(1)

    def _to_shares(self) -> Convert | None:
        output, target, values = self.output, self.target, self.values
        alike = target.shape == output.shape
        is_share = bool(((values >= 0) & (values <= 1)).all())
        if target.is_complex() or (self._is_real and alike and is_share):
            return None
        if not _is_whole(values):
            if not is_share and alike:
                what = f"takes targets from 0 to 1, and they run from {values.min():.3g} to "
                self._refuse(f"{what}{values.max():.3g}", "For numbers use mse_loss.")
            return None
        change = self._from_zero_or_one()
        if target.numel() == output.numel():
            dtype = output.dtype
            return _chain(change, lambda y: y.to(dtype), self._pairs())
        if target.dim() == 1 and output.dim() == 2:
            what = f"takes a target for each output, and there are {output.shape[1]} per sample"
            remedy = "Give the model one output; for one output per class use cross_entropy."
            self._refuse(what, remedy)
        return None

    def _from_zero_or_one(self) -> Convert | None:
        """Return what makes whole numbers 0 and 1, None where they are."""
        low, high = int(self.values.min()), int(self.values.max())
        if (low, high) in ((0, 0), (0, 1), (1, 1)):
            return None
        if self.is_signs and self.known is not None:
            return _from_signs
        what, remedy = f"the labels run from {low} to {high}", "For classes use cross_entropy."
        if self.is_signs:
            what, remedy = "the labels are -1 and 1", "Give (y + 1) / 2."
        elif (low, high) == (1, 2):
            remedy = "Subtract 1: y - 1."
        return self._refuse(f"takes 0 and 1, and {what}", remedy)

    def _to_signs(self) -> Convert | None:
        values = self.values
        if self.target.is_complex() or not bool(((values == 0) | (values == 1)).all()):
            self._require_pairs("y[:, None]")
            return None
        if self.known is None and self.target.dtype != torch.bool:
            self._refuse("takes -1 and 1, and the labels are 0 and 1", "Give 2 * y - 1.")
        dtype = self.output.dtype
        return _chain(lambda y: 2 * y.to(dtype) - 1, None, self._pairs())

    def _pairs(self) -> Convert | None:
        """Return what gives labels the shape of one output per sample: (N,) or (N, 1)."""
        output, target = self.output, self.target
        if target.numel() != output.numel() or target.shape == output.shape:
            return None
        if output.dim() == target.dim() + 1 and output.shape[-1] == 1:
            return _unsqueezed
        if target.dim() == output.dim() + 1 and target.shape[-1] == 1:
            return _squeezed
        return None

    def _require_pairs(self, remedy: str) -> None:
        output, target = self.output, self.target
        if output.shape == (*target.shape, 1):
            what = f"takes one number per output: {shapes_of(output, target)}"
            self._refuse(what, f"Give {remedy}.")

    @property
    def values(self) -> Tensor:
        """All targets that are known."""
        return self.target if self.known is None else self.known

    @property
    def is_signs(self) -> bool:
        """Whether the labels are -1 and +1, both of them."""
        if self.target.dtype == torch.bool or self.ignored == -1:
            return False
        return set(torch.unique(self.values)[:3].tolist()) == {-1, 1}

    @property
    def _is_real(self) -> bool:
        return self.target.is_floating_point()

    def _range(self) -> tuple[int, int] | None:
        values = self.values.long()
        values = values[values != self.ignored] if self.ignored is not None else values
        return (int(values.min()), int(values.max())) if values.numel() else None

    def _refuse_one_output(self) -> NoReturn:
        what = "needs one output per class: of one output alone it is always 0"
        remedy = f"{FOR_TWO}, for more give the model one output each; for numbers use mse_loss."
        if self._is_real and _is_whole(self.values):
            remedy = f"Are the targets classes? Give y.long() and one output each. {remedy}"
        self._refuse(what, remedy)

    def _refuse(self, what: str, remedy: str) -> NoReturn:
        what = f"{self.loss} does not fit: it {what}"
        raise ConfigError.single("", what, f"a target {described(self.target)}", remedy)


def facts_for(facts: Facts, loss: str | None, known: Tensor | None) -> Facts:
    """Return the facts of data whose targets mean what the loss takes them for.

    Args:
        facts: by the type of the targets alone: whole numbers are classes.
        loss: its name in torch.nn.functional; None of one's own.
        known: all targets; None where not all of them are in memory.

    Example:
        >>> facts_for(Facts(out_features=1), "cross_entropy", torch.tensor([0.0, 2.0])).num_classes
        3
    """
    if known is None or loss is None or known.is_complex() or not known.numel():
        return facts
    is_column = known.dim() == 1 or (known.dim() == 2 and known.shape[1] == 1)
    if loss in CLASSES and _is_whole(known) and known.dim() < 3:
        classes = int(known.max()) + 1 if is_column else known.shape[1]  # else one-hot
        return replace(facts, num_classes=classes, out_features=classes) if classes > 1 else facts
    is_one_number = loss in NUMBERS and facts.num_classes is not None
    is_one_share = loss in SHARES + SIGNS and facts.num_classes in (None, 2)
    if is_column and (is_one_number or is_one_share):
        return replace(facts, num_classes=None, out_features=1)
    if loss in SHARES and known.dim() == 2:
        return replace(facts, num_classes=None, out_features=known.shape[1])
    return facts


def task_of(loss: str | None) -> str | None:
    """Return what a loss of torch's says a column is: `classification`, `regression` or None."""
    if loss in CLASSES + SHARES + SIGNS:
        return "classification"
    return "regression" if loss in NUMBERS else None


def numbered(sides: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return pairs (inputs, target) with classes in place of a target of text; all else as it is.

    Classes are numbered in the sorted order of all names, of whichever side.

    Example:
        >>> import numpy as np
        >>> numbered(((np.zeros(2), np.array(["cat", "ant"])), (np.zeros(1), np.array(["bee"]))))
        ((array([0., 0.]), tensor([2, 0])), (array([0.]), tensor([1])))
    """
    texts = [side[-1] if _ends_in_text(side) else () for side in sides]
    numbers = {name: i for i, name in enumerate(sorted({str(name) for t in texts for name in t}))}
    return tuple(
        (*side[:-1], torch.tensor([numbers[str(name)] for name in text])) if len(text) else side
        for side, text in zip(sides, texts, strict=True)
    )


def _ends_in_text(side: Any) -> bool:
    """Return whether this is a tuple of arrays whose last one holds names."""
    if not isinstance(side, tuple) or len(side) < 2 or not hasattr(side[-1], "__array__"):
        return False
    if torch.is_tensor(side[-1]):  # bfloat16, one on a GPU or with a gradient is no array
        return False
    values = np.asarray(side[-1])
    is_text = values.dtype.kind == "U" or isinstance(next(iter(values.flat), None), str)
    return bool(is_text and values.ndim == 1)


def described(value: Any) -> str:
    """Return the shape and type of a tensor."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def shapes_of(output: Any, target: Any) -> str:
    """Return both, for a message."""
    return f"the output is {described(output)} and the target {described(target)}"


def _is_whole(values: Tensor) -> bool:
    return not values.is_floating_point() or bool((values == values.round()).all())


def _from_signs(y: Tensor) -> Tensor:
    return (y > 0).to(y.dtype)


def _squeezed(y: Tensor) -> Tensor:
    return y.squeeze(-1)


def _unsqueezed(y: Tensor) -> Tensor:
    return y.unsqueeze(-1)


def _chain(*steps: Convert | None) -> Convert | None:
    """Return the steps as one."""
    needed: Sequence[Convert] = [step for step in steps if step is not None]
    if len(needed) < 2:
        return needed[0] if needed else None

    def convert(y: Tensor) -> Tensor:
        for step in needed:
            y = step(y)
        return y

    return convert
