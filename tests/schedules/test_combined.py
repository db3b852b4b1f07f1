"""Parts on half-open ranges: in a config, in Python, nested, and the ranges that are refused."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrexp.errors import ConfigError
from lrexp.schedules.build import build_schedule
from lrexp.schedules.public import get_combined_lr_scheduler
from lrexp.schedules.schedule import Schedule


def to_steps(duration: object) -> int:
    """Steps, or a part of 100 of them."""
    if isinstance(duration, str) and duration.endswith("%"):
        return int(Fraction(duration[:-1]))
    if isinstance(duration, int):
        return duration
    raise ConfigError.single("", "is not a duration", duration, "Give e.g. 5%.")


def built(*parts: dict[str, Any], **params: Any) -> Schedule:
    schedule = build_schedule(
        "combined",
        {"parts": list(parts), **params},
        lr=1.0,
        total_steps=100,
        to_steps=to_steps,
        steps_per_epoch=10,
    )
    assert isinstance(schedule, Schedule)
    return schedule


def part(start: Any, end: Any, schedule: Any) -> dict[str, Any]:
    return {"start": start, "end": end, "schedule": schedule}


def test_each_part_sees_its_own_steps_and_length() -> None:
    linear = {"name": "linear", "warmup": 10, "min_lr": 0.5}
    schedule = built(part(0, "20%", "linear"), part("20%", "100%", linear))
    assert [schedule(s) for s in (0, 10, 19)] == pytest.approx([1, 0.5, 0.05])
    assert [schedule(s) for s in (20, 29, 30)] == pytest.approx([0.1, 1, 1])  # the warmup again
    assert [schedule(s) for s in (65, 100, 999)] == pytest.approx([0.75, 0.5, 0.5])


def test_one_part_is_the_schedule_itself() -> None:
    whole = build_schedule(
        "cosine", {"min_lr": 0.1}, lr=1.0, total_steps=100, to_steps=int, steps_per_epoch=None
    )
    schedule = built(part(0, 100, {"name": "cosine", "min_lr": 0.1}))
    assert [schedule(s) for s in range(130)] == [whole(s) for s in range(130)]


def test_nested() -> None:
    halves = {"name": "combined", "parts": [part(0, 10, "constant"), part(10, 30, "linear")]}
    schedule = built(part(0, 70, "constant"), part(70, 100, halves))
    assert [schedule(s) for s in (0, 69, 70, 79, 80, 90, 99)] == pytest.approx(
        [1, 1, 1, 1, 1, 0.5, 0.05]
    )


def test_torch_classes_and_functions_can_be_parts() -> None:
    torch_part = {"name": "StepLR", "args": {"step_size": 1, "gamma": 0.5}}
    function_part = {"name": "lambda", "function": lambda step: 1 / (step + 1)}
    schedule = built(part(0, 50, torch_part), part(50, 100, function_part))
    assert [schedule(s) for s in (0, 9, 10, 49, 50, 51)] == [1, 1, 0.5, 1 / 16, 1, 0.5]


def test_a_warmup_replaces_the_first_steps() -> None:
    schedule = built(part(0, 50, "constant"), part(50, 100, "linear"), warmup="4%")
    assert [schedule(s) for s in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_momentum_is_held_where_a_part_has_none() -> None:
    schedule = built(part(0, 30, "constant"), part(30, 60, "one_cycle"), part(60, 100, "constant"))
    momentum = schedule.momentum
    assert momentum is not None
    assert [momentum(s) for s in (0, 29, 30)] == [0.95] * 3
    assert momentum(38) == pytest.approx(0.85)
    assert momentum(59) == momentum(60) == momentum(99) == momentum(200) == pytest.approx(0.95)
    assert built(part(0, 100, "constant")).momentum is None


# parts | what the message must say
REFUSED: list[tuple[list[Any], list[str]]] = [
    ([], ["parts: must not be empty"]),
    ([part(0, 40, "cosine"), part(50, 100, "cosine")], ["parts[1]: [50, 100) leaves a gap after [0, 40)", "Start it at 40"]),
    ([part(0, 60, "cosine"), part(50, 100, "cosine")], ["parts[1]: [50, 100) overlaps with [0, 60)"]),
    ([part(10, 100, "cosine")], ["parts[0]: the first range must start at step 0", "(10, 100)"]),
    ([part(0, 0, "cosine")], ["parts[0]: must be a range", "0 <= start < end"]),
    ([part(0, "0.1%", "cosine")], ["parts[0]: must be a range"]),
    ([part(60, 100, "cosine"), part(0, 60, "cosine")], ["parts[0]: the first", "parts[1]: [0, 60) overlaps"]),
    ([{"start": 0, "schedule": "cosine"}], ["parts[0].end: is needed"]),
    ([{"start": 0, "end": 5, "schedule": "cosine", "lr": 1}], ["parts[0].lr: is not a parameter of a part"]),
    ([part(0, 100, "cosin")], ["parts[0].schedule.name", "Did you mean 'cosine'"]),
    ([part(0, 100, 7)], ["parts[0].schedule: must be a schedule (got 7)"]),
    ([part(0, 100, {"warmup": 5})], ["parts[0].schedule: must be a schedule"]),
    ([part(0, 100, {"name": "cosine", "warmpu": 5})], ["parts[0].schedule.warmpu", "'warmup'"]),
    ([part(0, 50, {"name": "cosine", "warmup": "50%"}), part(50, 100, {"name": "rex", "beta": 2})],
     ["parts[0].schedule.warmup: must be shorter than training (50 steps) (got '50% = 50 steps')",
      "parts[1].schedule.beta: must be a number in [0, 1)"]),
    ([part(0, "ten", "cosine")], ["parts[0].end: is not a duration (got 'ten')"]),
    ([part(0, 100, "plateau")], ["parts[0].schedule.name: reacts to training"]),
    ([part(0, 100, "adaptive_cycle")], ["parts[0].schedule.name: reacts to training"]),
    (["cosine"], ["parts[0]: must be a mapping (got 'cosine')"]),
    ([part(0, 100, {"name": "combined", "parts": [part(0, 30, "cosine"), part(20, 100, "cosine")]})],
     ["parts[0].schedule.parts[1]: [20, 100) overlaps with [0, 30)"]),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "words"), REFUSED)
def test_refused(parts: list[Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        built(*parts)
    for word in words:
        assert word in str(caught.value)


# The Python function


def test_from_a_dict_of_ranges() -> None:
    a, b = Schedule(lambda s: 1.0 + s), Schedule(lambda s: -1.0 - s)
    schedule = get_combined_lr_scheduler({(10, 30): b, (0, 10): a})  # in any order
    assert [schedule(s) for s in (0, 9, 10, 29)] == [1, 10, -1, -20]
    assert schedule(30) == schedule(99) == schedule(10**9)
    nested = get_combined_lr_scheduler({(0, 5): b, (5, 50): schedule})
    assert [nested(s) for s in (4, 5, 14, 15)] == [-5, 1, 10, -1]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_every_step_belongs_to_exactly_one_part(lengths: list[int]) -> None:
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    ranges = list(zip([0, *ends], ends, strict=False))
    schedule = get_combined_lr_scheduler(
        {bounds: lambda s, index=i: index + s / 100 for i, bounds in enumerate(ranges)}
    )
    expected = [i + s / 100 for i, length in enumerate(lengths) for s in range(length)]
    assert [schedule(s) for s in range(ends[-1])] == expected


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ({}, "must not be empty"),
        ({(0, 10): 0.1}, r"\(0, 10\): must be a schedule"),
        ({(0, 10): abs, (20, 30): abs}, r"\(20, 30\): \[20, 30\) leaves a gap after \[0, 10\)"),
        ({(0, 10): abs, (5, 30): abs}, r"\(5, 30\): \[5, 30\) overlaps with \[0, 10\)"),
        ({(1, 10): abs}, r"\(1, 10\): the first range must start at step 0"),
        ({(10, 0): abs}, r"\(10, 0\): must be a range"),
        ({(-5, 5): abs}, "must be a range"),
        ({5: abs}, "must map"),
        ({(0, 1.5): abs}, "must map"),
        ([abs], "must map"),
    ],
)
def test_ranges_refused_in_python(schedules: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_combined_lr_scheduler(schedules)
