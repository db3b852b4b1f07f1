"""Dotted keys, places, `--set`, configs made in Python, and edits that keep comments."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lrexp.config.config import Config
from lrexp.config.document import document_from_dict, read_document, with_lrs
from lrexp.config.load import load_config
from lrexp.config.reader import read_yaml
from lrexp.config.tree import dotted, expand, get, locate, put
from lrexp.errors import ConfigError

from .good_config import GOOD

TREE = {
    "optimizer": {"lr": 0.1, "groups": [{"match": "a"}, {"match": "b"}]},
    "schedule": "cosine",
    "compare": {"variants": {"a.b": {"optimizer.lr": 1}, "a": {}}, "grid": {}},
}


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("optimizer.lr", ("optimizer", "lr")),
        ("optimizer.new.x", ("optimizer", "new", "x")),
        ("optimizer.groups[1].match", ("optimizer", "groups", 1, "match")),
        ("compare.variants.a.b.optimizer.lr", ("compare", "variants", "a.b", "optimizer.lr")),
        ("compare.variants.a.optimizer.lr", ("compare", "variants", "a", "optimizer.lr")),
        ("compare.variants.c.optimizer.lr", ("compare", "variants", "c", "optimizer.lr")),
        ("compare.grid.optimizer.lr", ("compare", "grid", "optimizer.lr")),
        ("compare.seeds", ("compare", "seeds")),
    ],
)
def test_locate(key: str, path: tuple[str | int, ...]) -> None:
    assert locate(TREE, key) == path
    assert dotted(path) == key


@pytest.mark.parametrize(
    "key", ["", ".", "a..b", ".a", "a.", "optimizer.groups[2].x", "optimizer.groups.x", "optimizer.groups[-1]"]
)  # fmt: skip
def test_no_dotted_key(key: str) -> None:
    with pytest.raises(ConfigError):
        locate(TREE, key)


@pytest.mark.parametrize(
    ("key", "value", "section", "result"),
    [
        ("optimizer.lr", 5, "optimizer", {**TREE["optimizer"], "lr": 5}),  # type: ignore[dict-item]
        ("schedule.warmup", 5, "schedule", {"name": "cosine", "warmup": 5}),
        ("train.duration", 5, "train", {"duration": 5}),
        ("optimizer.groups[0].match", "c", "optimizer",
         {"lr": 0.1, "groups": [{"match": "c"}, {"match": "b"}]}),
    ],
)  # fmt: skip
def test_put(key: str, value: object, section: str, result: object) -> None:
    assert get(put(TREE, locate(TREE, key), value), (section,)) == result


def test_put_copies() -> None:
    before = repr(TREE)
    put(TREE, ("optimizer", "groups", 0, "match"), "x")
    assert repr(TREE) == before


@pytest.mark.parametrize(
    ("tree", "expanded"),
    [
        ({"model": "mlp"}, {"model": {"name": "mlp"}}),
        ({"train": None, "loss": None}, {"loss": None}),
        ({"model": {"name": "mlp", "args": None}}, {"model": {"name": "mlp"}}),
        ({"compare": {"variants": {"a": None}}}, {"compare": {"variants": {"a": {}}}}),
        ({"compare": {"variants": None}}, {"compare": {"variants": None}}),
    ],
)
def test_short_forms(tree: dict[str, object], expanded: dict[str, object]) -> None:
    assert expand(tree) == expanded
    assert expand(expanded) == expanded


def test_places(write: Callable[..., Path]) -> None:
    document = read_document(write("optimizer:\n  name: SGD\n  groups:\n  - {match: x}\n"))
    for key, place in [
        ("optimizer.name", "exp.yaml:2"),
        ("optimizer.groups[0].match", "exp.yaml:4"),
        ("optimizer.groups[0].lr_scale", "exp.yaml:4"),  # absent: its parent's
        ("optimizer.lr", "exp.yaml:1"),
        ("model.args.x", "exp.yaml:1"),
        ("", "exp.yaml:1"),
    ]:
        assert document.place_of(key) == place


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimizer.lr", -1, "--set optimizer.lr: must be greater than 0 (got -1)"),
        ("optimizer.rl", 1, "--set optimizer.rl: is not a known key (got 1)"),
        ("schedule", "csine", "--set schedule: schedule.name: is not a known schedule"),
        ("schedule.warmpu", 1, "--set schedule.warmpu: "),
        ("loss.x", 1, "--set loss.x: is not a known key (got 1). Known: args, name."),
        ("a..b", 1, "--set a..b: is no dotted key"),
        ("compare.variants.hot.optimizer.lr", 0,
         "--set compare.variants.hot.optimizer.lr: must be greater"),
        ("optimzer.lr", 0.1, "--set optimzer.lr: optimzer: is not a known key (got {'lr': 0.1}). "
         "Did you mean 'optimizer'?"),
        ("train.durration", 1, "--set train.durration: is not a known key"),
        ("a.b.c", 1, "--set a.b.c: a: is not a known key"),
    ],
)  # fmt: skip
def test_a_wrong_set_is_placed_at_the_option(
    key: str, value: object, message: str, load: Callable[..., Config]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + "schedule: constant\n", [(key, value)])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("device", "gpu", "--device"), "--device: "),
        (("compare.seeds", 0, "--seeds"), "--seeds: compare.seeds: must be at least 1 (got 0)"),
        (("engine", "fast", "--engine"), "--engine: "),
        (("optimzer.lr", 1, "lr"), "lr: optimzer: is not a known key"),
        (("loss.x", 1, "--loss"), "--loss: loss.x: is not a known key"),
    ],
)
def test_an_override_may_have_a_label(
    override: tuple[str, object, str], message: str, load: Callable[..., Config]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD, [override])
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(message)


def test_set_changes_values(load: Callable[..., Config]) -> None:
    config = load(
        GOOD,
        [("optimizer.lr", 0.5), ("schedule", "cosine"), ("schedule.warmup", "5%"), ("seed", 3)],
    )
    assert config.experiment.optimizer.lr == 0.5
    assert config.experiment.schedule.params == {"warmup": "5%"}
    assert config.experiment.seed == 3
    assert config.document.text == GOOD  # as given


def test_set_replaces_the_places_below() -> None:
    document = read_document_of("schedule:\n  name: cosine\n  warmup: 5%\n")
    changed = document.with_override("schedule", "linear", "--set schedule")
    assert changed.place_of("schedule.warmup") == "--set schedule"
    assert document.place_of("schedule.warmup") == "f:3"


def read_document_of(text: str):  # type: ignore[no-untyped-def]
    from lrexp.config.document import Document

    data, places = read_yaml(text, "f")
    return Document(data, "f", text, Path(), places)  # type: ignore[arg-type]


def test_a_config_made_in_python(tmp_path: Path) -> None:
    source = {
        "model": {"name": "mlp", "args": {"hidden": (4, np.int64(8))}},
        "data": {"name": "digits", "val_fraction": np.float64(0.25), "in_memory": np.bool_(True)},
        "loss": "cross_entropy",
        "optimizer": {"name": "SGD", "lr": np.float32(0.5), "args": {"momentum": Fraction(1, 2)}},
    }
    config = load_config(source, directory=tmp_path)
    assert config.experiment.model.args == {"hidden": [4, 8]}
    assert config.experiment.optimizer.args == {"momentum": 0.5}
    assert config.experiment.data.in_memory is True
    assert config.experiment.name == "experiment"
    assert read_yaml(config.document.text, "f")[0] == config.document.data


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"model": object()}, "model: is a Python object, which a config cannot hold"),
        ({"model": {"args": {"f": len}}}, "model.args.f: is a Python object"),
        ({"model": {1: 2}}, "model: has a key that is not text (got 1)"),
        ({"model": b"mlp"}, "model: is a Python object"),
        ({"loss": "x", "nmae": 1}, "nmae: is not a known key (got 1). Did you mean 'name'?"),
    ],
)
def test_what_a_config_cannot_hold(source: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(source)
    assert said in str(caught.value)
    assert not str(caught.value).startswith("config:")


def test_a_dict_that_contains_itself_is_refused() -> None:
    source: dict[str, object] = {}
    source["model"] = source
    with pytest.raises(ConfigError, match="nested deeper"):
        document_from_dict(source)


def test_the_name_comes_from_the_file(write: Callable[..., Path]) -> None:
    assert load_config(write(GOOD, "my exp (2).yaml")).experiment.name == "my exp -2"
    assert load_config(write("name: own\n" + GOOD, "exp.yaml")).experiment.name == "own"


# text | options set | text of the copy with LR 0.25
EDITS = [
    ("# why\noptimizer: {name: SGD, lr: 1e-2}  # note\n", {},
     "# why\noptimizer: {name: SGD, lr: 0.25}  # note\n"),
    ("optimizer:\n  lr: 0.1 # a\n  name: SGD\n", {}, "optimizer:\n  lr: 0.25 # a\n  name: SGD\n"),
    ("optimizer:\n  lr: '0.1'\n", {}, "optimizer:\n  lr: 0.25\n"),
    ("# kept\noptimizer: {name: SGD, lr: 1}\n", {"optimizer.name": "Adam", "device": "cpu"},
     "# kept\noptimizer: {name: Adam, lr: 0.25}\n"),
    ("# kept\noptimizer: {name: SGD, lr: 1}\n", {"optimizer.lr": 3}, "# kept\noptimizer: {name: SGD, lr: 0.25}\n"),
    # no place in the text to edit: written anew
    ("optimizer: {name: SGD}\n", {}, "optimizer: {name: SGD, lr: 0.25}\n"),
    ("optimizer: {lr: 1}\n", {"seed": 3}, "optimizer: {lr: 0.25}\nseed: 3\n"),
    ("a: &a 1\noptimizer: {lr: *a}\nseed: *a\n", {}, "a: 1\noptimizer: {lr: 0.25}\nseed: 1\n"),
    ("a: &a {lr: 1}\noptimizer: {<<: *a}\n", {}, "a: {lr: 1}\noptimizer: {lr: 0.25}\n"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "options", "copy"), EDITS)
def test_a_copy_with_another_lr(text: str, options: dict[str, object], copy: str) -> None:
    document = read_document_of(text)
    for key, value in options.items():
        document = document.with_override(key, value, f"--set {key}")
    assert with_lrs(document, {"optimizer.lr": 0.25}) == copy
