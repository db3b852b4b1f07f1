"""What is trained in the throughput benchmark: networks of the usual kinds on made-up data.

The data has the shapes of the real thing and a rule that can be learned, so that losses fall and
no copy diverges; what the numbers mean does not change what a step costs. A config names these
functions by import path (`nets:lenet`), so that worker processes can make them too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrexp.workloads.models import gpt

VOCABULARY, TOKENS = 65, 32


@dataclass(frozen=True)
class Workload:
    """One network, its data and its optimizer.

    Args:
        name: as in the table.
        model: name of the function in this module that makes the network.
        shape: of one input; empty for tokens.
        batch_size: samples per step.
        batches: per epoch.
        lr: of the copy with the highest; low enough that none diverges.
        copies: K of a run without `--copies`, on a CPU and on a GPU.
        note: why some K are left out.
    """

    name: str
    model: str
    shape: tuple[int, ...]
    batch_size: int
    batches: int
    lr: float
    copies: tuple[int, ...]
    gpu_copies: tuple[int, ...] = (1, 3, 8, 16, 64)
    classes: int = 10
    optimizer: str = "SGD"
    args: dict[str, Any] = field(default_factory=lambda: {"momentum": 0.9})
    note: str = ""

    def make_model(self) -> nn.Module:
        """Return a new network."""
        make: Callable[[], nn.Module] = globals()[self.model]
        return make()

    def make_optimizer(self, model: nn.Module, **options: Any) -> torch.optim.Optimizer:
        """Return its optimizer, as by hand."""
        cls = getattr(torch.optim, self.optimizer)
        made: torch.optim.Optimizer = cls(model.parameters(), lr=self.lr, **self.args, **options)
        return made

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy, over all tokens where the targets are tokens."""
        if targets.dim() == 1:
            return functional.cross_entropy(output, targets)
        return functional.cross_entropy(output.flatten(0, 1), targets.flatten())

    def lrs(self, copies: int) -> list[float]:
        """Return the LR of every copy: equal ratios, the highest first."""
        return [self.lr * 30 ** (-i / max(1, copies - 1)) for i in range(copies)]


SLOW = "other K left out: a step takes more than a second on one core"
MEDIUM = "other K left out to keep the run short; --copies measures them"
WORKLOADS = {
    work.name: work
    for work in (
        Workload("MLP 16-32-2", "mlp_small", (16,), 32, 64, 0.05, (1, 3, 8, 16, 64), classes=2),
        Workload("MLP 784-128-128-10", "mlp_784", (784,), 64, 40, 0.02, (1, 8, 16), note=MEDIUM),
        Workload("LeNet", "lenet", (1, 28, 28), 64, 30, 0.01, (1, 8), note=MEDIUM),
        Workload(
            "ResNet-9", "resnet9", (3, 32, 32), 64, 20, 0.01, (1, 8), (1, 3, 8, 16), note=SLOW
        ),
        Workload(
            "GPT", "gpt_small", (), 32, 32, 1e-3, (1, 8), classes=VOCABULARY,
            optimizer="AdamW", args={}, note=MEDIUM,
        ),
        Workload(
            "GRU", "gru", (28, 28), 64, 30, 1e-3, (1, 8), optimizer="Adam", args={}, note=MEDIUM
        ),
    )
}  # fmt: skip


@cache
def data(of: str) -> tuple[Tensor, Tensor]:
    """Return inputs and classes (or tokens and next tokens) of a workload, (samples, ...)."""
    work = WORKLOADS[of]
    samples = work.batches * work.batch_size
    generator = torch.Generator().manual_seed(0)
    if not work.shape:
        return _tokens(samples, generator)
    classes = torch.randint(work.classes, (samples,), generator=generator)
    prototypes = torch.randn(work.classes, *work.shape, generator=generator)
    inputs = torch.randn(samples, *work.shape, generator=generator) + 0.5 * prototypes[classes]
    # some wrong labels: without, the loss would fall to where numbers are denormal, and slow
    wrong = torch.rand(samples, generator=generator) < 0.1
    other = torch.randint(work.classes, (samples,), generator=generator)
    return inputs, torch.where(wrong, other, classes)


def _tokens(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return sequences in which each token mostly has one successor."""
    successor = torch.randperm(VOCABULARY, generator=generator)
    tokens = torch.randint(VOCABULARY, (samples, TOKENS + 1), generator=generator)
    surprise = torch.rand(samples, TOKENS + 1, generator=generator) < 0.2
    for i in range(1, TOKENS + 1):
        tokens[:, i] = torch.where(surprise[:, i], tokens[:, i], successor[tokens[:, i - 1]])
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def mlp_small() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))


def mlp_784() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def lenet() -> nn.Module:
    """LeNet-5 with ReLU and max pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def resnet9(width: int = 64) -> nn.Module:
    """The ResNet-9 of DAWNBench: 64-128-256-512 channels, two residual blocks, 6.6 M weights.

    Source: Page, How to train your ResNet; kernels of 3×3 and BatchNorm throughout.
    """
    return nn.Sequential(
        _conv(3, width),
        _conv(width, 2 * width, pool=True),
        _Residual(_conv(2 * width, 2 * width), _conv(2 * width, 2 * width)),
        _conv(2 * width, 4 * width, pool=True),
        _conv(4 * width, 8 * width, pool=True),
        _Residual(_conv(8 * width, 8 * width), _conv(8 * width, 8 * width)),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(8 * width, 10),
    )


def gpt_small() -> nn.Module:
    """Two layers of width 64 over 32 characters, with dropout."""
    return gpt(VOCABULARY, TOKENS, layers=2, heads=4, width=64, dropout=0.1)


def gru() -> nn.Module:
    """An image row by row through 64 units; its class from the last state."""
    return _GRUClassifier()


def _conv(channels: int, out: int, *, pool: bool = False) -> nn.Sequential:
    layers = [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


class _Residual(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _GRUClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(28, 64, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.gru(x)  # (batch, time, units)
        return self.head(states[:, -1])
