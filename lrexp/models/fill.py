"""Completing a model's arguments from the facts of the data.

`$num_classes` and its like are replaced wherever they stand. What a built-in model or one of
torchvision's requires and the data knows, such as `in_features`, need not be written at all; a
user's model gets what its config says and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from lrexp.data import Facts
from lrexp.data.argument_checks import raise_any
from lrexp.errors import NOTHING, Problem, did_you_mean
from lrexp.models.registry import MODELS
from lrexp.models.vision import TorchvisionModel

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
    raise_any(*problems)
    return filled


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
    parameters = inspect.signature(factory).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.name in FILLED]
