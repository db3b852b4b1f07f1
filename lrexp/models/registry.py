"""The built-in models by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lrexp.models.cnn import cnn
from lrexp.models.feature_nets import linear, mlp, regression_net
from lrexp.models.gpt import gpt

MODELS: dict[str, Callable[..., nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "regression_net": regression_net,
    "cnn": cnn,
    "gpt": gpt,
}
