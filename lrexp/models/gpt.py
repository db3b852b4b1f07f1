"""A small GPT: a causal transformer decoder over tokens, as in nanoGPT.

Attention is written out as two matrix products: torch's fused kernel has no batching rule for
torch.func.vmap on a CPU, and for the sizes meant here it is no faster.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrexp.data.argument_checks import raise_any, wrong_count, wrong_number
from lrexp.errors import ConfigError


def gpt(
    vocab_size: int,
    seq_len: int,
    *,
    layers: int = 2,
    heads: int = 4,
    width: int = 64,
    dropout: float = 0.0,
) -> nn.Module:
    """Return a GPT; tokens (batch, time) give logits (batch, time, vocab_size).

    Pre-norm blocks, learned positions, GELU, output weights tied to the token embedding;
    initialised as GPT-2: N(0, 0.02²), and 0.02/√(2·layers) for what adds to the residual.

    Args:
        vocab_size: tokens that there are, filled in from the data.
        seq_len: most tokens per sample, filled in from the data.
        layers: transformer blocks.
        heads: of the attention; must divide `width`.
        width: of the embedding.
        dropout: probability, in [0, 1).

    Example:
        >>> gpt(65, 32)(torch.zeros(2, 32, dtype=torch.int64)).shape
        torch.Size([2, 32, 65])

    Source:
        Radford et al., Language Models are Unsupervised Multitask Learners, 2019; nanoGPT.
    """
    counts = {
        "vocab_size": vocab_size,
        "seq_len": seq_len,
        "layers": layers,
        "heads": heads,
        "width": width,
    }
    raise_any(
        *(wrong_count(f"model.args.{name}", value) for name, value in counts.items()),
        wrong_number("model.args.dropout", dropout, at_least=0, below=1),
    )
    if width % heads:
        what = f"must divide model.args.width ({width})"
        raise ConfigError.single("model.args.heads", what, heads, "E.g. heads 4 and width 64.")
    return GPT(vocab_size, seq_len, layers=layers, heads=heads, width=width, dropout=dropout)


class GPT(nn.Module):
    """A causal transformer decoder; see `gpt`."""

    def __init__(
        self, vocab_size: int, seq_len: int, *, layers: int, heads: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.seq_len = seq_len
        self.token = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(seq_len, width)
        self.dropout = nn.Dropout(dropout)
        blocks = [_Block(seq_len, heads, width, dropout) for _ in range(layers)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self.head.weight = self.token.weight
        self.apply(_initialise)
        for block in blocks:
            for weight in (block.attention.out.weight, block.shrink.weight):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, time, vocabulary) of tokens (batch, time)."""
        time = tokens.shape[1]
        if time > self.seq_len:
            raise ConfigError.single(
                "model.args.seq_len",
                f"must be at least the length of the data's samples ({time})",
                self.seq_len,
                "Leave it out, and it is filled in.",
            )
        x = self.token(tokens) + self.position.weight[:time]  # (batch, time, width)
        logits: Tensor = self.head(self.norm(self.blocks(self.dropout(x))))
        return logits


class _Block(nn.Module):
    def __init__(self, seq_len: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(seq_len, heads, width, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        hidden = functional.gelu(self.grow(self.norm2(x)))
        out: Tensor = x + self.dropout(self.shrink(hidden))
        return out


class _Attention(nn.Module):
    future: Tensor

    def __init__(self, seq_len: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout_weights = nn.Dropout(dropout)
        self.dropout_out = nn.Dropout(dropout)
        future = torch.ones(seq_len, seq_len, dtype=torch.bool).triu(1)  # j > i
        self.register_buffer("future", future, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        split = (batch, time, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(x).view(split).permute(2, 0, 3, 1, 4)  # (batch, heads, time, depth)
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        scores = scores.masked_fill(self.future[:time, :time], -math.inf)
        weights = self.dropout_weights(functional.softmax(scores, dim=-1))
        mixed = (weights @ v).transpose(1, 2).reshape(batch, time, width)
        out: Tensor = self.dropout_out(self.out(mixed))
        return out


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
