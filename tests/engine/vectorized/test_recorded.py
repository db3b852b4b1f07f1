"""The recorded operations of a function, against those that make_fx traces."""

from __future__ import annotations

import gc
import operator
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from lrexp.engine.vectorized.recorded import NotTraceableError, record

NETS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 3),
    "deep": lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten()),
}


def gradients(net: nn.Module) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
    """Return the gradients of two copies' losses as a function, and its inputs."""
    names = [name for name, _ in net.named_parameters()]
    copies = [torch.stack([p.detach(), 2 * p.detach()]) for p in net.parameters()]

    def loss(own: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(net, own, (x,)).square().mean()

    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        own = dict(zip(names, inputs[:-1], strict=True))
        return tuple(vmap(grad(loss), (0, None))(own, inputs[-1]).values())

    return function, [*copies, torch.randn(4, 6)]


def rerun(graph: fx.Graph, held: dict[str, Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    root = nn.Module()
    for name, tensor in held.items():
        root.register_buffer(name, tensor)
    return fx.Interpreter(root, graph=graph).run(*inputs)


@pytest.mark.parametrize("net", NETS)
def test_the_operations_are_those_of_make_fx_and_give_the_same_bits(net: str) -> None:
    function, inputs = gradients(NETS[net]())
    recorded = record(function, inputs)
    traced = make_fx(function)(*inputs)

    def operations(graph: fx.Graph) -> Counter[Any]:
        made = [node.target for node in graph.nodes if node.op == "call_function"]
        return Counter(target for target in made if target is not operator.getitem)

    assert operations(recorded.graph) == operations(traced.graph)
    other = [torch.randn_like(tensor) for tensor in inputs]
    expected = function(*other)
    for got, value in zip(rerun(recorded.graph, recorded.held, other), expected, strict=True):
        assert torch.equal(got, value)


def test_what_is_known_of_a_value() -> None:
    recorded = record(lambda x: (x[:, :2].double().unbind()[1],), [torch.zeros(3, 4)])
    (result,) = list(recorded.graph.nodes)[-1].args[0]
    value = result.meta["val"]
    assert (value.shape, value.dtype, value.device) == ((2,), torch.float64, torch.device("cpu"))
    assert value.num_bytes == 16


def test_tensors_from_elsewhere_are_held() -> None:
    scale = torch.tensor([3.0])
    recorded = record(lambda x: (x * scale,), [torch.ones(1)])
    assert [*recorded.held.values()] == [scale]
    scale.fill_(5.0)  # it is held, not copied
    assert rerun(recorded.graph, recorded.held, [torch.ones(1)])[0] == 5.0


def test_what_is_written_in_place_is_written_in_the_same_order() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        total = torch.tensor(0.0)
        total += x.sum()
        before = total.clone()
        total.mul_(2)
        return before, total

    recorded = record(function, [torch.ones(3)])
    got = [rerun(recorded.graph, recorded.held, [torch.full((3,), v)]) for v in (1.0, 2.0, 1.0)]
    assert [[float(value) for value in values] for values in got] == [[3, 6], [6, 12], [3, 6]]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x * float(x.sum()),),
        lambda x: (x if x.sum() > 0 else -x,),
        lambda x: (x * (torch.tensor(2.0) + x.sum()).item(),),
    ],
)
def test_values_that_are_read_are_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(NotTraceableError, match="decides by the values of tensors"):
        record(function, [torch.ones(2)])


def test_the_value_of_a_literal_may_be_read() -> None:
    recorded = record(lambda x: (x * (torch.tensor(2.0) + 1).item(),), [torch.ones(2)])
    assert torch.equal(
        rerun(recorded.graph, recorded.held, [torch.ones(2)])[0], torch.full((2,), 3.0)
    )


def test_a_literal_that_took_up_an_input_is_none() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        total = torch.tensor(0.0)
        total += x.sum()
        return (x * total.item(),)

    with pytest.raises(NotTraceableError):
        record(function, [torch.ones(2)])


def test_values_that_nobody_needs_are_freed_at_once() -> None:
    alive: list[weakref.ref[Tensor]] = []

    def function(x: Tensor) -> tuple[Tensor, ...]:
        for _ in range(5):
            x = x + 1
            alive.append(weakref.ref(x))
        gc.collect()
        assert sum(ref() is not None for ref in alive) == 1
        return (x,)

    record(function, [torch.ones(1)])
    assert len(alive) == 5
