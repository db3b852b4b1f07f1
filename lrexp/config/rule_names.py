"""What `find_lr.rule` may name: the rules that read one LR off a range test.

Each is a function of the curve. `analysis/rules.py` stands above this package: it fills in the
functions of these names, and `register_rule` there adds others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Rule: TypeAlias = Callable[[Any], "float | None"]


def _not_imported(curve: object) -> float | None:
    raise NotImplementedError("lrexp.analysis.rules has the rules")


RULES: dict[str, Rule] = dict.fromkeys(
    ("auto", "steepest", "minimum", "valley", "slide"), _not_imported
)
