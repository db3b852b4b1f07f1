"""The built-in data by name: three real sets of scikit-learn and three made by a formula.

Each tells how many samples it has without being loaded and without torch. The numbers of synthetic
data depend on `data.args.seed` alone, not on the seeds of the trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias

from annotated_types import Ge

from lrexp.errors import Problem
from lrexp.schedules.signatures import Count, Natural, NonNegative, checked, named_parameters
from lrexp.workloads.csv_file import CsvTable, csv_file
from lrexp.workloads.seeds import derive_seed
from lrexp.workloads.splits import VAL_FRACTION, Split, parse_split
from lrexp.workloads.table import BATCH_SIZE, Rows, Size, Table, no_full_batch
from lrexp.workloads.text import TextWindows, text, text_windows

if TYPE_CHECKING:
    import torch

TwoOrMore: TypeAlias = Annotated[int, Ge(2)]


def _one_for_each_class(given: Mapping[str, Any]) -> Iterator[Problem]:
    samples, classes = given.get("samples"), given.get("classes")
    if samples is not None and classes is not None and samples < classes:
        what = f"must be at least data.args.classes ({classes})"
        yield Problem("samples", what, samples, "Raise it.")


@checked("data.args")
def digits(image: bool = False) -> Table:
    """Return 1,797 handwritten digits of 8×8 pixels in [0, 1], ten classes.

    Args:
        image: true gives 1×8×8 images, false 64 flat features.

    Example:
        >>> digits(image=True).inputs.shape
        torch.Size([1797, 1, 8, 8])

    Source:
        sklearn.datasets.load_digits (UCI, Optical Recognition of Handwritten Digits).
    """
    import torch
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(pixels) / 16.0
    inputs = inputs.view(-1, 1, 8, 8) if image else inputs
    return Table(inputs, torch.from_numpy(labels).long(), num_classes=10)


def diabetes() -> Table:
    """Return 442 patients, 10 features, and how their disease progressed: regression.

    Features and target are standardised by the training rows.

    Example:
        >>> diabetes().targets.shape
        torch.Size([442, 1])

    Source:
        sklearn.datasets.load_diabetes (Efron et al., Least Angle Regression, 2004).
    """
    import torch
    from sklearn.datasets import load_diabetes

    features, progression = load_diabetes(return_X_y=True, scaled=False)
    return Table(
        torch.from_numpy(features),
        torch.from_numpy(progression)[:, None],
        standardise_inputs=True,
        standardise_targets=True,
    )


def breast_cancer() -> Table:
    """Return 569 tumours, 30 features standardised by the training rows, two classes.

    Example:
        >>> breast_cancer().num_classes
        2

    Source:
        sklearn.datasets.load_breast_cancer (UCI, Breast Cancer Wisconsin, Diagnostic).
    """
    import torch
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    return Table(
        torch.from_numpy(features),
        torch.from_numpy(labels).long(),
        num_classes=2,
        standardise_inputs=True,
    )


@checked("data.args")
def linear(
    samples: TwoOrMore = 1000, features: Count = 10, noise: NonNegative = 0.1, seed: Natural = 0
) -> Table:
    """Return a linear regression, y = x·w + noise, with x and w from N(0, 1).

    The best mean squared error is noise².

    Args:
        samples: at least 2.
        features: at least 1.
        noise: standard deviation of the noise, 0 or more.
        seed: of w, x and noise, 0 or more.

    Example:
        >>> linear(samples=100, features=3).inputs.shape
        torch.Size([100, 3])
    """
    generator = _generator(seed, "linear")
    weights = _normal((features, 1), generator)
    inputs = _normal((samples, features), generator)
    return Table(inputs, inputs @ weights + noise * _normal((samples, 1), generator))


@checked("data.args")
def sine(samples: TwoOrMore = 1000, noise: NonNegative = 0.1, seed: Natural = 0) -> Table:
    """Return one period of a sine, y = sin(πx) + noise, with x uniform in [-1, 1).

    Args:
        samples: at least 2.
        noise: standard deviation of the noise, 0 or more.
        seed: of x and noise, 0 or more.

    Example:
        >>> sine(samples=100).targets.shape
        torch.Size([100, 1])
    """
    import torch

    generator = _generator(seed, "sine")
    inputs = 2 * torch.rand(samples, 1, generator=generator, dtype=torch.float64) - 1
    return Table(inputs, torch.sin(math.pi * inputs) + noise * _normal((samples, 1), generator))


@checked("data.args", _one_for_each_class)
def spirals(
    classes: TwoOrMore = 3, samples: TwoOrMore = 1500, noise: NonNegative = 0.02, seed: Natural = 0
) -> Table:
    """Return spiral arms around the origin, one per class, each of one turn.

    Sample i is of class c = i mod classes. The k-th of an arm's m samples lies at r = k/m,
    θ = 2π(r + c/classes), with noise on both coordinates.

    Args:
        classes: arms, at least 2.
        samples: over all arms, at least one for each.
        noise: standard deviation of the noise, 0 or more; the arms are 1/classes apart.
        seed: of the noise, 0 or more.

    Example:
        >>> spirals(classes=2, samples=100).inputs.shape
        torch.Size([100, 2])

    Source:
        The spiral data of Stanford's CS231n, there with noise on the angle.
    """
    import torch

    number = torch.arange(samples)
    labels = number % classes
    on_arm = (samples - 1 - labels) // classes + 1  # samples of the same class
    radius = (number // classes + 1).double() / on_arm
    angle = 2 * math.pi * (radius + labels / classes)
    arms = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)  # (samples, 2)
    generator = _generator(seed, "spirals")
    return Table(arms + noise * _normal((samples, 2), generator), labels, num_classes=classes)


def _generator(seed: int, name: str) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, "data", name))


def _normal(shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    import torch

    return torch.randn(shape, generator=generator, dtype=torch.float64)


DATASETS: dict[str, Callable[..., Table | CsvTable | TextWindows]] = {
    "digits": digits,
    "diabetes": diabetes,
    "breast_cancer": breast_cancer,
    "linear": linear,
    "sine": sine,
    "spirals": spirals,
    "text": text,
    "csv": csv_file,
}


class Outline(Protocol):
    """What a source tells of itself: enough for durations in epochs and tokens."""

    @property
    def seq_len(self) -> int | None:
        """Tokens in a sample; None where samples are no sequences."""

    def num_train(self, val_fraction: float, split: Split | None = None) -> int:
        """Return the samples that a split leaves for training."""


def _rows(make: Callable[..., Table], count: int | None = None) -> Callable[..., Rows]:
    """Return what tells how many rows `make` gives: `count`, or as many as it is asked for."""

    @checked("data.args", _one_for_each_class)
    @wraps(make)  # the arguments are the same
    def rows(**args: Any) -> Rows:
        return Rows(count or args.get("samples") or named_parameters(make)["samples"].default)

    return rows


# Each takes the arguments of the data, refuses what it would refuse, and imports no torch.
OUTLINES: dict[str, Callable[..., Outline]] = {
    "digits": _rows(digits, 1797),
    "diabetes": _rows(diabetes, 442),
    "breast_cancer": _rows(breast_cancer, 569),
    "linear": _rows(linear),
    "sine": _rows(sine),
    "spirals": _rows(spirals),
    "text": text_windows,
    "csv": csv_file,
}


def told_size(
    name: str,
    args: Mapping[str, Any],
    *,
    batch_size: int | None = None,
    val_fraction: float | None = None,
    split: Any = None,
) -> Size | None:
    """Return the size of built-in data as `load_data` would find it, None of any other.

    Args:
        name: of the data.
        args: its arguments.
        batch_size, val_fraction, split: as for `load_data`.

    Raises:
        ConfigError: as `load_data`, but for `workers` and `in_memory`, which are not looked at.

    Example:
        >>> told_size("digits", {}, batch_size=64)
        Size(batch_size=64, batches_per_epoch=22, seq_len=None)
    """
    if name not in OUTLINES:
        return None
    outline = OUTLINES[name](**args)
    share = VAL_FRACTION if val_fraction is None else val_fraction
    num_samples = outline.num_train(share, None if split is None else parse_split(split))
    size = BATCH_SIZE if batch_size is None else batch_size
    if num_samples < size:
        raise no_full_batch(num_samples, size)
    return Size(size, num_samples // size, outline.seq_len)
