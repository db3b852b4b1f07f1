"""The long half: 1,000 to 5,000 steps, one optimizer and one schedule for each workload.

It was made before `find-lr` trained anything after its range test, and nothing in lrexp was chosen
by it. The truth of each workload is in `truth/`: see README.md for the command that remakes it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from accuracy import long_sets, nets
from accuracy.controls import CONTROL, NoGradient
from accuracy.workloads import Workload

LONG = "long"


class SignalNet(nn.Module):
    """Three convolutions over a signal (batch, 40), each at half the width of the one before."""

    def __init__(self, channels: int = 8, outputs: int = 10) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(wide, channels, 5, stride=2, padding=2) for wide in (1, channels, channels)
        )
        self.head = nn.Linear(5 * channels, outputs)

    def forward(self, signals: Tensor) -> Tensor:
        x = signals.unsqueeze(1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        out: Tensor = self.head(x.flatten(1))
        return out


class Gated(nn.Module):
    """A gated recurrent net written out, for engines that train many copies at once.

    Args:
        cell: `gru`, or `lstm`.
        vocabulary: of tokens (batch, time), whose next ones are the output (batch, time,
            vocabulary); None for numbers (batch, time, 1), of which it returns one (batch, 1).
    """

    def __init__(self, cell: str, width: int, vocabulary: int | None = None) -> None:
        super().__init__()
        gates = {"gru": 3, "lstm": 4}[cell] * width
        self.cell, self.width, self.tokens = cell, width, vocabulary is not None
        self.embed = nn.Embedding(vocabulary, width) if vocabulary else nn.Linear(1, width)
        self.enter, self.again = nn.Linear(width, gates), nn.Linear(width, gates)
        self.head = nn.Linear(width, vocabulary or 1)

    def forward(self, inputs: Tensor) -> Tensor:
        entered = self.enter(self.embed(inputs))
        state = memory = torch.zeros_like(entered[:, 0, : self.width])
        states = []
        for step in range(entered.shape[1]):
            x, h = entered[:, step], self.again(state)
            state, memory = self._gru(x, h, state) if self.cell == "gru" else _lstm(x, h, memory)
            states.append(state)
        out: Tensor = self.head(torch.stack(states, dim=1) if self.tokens else state)
        return out

    def _gru(self, x: Tensor, h: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        (x1, x2, x3), (h1, h2, h3) = x.chunk(3, dim=-1), h.chunk(3, dim=-1)
        reset, keep = torch.sigmoid(x1 + h1), torch.sigmoid(x2 + h2)
        new = keep * state + (1 - keep) * torch.tanh(x3 + reset * h3)
        return new, new


def _lstm(x: Tensor, h: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    enter, keep, new, leave = (x + h).chunk(4, dim=-1)
    memory = torch.sigmoid(keep) * memory + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(memory), memory


class Waves(nn.Module):
    """Places (batch, 2) as sines and cosines of eight directions, and a net on them."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.register_buffer("directions", 6 * torch.randn(2, 8, generator=draw))
        self.net = nets.mlp([16, 48, 48, 1])

    def forward(self, places: Tensor) -> Tensor:
        phases = places @ self.directions
        out: Tensor = self.net(torch.cat([phases.sin(), phases.cos()], dim=-1))
        return out


class Embedded(nn.Module):
    """Two views (batch, 2, 64) as points on a sphere, by one net."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.mlp([64, 48, 16], nn.GELU)

    def forward(self, views: Tensor) -> Tensor:
        return functional.normalize(self.net(views), dim=-1)


class Silent(nn.Module):
    """A net whose last layer is zero at first: it is right already where the target is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nets.mlp([40, 32, 32]), nn.Linear(32, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, signals: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.body(signals)))
        return out


def frozen() -> nn.Module:
    net = NoGradient()
    net.net = nets.mlp([40, 16, 10])
    return net


def matching(points: Tensor, _: Tensor) -> Tensor:
    """Return how badly each first view finds its second among those of the batch (InfoNCE)."""
    likeness = points[:, 0] @ points[:, 1].transpose(-2, -1) / 0.2
    return functional.cross_entropy(likeness, torch.arange(len(likeness)))


long = partial(Workload, half=LONG, evals=10)
control = partial(Workload, half=CONTROL, steps=1000, engine="sequential", evals=10)

LONG_ALL = [
    long(
        "signals MLP", kind="tabular", make_model=partial(nets.mlp, [40, 48, 48, 10]),
        data=long_sets.signals, steps=3000, only=("SGD", "cosine"),
    ),
    long(
        "signals deep tanh", kind="deep, no normalisation",
        make_model=partial(nets.tanh_net, 40, 24, 10, 10), data=long_sets.signals, steps=1500,
        only=("SGD plain", "linear"),
    ),
    long(
        "few signals", kind="overfitting", make_model=partial(nets.mlp, [40, 64, 10]),
        data=partial(long_sets.signals, 250), steps=4000, batch_size=16,
        only=("Adam", "constant"),
    ),
    long(
        "weather", kind="tabular regression, noisy",
        make_model=partial(nets.mlp, [12, 32, 32, 1], nn.Tanh), data=long_sets.weather,
        loss=functional.mse_loss, steps=3000, only=("RMSprop", "constant"),
    ),
    long(
        "airports", kind="tabular", make_model=partial(nets.mlp, [2, 48, 48, 12], nn.SiLU),
        data=long_sets.airports, steps=5000, only=("AdamW", "wsd"),
    ),
    long(
        "textures autoencoder", kind="autoencoder",
        make_model=partial(nets.mlp, [64, 32, 8, 32, 64], nn.SiLU),
        data=long_sets.texture_copies, loss=functional.mse_loss, steps=2500,
        only=("AdamW", "one_cycle"),
    ),
    long(
        "picture of places", kind="regression", make_model=Waves, data=long_sets.picture,
        loss=functional.mse_loss, steps=3000, only=("Adam", "cosine"),
    ),
    long(
        "views", kind="contrastive", make_model=Embedded, data=long_sets.views, loss=matching,
        steps=1500, only=("Adam", "linear"),
    ),
    long(
        "code GPT", kind="transformer",
        make_model=partial(nets.small_gpt, long_sets.VOCABULARY, 16), data=long_sets.code,
        steps=1000, batch_size=8, only=("AdamW", "cosine"),
    ),
    long(
        "temperatures GRU", kind="sequences", make_model=partial(Gated, "gru", 12),
        data=long_sets.temperatures, loss=functional.mse_loss, steps=1500, batch_size=16,
        only=("Adam", "one_cycle"),
    ),
    long(
        "prose LSTM", kind="sequences",
        make_model=partial(Gated, "lstm", 20, long_sets.VOCABULARY), data=long_sets.prose,
        steps=1000, batch_size=8, only=("RMSprop", "linear"),
    ),
    long(
        "textures BN CNN", kind="BatchNorm",
        make_model=partial(nets.norm_cnn, 1, 8, 3, [6, 12]), data=long_sets.textures,
        steps=1000, batch_size=16, only=("SGD", "one_cycle"),
    ),
    long(
        "signals CNN", kind="convolutions, no normalisation", make_model=SignalNet,
        data=long_sets.signals, steps=1000, batch_size=16, only=("SGD", "constant"),
    ),
]  # fmt: skip

LONG_CONTROLS = [
    control("signals shuffled", kind="no signal", make_model=partial(nets.mlp, [40, 32, 10]),
        data=long_sets.shuffled_signals, only=("Adam", "cosine"),
    ),
    control("signals, frozen net", kind="no signal", make_model=frozen,
        data=long_sets.signals, only=("SGD", "cosine"),
    ),
    control("target constant", kind="never descends", make_model=Silent,
        data=long_sets.nothing, loss=functional.mse_loss, only=("Adam", "constant"),
    ),
]  # fmt: skip
