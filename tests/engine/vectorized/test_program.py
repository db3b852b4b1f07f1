"""Programs against the functions they were made from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional

from lrexp.engine.vectorized.program import as_function, compile_program
from lrexp.engine.vectorized.recorded import NotTraceableError


def numbers(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def linear(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return vmap(functional.linear, in_dims=(None, 0, 0))(x, weight, bias)


def loss_and_gradients(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    trained = [weight.detach().requires_grad_(), bias.detach().requires_grad_()]
    one = vmap(lambda w, b: functional.cross_entropy(functional.linear(x, w, b), y))
    losses = one(*trained)
    return losses.detach(), *torch.autograd.grad(losses.sum(), trained)


FUNCTIONS: list[tuple[str, Callable[..., tuple[Tensor, ...]], list[Tensor], list[Tensor]]] = [
    ("product", lambda w, x: (w @ x,), [numbers(3, 4)], [numbers(4, 5)]),
    ("stacked linear", lambda w, b, x: (linear(w, b, x),), [numbers(3, 5, 4), numbers(3, 5)], [numbers(7, 4)]),
    ("transposed product", lambda w, x: (torch.bmm(x, w).transpose(1, 2).contiguous(),), [numbers(3, 4, 5)], [numbers(3, 6, 4)]),
    ("transposed twice", lambda w, x: (w.transpose(0, 1).transpose(1, 0) + x,), [numbers(2, 3)], [numbers(2, 3)]),
    ("times one", lambda w, x: (w * 1 + x * 1,), [numbers(2, 3)], [numbers(2, 3)]),
    ("product used twice", lambda w, x: ((p := torch.bmm(x, w)).transpose(1, 2).clone(), p + 1), [numbers(3, 4, 5)], [numbers(3, 6, 4)]),
    ("sum with alpha", lambda w, x: (torch.add(w, torch.bmm(x, w), alpha=2),), [numbers(3, 4, 4)], [numbers(3, 4, 4)]),
    ("filled", lambda w, x: (torch.ones_like(x) * w + torch.zeros_like(x),), [numbers(3)], [numbers(2, 3)]),
    ("several results", lambda w, x: tuple(torch.topk(w * x, 2)), [numbers(5)], [numbers(5)]),
    ("a bias of another type", lambda w, x: (torch.bmm(x, w) + torch.ones(3, 1, 5, dtype=torch.int64),), [numbers(3, 4, 5)], [numbers(3, 6, 4)]),
    ("a constant result", lambda w, x: (x + w, torch.ones_like(x).sum(0)), [numbers(3)], [numbers(2, 3)]),
    ("infinity", lambda w, x: (w.masked_fill(x > 0, -torch.inf).softmax(0),), [numbers(5)], [numbers(5)]),
    ("gradients", loss_and_gradients, [numbers(3, 4, 6), numbers(3, 4)], [numbers(8, 6), torch.arange(8) % 4]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "constants", "inputs"),
    [row[1:] for row in FUNCTIONS],
    ids=[r[0] for r in FUNCTIONS],
)
def test_a_program_gives_what_its_function_gives(
    function: Callable[..., tuple[Tensor, ...]], constants: list[Tensor], inputs: list[Tensor]
) -> None:
    constants = [tensor.clone() for tensor in constants]
    program = compile_program(function, constants, inputs)
    for shift in (0.0, 1.0):  # constants keep their place and change their values
        for tensor in constants:
            tensor.add_(shift)
        again = [x + 1 if x.is_floating_point() and shift else x for x in inputs]
        for mine, theirs in zip(program(*again), function(*constants, *again), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_what_is_written_in_place_stays_written() -> None:
    def count(calls: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        calls.view(-1).add_(1)
        return (x * calls,)

    calls = torch.zeros(1, dtype=torch.float64)
    program = compile_program(count, [calls], [numbers(3)])
    calls.zero_()  # tracing has run it once
    assert torch.equal(program(numbers(3))[0], numbers(3))
    assert torch.equal(program(numbers(3))[0], 2 * numbers(3))
    assert calls.item() == 2


def test_a_buffer_made_inside_is_fresh_in_every_call() -> None:
    def fill(x: Tensor) -> tuple[Tensor, ...]:
        made = torch.zeros(3, dtype=torch.float64)
        made[1:].add_(x[1:])
        return (made,)

    program = compile_program(fill, [], [numbers(3)])
    for _ in range(2):
        assert torch.equal(program(numbers(3))[0], fill(numbers(3))[0])


def test_a_copy_is_kept_where_the_original_is_written_to() -> None:
    def shift(state: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        before = state * 1
        state.add_(x)
        return (before,)

    state = numbers(3)
    program = compile_program(shift, [state], [numbers(3)])
    before = state.clone()
    assert torch.equal(program(numbers(3))[0], before)
    assert torch.equal(state, before + numbers(3))


def test_a_product_stays_before_a_write_to_what_it_reads() -> None:
    def bank(state: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        product = torch.bmm(x, state)
        other = torch.bmm(x, state)
        state.add_(1.0)
        return product + x.sum(), other.transpose(1, 2).contiguous()

    state = numbers(3, 4, 4)
    program = compile_program(bank, [state], [numbers(3, 4, 4)])
    mirror = state.clone()
    for _ in range(3):
        for mine, theirs in zip(
            program(numbers(3, 4, 4)), bank(mirror, numbers(3, 4, 4)), strict=True
        ):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "view",
    [
        lambda m: m.diagonal(),
        lambda m: m.unbind(0)[1],
        lambda m: m.chunk(3)[2],
        lambda m: m[1:, 0],
        lambda m: m.view(-1)[::2],
    ],
)
def test_what_is_written_through_any_view_is_made_anew(view: Callable[[Tensor], Tensor]) -> None:
    def fill(x: Tensor) -> tuple[Tensor, ...]:
        made = torch.zeros(3, 3, dtype=torch.float64)
        view(made).add_(1.0)
        return (made + x,)

    program = compile_program(fill, [], [numbers(3, 3)])
    for _ in range(3):
        assert torch.equal(program(numbers(3, 3))[0], fill(numbers(3, 3))[0])


def test_a_result_may_be_overwritten() -> None:
    program = compile_program(
        lambda x: (x * 2, torch.ones(3, dtype=torch.float64)), [], [numbers(3)]
    )
    for _ in range(3):
        result = program(numbers(3))[1]
        assert result.tolist() == [1.0, 1.0, 1.0]
        result.add_(5)


def test_shapes_that_depend_on_values_are_refused() -> None:
    for function in (lambda x: (x[x > 0],), lambda x: (x.nonzero(),), lambda x: (x.unique(),)):
        with pytest.raises(NotTraceableError):
            compile_program(function, [], [numbers(5)])


def test_random_numbers_are_drawn_in_every_call_used_or_not() -> None:
    def noise(x: Tensor) -> tuple[Tensor, ...]:
        torch.rand(2)
        return (x + torch.rand(3, dtype=torch.float64),)

    program = compile_program(noise, [], [numbers(3)])
    torch.manual_seed(5)
    mine = [program(numbers(3))[0] for _ in range(2)]
    torch.manual_seed(5)
    theirs = [noise(numbers(3))[0] for _ in range(2)]
    assert torch.equal(mine[0], theirs[0])
    assert torch.equal(mine[1], theirs[1])
    assert not torch.equal(mine[0], mine[1])


def test_a_linear_layer_and_its_gradient_become_few_operations() -> None:
    weight, bias, x, y = numbers(3, 4, 6), numbers(3, 4), numbers(8, 6), torch.arange(8) % 4
    source = compile_program(loss_and_gradients, [weight, bias], [x, y]).source
    assert "baddbmm" in source  # bias and product in one
    assert "alias" not in source
    assert "clone" not in source  # the gradient comes out in the layout of the weight
    assert "zeros" not in source  # made once
    assert source.count("op_transpose") == 1  # the weight's is made once, that of the gradient not


def test_activations_are_counted() -> None:
    program = compile_program(lambda x: (x.exp().sin(),), [], [numbers(100)])
    assert program.activation_bytes == 2 * 100 * 8


HEAD = "def program(x):\n    "


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        HEAD + "return x.__class__",
        HEAD + "return op(x).numpy()",
        HEAD + "return [y for y in x]",
        HEAD + "return (lambda: x)()",
        HEAD + "return x[0]",
        HEAD + "return f'{x}'",
        HEAD + "return op(*x)",
        HEAD + "global op\n    return op(x)",
        HEAD + "op(x)",
        "@op\n" + HEAD + "return x",
        "def program(x=op()):\n    return x",
        HEAD + "return x\nop(program)",
        HEAD + "def inner(y=op()): pass\n    return x",
        "class program:\n    y = op()",
    ],
)
def test_other_text_than_a_program_s_is_refused(text: str) -> None:
    def op(*_: object) -> None:
        pytest.fail("it ran")

    with pytest.raises(ValueError, match=r"^a program must "):
        as_function(text, {"op": op})


def test_a_program_reaches_no_builtin() -> None:
    program = as_function(HEAD + "y = op(x, [1, -2], None, key='a')\n    del x\n    return open(y)", {"op": lambda *_, **__: 1})  # fmt: skip
    with pytest.raises(NameError):
        program(numbers(1))
