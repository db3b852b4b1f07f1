"""Text as windows of characters, each with the character that comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrexp.errors import ConfigError
from lrexp.workloads.batches import Data, Facts
from lrexp.workloads.builtin_data import DATASETS
from lrexp.workloads.loading import load_data
from lrexp.workloads.text import text


def load(folder: Path, content: str | bytes, val_fraction: float = 0, **args: Any) -> Data:
    (folder / "t.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_data(
        DATASETS["text"],
        {"path": "t.txt", **args},
        batch_size=1,
        val_fraction=val_fraction,
        directory=folder,
    )


def whole(batches: Any) -> tuple[list[list[int]], list[list[int]]]:
    inputs, targets = zip(*batches.in_order(), strict=True)
    return torch.cat(inputs).tolist(), torch.cat(targets).tolist()


# a=1 b=2 c=3, the line end is 0: numbered by code point
@pytest.mark.parametrize(
    ("content", "seq_len", "inputs", "targets"),
    [
        ("abcabc\n", 3, [[1, 2, 3], [1, 2, 3]], [[2, 3, 1], [2, 3, 0]]),
        ("abcabc\na", 3, [[1, 2, 3], [1, 2, 3]], [[2, 3, 1], [2, 3, 0]]),
        ("abc\n", 3, [[1, 2, 3]], [[2, 3, 0]]),
        ("ab\nc", 1, [[1], [2], [0]], [[2], [0], [3]]),
    ],
)
def test_windows(
    content: str, seq_len: int, inputs: list[Any], targets: list[Any], tmp_path: Path
) -> None:
    data = load(tmp_path, content, seq_len=seq_len)
    assert whole(data.train) == (inputs, targets)
    assert data.facts == Facts(len(inputs), vocab_size=4, seq_len=seq_len)
    assert data.val is None


def test_validation_is_the_end_of_the_text(tmp_path: Path) -> None:
    data = load(tmp_path, "abab" * 20 + "cdcd" * 5, val_fraction=0.2, seq_len=4)
    train, val = whole(data.train)[0], whole(data.val)[0]
    assert train == [[0, 1, 0, 1]] * 19  # the 80th character is the last target
    assert val == [[2, 3, 2, 3]] * 4
    assert data.facts.vocab_size == 4  # of the whole text


@given(
    content=st.text(st.characters(codec="utf-8"), min_size=12, max_size=60),
    seq_len=st.integers(1, 5),
)
def test_windows_put_together_are_the_text(
    content: str, seq_len: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = f"x{content}"  # not white space alone, no byte order mark in front
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_bytes(content.encode())
    windows = text(str(path), seq_len)
    characters = sorted(set(content))
    assert windows.vocab_size == len(characters)
    inputs, targets = windows.split(0).train
    length = inputs.numel()
    assert length == (len(content) - 1) // seq_len * seq_len
    assert [characters[i] for i in inputs.flatten()] == list(content[:length])
    assert [characters[i] for i in targets.flatten()] == list(content[1 : length + 1])


@pytest.mark.parametrize(
    ("content", "args", "fraction", "key", "words"),
    [
        (b"", {}, 0, "data.args.path", "is empty"),
        (b"abc\n\xff\xfe", {}, 0, "data.args.path", "byte 0xff in line 2"),
        ("abc", {"seq_len": 3}, 0, "data.args.seq_len", "training part of the text (3 characters)"),
        ("abcdefghij", {"seq_len": 4}, 0.3, "data.args.seq_len", "validation part"),
        ("abcdefghij", {"seq_len": 4}, 0.01, "data.val_fraction", "of 10 characters"),
        ("abc", {"seq_len": 0}, 0, "data.args.seq_len", "at least 1 (got 0)"),
        ("abc", {"seq_len": True}, 0, "data.args.seq_len", "got true"),
        ("abc", {"seq_len": 1.5}, 0, "data.args.seq_len", "whole number"),
    ],
)
def test_refused(
    content: str | bytes,
    args: dict[str, Any],
    fraction: float,
    key: str,
    words: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content, val_fraction=fraction, **args)
    assert caught.value.problems[0].key == key
    assert words in str(caught.value)
