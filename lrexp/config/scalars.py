"""What an unquoted word in a config means: the core schema of YAML 1.2, a little stricter.

Plain YAML 1.1 loaders read `1e-3` as text, `10:30` as 630, `no` as false and `0777` as 511. Here
numbers look as they do in Python, and whatever is not clearly a number, `true`, `false` or `null`
is text.

Source: https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import math
import re
from typing import TypeAlias

Scalar: TypeAlias = bool | int | float | str | None

MAX_INT_LENGTH = 300  # such an int still fits a float; a longer one is text

# A leading zero makes text (0777, 007): people who write it mean octal or an identifier.
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", "+.inf", ".Inf", ".INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}


def parse_scalar(text: str) -> Scalar:
    """Return the value of an unquoted YAML scalar.

    Integers are decimal or `0x` hexadecimal; `1_000`, `0777`, `yes`, `on`, `10:30` and dates are
    text.

    Example:
        >>> [parse_scalar(text) for text in ("1e-3", ".5", "0x10", "10:30", "yes", "null")]
        [0.001, 0.5, 16, '10:30', 'yes', None]
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= MAX_INT_LENGTH and _INT.fullmatch(text):
        return int(text)
    if len(text) <= MAX_INT_LENGTH and _HEX.fullmatch(text):
        return int(text, base=16)
    if _FLOAT.fullmatch(text) and not _INT.fullmatch(text):
        return float(text)
    return text
