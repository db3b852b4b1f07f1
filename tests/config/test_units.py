"""Durations to steps, by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrexp.config.units import Clock, Duration, parse_duration
from lrexp.errors import ConfigError

CLOCK = Clock(total_steps=1000, steps_per_epoch=22, samples_per_step=64, tokens_per_sample=128)

# written | steps: an epoch is 22 steps, a step 64 samples of 128 tokens, the training 1000 steps
STEPS = [
    (500, 500), (0, 0), ("500st", 500), ("1.5st", 1), ("0st", 0), ("1e3st", 1000), ("500 st", 500),
    ("10ep", 220), ("0.5ep", 11), (".5ep", 11), ("1.ep", 22), ("0.04ep", 0), ("1e1ep", 220),
    ("64sa", 1), ("63sa", 0), ("64000sa", 1000), ("65sa", 1),
    ("8192tok", 1), ("2e6tok", 244), ("8191tok", 0),
    ("5%", 50), ("0.1%", 1), ("0.05%", 0), ("33.3%", 333), ("100%", 1000), ("150%", 1500),
]  # fmt: skip


@pytest.mark.parametrize(("written", "steps"), STEPS)
def test_steps(written: object, steps: int) -> None:
    assert CLOCK.steps(written) == steps


def test_arithmetic_is_exact() -> None:
    # 0.29 * 100 is 28.999999999999996 in floats
    assert Clock(total_steps=100).steps("29%") == 29
    assert Clock(steps_per_epoch=100).steps("0.29ep") == 29
    assert Clock(steps_per_epoch=10**15).steps("0.1ep") == 10**14


REFUSED = [
    (-1, "must not be negative"), (True, "whole number of steps"), (1.0, "whole number of steps"),
    (None, "whole number of steps"), ([5], "whole number of steps"), ("", "is no duration"),
    ("ep", "is no duration"), ("-5ep", "is no duration"), ("5", "without quotes"),
    ("1,5ep", "is no duration"), ("5 %%", "is no duration"), ("1e999ep", "is no duration"),
    ("5ep ", "is no duration"), ("nanep", "is no duration"), ("5EP", "is no duration"),
    ("5min", "unknown unit 'min'"), ("5epochs", "unknown unit 'epochs'"), ("1e20st", "more than"),
    ("9" * 19 + "st", "is no duration"), ("\u0663ep", "is no duration"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "said"), REFUSED)
def test_refused(written: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        CLOCK.steps(written)
    assert caught.value.problems[0].key == ""


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("5%", "the length of training is not known here"),
        ("5ep", "the data has no length"),
        ("5sa", "the batch size is not known here"),
        ("5tok", "the batch size is not known here"),
    ],
)
def test_a_clock_without_the_fact(written: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Clock().steps(written)
    with pytest.raises(ConfigError, match="not made of tokens"):
        Clock(samples_per_step=1).steps("5tok")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("0.01ep", r"comes to 0 steps \(0.22 rounded down\), and at least 1 is needed \(got '0.01ep'\)"),
        ("0ep", r"comes to 0 steps, and at least 1"),
    ],
)  # fmt: skip
def test_what_rounds_to_nothing(written: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CLOCK.steps(written, at_least=1)


def test_parse_duration() -> None:
    assert parse_duration("2.5ep") == Duration(Fraction(5, 2), "ep")


@given(st.integers(1, 10**6), st.integers(1, 10**4), st.integers(0, 10**6))
@settings(deadline=None)
def test_rounding_is_down_and_whole_epochs_are_exact(per_epoch: int, epochs: int, sa: int) -> None:
    clock = Clock(steps_per_epoch=per_epoch, samples_per_step=7)
    assert clock.steps(f"{epochs}ep") == per_epoch * epochs
    assert clock.steps(f"{sa}sa") == sa // 7
