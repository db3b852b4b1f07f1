"""The smallest good config."""

from __future__ import annotations

GOOD = """\
model: mlp
data: digits
loss: cross_entropy
optimizer: {name: SGD, lr: 0.01}
"""
