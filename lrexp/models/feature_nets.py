"""Nets for features: linear, mlp, and the small regression net of many tutorials.

All flatten their input, so that images train without further ado.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import nn

from lrexp.data.argument_checks import (
    raise_any,
    wrong_choice,
    wrong_count,
    wrong_counts,
    wrong_flag,
    wrong_number,
)
from lrexp.errors import Problem

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}


def linear(in_features: int, out_features: int, bias: bool = True) -> nn.Module:
    """Return one linear layer: linear or softmax regression.

    Args:
        in_features: numbers per sample, filled in from the data.
        out_features: targets or classes, filled in from the data.
        bias: whether a constant is added.

    Example:
        >>> sum(p.numel() for p in linear(64, 10).parameters())
        650
    """
    raise_any(*_wrong_widths(in_features, out_features), wrong_flag("model.args.bias", bias))
    return nn.Sequential(nn.Flatten(), nn.Linear(in_features, out_features, bias=bias))


def mlp(
    in_features: int,
    out_features: int,
    *,
    hidden: Sequence[int] = (128, 128),
    activation: str = "relu",
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> nn.Module:
    """Return a multilayer perceptron; each hidden layer is linear, batch norm, activation, dropout.

    Args:
        in_features: numbers per sample, filled in from the data.
        out_features: targets or classes, filled in from the data.
        hidden: widths of the hidden layers; an empty list gives a linear model.
        activation: relu, gelu, silu, tanh, sigmoid, leaky_relu or elu.
        dropout: probability, in [0, 1).
        batch_norm: whether to normalise before the activation.

    Example:
        >>> sum(p.numel() for p in mlp(64, 10, hidden=[32]).parameters())
        2410
    """
    raise_any(
        *_wrong_widths(in_features, out_features),
        wrong_counts("model.args.hidden", hidden),
        wrong_choice("model.args.activation", activation, ACTIVATIONS),
        wrong_number("model.args.dropout", dropout, at_least=0, below=1),
        wrong_flag("model.args.batch_norm", batch_norm),
    )
    layers: list[nn.Module] = [nn.Flatten()]
    width = in_features
    for next_width in hidden:
        layers.append(nn.Linear(width, next_width))
        if batch_norm:
            layers.append(nn.BatchNorm1d(next_width))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = next_width
    return nn.Sequential(*layers, nn.Linear(width, out_features))


def regression_net(in_features: int, out_features: int, width: int = 32) -> nn.Module:
    """Return the small regression net of tutorials: two hidden layers of ReLU units.

    Args:
        in_features: numbers per sample, filled in from the data.
        out_features: targets, filled in from the data.
        width: of both hidden layers.

    Example:
        >>> sum(p.numel() for p in regression_net(10, 1).parameters())
        1441
    """
    raise_any(wrong_count("model.args.width", width))
    return mlp(in_features, out_features, hidden=[width, width])


def _wrong_widths(in_features: object, out_features: object) -> Iterator[Problem | None]:
    yield wrong_count("model.args.in_features", in_features)
    yield wrong_count("model.args.out_features", out_features)
