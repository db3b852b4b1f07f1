"""Arguments against signatures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Optional

import pytest
import torch

from lrexp.schedules.signatures import check_arguments, fits


def net(width: int, depth: int = 2, *, rate: float = 0.1, name: str = "n") -> None: ...


def open_ended(width: int, **rest: Any) -> None: ...


def untyped(a, b=1): ...  # type: ignore[no-untyped-def]


def broken(a: Unknown, b: int = 1) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def nothing() -> None: ...


class Model:
    def __init__(self, hidden: list[int], act: Literal["relu", "tanh"] = "relu") -> None: ...


TABLE: list[tuple[Callable[..., Any], dict[str, Any], list[tuple[str, str]]]] = [
    (net, {"width": 3}, []),
    (net, {}, [("width", "is needed by f. Add it, e.g. width: 2.")]),
    (net, {"widht": 3}, [("widht", "is not a parameter of f (got 3). Did you mean 'width'?"), ("width", "is needed by f")]),
    (net, {"width": "3"}, [("width", "must be a whole number (got '3'). Write a number without quotes.")]),
    (net, {"width": True}, [("width", "must be a whole number (got true)")]),
    (net, {"width": 3.0}, [("width", "must be a whole number (got 3.0)")]),
    (net, {"width": 3, "rate": 1}, []),
    (net, {"width": 3, "rate": "no"}, [("rate", "must be a number (got 'no'). Write a number without quotes.")]),
    (net, {"width": 3, "name": 5}, [("name", "must be text")]),
    (net, {"width": None}, [("width", "must be a whole number (got null)")]),
    (net, {"width": 1, "depth": "x", "q": 1}, [("depth", "must be"), ("q", "is not a parameter of f")]),
    (open_ended, {"width": 1, "anything": object()}, []),
    (open_ended, {"anything": 1}, [("width", "is needed by f")]),
    (untyped, {"a": "x", "b": None}, []),
    (broken, {"a": 1, "b": "x"}, []),  # annotations that cannot be evaluated are not judged
    (broken, {"c": 1}, [("c", "is not a parameter of f"), ("a", "is needed by f")]),
    (nothing, {"a": 1}, [("a", "It takes no arguments.")]),
    (Model, {"hidden": [1, 2]}, []),
    (Model, {"hidden": 5}, [("hidden", "must be a list, each item a whole number (got 5)")]),
    (Model, {"hidden": [1, "x"]}, [("hidden[1]", "must be a whole number (got 'x')")]),
    (Model, {"hidden": [], "act": "gelu"}, [("act", "must be one of relu, tanh (got 'gelu')")]),
    (Model, {"hidden": [], "self": 1}, [("self", "is not a parameter of f")]),
    (torch.nn.Linear, {"in_features": 1, "out_features": 2, "bias": "no"},
     [("bias", "must be true or false (got 'no'). Write true or false: yes, no, on and off are text.")]),
    (dict, {"a": 1}, []),  # no signature to be had
]  # fmt: skip


@pytest.mark.parametrize(("function", "args", "expected"), TABLE)
def test_check_arguments(
    function: Callable[..., Any], args: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    problems = check_arguments(function, args, title="f")
    assert [p.key for p in problems] == [key for key, _ in expected]
    for problem, (_, said) in zip(problems, expected, strict=True):
        assert said in str(problem)


def test_filled_arguments_must_not_be_given() -> None:
    filled = {"params": "the model", "lr": "optimizer.lr"}
    assert check_arguments(torch.optim.SGD, {"momentum": 0.9}, title="SGD", filled=filled) == []
    (problem,) = check_arguments(torch.optim.SGD, {"lr": 1}, title="SGD", filled=filled)
    assert str(problem) == ("lr: is given to SGD already, by optimizer.lr (got 1). Remove it.")


def test_facts() -> None:
    facts = ("num_classes", "in_features")
    ask = {"title": "net", "facts": facts}
    assert check_arguments(net, {"width": "$in_features"}, **ask) == []  # type: ignore[arg-type]
    assert check_arguments(Model, {"hidden": [8, "$num_classes"]}, **ask) == []  # type: ignore[arg-type]
    (problem,) = check_arguments(net, {"width": "$in_feature"}, **ask)  # type: ignore[arg-type]
    assert str(problem).endswith("Did you mean '$in_features'?")
    assert check_arguments(net, {"width": "$x"}, title="net") != []  # no facts here: it is text

    def needs(in_features: int) -> None: ...

    (problem,) = check_arguments(needs, {}, **ask)  # type: ignore[arg-type]
    assert problem.remedy == "Add it, e.g. in_features: $in_features."
    assert check_arguments(needs, {}, automatic=facts, **ask) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "annotation", "fitting"),
    [
        (1, int, True), (True, int, False), (1.0, int, False), (1, float, True), (True, float, False),
        ("x", str, True), (1, str, False), (True, bool, True), (1, bool, False), ("no", bool, False),
        (None, None, True), (None, type(None), True), (0, None, False),
        (None, Optional[int], True), ("x", Optional[int], False), (1, int | str, True), ([], int | str, False),  # noqa: UP045
        ([1, 2], list[int], True), (["x"], list[int], False), ([1], list, True), ("ab", list, False),
        ([0.9, 0.99], tuple[float, float], True), ([0.9], tuple[float, float], False),
        ([1, 2, 3], tuple[int, ...], True), ([1], Sequence[int], True), ("ab", Sequence[str], False),
        ({"a": 1}, dict, True), ({"a": 1}, dict[str, int], True), ([], dict, False),
        ("a", Literal["a", "b"], True), ("c", Literal["a", "b"], False),
        (1, Annotated[int, "x"], True), ("1", Annotated[int, "x"], False),
        ("x", torch.Tensor, True), ("x", Any, True), ("x", float | torch.Tensor, True), (1, [int], True),
    ],
)  # fmt: skip
def test_fits(value: object, annotation: Any, fitting: bool) -> None:
    assert fits(value, annotation) is fitting
