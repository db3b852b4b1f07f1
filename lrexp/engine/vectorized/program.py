"""A function of tensors, traced once into a straight line of torch operations.

Operations that do nothing are removed from the traced graph, and those that belong are joined.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from lrexp.engine.vectorized.recorded import NotTraceableError, Value, record

Rule: TypeAlias = Callable[[fx.Node], fx.Node | None]
aten = torch.ops.aten
# Give another view of the same memory; their values are never computed.
VIEWS = {
    aten.alias.default, aten.detach.default, aten.view.default, aten._unsafe_view.default,
    aten.transpose.int, aten.t.default, aten.permute.default, aten.expand.default,
    aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.select.int, aten.slice.Tensor, aten.as_strided.default, aten.diagonal.default,
    aten.unbind.int, aten.split.Tensor, aten.split_with_sizes.default,
}  # fmt: skip

_FILLED = {
    aten.zeros_like.default: 0, aten.new_zeros.default: 0,
    aten.ones_like.default: 1, aten.new_ones.default: 1,
}  # fmt: skip

_SAME_SHAPE = {aten.view.default, aten._unsafe_view.default, aten.expand.default}


def simplify(graph: fx.Graph) -> list[fx.Node]:
    """Return the nodes that are left, in the order in which they run."""
    rules = [_alias, _filled, _same_shape, _double_transpose]
    rules += [_transposed_product, _copy_of_product]
    if not any(is_mutable(node) for node in graph.nodes):  # else a copy may be there for a reason
        rules.append(_times_one)
    rules.append(_product_plus)
    changed = True
    while changed:
        changed = False
        _erase_unused(graph)  # so that the users of a node are true users
        for node in list(graph.nodes):
            if node.op == "call_function":
                other = next((new for rule in rules if (new := rule(node)) is not None), None)
                if other is not None:
                    node.replace_all_uses_with(other)
                    changed = True
    _erase_unused(graph)
    return list(graph.nodes)


def is_mutable(node: fx.Node) -> bool:
    """Return whether the operation writes into one of its inputs."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def is_view(node: fx.Node) -> bool:
    """Return whether the result may lie in the memory of the first input."""
    if node.op != "call_function" or not node.all_input_nodes:
        return False
    schema = getattr(node.target, "_schema", None)
    says_so = schema is not None and any(r.alias_info is not None for r in schema.returns)
    return says_so or node.target in VIEWS or node.target is operator.getitem


def draws(node: fx.Node) -> bool:
    """Return whether the operation draws random numbers, which moves a generator."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def mutated_inputs(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Return every node whose memory some operation writes into, also through a view."""
    written: set[fx.Node] = set()
    for node in nodes:
        if is_mutable(node):
            for source in node.all_input_nodes:
                while source not in written:
                    written.add(source)
                    if not is_view(source):
                        break
                    source = source.all_input_nodes[0]  # noqa: PLW2901
    return written


def _is_pure(node: fx.Node) -> bool:
    """Return whether leaving the node out changes nothing but its own result."""
    return node.op not in ("placeholder", "output") and not is_mutable(node) and not draws(node)


def _erase_unused(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if not node.users and _is_pure(node):
            graph.erase_node(node)


def _alias(node: fx.Node) -> fx.Node | None:
    return _first(node) if node.target in (aten.alias.default, aten.detach.default) else None


def _filled(node: fx.Node) -> fx.Node | None:
    """Let a tensor of zeros or ones depend on no other tensor: it needs the shape alone."""
    if node.target not in _FILLED:
        return None
    value, like = _FILLED[node.target], _value(node)
    made = _new(aten.full.default, (list(like.shape), value), node, like)
    made.kwargs = {"dtype": like.dtype, "device": like.device}
    return made


def _same_shape(node: fx.Node) -> fx.Node | None:
    if node.target in _SAME_SHAPE and _value(node).shape == _value(_first(node)).shape:
        return _first(node)
    return None


def _times_one(node: fx.Node) -> fx.Node | None:
    is_one = node.target in (aten.mul.Scalar, aten.mul.Tensor) and node.args[1] == 1
    return _first(node) if is_one and _alike(node, _first(node)) else None


def _double_transpose(node: fx.Node) -> fx.Node | None:
    """Undo transpose(transpose(x))."""
    if node.target is not aten.transpose.int or _first(node).target is not aten.transpose.int:
        return None
    return _first(_first(node)) if _dims(node) == _dims(_first(node)) else None


def _transposed_product(node: fx.Node) -> fx.Node | None:
    """Turn (a b)ᵀ into bᵀ aᵀ, which comes out in the order in which it is used."""
    product = _first(node) if node.target is aten.transpose.int else node
    if product.target is not aten.bmm.default or product is node or len(product.users) > 1:
        return None
    if _dims(node) != [1, 2] or not _is_quiet(product, node):
        return None
    a, b = _nodes(product)
    swapped = (_new(aten.transpose.int, (x, 1, 2), node, _value(x).transposed()) for x in (b, a))
    return _new(aten.bmm.default, tuple(swapped), node, _value(node))


def _copy_of_product(node: fx.Node) -> fx.Node | None:
    """Leave out the contiguous copy of what is contiguous and used nowhere else."""
    if node.target is not aten.clone.default or _first(node).target is not aten.bmm.default:
        return None
    is_spare = len(_first(node).users) == 1 and _is_quiet(_first(node), node)
    return _first(node) if is_spare else None


def _product_plus(node: fx.Node) -> fx.Node | None:
    """Turn bias + a b into one operation."""
    if node.target is not aten.add.Tensor or node.kwargs or len(node.all_input_nodes) != 2:
        return None
    for bias, product in (_nodes(node), _nodes(node)[::-1]):
        fits = product.target is aten.bmm.default and len(product.users) == 1
        fits = fits and _value(bias).num_dims == 3 and _value(bias).dtype == _value(product).dtype
        if fits and _alike(node, product) and _is_quiet(product, node):
            args = (bias, *_nodes(product))
            return _new(aten.baddbmm.default, args, node, _value(node))
    return None


def _new(target: object, args: tuple[object, ...], place: fx.Node, value: Value) -> fx.Node:
    """Return a new node just before `place`; `value` is what it gives."""
    with place.graph.inserting_before(place):
        node = place.graph.call_function(target, args)  # type: ignore[arg-type]
    node.meta["val"] = value
    return node


def _is_quiet(earlier: fx.Node, later: fx.Node) -> bool:
    """Return whether nothing is written between two nodes, so that either could be the place."""
    node = earlier.next
    while node is not later:
        if is_mutable(node):
            return False
        node = node.next
    return True


def _first(node: fx.Node) -> fx.Node:
    return _nodes(node)[0]


def _nodes(node: fx.Node) -> Sequence[fx.Node]:
    return [arg for arg in node.args if isinstance(arg, fx.Node)]


def _value(node: fx.Node) -> Value:
    value: Value = node.meta["val"]
    return value


def _alike(one: fx.Node, other: fx.Node) -> bool:
    return _value(one).shape == _value(other).shape and _value(one).dtype == _value(other).dtype


def _dims(transpose: fx.Node) -> list[int]:
    size = _value(transpose).num_dims
    return sorted(dim % size for dim in transpose.args[1:] if isinstance(dim, int))


Compiled: TypeAlias = Callable[..., tuple[Tensor, ...]]
_LITERALS = {torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default}


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
    recorded = record(function, [*constants, *inputs])
    nodes = simplify(recorded.graph)
    _check_shapes(nodes)
    known: dict[fx.Node, Any] = {}  # what is the same in every call
    places = [node for node in nodes if node.op == "placeholder"]
    known.update(zip(places, constants, strict=False))
    known.update((n, recorded.held[str(n.target)]) for n in nodes if n.op == "get_attr")
    _fold(nodes, known)
    names = [node.name for node in places[len(constants) :]]
    source, scope = _write(nodes, known, names)
    return Program(as_function(source, scope), source, _activation_bytes(nodes, known))


_HEAD = re.compile(r"def program\((\w+(, \w+)*)?\):")
_GRAMMAR = (  # of the lines below it
    *(ast.Assign, ast.Delete, ast.Return, ast.Call, ast.keyword, ast.Attribute),
    *(ast.Name, ast.Load, ast.Store, ast.Del),
    *(ast.Constant, ast.UnaryOp, ast.USub, ast.List, ast.Tuple),
)


def as_function(source: str, scope: Mapping[str, Any]) -> Compiled:
    """Return the function that `_write` wrote, with what `scope` names.

    This is the only code that the package writes and runs. Per step of a small stack (3 to 8
    copies of an MLP, 1 core of a CPU), the code that torch.fx generates takes 17 to 33 % longer:
    it looks up `torch.ops.aten.relu.default` and goes through the Python half of its call. With
    these calls taken out it is still 3 to 6 %.

    What can run is bounded: one function that assigns the results of calls to names. Only what
    `scope` holds is called, with names, literals and lists of these; no builtin can be named, and
    no attribute but a tensor's `clone`.

    Raises:
        ValueError: the text holds anything else.
    """
    tree = ast.parse(source)
    function, *others = tree.body
    if others or not _HEAD.fullmatch(source.partition("\n")[0]):
        raise ValueError(f"a program must be one plain function (got {source!r})")
    for node in (node for line in function.body for node in ast.walk(line)):  # type: ignore[attr-defined]
        is_other = isinstance(node, ast.Attribute) and node.attr != "clone"
        if is_other or not isinstance(node, _GRAMMAR):
            raise ValueError(f"a program must not hold {ast.unparse(node)!r}")
    names = {**scope, "__builtins__": {}}
    exec(compile(tree, "<lrexp program>", "exec"), names)
    program: Compiled = names["program"]
    return program


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
            if isinstance(tensor, Value):
                total += tensor.num_bytes
    return total
