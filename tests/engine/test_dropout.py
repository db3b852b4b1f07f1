"""Masks drawn apart from the layers, against torch's own dropout and attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from lrexp.engine.dropout import (
    draw_masks,
    explicit_attention,
    given_masks,
    own_dropout,
    recorded_dropouts,
)

CPU = torch.device("cpu")
PLAIN, ALPHA = ["dropout", "dropout1d", "dropout2d", "dropout3d"], ["alpha_dropout", "feature_alpha_dropout"]  # fmt: skip
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "every second": lambda x: torch.cat([x, x], 0)[::2],
    "expanded": lambda x: x[:1].expand(x.shape),
}


def called(kind: str, x: Tensor, p: float) -> Callable[[], Tensor]:
    return lambda: getattr(functional, kind)(x, p, True)


def with_own_masks(function: Callable[[], Any], seed: int) -> Any:
    shapes, others = recorded_dropouts(function)
    assert not others
    torch.manual_seed(seed)
    with given_masks(draw_masks(shapes, CPU)):
        return function()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", PLAIN + ALPHA)
@pytest.mark.filterwarnings("ignore:dropout[23]d. Received a:UserWarning")
def test_masks_have_the_bits_of_torchs_own_dropout(kind: str, layout: str) -> None:
    dims = {
        "dropout": (1, 2, 4),
        "alpha_dropout": (1, 3),
        "dropout1d": (2, 3),
        "dropout2d": (2, 3, 4),
    }
    for dim in dims.get(kind, (2, 4, 5)):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            for p in (0.1, 0.5, 0.75):
                x = torch.randn((6, 5, 7, 4, 3)[:dim]).to(dtype)
                x = LAYOUTS[layout](x) if dim > 1 else x
                torch.manual_seed(5)
                call = called(kind, x, p)
                expected = call()
                consumed = torch.get_rng_state()
                assert torch.equal(with_own_masks(call, 5), expected)
                assert torch.equal(torch.get_rng_state(), consumed)
                torch.manual_seed(5)
                with own_dropout():
                    assert torch.equal(call(), expected)
                assert torch.equal(torch.get_rng_state(), consumed)


def test_many_masks_come_in_the_order_of_the_calls_and_large_ones_too() -> None:
    net = nn.Sequential(
        nn.Dropout2d(0.3), nn.Flatten(), nn.Dropout(0.2), nn.Linear(800, 500), nn.Dropout(0.5)
    )
    x = torch.randn(64, 8, 10, 10)
    torch.manual_seed(9)
    expected = net(x)
    assert torch.equal(with_own_masks(lambda: net(x), 9), expected)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda x: functional.dropout(x, 0.0), 1.0),
        (lambda x: functional.dropout(x, 0.5, training=False), 1.0),
        (lambda x: functional.alpha_dropout(x, 0.5), 1.0),  # does not train unless told to
        (nn.Dropout(0.5).eval(), 1.0),
        (lambda x: functional.dropout(x, 1.0), 0.0),
        (lambda x: functional.dropout2d(x.view(1, 2, 2, 1), 1.0).view(4), 0.0),
    ],
)
def test_calls_that_need_no_mask_are_none(call: Any, expected: float) -> None:
    x = torch.arange(1.0, 5.0)
    assert recorded_dropouts(lambda: call(x)) == ((), False)
    with given_masks([]):
        assert torch.equal(call(x), x * expected)


def test_in_place_dropout_changes_its_input() -> None:
    x = torch.ones(40)
    torch.manual_seed(0)
    expected = functional.dropout(x, 0.5)
    (shape,), _ = recorded_dropouts(lambda: functional.dropout(torch.ones(40), 0.5, inplace=True))
    torch.manual_seed(0)
    with given_masks(draw_masks([shape], CPU)):
        assert functional.dropout(x, 0.5, inplace=True) is x
    assert torch.equal(x, expected)


def test_nonsense_is_torchs_own_error() -> None:
    with given_masks([]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            functional.dropout(torch.ones(3), 1.5)
        with pytest.raises(RuntimeError, match="Expected 2D or 3D"):
            functional.dropout1d(torch.ones(3), 0.5)
        with (
            pytest.raises(RuntimeError, match="at least 2 dim"),
            pytest.warns(UserWarning, match="1-D input"),
        ):
            functional.dropout2d(torch.ones(3), 0.5)


def test_wrong_masks_are_refused_and_the_functions_come_back() -> None:
    before = functional.dropout, functional.scaled_dot_product_attention
    x = torch.ones(4)
    with (
        pytest.raises(RuntimeError, match=r"mask 0 is \(3,\).*needs \(4,\)"),
        given_masks([torch.ones(3)]),
    ):
        functional.dropout(x, 0.5)
    with pytest.raises(RuntimeError, match="more than its 1 dropout"), given_masks([torch.ones(4)]):
        functional.dropout(functional.dropout(x, 0.5), 0.5)
    with pytest.raises(RuntimeError, match="used 1 of its 2"), given_masks([x, x]):
        functional.dropout(x, 0.5)
    with pytest.raises(KeyError), own_dropout(), explicit_attention():
        raise KeyError
    assert (functional.dropout, functional.scaled_dot_product_attention) == before
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("draws", "others"),
    [
        (nn.Dropout(0.5), False),
        (lambda x: x + torch.randn_like(x), True),
        (lambda x: torch.dropout(x, 0.5, True), True),
        (lambda x: functional.rrelu(-x, training=True), True),
    ],
)
def test_other_random_numbers_are_noticed(draws: Any, others: bool) -> None:
    assert recorded_dropouts(lambda: draws(torch.ones(5)))[1] is others


def attention_cases() -> dict[str, dict[str, Any]]:
    torch.manual_seed(1)
    look = torch.rand(5, 7) > 0.4
    look[:, 0] = True
    blind = look.clone()
    blind[2] = False
    return {
        "plain": {},
        "causal": {"is_causal": True},
        "scale": {"scale": 0.3},
        "boolean mask": {"attn_mask": look},
        "float mask": {"attn_mask": torch.randn(2, 1, 5, 7, dtype=torch.float64)},
        "a target that may look nowhere": {"attn_mask": blind},
        "the same with floats": {"attn_mask": torch.zeros(5, 7, dtype=torch.float64).masked_fill(~blind, -math.inf)},
        "dropout": {"dropout_p": 0.3},
        "dropout, causal": {"dropout_p": 0.3, "is_causal": True},
    }  # fmt: skip


@pytest.mark.parametrize("case", attention_cases())
def test_attention_written_out_is_torchs(case: str) -> None:
    options = attention_cases()[case]
    q, k, v = (torch.randn(2, 4, n, 8, dtype=torch.float64, requires_grad=True) for n in (5, 7, 7))

    def outcome() -> list[Tensor]:
        torch.manual_seed(3)
        out = functional.scaled_dot_product_attention(q, k, v, **options)
        return [out, *torch.autograd.grad(out.square().sum(), (q, k, v))]

    expected = outcome()
    for replaced in (explicit_attention, own_dropout):
        with replaced():
            torch.testing.assert_close(outcome(), expected, rtol=1e-12, atol=1e-13)


def test_grouped_queries_and_shapes_without_heads() -> None:
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8)
    for tensors, options in (((q, k, k), {"enable_gqa": True}), ((q[0, 0], k[0, 0], k[0, 0]), {})):
        expected = functional.scaled_dot_product_attention(*tensors, **options)
        with explicit_attention():
            torch.testing.assert_close(functional.scaled_dot_product_attention(*tensors, **options), expected)  # fmt: skip


def test_attention_in_bfloat16_is_close_and_a_mask_besides_causal_is_refused() -> None:
    x = torch.randn(2, 3, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        expected = functional.scaled_dot_product_attention(x, x, x)
        with explicit_attention():
            got = functional.scaled_dot_product_attention(x, x, x)
    assert got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, rtol=0.03, atol=0.03)
    with explicit_attention(), pytest.raises(RuntimeError, match="is_causal"):
        functional.scaled_dot_product_attention(x, x, x, torch.ones(6, 6), 0.0, True)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)
        self.drop2d, self.drop = nn.Dropout2d(0.3), nn.Dropout(0.4, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop2d(self.conv(x.view(-1, 1, 4, 4)).relu())
        return self.head(self.drop(x.mean((2, 3))))


class Attending(nn.Module):
    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.3, batch_first=True)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 4, 4)
        return self.attention(x, x, x, need_weights=self.need_weights)[0].mean(1)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.25, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(4, dtype=x.dtype)
        return self.encoder(x.view(-1, 4, 4), mask=mask, is_causal=True).mean(1)


NETS: dict[str, Callable[[], nn.Module]] = {
    "MLP": lambda: nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2)),
    "alpha": lambda: nn.Sequential(
        nn.Linear(16, 8), nn.SELU(), nn.AlphaDropout(0.2), nn.Linear(8, 2)
    ),
    "dropout of the input": lambda: nn.Sequential(nn.Dropout(0.2), nn.Linear(16, 2)),
    "CNN": Convolutional,
    "attention with weights": lambda: Attending(True),
    "attention": lambda: Attending(False),
    "transformer": Transformer,
}


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "traced"])
@pytest.mark.parametrize("net", NETS)
def test_copies_of_different_seeds_get_the_masks_of_trainings_on_their_own(
    net: str, traced: bool
) -> None:
    seeds, x = (3, 4, 3), torch.randn(6, 16, dtype=torch.float64)
    model = NETS[net]().double()
    copies = [{n: torch.randn_like(p) / 3 for n, p in model.named_parameters()} for _ in seeds]

    expected, masks = [], []
    shapes, others = recorded_dropouts(lambda: model(x))
    assert shapes
    assert not others
    for seed, parameters in zip(seeds, copies, strict=True):
        leaves = {n: p.clone().requires_grad_() for n, p in parameters.items()}
        torch.manual_seed(seed)
        loss = functional_call(model, leaves, x).square().mean()
        expected.append((loss.detach(), torch.autograd.grad(loss, list(leaves.values()))))
        torch.manual_seed(seed)
        masks.append(draw_masks(shapes, CPU))

    def one(parameters: dict[str, Tensor], own: list[Tensor]) -> Tensor:
        with given_masks(own), explicit_attention():
            return functional_call(model, parameters, x).square().mean()

    def step(parameters: dict[str, Tensor], own: list[Tensor]) -> Any:
        values = vmap(one)(parameters, own)
        return values.detach(), torch.autograd.grad(values.sum(), list(parameters.values()))

    stacked = {n: torch.stack([c[n] for c in copies]).requires_grad_() for n in copies[0]}
    per_copy = [torch.stack(of_all) for of_all in zip(*masks, strict=True)]
    losses, grads = (make_fx(step)(stacked, per_copy) if traced else step)(stacked, per_copy)
    for i, (loss, own_grads) in enumerate(expected):
        torch.testing.assert_close(losses[i], loss, rtol=1e-12, atol=0)
        torch.testing.assert_close([g[i] for g in grads], list(own_grads), rtol=1e-10, atol=1e-12)


def test_one_mask_for_all_copies_of_a_seed() -> None:
    layer, x, weights = nn.Dropout(0.5), torch.randn(5, 3), torch.randn(4, 3)
    shapes, _ = recorded_dropouts(lambda: layer(x))
    masks = draw_masks(shapes, CPU)
    with given_masks(masks):
        got = vmap(lambda w: layer(x * w))(weights)
    assert torch.equal(got, torch.stack([x * w * masks[0] for w in weights]))
