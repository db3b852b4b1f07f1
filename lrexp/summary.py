"""What a run comes to: summary.json, made from the files of its trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lrexp.finder import Suggestion


def range_test_summary(suggestion: Suggestion, seeds: Sequence[int]) -> dict[str, Any]:
    """Return summary.json of a range test."""
    return {
        "command": "find-lr",
        "suggested_lr": suggestion.suggested_lr,
        "interval": suggestion.interval,
        "base_lr": suggestion.base_lr,
        "max_lr": suggestion.max_lr,
        "rules": suggestion.rules,
        "reason": suggestion.reason,
        "note": suggestion.note,
        "seeds": list(seeds),
        "per_seed": suggestion.per_seed,
    }


def comparison_summary(run: Any, plan: Any) -> dict[str, Any]:
    return {}
