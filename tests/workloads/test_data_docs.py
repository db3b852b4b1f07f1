"""The docstring of each built-in dataset and model is the place where its arguments are read."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from lrexp.workloads.builtin_data import DATASETS
from lrexp.workloads.models import MODELS


@pytest.mark.parametrize("factory", [*DATASETS.values(), *MODELS.values()])
def test_every_argument_is_explained(factory: Callable[..., Any]) -> None:
    _, _, after = (inspect.getdoc(factory) or "").partition("Args:\n")
    explained = re.findall(r"^    (\w+): ", after.split("\n\n")[0], re.MULTILINE)
    assert explained == list(inspect.signature(factory).parameters)
