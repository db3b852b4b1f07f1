"""Three small real datasets that are shipped with scikit-learn: nothing is downloaded."""

from __future__ import annotations

from lrexp.data.argument_checks import raise_any, wrong_flag
from lrexp.data.table import Rows, Table


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

    digits_rows(image)
    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(pixels) / 16.0
    inputs = inputs.view(-1, 1, 8, 8) if image else inputs
    return Table(inputs, torch.from_numpy(labels).long(), num_classes=10)


def digits_rows(image: bool = False) -> Rows:
    """Return how many there are; the arguments are those of `digits`."""
    raise_any(wrong_flag("data.args.image", image))
    return Rows(1797)


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


def diabetes_rows() -> Rows:
    """Return how many there are."""
    return Rows(442)


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


def breast_cancer_rows() -> Rows:
    """Return how many there are."""
    return Rows(569)
