"""The networks of the accuracy benchmark: small, and of every kind that behaves differently."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrexp.workloads.models import gpt


def mlp(
    sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU, dropout: float = 0.0
) -> nn.Module:
    """Return linear layers with an activation between them."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Linear(wide, narrow), activation()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers[: -2 if dropout else -1])


def deep(
    inputs: int, width: int, depth: int, outputs: int, activation: Callable[[], nn.Module]
) -> nn.Module:
    """Return a deep net without normalisation, initialised so that signals reach its end."""
    net = mlp([inputs, *[width] * depth, outputs], activation)
    gain = "tanh" if activation is nn.Tanh else "relu"
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=nn.init.calculate_gain(gain) / layer.in_features**0.5)
            nn.init.zeros_(layer.bias)
    return net


def norm_cnn(in_channels: int, side: int, outputs: int, channels: Sequence[int]) -> nn.Module:
    """Return convolutions with BatchNorm, each halving the image."""
    layers: list[nn.Module] = []
    for wide in channels:
        layers += [
            nn.Conv2d(in_channels, wide, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
        ]
        in_channels, side = wide, math.ceil(side / 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(in_channels * side**2, outputs))


def norm_mlp(sizes: Sequence[int]) -> nn.Module:
    """Return linear layers with BatchNorm and SiLU between them."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Linear(wide, narrow), nn.BatchNorm1d(narrow), nn.SiLU()]
    return nn.Sequential(*layers[:-2])


class PatchTransformer(nn.Module):
    """A tiny ViT: images (batch, 1, 8, 8) as 16 patches of 2×2, one pre-norm block, their mean."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(4, width), nn.Parameter(torch.randn(16, width) * 0.02)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = mlp([width, 2 * width, width], nn.GELU)
        self.head = nn.Linear(width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        patches = images.view(-1, 4, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(-1, 16, 4)
        x = self.embed(patches) + self.place
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, dim=-1)
        mixed = functional.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v
        x = x + self.out(mixed)
        x = x + self.mlp(self.norms[1](x))
        out: Tensor = self.head(self.norms[2](x).mean(dim=1))
        return out


class RowRecurrent(nn.Module):
    """An Elman net written out, which reads an image (batch, 1, 8, 8) row by row."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.enter, self.again = nn.Linear(8, width), nn.Linear(width, width)
        nn.init.orthogonal_(self.again.weight)
        self.head = nn.Linear(width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        entered = self.enter(images[:, 0])  # (batch, rows, width)
        state = torch.tanh(entered[:, 0])
        for row in range(1, 8):
            state = torch.tanh(entered[:, row] + self.again(state))
        out: Tensor = self.head(state)
        return out


class Bag(nn.Module):
    """Characters (batch, time) to classes: embeddings, a hidden layer on them, their mean."""

    def __init__(self, vocabulary: int, width: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.pairs = nn.Linear(2 * width, 2 * width)
        self.head = nn.Linear(2 * width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)  # (batch, time, width)
        pairs = torch.relu(self.pairs(torch.cat([x[:, :-1], x[:, 1:]], dim=-1)))
        out: Tensor = self.head(pairs.mean(dim=1))
        return out


class Residual(nn.Module):
    """Blocks of LayerNorm and two linear layers, each added to what it was given."""

    def __init__(self, inputs: int, width: int, blocks: int, outputs: int) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), mlp([width, 2 * width, width], nn.GELU))
            for _ in range(blocks)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.enter(inputs)
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.head(x)
        return out


class Factorised(nn.Module):
    """Pairs (user, item) to a number: the inner product of two embeddings."""

    def __init__(self, users: int, items: int, width: int) -> None:
        super().__init__()
        self.tastes, self.traits = nn.Embedding(users, width), nn.Embedding(items, width)
        for table in (self.tastes, self.traits):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, pairs: Tensor) -> Tensor:
        match = self.tastes(pairs[:, 0]) * self.traits(pairs[:, 1])
        return match.sum(dim=1, keepdim=True)


def pixel_cnn(channels: int) -> nn.Module:
    """Return convolutions without normalisation, from one channel to three."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
        nn.Conv2d(channels, 3, 3, padding=1),
    )  # fmt: skip


def small_gpt(vocabulary: int, seq_len: int) -> nn.Module:
    return gpt(vocabulary, seq_len, layers=1, heads=2, width=24)


def fine_tuned(
    body: Callable[[], nn.Module],
    pairs: Callable[[], tuple[Tensor, Tensor]],
    new_head: Callable[[], nn.Module] | None,
) -> nn.Module:
    """Return `body()` as trained on `pairs()`, all its weights free, with a new last layer if any.

    The pre-training is the same for every seed; a new head is drawn by the seed.
    """
    net = body()
    net.load_state_dict(_pretrained(body, pairs))
    if new_head is not None:
        assert isinstance(net, nn.Sequential)
        net[-1] = new_head()
    return net


@cache
def _pretrained(
    body: Callable[[], nn.Module], pairs: Callable[[], tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    inputs, targets = pairs()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1234)
        net = body()
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
        for _ in range(600):
            rows = torch.randint(len(inputs), (64,))
            optimizer.zero_grad()
            functional.cross_entropy(net(inputs[rows]), targets[rows]).backward()
            optimizer.step()
    return net.state_dict()


tanh_net = partial(deep, activation=nn.Tanh)
relu_net = partial(deep, activation=nn.ReLU)
