"""The built-in models, completed from the facts of the data.

Every model is a plain nn.Module without control flow that depends on values, so that many copies
can be trained at once. `$num_classes` and its like are replaced wherever they stand; what a
built-in model requires and the data knows need not be written at all.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, TypeVar

import torch
from annotated_types import MinLen
from torch import Tensor, nn
from torch.nn import functional

from lrexp.errors import NOTHING, ConfigError, Problem, did_you_mean
from lrexp.schedules.signatures import Count, Fraction, among, checked, named_parameters, require
from lrexp.workloads.batches import Facts
from lrexp.workloads.torchvision_models import TorchvisionModel

T = TypeVar("T")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}


@checked("model.args")
def cnn(
    in_channels: Count,
    out_features: Count,
    channels: Annotated[Sequence[Count], MinLen(1)] = (32, 64),
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


@checked("model.args")
def linear(in_features: Count, out_features: Count, bias: bool = True) -> nn.Module:
    """Return one linear layer: linear or softmax regression.

    Args:
        in_features: numbers per sample, filled in from the data.
        out_features: targets or classes, filled in from the data.
        bias: whether a constant is added.

    Example:
        >>> sum(p.numel() for p in linear(64, 10).parameters())
        650
    """
    return nn.Sequential(nn.Flatten(), nn.Linear(in_features, out_features, bias=bias))


@checked("model.args")
def mlp(
    in_features: Count,
    out_features: Count,
    *,
    hidden: Sequence[Count] = (128, 128),
    activation: Annotated[str, among(ACTIVATIONS)] = "relu",
    dropout: Fraction = 0.0,
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


@checked("model.args")
def regression_net(in_features: Count, out_features: Count, width: Count = 32) -> nn.Module:
    """Return the small regression net of tutorials: two hidden layers of ReLU units.

    Args:
        in_features: numbers per sample, filled in from the data.
        out_features: targets, filled in from the data.
        width: of both hidden layers.

    Example:
        >>> sum(p.numel() for p in regression_net(10, 1).parameters())
        1441
    """
    return mlp(in_features, out_features, hidden=[width, width])


@checked("model.args")
def gpt(
    vocab_size: Count,
    seq_len: Count,
    *,
    layers: Count = 2,
    heads: Count = 4,
    width: Count = 64,
    dropout: Fraction = 0.0,
) -> nn.Module:
    """Return a GPT; tokens (batch, time) give logits (batch, time, vocab_size).

    Pre-norm blocks, learned positions, GELU, output weights tied to the token embedding;
    initialised as GPT-2: N(0, 0.02²), and 0.02/√(2·layers) for what adds to the residual.

    Args:
        vocab_size: tokens that there are, filled in from the data.
        seq_len: most tokens per sample, filled in from the data.
        layers: transformer blocks.
        heads: of the attention; must divide `width`.
        width: of the embedding.
        dropout: probability, in [0, 1).

    Example:
        >>> gpt(65, 32)(torch.zeros(2, 32, dtype=torch.int64)).shape
        torch.Size([2, 32, 65])

    Source:
        Radford et al., Language Models are Unsupervised Multitask Learners, 2019; nanoGPT.
    """
    if width % heads:
        what = f"must divide model.args.width ({width})"
        raise ConfigError.single("model.args.heads", what, heads, "E.g. heads 4 and width 64.")
    return GPT(vocab_size, seq_len, layers=layers, heads=heads, width=width, dropout=dropout)


class GPT(nn.Module):
    """A causal transformer decoder; see `gpt`."""

    def __init__(
        self, vocab_size: int, seq_len: int, *, layers: int, heads: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.seq_len = seq_len
        self.token = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(seq_len, width)
        self.dropout = nn.Dropout(dropout)
        blocks = [_Block(seq_len, heads, width, dropout) for _ in range(layers)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self.head.weight = self.token.weight
        self.apply(_initialise)
        for block in blocks:
            for weight in (block.attention.out.weight, block.shrink.weight):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, time, vocabulary) of tokens (batch, time)."""
        time = tokens.shape[1]
        if time > self.seq_len:
            raise ConfigError.single(
                "model.args.seq_len",
                f"must be at least the length of the data's samples ({time})",
                self.seq_len,
                "Leave it out, and it is filled in.",
            )
        x = self.token(tokens) + self.position.weight[:time]  # (batch, time, width)
        logits: Tensor = self.head(self.norm(self.blocks(self.dropout(x))))
        return logits


class _Block(nn.Module):
    def __init__(self, seq_len: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(seq_len, heads, width, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        hidden = functional.gelu(self.grow(self.norm2(x)))
        out: Tensor = x + self.dropout(self.shrink(hidden))
        return out


class _Attention(nn.Module):
    future: Tensor

    def __init__(self, seq_len: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout_weights = nn.Dropout(dropout)
        self.dropout_out = nn.Dropout(dropout)
        future = torch.ones(seq_len, seq_len, dtype=torch.bool).triu(1)  # j > i
        self.register_buffer("future", future, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        split = (batch, time, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(x).view(split).permute(2, 0, 3, 1, 4)  # (batch, heads, time, depth)
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        scores = scores.masked_fill(self.future[:time, :time], -math.inf)
        weights = self.dropout_weights(functional.softmax(scores, dim=-1))
        mixed = (weights @ v).transpose(1, 2).reshape(batch, time, width)
        out: Tensor = self.dropout_out(self.out(mixed))
        return out


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "regression_net": regression_net,
    "cnn": cnn,
    "gpt": gpt,
}

FACTS = tuple(field.name for field in fields(Facts))  # what may be written with a $
FILLED = tuple(name for name in FACTS if name != "num_samples")  # what is filled in by itself

_OF_DATA = {
    "in_features": "numbers as inputs",
    "in_channels": "images (channels, height, width)",
    "image_size": "square images",
    "num_classes": "classes as targets, counted",
    "out_features": "classes or numbers as targets",
    "vocab_size": "tokens",
    "seq_len": "tokens",
}

_REMEDIES = {
    "in_features": "For tokens use the model gpt.",
    "in_channels": "Use mlp for flat features, or give images (digits: data.args.image: true).",
    "vocab_size": "Use data of tokens, such as text, or another model.",
    "seq_len": "Use data of tokens, such as text, or another model.",
}


def fill_facts(
    factory: Callable[..., Any], args: Mapping[str, Any], facts: Facts
) -> dict[str, Any]:
    """Return `args` with `$names` replaced and required facts filled in.

    Args:
        factory: what makes the model; the required parameters of ours are filled by name.
        args: as written; `$name` may stand inside lists and dicts too.
        facts: of the data.

    Raises:
        ConfigError: with keys `model.args.…`, if a fact is unknown or this data does not have it.

    Example:
        >>> fill_facts(MODELS["linear"], {"bias": False}, Facts(in_features=4, out_features=2))
        {'bias': False, 'in_features': 4, 'out_features': 2}
        >>> fill_facts(dict, {"sizes": [8, "$num_classes"]}, Facts(num_classes=10))
        {'sizes': [8, 10]}
    """
    problems: list[Problem | None] = []
    filled = {
        name: _substituted(value, f"model.args.{name}", facts, problems)
        for name, value in args.items()
    }
    for name in _to_fill(factory):
        if name not in filled:
            filled[name] = getattr(facts, name)
            if filled[name] is None:
                problems.append(_missing(name))
    if isinstance(factory, TorchvisionModel):
        problems.append(factory.misfit(facts.in_channels))
    require(*problems)
    return filled


def copy_of(value: T, key: str, remedy: str) -> T:
    """Return a deep copy of an object, or of several in a tuple that refer to each other.

    Args:
        value: what to copy.
        key: of the error.
        remedy: of the error.

    Raises:
        ConfigError: it cannot be copied; the attribute that is in the way is named.
    """
    try:
        return copy.deepcopy(value)
    except Exception as error:  # a tensor with a graph, a lock, a `__deepcopy__` of the user's own
        parts = value if isinstance(value, tuple) else (value,)
        names = (name for part in parts for name in _in_the_way(part))
        name, why = next(names, ""), str(error).split(".", maxsplit=1)[0]
        what = f"its attribute `{name}` refuses: " if name else ""
        what = f"cannot be copied: {what}{type(error).__name__}: {why}"
        raise ConfigError.single(key, what, NOTHING, remedy) from error


def _in_the_way(value: object) -> Iterator[str]:
    """Yield the attributes that cannot be copied; those of inner modules by their dotted paths."""
    parts = value.named_modules() if isinstance(value, nn.Module) else [("", value)]
    for path, part in parts:
        held = dict(getattr(part, "__dict__", {}))
        held.pop("_modules", None)
        for tensors in ("_parameters", "_buffers"):
            held |= held.pop(tensors, {})
        yield from (f"{path}.{name}".lstrip(".") for name in held if not _is_copied(held[name]))


def _is_copied(value: object) -> bool:
    try:
        copy.deepcopy(value)
    except Exception:
        return False
    return True


def _substituted(value: Any, key: str, facts: Facts, problems: list[Problem | None]) -> Any:
    if isinstance(value, dict):
        return {n: _substituted(v, f"{key}.{n}", facts, problems) for n, v in value.items()}
    if isinstance(value, list | tuple):
        return [_substituted(v, f"{key}[{i}]", facts, problems) for i, v in enumerate(value)]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    name = value[1:]
    if name not in FACTS:
        remedy = did_you_mean(value, [f"${known}" for known in FACTS])
        problems.append(Problem(key, "is no fact of the data", value, remedy))
        return None
    fact = getattr(facts, name)
    if fact is None:
        what = f"is not known for this data; it needs {_of_data(name)}"
        problems.append(Problem(key, what, value, "Write the number itself."))
    return fact


def _missing(name: str) -> Problem:
    what = f"must be given: it is filled in from data with {_of_data(name)} only"
    remedy = _REMEDIES.get(name, f"Write model.args.{name}.")
    return Problem(f"model.args.{name}", what, NOTHING, remedy)


def _of_data(name: str) -> str:
    return _OF_DATA.get(name, "a known length")


def _to_fill(factory: Callable[..., Any]) -> list[str]:
    """Return the names of the facts that this model wants filled in."""
    if not isinstance(factory, TorchvisionModel) and factory not in MODELS.values():
        return []
    known = named_parameters(factory)
    return [name for name, p in known.items() if p.default is p.empty and name in FILLED]
