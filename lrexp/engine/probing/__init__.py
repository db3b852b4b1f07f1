"""What a training step does besides turning tensors into tensors, found by trying it."""

from lrexp.engine.probing.probe import Facts, copied, differing_constant, probe, why_not_stackable

__all__ = ["Facts", "copied", "differing_constant", "probe", "why_not_stackable"]
