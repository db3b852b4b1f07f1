"""Dropout masks drawn apart from the layers that use them, and attention written out.

A mask drawn in both loops makes a stack's dropout that of the sequential loop. Scaled dot-product
attention has no batching rule for dropout; as matrix products and a softmax it has one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

# (name of the function, its input, p) -> a mask that broadcasts to the input
TakeMask: TypeAlias = Callable[[str, Tensor, float], Tensor]
_BY_ELEMENT = ("dropout", "alpha_dropout")
_BY_CHANNEL = ("dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout")
_ALPHA = ("alpha_dropout", "feature_alpha_dropout")
_ALPHA_PRIME = 1.7580993408473766  # minus the value that SELU tends to, from torch's Dropout.cpp
_DIMS_OF_BATCH = {"dropout1d": 3, "dropout3d": 5}  # torch takes other inputs as one sample


@dataclass(frozen=True)
class MaskShape:
    """The mask that one call of a dropout function needs.

    Args:
        kind: the function's name in torch.nn.functional.
        shape: broadcasts to the input; `dropout2d` has a mask of (batch, channels, 1, 1).
        stride: torch fills a mask in the memory layout of the input.
        p: probability of a zero, 0 < p < 1.
        dtype: that of the input.
    """

    kind: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    p: float
    dtype: torch.dtype


def recorded_dropouts(run: Callable[[], object]) -> tuple[tuple[MaskShape, ...], bool]:
    """Call `run` with dropouts that drop nothing; return the masks they need, in order.

    The second value says whether random numbers of torch were drawn all the same.

    Example:
        >>> layer = torch.nn.Dropout2d(0.25)
        >>> masks, others = recorded_dropouts(lambda: layer(torch.zeros(8, 3, 4, 4)))
        >>> [(mask.kind, mask.shape, mask.p) for mask in masks], others
        ([('dropout2d', (8, 3, 1, 1), 0.25)], False)
    """
    shapes: list[MaskShape] = []

    def take(kind: str, x: Tensor, p: float) -> Tensor:
        mask = _empty_mask(kind, x)
        shapes.append(MaskShape(kind, tuple(mask.shape), mask.stride(), p, mask.dtype))
        return mask.fill_(1)

    before = generator_states()
    with explicit_attention(), _masks_from(take):
        run()
    drawn = any(not torch.equal(a, b) for a, b in zip(before, generator_states(), strict=False))
    return tuple(shapes), drawn


def draw_masks(shapes: Sequence[MaskShape], device: torch.device | str) -> list[Tensor]:
    """Draw the masks one after the other from the default generator of the device.

    On a CPU the bits and the state afterwards are those of torch's own dropout. Masks are scaled
    by 1 / (1 - p), those of the alpha kinds are zeros and ones.
    """
    return [
        _drawn(torch.empty_strided(s.shape, s.stride, dtype=s.dtype, device=device), s.kind, s.p)
        for s in shapes
    ]


@contextmanager
def given_masks(masks: Sequence[Tensor]) -> Iterator[None]:
    """Inside, the calls of dropout functions multiply by these masks, in order.

    May be entered inside of a vmapped function: then a mask is either one for all copies or one
    copy's own. Masks that no call asked for are an error at the end.

    Raises:
        RuntimeError: the calls are not those that were recorded.
    """
    taken = 0

    def take(kind: str, x: Tensor, p: float) -> Tensor:
        nonlocal taken
        if taken == len(masks):
            raise RuntimeError(
                f"internal error: the step asked for more than its {len(masks)} dropout masks "
                f"({kind} of a tensor {tuple(x.shape)})"
            )
        mask = masks[taken]
        if mask.shape != _mask_size(kind, x):
            raise RuntimeError(
                f"internal error: dropout mask {taken} is {tuple(mask.shape)}, and {kind} of a "
                f"tensor {tuple(x.shape)} needs {tuple(_mask_size(kind, x))}"
            )
        taken += 1
        return mask

    with _masks_from(take):
        yield
    if taken < len(masks):
        raise RuntimeError(
            f"internal error: the step used {taken} of its {len(masks)} dropout masks"
        )


@contextmanager
def own_dropout() -> Iterator[None]:
    """Inside, dropouts draw their masks as `draw_masks` does, on any device.

    The fused kernels of CUDA draw other ones, and with these both engines train alike there.
    """
    with (
        dropping_attention(),
        _masks_from(lambda kind, x, p: _drawn(_empty_mask(kind, x), kind, p)),
    ):
        yield


def generator_states() -> list[Tensor]:
    """Return the states of torch's default generators: the CPU's and those of used devices."""
    states = [torch.default_generator.get_state()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states.append(torch.cuda.get_rng_state())
    if torch.backends.mps.is_available():
        states.append(torch.mps.get_rng_state())
    return states


def _drawn(mask: Tensor, kind: str, p: float) -> Tensor:
    mask.bernoulli_(1 - p)
    return mask if kind in _ALPHA else mask.div_(1 - p)


def _mask_size(kind: str, x: Tensor) -> torch.Size:
    if kind in _BY_ELEMENT:
        return x.shape
    kept = 1 if x.dim() != _DIMS_OF_BATCH.get(kind, x.dim()) else 2
    return torch.Size((*x.shape[:kept], *(1 for _ in x.shape[kept:])))


def _accepts(kind: str, dims: int) -> bool:
    if kind == "dropout1d":
        return dims in (2, 3)
    return dims >= 2 or kind in (*_BY_ELEMENT, "dropout3d")


def _empty_mask(kind: str, x: Tensor) -> Tensor:
    x = x.detach()
    return torch.empty_like(x) if kind in _BY_ELEMENT else x.new_empty(_mask_size(kind, x))


@contextmanager
def _masks_from(take: TakeMask) -> Iterator[None]:
    """Replace the dropout functions by ones that ask `take` for their masks."""
    with ExitStack() as undo:
        for name in (*_BY_ELEMENT, *_BY_CHANNEL):
            original = getattr(functional, name)
            undo.callback(setattr, functional, name, original)
            setattr(functional, name, _replacement(name, original, take))
        yield


def _replacement(kind: str, original: Callable[..., Tensor], take: TakeMask) -> Any:
    trains_by_default = kind not in _ALPHA  # as torch has it

    @functools.wraps(original)
    def dropout(
        input: Tensor,  # noqa: A002 - torch's name, and callers may use it
        p: float = 0.5,
        training: bool = trains_by_default,
        inplace: bool = False,
    ) -> Tensor:
        if not (0 <= p <= 1 and _accepts(kind, input.dim())):
            return original(input, p, training, inplace)  # raises
        if not training or p == 0 or input.numel() == 0:
            return input
        if p == 1:  # no mask is drawn; a product, so that NaN stays NaN as it does in torch
            return input.mul_(0) if inplace else input.mul(0)
        return _applied(kind, input, take(kind, input, p), p, inplace)

    return dropout


def _applied(kind: str, x: Tensor, mask: Tensor, p: float, inplace: bool) -> Tensor:
    if kind not in _ALPHA:
        return x.mul_(mask) if inplace else x.mul(mask)
    a = 1 / math.sqrt((_ALPHA_PRIME**2 * p + 1) * (1 - p))
    shift = mask.add(-1).mul(_ALPHA_PRIME * a).add(_ALPHA_PRIME * a * p)
    scaled = mask.mul(a)
    return x.mul_(scaled).add_(shift) if inplace else x.mul(scaled).add(shift)


def attention(  # noqa: PLR0917 - torch's signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return softmax(q kᵀ · scale + mask) v, as torch's scaled_dot_product_attention does.

    Args:
        query: (..., heads, targets, width); key, value: (..., heads, sources, width).
        attn_mask: added to the scores, or boolean with True where a target may look.
        dropout_p: applied at any rate by `torch.nn.functional.dropout` as it is now.
        is_causal: target i looks at sources 0 to i.
        scale: 1/√width if None.
        enable_gqa: key and value may have fewer heads, each shared by as many of query's.
    """
    if is_causal:
        if attn_mask is not None:
            raise RuntimeError("scaled_dot_product_attention: give attn_mask or is_causal")
        shape = query.shape[-2], key.shape[-2]
        attn_mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)  # (..., heads, targets, sources)
    blind = None  # targets that may look nowhere: torch returns zeros for them, not NaN
    if attn_mask is not None:
        hidden = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask == -math.inf
        if not is_causal:
            blind = hidden.all(-1, keepdim=True)
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(hidden, -math.inf)
        else:
            scores = scores + attn_mask
    if blind is not None:  # both fills, since a softmax of -inf has NaN for a gradient, too
        scores = scores.masked_fill(blind, 0)
    weights = scores.softmax(-1)
    if blind is not None:
        weights = weights.masked_fill(blind, 0)
    if dropout_p > 0:
        weights = functional.dropout(weights, dropout_p)
    return weights.to(value.dtype) @ value


@contextmanager
def explicit_attention() -> Iterator[None]:
    """Inside, attention is written out, so that vmap and given dropout masks reach into it.

    The fused layers that torch takes for evaluating its transformers are switched off, too.
    """
    fused_layers = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _attention_is(attention):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused_layers)


@contextmanager
def dropping_attention() -> Iterator[None]:
    """Inside, attention is written out where it drops, and is torch's kernel elsewhere."""
    original = functional.scaled_dot_product_attention

    def chosen(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        *args: object,
        **options: object,
    ) -> Tensor:
        choice = attention if dropout_p > 0 else original
        return choice(query, key, value, attn_mask, dropout_p, *args, **options)  # type: ignore[arg-type]

    with _attention_is(chosen):
        yield


@contextmanager
def _attention_is(function: object) -> Iterator[None]:
    original = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = function  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original
