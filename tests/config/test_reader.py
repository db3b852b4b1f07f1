"""YAML to values and lines: places, merges, aliases, and what is refused."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrexp.config.document import to_yaml
from lrexp.config.load import load_config
from lrexp.config.reader import parse_value, read_yaml
from lrexp.errors import ConfigError


def test_every_path_has_its_line() -> None:
    text = "a:\n  b: 1\n  c:\n  - x\n  - {d: 2}\n"
    value, places = read_yaml(text, "f")
    assert value == {"a": {"b": 1, "c": ["x", {"d": 2}]}}
    assert places == {
        ("a",): "f:1",
        ("a", "b"): "f:2",
        ("a", "c"): "f:3",
        ("a", "c", 0): "f:4",
        ("a", "c", 1): "f:5",
        ("a", "c", 1, "d"): "f:5",
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1: a\nnull: b\ntrue: c", {"1": "a", "null": "b", "true": "c"}),  # keys are text
        ("a: '1'\nb: \"true\"\nc: |\n  5\n", {"a": "1", "b": "true", "c": "5\n"}),  # quoted is text
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
        ("a: &x {p: 1}\nb: &y {p: 2, r: 0}\nc: {<<: [*x, *y]}",
         {"a": {"p": 1}, "b": {"p": 2, "r": 0}, "c": {"p": 1, "r": 0}}),
        ("'<<': 1", {"<<": 1}),
        ("\ufeffa: 1", {"a": 1}),
        ("a:\nb: ~", {"a": None, "b": None}),
        ("x: é漢😀", {"x": "é漢😀"}),
        ("", None),
        ("# only a comment\n", None),
    ],
)  # fmt: skip
def test_values(text: str, value: object) -> None:
    assert read_yaml(text, "f")[0] == value


BOMB = "x0: &x0 [1,1,1,1,1,1,1,1,1]\n" + "\n".join(
    f"x{i}: &x{i} [{','.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 9)
)
MERGE_BOMB = "x0: &x0 {a: 1}\n" + "\n".join(
    f"x{i}: &x{i} {{<<: [{','.join([f'*x{i - 1}'] * 9)}]}}" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (BOMB, None, "more than 20000 values"),
        (MERGE_BOMB, None, "more than 20000 values"),
        ("a: 1\n" * 200_000, 10_000, "more than 20000 values"),
        ("- 1\n" * 250_000, 20_000, "more than 20000 values"),
        ("[" + "1," * 400_000 + "1]", 1, "more than 20000 values"),
        ("? " + "k" * 900_000 + "\n: 1", 1, "key of more than 500 characters"),
        ("a: &a [*a]", 1, "contains itself"),
        ("a: &a {<<: *a}", 1, "contains itself"),
        ("a: " + "[" * 60 + "]" * 60, 1, "nested deeper than 50"),
        ("[" * 400_000, 1, "nested deeper than 50"),
        ("a: 1\nb: 2\na: 3", 3, "a: is given twice, first in line 1"),
        ("a:\n  b: 1\n  'b': 2", 3, "a.b: is given twice, first in line 2"),
        ("a: !!python/object/apply:os.system ['true']", 1, "tag"),
        ("a: 1\nb: !!str 5", 2, "tag"),
        ("a: !x 5", 1, "tag"),
        ("? [1, 2]\n: 3", 1, "key that is no text"),
        ("a: {<<: 5}", 1, "can only merge mappings"),
        ('a: "\\ud800"', 1, "surrogate"),
        ('a: "\\U99999999"', 1, "not valid YAML"),
        ("a: 1\nb: \x07", 2, "control character U+0007"),
        ("a: 1\n\nb: x\0y", 3, "control character U+0000"),
        ("a: *b", 1, "has no anchor"),
    ],
)
def test_refusals(text: str, line: int | None, message: str) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "f")
    assert message in str(caught.value)
    if line is not None:
        assert caught.value.problems[0].place == f"f:{line}"
    assert time.process_time() - start < 10


def test_problems_have_an_end() -> None:
    keys = ["k" * 500] * 40  # every problem repeats them
    text = "".join("{" + f"? {key}\n: " for key in keys) + "{" + "a: 1," * 9_000 + "}" * 41
    with pytest.raises(ConfigError, match="is given twice") as caught:
        read_yaml(text, "f")
    assert len(caught.value.problems) == 100


@pytest.mark.parametrize("size", [250_000, pytest.param(990_000, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("start", "again", "end"),
    [("a: ", "x ", ""), ("", "#\n", ""), ("a: >\n", " x\n", ""), ('a: "', "\n", '"')],
)
def test_a_large_text_is_read_in_seconds(start: str, again: str, end: str, size: int) -> None:
    text = start + again * (size // len(again)) + end
    begun = time.process_time()
    read_yaml(text, "f")
    assert (
        time.process_time() - begun < size / 50_000
    )  # a fifth of that, and less, on a usual machine


def test_tags_construct_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    text = f"a: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{canary}']]"
    with pytest.raises(ConfigError):
        read_yaml(text, "f")
    assert not canary.exists()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["yes", "1e-3", "10:30", "0777", "<<", "null", "=", "1_000", "~", "- a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc.<:1 ", max_size=5), inner, max_size=3)
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.text("abcdef", min_size=1), PLAIN, max_size=4))
def test_what_is_written_is_read_back(tree: dict[str, object]) -> None:
    text = to_yaml(tree)
    found, _ = read_yaml(text, "f")
    assert repr(found) == repr(tree)  # types and signed zeros too


@given(PLAIN)
def test_yaml_1_1_readers_agree_on_what_is_text(value: object) -> None:
    """An editor or another tool with plain PyYAML sees the same text, booleans and floats."""
    assert repr(yaml.safe_load(to_yaml({"a": value}))["a"]) == repr(value)


def problems_of(source: Path | dict[str, object]) -> list[str]:
    """Return what is wrong; anything but a ConfigError goes through."""
    try:
        load_config(source)
    except ConfigError as error:
        assert all(problem.what and problem.remedy for problem in error.problems)  # noqa: PT017
        return [str(problem) for problem in error.problems]
    return []


WORDS = st.sampled_from(
    [
        "model",
        "data",
        "loss",
        "optimizer",
        "schedule",
        "train",
        "compare",
        "variants",
        "grid",
        "find_lr",
        "name",
        "lr",
        "args",
        "seeds",
        "mlp",
        "digits",
        "SGD",
        "cosine",
        "5%",
        "10ep",
        "1e-3",
        ".nan",
        "true",
        "null",
        "~",
        "-1",
        "0",
        "[]",
        "{}",
        ":",
        "-",
        ",",
        "?",
        "|",
        ">",
        "&",
        "*",
        "!",
        "%",
        "@",
        "'",
        '"',
        "#",
        "<<",
        "---",
        "...",
        "[",
        "]",
        "{",
        "}",
        "\n",
        "\n",
        "",
        "\t",
        "\\",
        "é",
        "0x10",
        "99999999999999999999",
        "1e999",
    ]
)


@given(st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_config_or_a_config_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert "" not in problems_of(path)


@given(st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_config_or_a_config_error(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(raw)
    assert "" not in problems_of(path)


SECTIONS = ["model", "data", "loss", "optimizer", "schedule", "train", "compare", "find_lr", "seed"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**25)
    | st.floats()
    | st.sampled_from(["mlp", "digits", "SGD", "AdamW", "cosine", "5%", "10ep", "", "$x", "a:b", "os:system"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["name", "lr", "args", "groups", "match", "lr_scale", "duration", "eval_every", "variants", "grid", "seeds", "metric", "parts", "start", "end", "schedule", "warmup", "min_lr", "max_lr", "steps", "optimizer.lr", "a.b", "hidden"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(SECTIONS), VALUES, max_size=9))
def test_any_tree_is_a_config_or_a_config_error(tree: dict[str, object]) -> None:
    assert "" not in problems_of(tree)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("cosine", "cosine"), ("[1, x]", [1, "x"]), ("", None)]
)
def test_parse_value(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_parse_value_names_the_text() -> None:
    with pytest.raises(ConfigError, match=r"a bracket is not closed \(got '\[1, 2'\)"):
        parse_value("[1, 2")


ANYTHING = (
    st.binary(max_size=400)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.lists(WORDS, max_size=60).map(lambda words: " ".join(words).encode())
    | st.dictionaries(st.sampled_from(SECTIONS), VALUES, max_size=9).map(
        lambda tree: yaml.safe_dump(tree, allow_unicode=True).encode()
    )
)


@pytest.mark.long
@given(ANYTHING, st.randoms(use_true_random=False))
@settings(
    max_examples=12_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_thousands_of_files_are_configs_or_config_errors(
    tmp_path: Path, raw: bytes, chance: random.Random
) -> None:
    """Any bytes, and configs with some of their bytes changed, lost or doubled."""
    if raw and chance.random() < 0.5:
        place = chance.randrange(len(raw))
        raw = raw[:place] + bytes([chance.randrange(256)]) * chance.randrange(3) + raw[place + 1 :]
    path = tmp_path / "any.yaml"
    path.write_bytes(raw)
    assert "" not in problems_of(path)


CONFIGS = sorted(Path(__file__).parents[2].rglob("configs/**/*.yaml"))


def outcome(text: str) -> object:
    try:
        return repr(read_yaml(text, "f"))  # nan is equal to itself in print only
    except ConfigError as error:
        return str(error)


def without_libyaml(text: str) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "__with_libyaml__", False)
        return outcome(text)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_read_alike_with_and_without_libyaml(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert outcome(text) == without_libyaml(text)


# Left out: "|#" and ">#", where libyaml takes a comment, "?" in brackets, and "!", which each
# refuses in its own words.
@given(st.text(st.sampled_from(" \n\tab:-[]{},&*|>'\"%@\\0é"), max_size=30))
def test_any_text_reads_alike_with_and_without_libyaml(text: str) -> None:
    assert outcome(text) == without_libyaml(text)
