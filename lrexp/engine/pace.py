"""How often an engine looks up from its steps: to read losses back, and to drop copies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """What a task says about that; no result depends on it but by rounding.

    Args:
        chunk_steps: losses are read back at least this often; on a GPU each waits in a slot.
        chunk_seconds: and this often, to be shown and written; None is `losses.CHUNK_SECONDS`.
        drop_every: steps after which copies that are over may be dropped from a stack; at
            evaluations they may be, too.
    """

    chunk_steps: int = 2_000
    chunk_seconds: float | None = None
    drop_every: int = 500
