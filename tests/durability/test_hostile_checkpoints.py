"""Run directories from a stranger that are resumed: nothing is run, nothing outside is touched."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lrexp.engine.rng import generator_states
from lrexp.errors import RunError
from lrexp.runs.checkpoint import load_checkpoint

from .test_torn_files import KIND, STOP
from .torture import Commands


class Bomb:
    """Unpickled, it leaves the canary."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


class Caller:
    """As a bomb, by way of functions that read on."""

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.load, ("evil.pt",)


def _zip(path: Path, parts: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def _scripted(path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(path))


PAYLOAD = {"format": 1, "step": 1, "state": {}, "trials": {}}
POSITION = {"sizes": {"steps.csv": 19}, "values": {"final": {"loss": 1.0}, "best": {}, "steps": 3}}


def _saved(path: Path, **changes: Any) -> None:
    torch.save({**PAYLOAD, **changes}, path)


def _with_position(**changes: Any) -> Callable[[Path], None]:
    return lambda p: _saved(p, trials={"a/seed-0": {**POSITION, **changes}})


def _with_values(**changes: Any) -> Callable[[Path], None]:
    return _with_position(values={**POSITION["values"], **changes})


def _pickled(pickled: bytes) -> Callable[[Path], None]:
    """Return what writes a file as of torch.save, with any pickle in it."""

    def make(path: Path) -> None:
        _saved(path)
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        _zip(path, {n: pickled if n.endswith("data.pkl") else c for n, c in parts.items()})

    return make


def _two_archives(path: Path) -> None:
    """Write two: Python finds the one right before the end, torch the one that the end names."""
    shown, hidden = (_parts_of(_archive(size)) for size in (1, 10_000))
    (body, directory), (other_body, other_directory) = shown, hidden
    assert len(directory) == len(other_directory)
    entries, start = directory.split(b"PK\1\2")[1:], len(other_body)
    moved = b""
    for entry in (b"PK\1\2" + entry for entry in entries):
        (offset,) = struct.unpack("<I", entry[42:46])
        moved += entry[:42] + struct.pack("<I", offset + start - len(body)) + entry[46:]
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *[len(entries)] * 2, len(moved), start, 0)
    path.write_bytes(other_body + other_directory + body + moved + end)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def _archive(size: int) -> bytes:
    """Return a checkpoint with a tensor of a size, as `zipfile` writes it."""
    saved, anew = io.BytesIO(), io.BytesIO()
    torch.save({**PAYLOAD, "state": {"a": torch.ones(size)}}, saved)
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(anew, "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name))
    return anew.getvalue()


def _parts_of(archive: bytes) -> tuple[bytes, bytes]:
    """Return the parts of an archive, and the directory of them."""
    size, offset = struct.unpack("<2I", archive[-10:-2])
    return archive[:offset], archive[offset : offset + size]


def _behind_another(path: Path) -> None:
    _saved(path)
    path.write_bytes(path.read_bytes() * 2)


def _endless_file(path: Path) -> None:
    _saved(path)
    with path.open("r+b") as file:
        file.truncate(2**43)  # takes no room


def _laughs() -> Any:
    """A few hundred bytes that are 10 ** 12 values once they are copied."""
    value: Any = "ha"
    for _ in range(12):
        value = [value] * 10
    return value


def _endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def _deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = {"a": value}
    return value


def _generators(**changes: Any) -> dict[str, Any]:
    return {
        "engine": "sequential",
        "generators": {**generator_states(torch.device("cpu")), **changes},
    }


def _numpy(place: int = 1, words: int = 624) -> list[Any]:
    return ["MT19937", torch.zeros(words, dtype=torch.int64), place, 0, 0.0]


def _python(words: int = 625, **changes: Any) -> dict[str, Any]:
    return {"version": 3, "words": torch.zeros(words, dtype=torch.int64), "gauss": None, **changes}


# what a file pretends to be
FILES: list[tuple[str, Callable[[Path], object]]] = [
    ("a pickle", lambda p: p.write_bytes(pickle.dumps(Bomb()))),
    ("a pickle in an old file", lambda p: torch.save(Bomb(), p, _use_new_zipfile_serialization=False)),
    ("a pickle in a new file", lambda p: torch.save(Bomb(), p)),
    ("a pickle in the state", lambda p: torch.save({**PAYLOAD, "state": {"model": Bomb()}}, p)),
    ("a pickle as key", lambda p: torch.save({**PAYLOAD, "state": {Bomb(): 1}}, p)),
    ("a pickle beside it", lambda p: torch.save([PAYLOAD, Bomb()], p)),
    ("a caller", lambda p: torch.save({**PAYLOAD, "state": Caller()}, p)),
    ("a module", lambda p: torch.save(nn.Linear(2, 2), p)),
    ("a function", lambda p: torch.save({**PAYLOAD, "state": os.system}, p)),
    ("only tensors", lambda p: torch.save(torch.zeros(3), p)),
    ("another format", lambda p: torch.save({**PAYLOAD, "format": 99}, p)),
    ("no parts", lambda p: torch.save({"format": 1}, p)),
    ("parts of other types", lambda p: torch.save({**PAYLOAD, "state": [], "trials": 5}, p)),
    ("sizes of other types", lambda p: torch.save({**PAYLOAD, "trials": {"a": {"sizes": {"steps.csv": -1}, "values": {}}}}, p)),
    ("sizes that are no numbers", _with_position(sizes={"steps.csv": True})),
    ("sizes without names", _with_position(sizes={3: 3})),
    ("no sizes", lambda p: _saved(p, trials={"a/seed-0": {"values": {}}})),
    ("a position of nothing", lambda p: _saved(p, trials={"a/seed-0": None})),
    ("a trial without a name", lambda p: _saved(p, trials={3: POSITION})),
    ("values of nothing", _with_position(values=None)),
    ("other values", _with_values(evil=1)),
    ("measures of nothing", _with_values(final=None)),
    ("measures that are no numbers", _with_values(best={"loss": "1"})),
    ("measures that are tensors", _with_values(final={"loss": torch.ones(())})),
    ("measures without names", _with_values(final={1: 1.0})),
    ("steps that are no number", _with_values(steps="3")),
    ("steps below zero", _with_values(steps=-3)),
    ("a step that is no number", lambda p: _saved(p, step=True)),
    ("a step below zero", lambda p: _saved(p, step=-1)),
    ("an endless step", lambda p: _saved(p, step=2**63)),
    ("an engine of another type", lambda p: _saved(p, state={"engine": []})),
    ("a state with other keys", lambda p: _saved(p, state={1.5: 1})),
    ("a set", lambda p: _saved(p, state={"a": {1, 2}})),
    ("a dtype", lambda p: _saved(p, state={"a": torch.float32})),
    ("a parameter", lambda p: _saved(p, state={"a": nn.Parameter(torch.ones(2))})),
    ("a tensor that wants a gradient", lambda p: _saved(p, state={"a": torch.ones(2, requires_grad=True)})),
    ("a number of many digits", lambda p: _saved(p, state={"a": 10**5000})),
    ("a billion laughs", lambda p: _saved(p, state={"a": _laughs()})),
    ("a billion laughs as measures", _with_values(final={"loss": _laughs()})),
    ("a list that holds itself", lambda p: _saved(p, state={"a": _endless()})),
    ("a deep state", lambda p: _saved(p, state=_deep(60))),
    ("a tensor that unfolds", lambda p: _saved(p, state={"a": torch.ones(1).expand(10**12)})),
    ("a tensor that unfolds a little", lambda p: _saved(p, state={"a": torch.ones(3, 1).expand(3, 2)})),
    ("one tensor many times", lambda p: _saved(p, state={"a": [torch.ones(1000)] * 1000})),
    ("a sparse tensor that unfolds", lambda p: _saved(p, state={"a": torch.sparse_coo_tensor(
        torch.zeros(1, 1, dtype=torch.int64).expand(1, 10**6), torch.ones(1).expand(10**6), (3,), check_invariants=False)})),
    ("a bytearray of any size", _pickled(b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x7f\x85R.")),
    ("a counter", _pickled(b"\x80\x02ccollections\nCounter\n)R.")),
    ("an object", _pickled(b"\x80\x02ctorch\nTensor\n)\x81.")),
    ("half a pickle", _pickled(b"\x80\x02}q")),
    ("no pickle", _pickled(b"")),
    ("another torch generator", lambda p: _saved(p, state=_generators(torch=torch.zeros(9, dtype=torch.uint8)))),
    ("no Python generator", lambda p: _saved(p, state=_generators(python=None))),
    ("more Python words", lambda p: _saved(p, state=_generators(python=_python(626)))),
    ("a Python word that is none", lambda p: _saved(p, state=_generators(python=_python(words=625) | {"words": torch.full((625,), -1)}))),
    ("more NumPy words", lambda p: _saved(p, state=_generators(numpy=_numpy(words=625)))),
    ("a place outside of NumPy's words", lambda p: _saved(p, state=_generators(numpy=_numpy(place=10**6)))),
    ("a place before NumPy's words", lambda p: _saved(p, state={"engine": "vectorized", "apart": _generators(numpy=_numpy(place=-1))})),
    ("a large CUDA generator", lambda p: _saved(p, state=_generators(cuda=torch.zeros(10**5, dtype=torch.uint8)))),
    ("two archives", _two_archives),
    ("an archive behind another", _behind_another),
    ("a file that is larger than memory", _endless_file),
    ("a pipe", os.mkfifo),
    ("an archive of nothing", lambda p: _zip(p, {})),
    ("an archive of a pickle", lambda p: _zip(p, {"archive/data.pkl": pickle.dumps(Bomb()), "archive/version": b"3"})),
    ("a bomb of zeros", lambda p: _zip(p, {"archive/data.pkl": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED)),
    ("an archive that climbs", lambda p: _zip(p, {"../../canary": b"x", "archive/data.pkl": b""})),
    ("empty", lambda p: p.write_bytes(b"")),
    ("text", lambda p: p.write_text("import os\n")),
    ("a directory", lambda p: p.mkdir()),
    ("nested deeply", lambda p: p.write_bytes(b"]" * 100_000 + b".")),
]  # fmt: skip


@pytest.mark.usefixtures("at_once")
@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("make", [row[1] for row in FILES], ids=[row[0] for row in FILES])
def test_a_file_that_is_no_checkpoint(
    make: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "unit.pt"
    make(path)
    with pytest.raises(RunError, match=r"(?s)unit\.pt.*Delete it") as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 1000
    assert [p.name for p in tmp_path.rglob("*canary*")] == []
    assert not (tmp_path.parent / "canary").exists()


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_script_of_torch_is_no_checkpoint(tmp_path: Path) -> None:
    _scripted(tmp_path / "unit.pt")
    with pytest.raises(RunError, match="Delete it"):
        load_checkpoint(tmp_path / "unit.pt")


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:Validating sparse")
def test_checkpoints_of_all_that_engines_save_are_read(tmp_path: Path) -> None:
    state = {
        **_generators(python=_python(gauss=0.5), numpy=_numpy(place=624)),
        "floats": [torch.ones(2, dtype=kind) for kind in (torch.float16, torch.bfloat16, torch.float64)],
        "others": (torch.ones(2, dtype=torch.uint16), torch.ones(2, dtype=torch.complex64).conj()),
        "sparse": [torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr(), torch.eye(3).to_sparse_csc()],
        "shapes": [torch.ones(()), torch.ones(0, 3), torch.ones(2, 3).T.clone()],
        "plain": {"a": None, 1: True, "b": 1j, "c": float("nan"), "d": 2**128, "generators": {}},
    }  # fmt: skip
    _saved(tmp_path / "unit.pt", state=state, trials={"a/seed-0": POSITION})
    read = load_checkpoint(tmp_path / "unit.pt")
    assert read.state.keys() == state.keys()
    assert read.trials["a/seed-0"].values == POSITION["values"]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, commands: Commands) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "home"
    folder.mkdir()
    KIND.write(folder)
    with (folder / "mine.py").open("a") as file:
        file.write(STOP)
    (folder / "stop").write_text("150")
    assert commands.run(folder, *KIND.words("begun")) == 130, (folder / "err.txt").read_text()
    (folder / "stop").unlink()
    return folder


def _changed_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        value = json.loads((run / name).read_text())
        change(value)
        (run / name).write_text(json.dumps(value))

    return make


def _changed_checkpoint(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        (path,) = run.glob("checkpoints/*")
        payload = torch.load(path, weights_only=True)
        change(payload)
        torch.save(payload, path)

    return make


def _moved_names(payload: dict[str, Any]) -> None:
    payload["trials"] = {f"../../../outside/{name}": v for name, v in payload["trials"].items()}


def _moved_sizes(payload: dict[str, Any]) -> None:
    for position in payload["trials"].values():
        position["sizes"] = {"../../../../outside/victim": 0, **position["sizes"]}


def _absolute_sizes(payload: dict[str, Any]) -> None:
    for position in payload["trials"].values():
        position["sizes"]["/etc/hostname"] = 0


def _spoiled_state(payload: dict[str, Any]) -> None:
    payload["state"] = {"engine": "sequential"}


def _other_shapes(payload: dict[str, Any]) -> None:
    def smaller(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.flatten()[:1].clone()
        if isinstance(value, dict):
            return {key: smaller(item) for key, item in value.items()}
        return [smaller(item) for item in value] if isinstance(value, list) else value

    payload["state"] = smaller(payload["state"])


def _other_values(payload: dict[str, Any]) -> None:
    for position in payload["trials"].values():
        position["values"] = {"final": None, "best": [], "steps": "1"}


def _laughing(payload: dict[str, Any]) -> None:
    payload["state"]["more"] = _laughs()


def _link(run: Path) -> None:
    (trial,) = (p for p in run.glob("trials/*/*") if not (p / "result.json").exists())
    victim = run.parent.parent / "outside/victim"
    (trial / "steps.csv").unlink()
    (trial / "steps.csv").symlink_to(victim)


def _linked_trials(run: Path) -> None:
    shutil.rmtree(run / "trials")
    (run / "trials").symlink_to(run.parent.parent / "outside")


HOSTILE: list[tuple[str, Callable[[Path], object]]] = [
    ("trials outside", _changed_checkpoint(_moved_names)),
    ("files outside", _changed_checkpoint(_moved_sizes)),
    ("files of the system", _changed_checkpoint(_absolute_sizes)),
    ("a state of nothing", _changed_checkpoint(_spoiled_state)),
    ("a state of other shapes", _changed_checkpoint(_other_shapes)),
    ("values of other types", _changed_checkpoint(_other_values)),
    ("a state without an end", _changed_checkpoint(_laughing)),
    ("a file outside by a link", _link),
    ("a folder outside by a link", _linked_trials),
    ("variants outside", _changed_json("status.json", lambda s: s.update(variants=["../../outside"]))),
    ("a list as status", lambda run: (run / "status.json").write_text("[]")),
    ("units outside", lambda run: (run / "engine.json").write_text(
        (run / "engine.json").read_text().replace('"wild', '"../../outside/wild').replace('"cycle', '"../../outside/cycle'))),
    ("no units", lambda run: (run / "engine.json").write_text("{}")),
    ("deep units", lambda run: (run / "engine.json").write_text("[" * 100_000)),
    ("no order", lambda run: (run / "order.json").unlink()),
    ("an order of nothing", lambda run: (run / "order.json").write_text("{}")),
    ("another command", _changed_json("order.json", lambda o: o.update(command="os.system"))),
    ("a name of a model", _changed_json("order.json", lambda o: o.update(
        changes=[["model", {"name": "os:system", "args": {"command": "touch canary"}}]]))),
    ("code to run", lambda run: (run / "config.yaml").write_text(
        (run / "config.yaml").read_text().replace("model: {name: 'mine:Net'}", "model: {name: 'os:system', args: {command: touch canary}}"))),
    ("a trusted package", _changed_json("order.json", lambda o: o.update(
        trust=["os"], changes=[["model", {"name": "os:system", "args": {"command": "touch canary"}}]]))),
    ("an environment of nothing", lambda run: (run / "environment.json").write_text("[]")),
    ("a lock of nothing", lambda run: (run / "lock").write_text("x")),
    ("a lock that is a folder", lambda run: (run / "lock").mkdir()),
    ("a lock that is a pipe", lambda run: os.mkfifo(run / "lock")),
    ("a curve that is a pipe", lambda run: os.mkfifo(run / "trials/evals.csv")),
    ("jobs without an end", lambda run: (run / "engine.json").write_text('{"units": [], "jobs": Infinity}')),
    ("a deep status", lambda run: (run / "status.json").write_text('{"status": "interrupted", "x": ' + "[" * 900 + "]" * 900 + "}")),
    ("years of seconds", _changed_json("status.json", lambda s: s.update(seconds=10**400))),
]  # fmt: skip


@pytest.mark.parametrize("spoil", [row[1] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
@pytest.mark.parametrize("force", [False, True], ids=["", "forced"])
def test_a_strangers_run_is_resumed_or_refused(
    spoil: Callable[[Path], object], force: bool, interrupted: Path, commands: Commands
) -> None:
    run, outside = interrupted / "run", interrupted.parent / "outside"
    for folder in (run, outside):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(interrupted / "begun", run)
    outside.mkdir()
    (outside / "victim").write_text("step,epoch,lr,loss\n0,0,0.1,1.0\n" * 9)
    before = (outside / "victim").read_bytes(), sorted(outside.rglob("*"))
    spoil(run)
    code = commands.run(interrupted, "resume", "run", *(["--force"] if force else []))
    err = (interrupted / "err.txt").read_text()
    assert code in {0, 2, 3}, err
    assert "Traceback" not in err
    assert "lrexp failed:" not in err, err
    assert [p.name for p in interrupted.parent.rglob("*canary*")] == []
    assert ((outside / "victim").read_bytes(), sorted(outside.rglob("*"))) == before
