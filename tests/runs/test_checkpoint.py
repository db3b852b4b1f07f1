"""Checkpoints on disk: replaced as a whole, read without running anything."""

from __future__ import annotations

import functools
import io
import pickle
import zipfile
from collections.abc import Callable
from enum import Enum, IntEnum
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lrexp.engine.state import checkpoint, plain
from lrexp.engine.stop import Pause
from lrexp.errors import RunError
from lrexp.records import Checkpoint, NoCheckpoint, TrialId
from lrexp.runs.checkpoint import Position, SavedUnit, load_checkpoint, save_checkpoint

STATE = {
    "engine": "sequential",
    "rows": {"a/seed-0": {"w": torch.arange(6.0).view(2, 3)}},
    "moments": [torch.ones(2, dtype=torch.float64), None, True, 3, float("inf"), "text"],
}
UNIT = SavedUnit(7, STATE, {"a/seed-0": Position({"steps.csv": 120}, {"final": {"loss": 0.5}})})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints/a-seed-0.pt"
    save_checkpoint(path, UNIT)
    return path


def test_a_checkpoint_gives_back_what_was_saved(file: Path) -> None:
    read = load_checkpoint(file)
    assert (read.step, read.trials) == (7, dict(UNIT.trials))
    assert torch.equal(read.state["rows"]["a/seed-0"]["w"], STATE["rows"]["a/seed-0"]["w"])
    assert read.state["moments"][0].dtype == torch.float64
    assert read.state["moments"][1:] == STATE["moments"][1:]
    assert list(file.parent.iterdir()) == [file]


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple[Callable, tuple[str, str]]:
        return (open, (self.canary, "w"))


class Scripted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def pickled(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(canary)))


def saved(path: Path, canary: Path) -> None:
    torch.save({"format": 1, "state": Evil(canary), "step": 1, "trials": {}}, path)


def saved_as_of_old(path: Path, canary: Path) -> None:
    torch.save({"state": Evil(canary)}, path, _use_new_zipfile_serialization=False)


def whole_module(path: Path, canary: Path) -> None:
    torch.save(nn.Linear(1, 1), path)


def with_a_script(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(Evil(canary)))
        archive.writestr("archive/code/x.py", "raise SystemExit")


def packed(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def of_another_format(path: Path, canary: Path) -> None:
    torch.save({"format": 2, "state": {}, "step": 1, "trials": {}}, path)


def with_wrong_sizes(path: Path, canary: Path) -> None:
    trial = {"sizes": {"steps.csv": -1}, "values": {}}
    torch.save({"format": 1, "state": {}, "step": 1, "trials": {"a/seed-0": trial}}, path)


def with_other_types(path: Path, canary: Path) -> None:
    torch.save({"format": 1, "state": [], "step": "1", "trials": {}}, path)


def a_list(path: Path, canary: Path) -> None:
    torch.save([1], path)


@pytest.mark.parametrize(
    "spoil",
    [
        pickled,
        saved,
        saved_as_of_old,
        whole_module,
        with_a_script,
        packed,
        of_another_format,
        with_wrong_sizes,
        with_other_types,
        a_list,
        lambda path, canary: path.write_bytes(b""),
        lambda path, canary: path.write_bytes(b"PK\x03\x04"),
        lambda path, canary: path.write_text("not at all"),
        lambda path, canary: (path.unlink(), path.mkdir()),
    ],
)
def test_what_is_no_checkpoint_is_refused_and_nothing_of_it_runs(
    spoil: Callable[[Path, Path], object], file: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    spoil(file, canary)
    with pytest.raises(RunError, match=r"a-seed-0\.pt: is no checkpoint .* Delete it") as caught:
        load_checkpoint(file)
    assert not canary.exists()
    assert "\n" not in str(caught.value)


def test_a_checkpoint_cut_anywhere_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for size in range(0, len(whole), 97):
        file.write_bytes(whole[:size])
        with pytest.raises(RunError, match="Delete it"):
            load_checkpoint(file)


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
                save_checkpoint(file, SavedUnit(8, {}, {}))
        assert file.read_bytes() == before
        assert list(file.parent.iterdir()) == [file]


def test_a_checkpoint_makes_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file"):
        save_checkpoint(tmp_path / "gone/checkpoints/a.pt", UNIT)
    assert list(tmp_path.iterdir()) == []


def test_tensors_on_other_types_and_shared_storages_survive(tmp_path: Path) -> None:
    flat = torch.arange(6, dtype=torch.bfloat16)
    state = {"engine": "x", "flat": flat, "view": flat[2:4]}
    path = tmp_path / "x.pt"
    save_checkpoint(path, SavedUnit(0, state, {}))
    read = load_checkpoint(path).state
    assert torch.equal(read["view"], flat[2:4])
    with io.BytesIO(path.read_bytes()) as file:
        assert zipfile.is_zipfile(file)


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
        (2**255, 2**255),
        (2**300, None),
        ([0.5] * 500_001, None),
        (functools.reduce(lambda inner, _: [inner], range(60), []), None),
    ],
    ids=["np.str_", "enum", "IntEnum", "keys", "np.float32", "long", "255 bits", "300 bits",
         "too long", "too deep"],
)  # fmt: skip
def test_what_is_saved_can_be_read_and_the_rest_is_never_written(
    value: object, back: object, tmp_path: Path
) -> None:
    path = tmp_path / "x/x.pt"
    trials = (TrialId("a", 0),)
    (record,) = checkpoint(Pause(), trials, 1, lambda: {"engine": "x", "it": plain(value)})
    if back is None:
        assert isinstance(record, NoCheckpoint)
        assert "cannot be read again" in (record.why or "")
        return
    assert isinstance(record, Checkpoint)
    save_checkpoint(path, SavedUnit(1, record.state, {}))
    found = load_checkpoint(path).state["it"]
    assert found == back
    assert type(found) is type(back)
