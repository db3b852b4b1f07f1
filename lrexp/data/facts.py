"""What a model may need to know about the data: how wide, how many classes, how long.

Facts are read off the tensors themselves, so that a built-in model fits any data without being
told. `None` means: does not apply, or cannot be known without reading everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Facts:
    """What is known of the training data.

    Example:
        >>> facts_of(torch.zeros(5, 3), torch.zeros(5, 1), num_samples=5).in_features
        3
    """

    num_samples: int | None = None
    in_features: int | None = None  # numbers per sample; for images all of them, C·H·W
    in_channels: int | None = None
    image_size: int | None = None  # None for images that are not square
    num_classes: int | None = None
    out_features: int | None = None  # numbers that a model must give per sample
    vocab_size: int | None = None
    seq_len: int | None = None


def facts_of(
    inputs: Any,
    targets: Any,
    *,
    num_samples: int | None,
    num_classes: int | None = None,
    vocab_size: int | None = None,
    complete: bool = True,
) -> Facts:
    """Return the facts of a batch, or of all samples.

    Args:
        inputs: (samples, features), (samples, channels, height, width), or whole numbers
            (samples, length), which are taken for tokens. Anything else gives no facts.
        targets: (samples,) whole numbers are classes; floating ones are regression.
        num_samples: of the training set.
        num_classes: where the source knows it.
        vocab_size: where the source knows it.
        complete: whether these are all samples, so that the largest label counts the classes.
    """
    if not isinstance(inputs, torch.Tensor) or inputs.ndim == 0:
        return Facts(num_samples=num_samples, num_classes=num_classes, out_features=num_classes)
    shape = inputs.shape[1:]
    is_tokens = not inputs.is_floating_point() and len(shape) == 1
    is_image = len(shape) == 3
    num_classes = _num_classes(targets, num_classes, complete)
    if is_tokens and vocab_size is None and complete:
        vocab_size = _largest(inputs, targets if _is_whole(targets, ndim=2) else inputs) + 1
    return Facts(
        num_samples=num_samples,
        in_features=None if is_tokens else shape.numel(),
        in_channels=shape[0] if is_image else None,
        image_size=shape[1] if is_image and shape[1] == shape[2] else None,
        num_classes=num_classes,
        out_features=_out_features(targets, num_classes),
        vocab_size=vocab_size,
        seq_len=shape[0] if is_tokens else None,
    )


def _num_classes(targets: Any, known: int | None, complete: bool) -> int | None:
    if not _is_whole(targets, ndim=1):
        return None
    return max(known or 0, _largest(targets) + 1) if complete else known


def _out_features(targets: Any, num_classes: int | None) -> int | None:
    if not isinstance(targets, torch.Tensor) or not targets.is_floating_point():
        return num_classes
    return {1: 1, 2: targets.shape[-1]}.get(targets.ndim)


def _is_whole(values: Any, ndim: int) -> bool:
    if not isinstance(values, torch.Tensor) or values.ndim != ndim:
        return False
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def _largest(*tensors: torch.Tensor) -> int:
    return max(int(tensor.max()) for tensor in tensors)
