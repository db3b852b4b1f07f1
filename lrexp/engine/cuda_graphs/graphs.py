"""How the sequential engine captures updates as CUDA graphs: what may, by what, and who hears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from lrexp.engine.cuda_graphs.capturable import why_not_capturable
from lrexp.engine.cuda_graphs.captured_step import capture
from lrexp.engine.task import Task

Capture: TypeAlias = Callable[[Callable[[], Any], torch.device, Any], tuple[Any, Any]]


def _told_nobody(why_eager: str | None) -> None:
    pass


@dataclass(frozen=True)
class Graphs:
    """What an engine is given to capture with.

    Args:
        why_not: (task, model, optimizer) -> why its updates stay eager, as far as that is known
            before the first one, or None.
        capture: as `captured_step.capture`.
        decided: told of each training that may have a graph how it goes on: None with one, or
            why without.
    """

    why_not: Callable[[Task, nn.Module, Optimizer], str | None] = why_not_capturable
    capture: Capture = capture
    decided: Callable[[str | None], None] = _told_nobody
