"""A model, data, a loss and a schedule of one's own, named in experiment.yaml."""

import torch
from torch import nn
from torch.nn import functional


class TwoTowers(nn.Module):
    """Adds a linear and a nonlinear view of the inputs."""

    def __init__(self, inputs: int, width: int = 32) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 1)
        self.nonlinear = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs) to (batch, 1)."""
        return self.linear(x) + self.nonlinear(x)


def make_data(noise: float = 0.1) -> tuple:
    """Return ((inputs, targets) for training, the same for validation)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(800, 6, generator=generator)
    y = torch.sin(2 * x[:, :1]) + 0.5 * x[:, 1:2] * x[:, 2:3]
    y = y + noise * torch.randn(800, 1, generator=generator)
    return (x[:640], y[:640]), (x[640:], y[640:])


def log_cosh(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean log-cosh error: quadratic near zero, linear far out."""
    error = output - target
    return (error + functional.softplus(-2 * error) - 0.6931471805599453).mean()


def square_root_decay(step: int) -> float:
    """Return the factor on optimizer.lr at a step."""
    return (1 + step / 20) ** -0.5
