"""How problems are written."""

from __future__ import annotations

import math
import pickle
import re

import pytest

from lrexp.errors import (
    NOTHING,
    ConfigError,
    InterruptedRunError,
    LrexpError,
    Problem,
    RunError,
    UserCodeError,
    did_you_mean,
    user_error,
)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("lr", "must be positive", -1, "Raise it."), "lr: must be positive (got -1). Raise it."),
        (Problem("", "is empty", NOTHING, "Write it.", "a.yaml"), "a.yaml: is empty. Write it."),
        (Problem("a.b", "x", True, "y.", "f:3"), "f:3: a.b: x (got true). y."),
        (Problem("a", "x", None, "y."), "a: x (got null). y."),
        (Problem("a.b", "x", 1, "y.", "--set a.b"), "--set a.b: x (got 1). y."),
        (Problem("a", "x", math.nan, "y."), "a: x (got nan). y."),
        (Problem("a", "x", "5\x1b[31m", "y."), "a: x (got '5\\x1b[31m'). y."),
    ],
)  # fmt: skip
def test_a_problem_names_place_key_value_and_remedy(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_a_long_value_is_cut() -> None:
    assert len(str(Problem("a", "x", "y" * 500, "z."))) < 110


def test_each_layer_adds_what_it_knows() -> None:
    error = ConfigError.single("warmup", "too long", 9, "Cut it.").under("schedule")
    placed = error.placed(lambda key: f"e.yaml:{len(key)}")
    assert str(placed) == "e.yaml:15: schedule.warmup: too long (got 9). Cut it."
    assert str(placed.placed(lambda key: "elsewhere")) == str(placed)
    assert ConfigError.single("", "x", 1, "y.").under("loss").problems[0].key == "loss"


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError([]), 2), (RunError(), 3), (UserCodeError(), 3), (InterruptedRunError(), 130)],
)
def test_exit_codes(error: LrexpError, code: int) -> None:
    assert error.exit_code == code


def test_a_config_error_survives_the_way_from_a_worker_process() -> None:
    error = ConfigError.single("lr", "is required", NOTHING, "Give it.")
    assert str(pickle.loads(pickle.dumps(error))) == "lr: is required. Give it."
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


def test_did_you_mean_lists_all_names_when_none_is_close() -> None:
    assert did_you_mean("cosin", ["cosine", "linear"]) == "Did you mean 'cosine'?"
    assert did_you_mean("zzz", ["linear", "cosine"]) == "Known: cosine, linear."


def test_a_user_error_names_the_file_and_line_of_the_users_code() -> None:
    namespace: dict[str, object] = {}
    code = compile("def explode():\n    return 1 / 0\n", "/home/me/my_model.py", "exec")
    exec(code, namespace)
    with pytest.raises(ZeroDivisionError) as raised:
        namespace["explode"]()  # type: ignore[operator]
    message = str(user_error(raised.value, "variant a, seed 0"))
    assert message.startswith("variant a, seed 0 raised an exception: /home/me/my_model.py:2: ")
    assert message.endswith("in explode: ZeroDivisionError: division by zero")


def test_of_a_long_value_both_ends_are_shown() -> None:
    path = f"/data/{'deep/' * 30}none.csv"
    text = str(Problem("data.args.path", "there is no such file", path, "Check it."))
    (shown,) = re.findall(r"\(got (.*)\)", text)
    assert len(shown) == 80
    assert shown.startswith("'/data/deep/")
    assert shown.endswith("deep/none.csv'")
    assert shown.count("...") == 1
