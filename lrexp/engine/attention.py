"""Scaled dot-product attention written out as matrix products and a softmax.

torch's kernel for CPUs has no rule for its backward pass under vmap, and its kernels draw their
dropout masks where nobody can give them others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional


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
