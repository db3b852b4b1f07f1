"""Checkpoints on disk: replaced as a whole, read back bit for bit, refused where they were cut."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from enum import Enum, IntEnum
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrexp.engine.state import checkpoint, plain
from lrexp.engine.stop import Pause
from lrexp.errors import RunError
from lrexp.records import Checkpoint, NoCheckpoint, TrialId
from lrexp.runs.checkpoint import (
    Position,
    SavedGroup,
    checkpoint_path,
    load_checkpoint,
    peek_checkpoint,
    save_checkpoint,
)

STATE = {
    "engine": "sequential",
    "rows": {"a/seed-0": {"w": torch.arange(6.0).view(2, 3)}},
    "moments": [torch.ones(2, dtype=torch.float64), None, True, 3, float("inf"), "text"],
}
VALUES = {"final": {"loss": 0.5, "val_loss": math.inf}, "best": {}, "steps": 7}
GROUP = SavedGroup(7, STATE, {"a/seed-0": Position({"steps.csv": 120}, VALUES)})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = checkpoint_path(tmp_path, TrialId("a", 0))
    save_checkpoint(path, GROUP)
    return path


def refusal(read: Callable[[Path], SavedGroup], path: Path) -> RunError | None:
    try:
        read(path)
    except RunError as error:
        return error
    return None


def saved_and_read(path: Path, value: object) -> object:
    save_checkpoint(path, SavedGroup(1, {"engine": "x", "it": value}, {}))
    return load_checkpoint(path).state["it"]


def test_a_checkpoint_gives_back_what_was_saved(file: Path) -> None:
    read = load_checkpoint(file)
    assert (read.step, read.trials) == (7, dict(GROUP.trials))
    assert torch.equal(read.state["rows"]["a/seed-0"]["w"], STATE["rows"]["a/seed-0"]["w"])
    assert read.state["moments"][0].dtype == torch.float64
    assert read.state["moments"][1:] == STATE["moments"][1:]
    assert list(file.parent.iterdir()) == [file]


def test_a_glance_at_a_checkpoint_tells_all_but_its_state(file: Path) -> None:
    peeked = peek_checkpoint(file)
    assert (peeked.step, peeked.trials) == (7, dict(GROUP.trials))
    assert peeked.state == {"engine": "sequential"}


TENSORS = [
    *(torch.arange(6).to(dtype) for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16,
        torch.uint32, torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64,
        torch.float8_e4m3fn, torch.float8_e5m2)),
    torch.tensor([1 + 2j, -0.0 - 1j]),
    torch.tensor([1 + 2j], dtype=torch.complex128).conj(),
    torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45]),
    torch.ones(()),
    torch.ones(0, 3),
    torch.arange(6.0).view(2, 3).T,
    torch.arange(9.0)[2:4],
    torch.ones(3, 2, 4, 4).to(memory_format=torch.channels_last),
]  # fmt: skip


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda t: f"{t.dtype}-{tuple(t.shape)}")
def test_a_tensor_comes_back_bit_for_bit(tmp_path: Path, tensor: torch.Tensor) -> None:
    read = saved_and_read(tmp_path / "x/x.safetensors", tensor)
    assert isinstance(read, torch.Tensor)
    assert (read.dtype, read.shape, read.layout) == (tensor.dtype, tensor.shape, tensor.layout)
    as_bytes = [t.resolve_conj().contiguous().flatten().view(torch.uint8) for t in (read, tensor)]
    assert torch.equal(*as_bytes)


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:Validating sparse")
@pytest.mark.parametrize(
    "make",
    [
        torch.Tensor.to_sparse,
        lambda dense: torch.sparse_coo_tensor(
            torch.zeros(2, 2), torch.ones(2), dense.shape, check_invariants=True
        ),
        torch.Tensor.to_sparse_csr,
        torch.Tensor.to_sparse_csc,
        lambda dense: dense.to_sparse_bsr((2, 2)),
        lambda dense: dense.to_sparse_bsc((2, 2)),
    ],
    ids=["coo", "not coalesced", "csr", "csc", "bsr", "bsc"],
)
def test_a_sparse_tensor_stays_sparse(
    tmp_path: Path, make: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    tensor = make(torch.eye(4))
    read = saved_and_read(tmp_path / "x/x.safetensors", tensor)
    assert isinstance(read, torch.Tensor)
    assert (read.layout, read.shape) == (tensor.layout, tensor.shape)
    assert torch.equal(read.to_dense(), tensor.to_dense())
    if tensor.layout == torch.sparse_coo:
        assert read.is_coalesced() == tensor.is_coalesced()
        assert torch.equal(read._values(), tensor._values())


def test_tensors_that_share_memory_are_each_whole(tmp_path: Path) -> None:
    flat = torch.arange(6, dtype=torch.bfloat16)
    read = saved_and_read(tmp_path / "x/x.safetensors", {"flat": flat, "view": flat[2:4], 3: flat})
    assert isinstance(read, dict)
    assert torch.equal(read["view"], flat[2:4])
    read["flat"][0] = 9  # who goes on with one changes no other
    assert torch.equal(read[3], flat)


leaves = st.none() | st.booleans() | st.integers(-(2**255), 2**255) | st.text() | st.floats()
values = st.recursive(
    leaves | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=values)
def test_plain_values_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.mktemp("plain") / "x/x.safetensors"
    assert repr(saved_and_read(path, value)) == repr(value)  # repr: nan is nan, 1 is not True


@pytest.mark.parametrize("read", [load_checkpoint, peek_checkpoint])
@pytest.mark.parametrize("step", range(0, 97, 16))
def test_a_checkpoint_cut_anywhere_is_refused(
    file: Path, read: Callable[[Path], SavedGroup], step: int
) -> None:
    whole = file.read_bytes()
    for size in range(step, len(whole), 97):
        file.write_bytes(whole[:size])
        with pytest.raises(RunError, match=r"a-seed-0\.safetensors: is no .* Delete it"):
            read(file)


@pytest.mark.parametrize("bit", [0x01, 0x10])
def test_a_changed_byte_is_refused_wherever_it_is(file: Path, bit: int) -> None:
    whole = file.read_bytes()
    progress = range(whole.index(b"format"), whole.index(b"state"))
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        assert refusal(load_checkpoint, file) is not None, place
        assert place not in progress or refusal(peek_checkpoint, file) is not None, place


def test_a_write_that_fails_leaves_the_checkpoint_before_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for place in ("os.fsync", "Path.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"lrexp.runs.files.{place}", full_disk)
            with pytest.raises(RunError, match="No space left"):
                save_checkpoint(file, SavedGroup(8, {}, {}))
        assert file.read_bytes() == before
        assert list(file.parent.iterdir()) == [file]


def test_a_checkpoint_makes_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file"):
        save_checkpoint(tmp_path / "gone/checkpoints/a.safetensors", GROUP)
    assert list(tmp_path.iterdir()) == []


def test_any_program_can_look_into_a_checkpoint(file: Path) -> None:
    content = file.read_bytes()  # the format is eight bytes of length, JSON, tensors
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["lrexp"])[1] == ["format", 2]
    assert header["0"]["dtype"] == "F32"


class Word(str, Enum):
    A = "a"


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (np.str_("x"), "x"),
        (Word.A, "a"),
        (Number.ONE, 1),
        ({Number.ONE: 1, Word.A: 2}, {1: 1, "a": 2}),
        (np.float32(0.5), 0.5),
        ([0.5] * 450_000, [0.5] * 450_000),
        ([[]] * 100_000, [[]] * 100_000),
        (2**255, 2**255),
        (2**300, None),
        ([0.5] * 500_001, None),
        (functools.reduce(lambda inner, _: [inner], range(60), []), None),
    ],
    ids=["np.str_", "enum", "IntEnum", "keys", "np.float32", "numbers", "many lists", "255 bits",
         "300 bits", "too long", "too deep"],
)  # fmt: skip
def test_what_is_saved_can_be_read_and_the_rest_is_never_written(
    value: object, back: object, tmp_path: Path
) -> None:
    path = tmp_path / "x/x.safetensors"
    trials = (TrialId("a", 0),)
    (record,) = checkpoint(Pause(), trials, 1, lambda: {"engine": "x", "it": plain(value)})
    if back is None:
        assert isinstance(record, NoCheckpoint)
        assert "cannot be read again" in (record.why or "")
        return
    assert isinstance(record, Checkpoint)
    save_checkpoint(path, SavedGroup(1, record.state, {}))
    found = load_checkpoint(path).state["it"]
    assert found == back
    assert type(found) is type(back)
