"""The operations that a function of tensors runs, as a graph.

As `torch.fx.experimental.proxy_tensor.make_fx` does with real tensors, in a fifth of the time: of
values, only what is asked of them later is kept, and no fake tensor is made.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten


class NotTraceableError(Exception):
    """The operations of a function depend on the values of its tensors."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a tensor before it is computed."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @property
    def num_dims(self) -> int:
        """Number of its axes."""
        return len(self.shape)

    @property
    def num_bytes(self) -> int:
        """Memory of its elements."""
        return self.shape.numel() * self.dtype.itemsize

    def transposed(self) -> Value:
        """Return that of a stack of matrices, each transposed."""
        *others, rows, columns = self.shape
        return replace(self, shape=torch.Size([*others, columns, rows]))


@dataclass(frozen=True)
class Recorded:
    """A graph of operations; each node's `meta["val"]` is a `Value`, or a tuple of them.

    Args:
        graph: its placeholders are the inputs in order.
        held: tensors that are no inputs and come from no operation, by the target of their node.
    """

    graph: fx.Graph
    held: dict[str, Tensor]


def record(function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> Recorded:
    """Run a function once and return its operations, below `vmap` and autograd.

    Raises:
        NotTraceableError: it takes a value out of a tensor that is not known beforehand.
        Exception: whatever the function raises.

    Example:
        >>> recorded = record(lambda x: (x + 1,), [torch.zeros(2)])
        >>> [node.op for node in recorded.graph.nodes]
        ['placeholder', 'call_function', 'output']
    """
    recorder = _Recorder()
    for number, tensor in enumerate(inputs):
        recorder.note(tensor, recorder.graph.placeholder(f"input_{number}"))
    with _no_autocast_cache(), recorder:  # what was cast before would come from no operation
        results = function(*inputs)
    recorder.graph.output(tuple(recorder.node_of(tensor) for tensor in results))
    return Recorded(recorder.graph, recorder.held)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self.held: dict[str, Tensor] = {}
        self._nodes: MutableMapping[Tensor, fx.Node] = WeakTensorKeyDictionary()
        self._literals: MutableMapping[Tensor, None] = (
            WeakTensorKeyDictionary()
        )  # known whatever the inputs

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        sources = list(_tensors((args, kwargs)))
        is_literal = bool(sources) and all(tensor in self._literals for tensor in sources)
        is_literal = is_literal and torch.Tag.nondeterministic_seeded not in func.tags
        if torch.Tag.data_dependent_output in func.tags and not is_literal:
            raise NotTraceableError(
                "its forward decides by the values of tensors, which differ from copy to copy"
            )
        if func is aten.lift_fresh.default:  # of torch.tensor(...), whose value may be changed
            func, is_literal = aten.lift_fresh_copy.default, True
        node = self.graph.call_function(func, tuple(self._noted(args)), self._noted(kwargs))
        out = func(*args, **kwargs)
        self.note(out, node)
        for tensor in _tensors(out):
            if is_literal:
                self._literals[tensor] = None
            else:
                self._literals.pop(tensor, None)
        return out

    def note(self, out: Any, node: fx.Node) -> None:
        """Let later operations on a result refer to its node."""
        if isinstance(out, Tensor):
            self._nodes[out] = node
            node.meta["val"] = Value(out.shape, out.dtype, out.device)
        elif isinstance(out, tuple | list):
            values = []
            for number, part in enumerate(out):
                if isinstance(part, Tensor):
                    taken = self.graph.call_function(operator.getitem, (node, number))
                    self.note(part, taken)
                    values.append(taken.meta["val"])
            node.meta["val"] = tuple(values)

    def node_of(self, tensor: Tensor) -> fx.Node:
        """Return the node that made a tensor, or one that holds it."""
        node = self._nodes.get(tensor)
        if node is None:
            name = f"held_{len(self.held)}"
            self.held[name] = tensor
            node = self.graph.create_node("get_attr", name)
            self.note(tensor, node)
        return node

    def _noted(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.node_of(value)
        if isinstance(value, tuple | list):
            return [self._noted(item) for item in value]
        if isinstance(value, dict):
            return {key: self._noted(item) for key, item in value.items()}
        return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


@contextmanager
def _no_autocast_cache() -> Iterator[None]:
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
