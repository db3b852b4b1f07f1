"""A function of tensors, traced once into a straight line of torch operations.

Run as written, a stacked training step spends most of its time in layers of Python and dispatch:
modules, `vmap`, autograd. `compile_program` runs them once, under `make_fx`, and keeps only the
operations on tensors that were left; `simplify` removes those that do nothing, and what is the
same in every call is computed once. Source: torch.fx; Horace He et al., functorch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from lrexp.engine.vectorized.simplify import VIEWS, draws, is_mutable, mutated_inputs, simplify

Compiled: TypeAlias = Callable[..., tuple[Tensor, ...]]


_LITERALS = {torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default}


class NotTraceableError(Exception):
    """What a function does depends on more than the shapes of its inputs."""


@dataclass(frozen=True)
class Program:
    """What `compile_program` gives.

    Args:
        run: (*inputs) -> tuple of tensors; it reads, and may change in place, the constants.
        source: the Python text that is run, for whoever wants to read it.
        activation_bytes: an upper bound on the memory of the tensors it makes in one call.
    """

    run: Compiled
    source: str
    activation_bytes: int

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run it."""
        return self.run(*inputs)


def compile_program(
    function: Callable[..., tuple[Tensor, ...]],
    constants: Sequence[Tensor],
    inputs: Sequence[Tensor],
) -> Program:
    """Return `function(*constants, *inputs)` as a program of the inputs alone.

    Args:
        function: of tensors, whose operations depend on shapes and not on values.
        constants: tensors whose memory stays where it is from call to call. Their values may
            change between calls; views of them are made once.
        inputs: examples of what each call is given: shapes and types are fixed by them.

    Example:
        >>> weight = torch.ones(2)
        >>> program = compile_program(lambda w, x: (w * x,), [weight], [torch.zeros(2)])
        >>> weight.fill_(3.0)
        tensor([3., 3.])
        >>> program(torch.tensor([1.0, 2.0]))
        (tensor([3., 6.]),)

    Raises:
        NotTraceableError: shapes depend on values.
        Exception: whatever the function raises while it is traced.
    """
    # real tensors: a data-dependent branch raises inside `vmap` instead of being frozen here
    with _one_fake_mode():
        traced = make_fx(function)(*constants, *inputs)
    nodes = simplify(traced.graph)
    _check_shapes(nodes)
    known: dict[fx.Node, Any] = {}  # what is the same in every call
    places = [node for node in nodes if node.op == "placeholder"]
    known.update(zip(places, constants, strict=False))
    known.update((n, getattr(traced, str(n.target))) for n in nodes if n.op == "get_attr")
    _fold(nodes, known)
    names = [node.name for node in places[len(constants) :]]
    source, scope = _write(nodes, known, names)
    exec(source, scope)  # text made here, of operations of torch alone
    return Program(scope["program"], source, _activation_bytes(nodes, known))


@contextmanager
def _one_fake_mode() -> Iterator[None]:
    """Let tracing note the shapes of all values in one mode, which it looks for in its context.

    Else it makes one for every operation, and each takes down the whole stack of Python: half of
    the time.
    """
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        yield


def _check_shapes(nodes: Sequence[fx.Node]) -> None:
    for node in nodes:
        tags = getattr(node.target, "tags", ())
        depends = torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags
        if node.target is torch.ops.aten.index.Tensor:  # with whole numbers its shape is fixed
            masks = [node.meta["val"] for node in node.all_input_nodes[1:]]
            depends = any(mask.dtype in (torch.bool, torch.uint8) for mask in masks)
        if depends:
            raise NotTraceableError("shapes in it depend on the values of tensors")


def _fold(nodes: Sequence[fx.Node], known: dict[fx.Node, Any]) -> None:
    """Add to `known` the views of constants, and all that depends on no tensor's values.

    A view may be made once because memory stays in place; an operation that reads values may not,
    unless these were created in the program itself and nothing writes to them.
    """
    written = mutated_inputs(nodes)
    fixed: set[fx.Node] = set()  # values that no call can change
    for node in nodes:
        if node.op != "call_function" or is_mutable(node) or draws(node) or node in written:
            continue
        sources = node.all_input_nodes
        is_literal = node.target in _LITERALS and sources[0].op == "get_attr"
        from_nothing = is_literal or all(source in fixed for source in sources)
        is_view = node.target in VIEWS or node.target is operator.getitem
        if not (from_nothing or (is_view and all(s in known for s in sources))):
            continue
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda source: known[source])
        known[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        if from_nothing:
            fixed.add(node)


def _write(
    nodes: Sequence[fx.Node], known: dict[fx.Node, Any], inputs: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """Return the text of a function `program(*inputs)`, and the names it uses."""
    scope: dict[str, Any] = {}

    def word(value: Any) -> str:
        if isinstance(value, fx.Node):
            if value in known:
                scope[f"known_{value.name}"] = known[value]
                return f"known_{value.name}"
            return value.name
        if isinstance(value, tuple | list):
            return f"[{', '.join(map(word, value))}]"
        if value is None or isinstance(value, bool | int | str):
            return repr(value)
        name = f"value_{len(scope)}"  # a float (inf has no literal), a dtype, a device, ...
        scope[name] = value
        return name

    lines = []
    last_use = {source: node for node in nodes for source in node.all_input_nodes}
    for node in nodes:
        if node.op == "output":
            results = fx.node.map_aggregate(node.args[0], lambda value: value)
            words = [f"{word(r)}.clone()" if r in known else word(r) for r in results]  # type: ignore[union-attr]
            # a clone: whoever gets a result may change it, and what is known stays for all calls
            lines.append(f"return ({', '.join(words)},)")
        elif node.op == "call_function" and node not in known:
            operation = f"op_{getattr(node.target, '__name__', 'other').replace('.', '_')}"
            # without the Python half of an operator's call; other callables are called as they are
            scope[operation] = getattr(node.target, "_op", node.target)
            words = [*map(word, node.args), *(f"{k}={word(v)}" for k, v in node.kwargs.items())]
            lines.append(f"{node.name} = {operation}({', '.join(words)})")
            done = [s for s in node.all_input_nodes if last_use[s] is node and s not in known]
            done += [node] if node not in last_use else []
            if done:  # so that memory is used again as soon as with autograd
                lines.append(f"del {', '.join(source.name for source in done)}")
    text = "\n    ".join(lines)
    return f"def program({', '.join(inputs)}):\n    {text}\n", scope


def _activation_bytes(nodes: Sequence[fx.Node], known: dict[fx.Node, Any]) -> int:
    total = 0
    for node in nodes:
        value = node.meta.get("val")
        if node.op != "call_function" or node in known or node.target in VIEWS:
            continue
        for tensor in value if isinstance(value, tuple | list) else [value]:
            if isinstance(tensor, Tensor):
                total += tensor.numel() * tensor.element_size()
    return total
