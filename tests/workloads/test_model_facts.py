"""Facts of the data on their way into a model's arguments."""

from __future__ import annotations

from typing import Any

import pytest

from lrexp.errors import ConfigError
from lrexp.workloads.batches import Facts
from lrexp.workloads.models import FACTS, FILLED, MODELS, fill_facts
from lrexp.workloads.torchvision_models import torchvision_model

FLAT = Facts(num_samples=9, in_features=64, num_classes=10, out_features=10)
NUMBERS = Facts(num_samples=9, in_features=10, out_features=2)
IMAGES = Facts(9, 192, in_channels=3, image_size=8, num_classes=5, out_features=5)
GREY = Facts(9, 64, in_channels=1, image_size=8, num_classes=5, out_features=5)
TEXT = Facts(9, vocab_size=65, seq_len=32)
UNKNOWN = Facts(9, in_features=4)


def own(width: int, num_classes: int, deep: Any = None) -> None: ...


# model | arguments | facts | the arguments filled in
FILLED_IN: list[tuple[Any, dict[str, Any], Facts, dict[str, Any]]] = [
    (MODELS["linear"], {}, FLAT, {"in_features": 64, "out_features": 10}),
    (MODELS["mlp"], {"hidden": [8]}, NUMBERS, {"hidden": [8], "in_features": 10, "out_features": 2}),
    (MODELS["mlp"], {}, IMAGES, {"in_features": 192, "out_features": 5}),
    (MODELS["mlp"], {"out_features": 3}, FLAT, {"in_features": 64, "out_features": 3}),
    (MODELS["regression_net"], {}, NUMBERS, {"in_features": 10, "out_features": 2}),
    (MODELS["cnn"], {}, IMAGES, {"in_channels": 3, "out_features": 5}),
    (MODELS["gpt"], {"layers": 1}, TEXT, {"layers": 1, "vocab_size": 65, "seq_len": 32}),
    (torchvision_model("resnet18"), {}, IMAGES, {"num_classes": 5}),
    (torchvision_model("resnet18"), {"num_classes": 7}, IMAGES, {"num_classes": 7}),
    (torchvision_model("vit_b_16"), {}, IMAGES, {"num_classes": 5, "image_size": 8}),
    (own, {"width": "$in_features", "num_classes": "$num_classes"}, FLAT,
     {"width": 64, "num_classes": 10}),
    (own, {"width": 1}, FLAT, {"width": 1}),  # an own model gets what is written, no more
    (own, {"deep": [{"a": ["$in_features", 3]}, "b"]}, FLAT, {"deep": [{"a": [64, 3]}, "b"]}),
    (own, {"width": "$vocab_size", "deep": "$seq_len"}, TEXT, {"width": 65, "deep": 32}),
    (own, {"deep": "costs $5"}, FLAT, {"deep": "costs $5"}),
    (dict, {"width": 3}, FLAT, {"width": 3}),  # a callable without a signature
]  # fmt: skip


@pytest.mark.parametrize(("factory", "args", "facts", "expected"), FILLED_IN)
def test_filled_in(
    factory: Any, args: dict[str, Any], facts: Facts, expected: dict[str, Any]
) -> None:
    given = repr(args)
    assert fill_facts(factory, args, facts) == expected
    assert repr(args) == given  # the config's own arguments are left alone


# model | arguments | facts | key | words
REFUSED: list[tuple[Any, dict[str, Any], Facts, str, str]] = [
    (MODELS["cnn"], {}, FLAT, "model.args.in_channels", "data.args.image: true"),
    (MODELS["cnn"], {}, TEXT, "model.args.in_channels", "images (channels, height, width)"),
    (MODELS["mlp"], {}, TEXT, "model.args.in_features", "use the model gpt"),
    (MODELS["gpt"], {}, FLAT, "model.args.vocab_size", "tokens"),
    (MODELS["mlp"], {}, UNKNOWN, "model.args.out_features", "Write model.args.out_features."),
    (torchvision_model("resnet18"), {}, NUMBERS, "model.args.num_classes", "classes"),
    (torchvision_model("resnet18"), {}, GREY, "model.name", "1 channel(s)"),
    (torchvision_model("resnet18"), {}, FLAT, "model.name", "3 channels"),
    (own, {"width": "$num_clases"}, FLAT, "model.args.width", "Did you mean '$num_classes'?"),
    (own, {"deep": [1, {"a": "$x"}]}, FLAT, "model.args.deep[1].a", "Known: $image_size"),
    (own, {"width": "$vocab_size"}, FLAT, "model.args.width", "it needs tokens"),
]


@pytest.mark.parametrize(("factory", "args", "facts", "key", "words"), REFUSED)
def test_refused(factory: Any, args: dict[str, Any], facts: Facts, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fill_facts(factory, args, facts)
    assert caught.value.problems[0].key == key
    assert words.lower() in str(caught.value).lower()


def test_problems_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        fill_facts(MODELS["gpt"], {"width": "$x"}, FLAT)
    keys = [p.key for p in caught.value.problems]
    assert keys == ["model.args.width", "model.args.vocab_size", "model.args.seq_len"]


def test_the_facts_of_the_documentation_exist() -> None:
    assert {"num_classes", "in_features", "in_channels", "vocab_size"} <= set(FACTS)
    assert set(FACTS) - set(FILLED) == {"num_samples"}
