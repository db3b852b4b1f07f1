"""The built-in models: sizes counted by hand, what they may look at, and that they learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from lrexp.errors import ConfigError
from lrexp.workloads.builtin_data import DATASETS
from lrexp.workloads.loading import load_data
from lrexp.workloads.models import MODELS, fill_facts


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# name | arguments | parameters, by hand
SIZES: list[tuple[str, dict[str, Any], int]] = [
    ("linear", {"in_features": 4, "out_features": 3}, 4 * 3 + 3),
    ("linear", {"in_features": 4, "out_features": 3, "bias": False}, 4 * 3),
    ("mlp", {"in_features": 4, "out_features": 3, "hidden": []}, 4 * 3 + 3),
    ("mlp", {"in_features": 4, "out_features": 3, "hidden": [5]}, (4 * 5 + 5) + (5 * 3 + 3)),
    ("mlp", {"in_features": 4, "out_features": 3, "hidden": [5, 6], "batch_norm": True},
     (4 * 5 + 5 + 10) + (5 * 6 + 6 + 12) + (6 * 3 + 3)),
    ("mlp", {"in_features": 64, "out_features": 10},
     (64 * 128 + 128) + (128 * 128 + 128) + (128 * 10 + 10)),
    ("regression_net", {"in_features": 10, "out_features": 1},
     (10 * 32 + 32) + (32 * 32 + 32) + (32 + 1)),
    ("cnn", {"in_channels": 3, "out_features": 10, "channels": [4, 8]},
     (3 * 9 * 4 + 4) + (4 * 9 * 8 + 8) + (8 * 10 + 10)),
    ("cnn", {"in_channels": 1, "out_features": 2, "channels": [4], "batch_norm": True},
     (9 * 4 + 4 + 8) + (4 * 2 + 2)),
    # token + position + layers·(two norms, qkv, out, grow, shrink) + last norm; the head is tied
    ("gpt", {"vocab_size": 7, "seq_len": 5, "layers": 3, "heads": 2, "width": 8},
     7 * 8 + 5 * 8 + 3 * (2 * 16 + (8 * 24 + 24) + (64 + 8) + (8 * 32 + 32) + (32 * 8 + 8)) + 16),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "parameters"), SIZES)
def test_parameters(name: str, args: dict[str, Any], parameters: int) -> None:
    assert count(MODELS[name](**args)) == parameters


def test_a_gpt_of_gpt2s_size_has_gpt2s_parameters() -> None:
    with torch.device("meta"):
        model = MODELS["gpt"](50257, 1024, layers=12, heads=12, width=768)
    assert count(model) == 124_439_808  # "gpt2" of Hugging Face


@pytest.mark.parametrize("size", [8, 15, 28, 32, 224])
@pytest.mark.parametrize("channels", [[4], [4, 4, 4, 4, 4, 4]])
def test_a_cnn_takes_images_of_any_size(size: int, channels: list[int]) -> None:
    model = MODELS["cnn"](3, 5, channels=channels)
    assert model(torch.zeros(2, 3, size, size + 3)).shape == (2, 5)


@pytest.mark.parametrize("name", ["linear", "mlp", "regression_net"])
def test_nets_for_features_flatten_images(name: str) -> None:
    model = MODELS[name](48, 5)
    images = torch.randn(2, 3, 4, 4)
    assert model(images).equal(model(images.flatten(1)))


def test_an_mlp_is_what_it_says() -> None:
    model = MODELS["mlp"](3, 2, hidden=[4], activation="tanh")
    weight1, bias1, weight2, bias2 = model.parameters()
    x = torch.randn(5, 3)
    expected = torch.tanh(x @ weight1.T + bias1) @ weight2.T + bias2
    assert torch.allclose(model(x), expected, atol=1e-6)


@pytest.mark.parametrize(("name", "args"), [
    ("mlp", {"in_features": 6, "out_features": 2, "dropout": 0.5}),
    ("gpt", {"vocab_size": 6, "seq_len": 6, "dropout": 0.5}),
])  # fmt: skip
def test_dropout_is_there_while_training(name: str, args: dict[str, Any]) -> None:
    model = MODELS[name](**args)
    x = torch.arange(6)[None] if name == "gpt" else torch.ones(1, 6)
    assert not model(x).equal(model(x))
    model.eval()
    assert model(x).equal(model(x))


def small_gpt(**args: Any) -> nn.Module:
    torch.manual_seed(0)
    return MODELS["gpt"](11, 16, **{"layers": 3, "heads": 2, "width": 16, **args})


@pytest.mark.parametrize("position", [0, 7, 15])
def test_a_gpt_does_not_look_ahead(position: int) -> None:
    model = small_gpt()
    for parameter in model.parameters():  # far from the small initial weights
        nn.init.normal_(parameter, std=0.5)
    tokens = torch.randint(0, 11, (2, 16))
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + 1) % 11
    before, after = model(tokens), model(changed)
    assert before[:, :position].equal(after[:, :position])
    assert not torch.allclose(before[:, position:], after[:, position:])
    assert torch.allclose(before[:, :7], model(tokens[:, :7]), atol=1e-5)  # shorter is allowed


def test_the_attention_of_a_gpt_is_torchs() -> None:
    model = small_gpt()
    attention = model.blocks[0].attention
    nn.init.normal_(attention.qkv.weight)
    x = torch.randn(2, 9, 16)
    parts = attention.qkv(x).split(16, dim=2)
    q, k, v = (part.view(2, 9, 2, 8).transpose(1, 2) for part in parts)
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    expected = attention.out(mixed.transpose(1, 2).reshape(2, 9, 16))
    assert torch.allclose(attention(x), expected, atol=1e-5)


def test_a_gpt_is_initialised_as_gpt2() -> None:
    torch.manual_seed(0)
    model = MODELS["gpt"](500, 64, layers=8, heads=4, width=128)
    assert model.head.weight is model.token.weight
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert (parameter == 1).all()
        else:
            adds_to_residual = name.endswith(("attention.out.weight", "shrink.weight"))
            sd = 0.02 / math.sqrt(16) if adds_to_residual else 0.02
            assert parameter.std().item() == pytest.approx(sd, rel=0.05), name
    loss = functional.cross_entropy(
        model(torch.randint(0, 500, (4, 64))).flatten(0, 1), torch.randint(0, 500, (256,))
    )
    assert loss.item() == pytest.approx(math.log(500), rel=0.02)


# model | model arguments | data | data arguments
FITTING: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("linear", {}, "breast_cancer", {}),
    ("linear", {}, "diabetes", {}),
    ("mlp", {"hidden": [16], "batch_norm": True}, "digits", {}),
    ("mlp", {"hidden": [16]}, "digits", {"image": True}),
    ("mlp", {"hidden": [16]}, "spirals", {}),
    ("mlp", {"hidden": [16]}, "sine", {}),
    ("regression_net", {}, "linear", {}),
    ("cnn", {"channels": [8, 8]}, "digits", {"image": True}),
    ("cnn", {"channels": [8], "batch_norm": True}, "digits", {"image": True}),
    ("gpt", {"layers": 1, "width": 16}, "text", {"seq_len": 16}),
]


@pytest.mark.parametrize(("name", "args", "data_name", "data_args"), FITTING)
def test_every_model_learns_its_data(
    name: str, args: dict[str, Any], data_name: str, data_args: dict[str, Any], tmp_path: Path
) -> None:
    if data_name == "text":
        (tmp_path / "t.txt").write_text("to be or not to be, that is the question. " * 40)
        data_args = {"path": str(tmp_path / "t.txt"), **data_args}
    data = load_data(DATASETS[data_name], data_args, batch_size=32, val_fraction=0.2)
    torch.manual_seed(0)
    model = MODELS[name](**fill_facts(MODELS[name], args, data.facts))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    inputs, targets = next(data.train.epoch(0, 0))
    losses = []
    for _ in range(4):
        output = model(inputs)
        if targets.is_floating_point():
            assert output.shape == targets.shape
            loss = functional.mse_loss(output, targets)
        else:
            loss = functional.cross_entropy(output.flatten(0, -2), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]


def test_every_model_is_in_the_table() -> None:
    assert {row[0] for row in FITTING} == set(MODELS)


@pytest.mark.parametrize(("name", "args", "inputs"), [
    ("linear", {"in_features": 6, "out_features": 3}, torch.randn(4, 6)),
    ("mlp", {"in_features": 6, "out_features": 3, "hidden": [8, 8]}, torch.randn(4, 6)),
    ("regression_net", {"in_features": 6, "out_features": 1}, torch.randn(4, 6)),
    ("cnn", {"in_channels": 1, "out_features": 3, "channels": [4, 4]}, torch.randn(4, 1, 8, 8)),
    ("gpt", {"vocab_size": 9, "seq_len": 8, "width": 16}, torch.randint(0, 9, (4, 8))),
])  # fmt: skip
def test_many_copies_run_at_once_without_a_slow_path(
    name: str, args: dict[str, Any], inputs: torch.Tensor
) -> None:
    models = [MODELS[name](**args) for _ in range(3)]
    parameters, buffers = stack_module_state(models)

    def output(parameters: Any, buffers: Any) -> torch.Tensor:
        return functional_call(models[0], (parameters, buffers), (inputs,))

    together = vmap(output)(parameters, buffers)  # a missing batching rule would warn
    together.sum().backward()
    for model, ours in zip(models, together, strict=True):
        assert torch.allclose(model(inputs), ours, atol=1e-5)


# name | arguments | keys
WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    ("linear", {"in_features": 0, "out_features": 1.5}, ["in_features", "out_features"]),
    ("linear", {"in_features": 1, "out_features": 1, "bias": "no"}, ["bias"]),
    ("mlp", {"in_features": 1, "out_features": 1, "hidden": 128}, ["hidden"]),
    ("mlp", {"in_features": 1, "out_features": 1, "hidden": [8, 0]}, ["hidden[1]"]),
    ("mlp", {"in_features": 1, "out_features": 1, "hidden": [True]}, ["hidden[0]"]),
    ("mlp", {"in_features": 1, "out_features": 1, "activation": "rleu"}, ["activation"]),
    ("mlp", {"in_features": 1, "out_features": 1, "dropout": 1}, ["dropout"]),
    ("mlp", {"in_features": 1, "out_features": 1, "dropout": True, "batch_norm": 1},
     ["dropout", "batch_norm"]),
    ("regression_net", {"in_features": 1, "out_features": 1, "width": "32"}, ["width"]),
    ("cnn", {"in_channels": 0, "out_features": "ten"}, ["in_channels", "out_features"]),
    ("cnn", {"in_channels": 1, "out_features": 1, "channels": []}, ["channels"]),
    ("cnn", {"in_channels": 1, "out_features": 1, "channels": "32"}, ["channels"]),
    ("gpt", {"vocab_size": 0, "seq_len": 4, "layers": 0}, ["vocab_size", "layers"]),
    ("gpt", {"vocab_size": 4, "seq_len": 4, "heads": 3}, ["heads"]),
    ("gpt", {"vocab_size": 4, "seq_len": 4, "dropout": -0.1}, ["dropout"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "keys"), WRONG)
def test_wrong_arguments(name: str, args: dict[str, Any], keys: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        MODELS[name](**args)
    assert [p.key for p in caught.value.problems] == [f"model.args.{key}" for key in keys]


def test_samples_longer_than_a_gpt_are_told() -> None:
    with pytest.raises(ConfigError, match=r"model\.args\.seq_len: .* \(17\) \(got 16\)"):
        small_gpt()(torch.zeros(1, 17, dtype=torch.int64))
