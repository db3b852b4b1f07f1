"""What an unquoted word means, against the core schema of YAML 1.2 and its known traps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrexp.config.reader import parse_scalar

TABLE = [
    ("1", 1), ("0", 0), ("-5", -5), ("+5", 5), ("0x1F", 31),
    ("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("-1e-7", -1e-7), ("1.", 1.0), ("6.02e23", 6.02e23),
    ("+.5e+2", 50.0), ("1e05", 1e5), ("1e400", math.inf), (".inf", math.inf), ("-.inf", -math.inf),
    ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
    ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("tRUE", "tRUE"),
    ("10:30", "10:30"), ("1:30:00", "1:30:00"), ("2026-11-21", "2026-11-21"),
    ("0777", "0777"), ("007.5", "007.5"), ("0o17", "0o17"), ("0b1", "0b1"), ("-0x1", "-0x1"),
    ("1_000", "1_000"), ("1,5", "1,5"), ("nan", "nan"), ("inf", "inf"), ("1e", "1e"), (".", "."),
    ("-", "-"), ("e5", "e5"), ("5%", "5%"), ("10ep", "10ep"), ("1 2", "1 2"), ("\u0663", "\u0663"),
    ("9" * 301, "9" * 301),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), TABLE)
def test_scalars(text: str, value: object) -> None:
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(parse_scalar(".nan"))  # type: ignore[arg-type]


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None)
def test_what_python_writes_is_read_back(number: float) -> None:
    assert parse_scalar(repr(number)) == number


@given(st.integers(-(10**298), 10**298))
@settings(deadline=None)
def test_integers_are_read_back(number: int) -> None:
    assert parse_scalar(str(number)) == number
