"""A small convolutional net that takes images of any size from 8×8 up."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lrexp.data.argument_checks import raise_any, wrong_count, wrong_counts, wrong_flag
from lrexp.errors import ConfigError


def cnn(
    in_channels: int,
    out_features: int,
    channels: Sequence[int] = (32, 64),
    batch_norm: bool = False,
) -> nn.Module:
    """Return blocks of 3×3 convolution, ReLU and 2×2 pooling, then a mean over the image.

    Input (batch, in_channels, height, width), output (batch, out_features).

    Args:
        in_channels: 1 for grey images, 3 for colour, filled in from the data.
        out_features: classes or targets, filled in from the data.
        channels: of each block, at least one.
        batch_norm: whether to normalise before the ReLU.

    Example:
        >>> sum(p.numel() for p in cnn(1, 10, channels=[8, 16]).parameters())
        1418
    """
    raise_any(
        wrong_count("model.args.in_channels", in_channels),
        wrong_count("model.args.out_features", out_features),
        wrong_counts("model.args.channels", channels),
        wrong_flag("model.args.batch_norm", batch_norm),
    )
    if not channels:
        what = "must have at least one entry"
        raise ConfigError.single("model.args.channels", what, channels, "E.g. [32, 64].")
    layers: list[nn.Module] = []
    before = in_channels
    for width in channels:
        layers.append(nn.Conv2d(before, width, kernel_size=3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(width))
        # ceil_mode: an image of one pixel stays one, so depth is not bound by the image's size
        layers += [nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        before = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, out_features)
    )
