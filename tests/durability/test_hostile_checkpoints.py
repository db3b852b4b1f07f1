"""Run directories from a stranger that are resumed: nothing is run, nothing outside is touched."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrexp.engine.rng import generator_states
from lrexp.errors import RunError
from lrexp.runs.checkpoint import (
    Position,
    SavedGroup,
    load_checkpoint,
    peek_checkpoint,
    save_checkpoint,
)

from .test_torn_files import KIND, STOP
from .torture import Commands


class Bomb:
    """Unpickled, it leaves the canary."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


Make = Callable[[Path], object]
ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
NUMBERS: dict[str, Any] = {  # a float; 7; 7 and 7; two floats
    "0": ONE,
    "1": {"dtype": "I64", "shape": [1, 1], "data_offsets": [4, 12]},
    "2": {"dtype": "I64", "shape": [1, 2], "data_offsets": [12, 28]},
    "3": {"dtype": "F32", "shape": [2], "data_offsets": [28, 36]},
}
POSITION = {"sizes": {"steps.csv": 19}, "values": {"final": {"loss": 1.0}, "best": {}, "steps": 3}}
DATA = b"\0" * 4 + (7).to_bytes(8, "little") * 3 + b"\0" * 8
DESCRIBED = {"0": "torch.float32 [1]", "1": "torch.int64 [1, 1]", "2": "torch.int64 [1, 2]",
             "3": "torch.float32 [2]"}  # fmt: skip
CRC = 0
for name, described in DESCRIBED.items():
    begin, end = NUMBERS[name]["data_offsets"]
    CRC = zlib.crc32(DATA[begin:end], zlib.crc32(f"{name} {described}".encode(), CRC))
PAYLOAD = {"format": 2, "step": 1, "state": {"engine": "sequential"}, "trials": {}, "crc32": CRC}


def _raw(path: Path, header: bytes, data: bytes = b"", size: int | None = None) -> None:
    """Write a file as of safetensors: the length of a header, the header, data."""
    length = (len(header) if size is None else size).to_bytes(8, "little")
    path.write_bytes(length + header + data)


def _metadata(text: str) -> dict[str, str]:
    return {"lrexp": text, "crc32": str(zlib.crc32(text.encode()))}


def _tensors(data: bytes = b"", **entries: Any) -> Make:
    """Return what writes a whole checkpoint with these tensors in its header."""
    metadata = _metadata(json.dumps(_of(PAYLOAD)))
    return lambda p: _raw(p, json.dumps({"__metadata__": metadata, **entries}).encode(), data)


def _text(lrexp: str) -> Make:
    """Return what writes a checkpoint whose contents are this JSON, beside some tensors."""
    header = {"__metadata__": _metadata(lrexp), **NUMBERS}
    return lambda p: _raw(p, json.dumps(header).encode(), DATA)


def _of(value: Any) -> Any:
    """Return plain values as a checkpoint has them."""
    if isinstance(value, dict):
        return ["dict", *([key, _of(item)] for key, item in value.items())]
    return ["list", *map(_of, value)] if isinstance(value, list) else value


def _parts(**changes: Any) -> Make:
    return _text(json.dumps(_of({**PAYLOAD, **changes})))


def _state(state: Any) -> Make:
    """Return what writes a checkpoint with a state that is encoded already."""
    contents = _of({**PAYLOAD, "state": None})
    return _text(json.dumps([c if c[0] != "state" else ["state", state] for c in contents]))


def _holding(value: Any) -> Make:
    return _state(["dict", ["engine", "sequential"], ["a", value]])


def _with_position(**changes: Any) -> Make:
    return _parts(trials={"a/seed-0": {**POSITION, **changes}})


def _with_values(**changes: Any) -> Make:
    return _with_position(values={**POSITION["values"], **changes})


def _saved(**state: Any) -> Make:
    return lambda p: save_checkpoint(p, SavedGroup(1, {"engine": "sequential", **state}, {}))


def _nested(levels: int, head: str = '["list",') -> str:
    return head * levels + "0" + "]" * levels


def _many_times(path: Path) -> None:
    """Write one tensor that a state holds a thousand times; of plain values JSON has no way to."""
    state = ["list", *[["tensor", "0"]] * 1000]
    contents = [["format", 2], ["step", 1], ["state", ["dict", ["a", state]]], ["trials", ["dict"]]]
    tensor = {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}
    header = {"__metadata__": _metadata(json.dumps(["dict", *contents])), "0": tensor}
    _raw(path, json.dumps(header).encode(), b"\0" * 4000)


def _generators(**changes: Any) -> Make:
    return _saved(generators={**generator_states(torch.device("cpu")), **changes})


def _numpy(place: int = 1, words: int = 624) -> list[Any]:
    return ["MT19937", torch.zeros(words, dtype=torch.int64), place, 0, 0.0]


def _python(words: torch.Tensor, **changes: Any) -> dict[str, Any]:
    return {"version": 3, "words": words, "gauss": None, **changes}


def _endless_file(path: Path) -> None:
    _saved()(path)
    with path.open("r+b") as file:
        file.truncate(2**43)  # takes no room


def _zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)


# what a file pretends to be; those whose progress says so are refused at a glance, too
AT_A_GLANCE: list[tuple[str, Make]] = [
    ("a pickle", lambda p: p.write_bytes(pickle.dumps(Bomb()))),
    ("a file of torch", lambda p: torch.save({"format": 1, "state": Bomb()}, p)),
    ("an old file of torch", lambda p: torch.save(Bomb(), p, _use_new_zipfile_serialization=False)),
    ("a bomb of zeros", _zipped),
    ("empty", lambda p: p.write_bytes(b"")),
    ("text", lambda p: p.write_text("import os\n")),
    ("a directory", lambda p: p.mkdir()),
    ("a pipe", os.mkfifo),
    ("a link", lambda p: (_saved()(p.with_name("own")), p.symlink_to(p.with_name("own")))),
    ("a header that is longer than the file", lambda p: _raw(p, b"{}", size=2**40)),
    ("a header without an end", lambda p: _raw(p, b"{}", size=2**64 - 1)),
    ("a header of nothing", lambda p: _raw(p, b"")),
    ("a header that is a list", lambda p: _raw(p, b"[]")),
    ("a header that is not UTF-8", lambda p: _raw(p, b'{"\xff": 1}')),
    ("a deep header", lambda p: _raw(p, b'{"a":' * 100_000)),
    ("a huge header", lambda p: _raw(p, b" " * 100_000_001)),
    ("contents that were changed", lambda p: (_saved()(p), p.write_bytes(p.read_bytes().replace(b"sequential", b"sequentiaL")))),
    ("tensors of others", lambda p: _raw(p, json.dumps({"0": ONE}).encode(), b"\0" * 4)),
    ("an unknown dtype", _tensors(b"\0" * 4, a={**ONE, "dtype": "PY"})),
    ("a tensor outside of the file", _tensors(b"\0" * 4, a={**ONE, "data_offsets": [0, 8]})),
    ("a tensor before the file", _tensors(b"\0" * 4, a={**ONE, "data_offsets": [-4, 0]})),
    ("a tensor that ends before it begins", _tensors(b"\0" * 4, a={**ONE, "data_offsets": [4, 0]})),
    ("a tensor of another shape", _tensors(b"\0" * 4, a={**ONE, "shape": [2]})),
    ("a shape whose size overflows", _tensors(b"\0" * 4, a={**ONE, "shape": [2**33, 2**33]})),
    ("two tensors in one place", _tensors(b"\0" * 4, a=ONE, b=ONE)),
    ("a hole between tensors", _tensors(b"\0" * 12, a=ONE, b={**ONE, "data_offsets": [8, 12]})),
    ("data of no tensor", _tensors(b"\0" * 8, a=ONE)),
    ("a file that is larger than memory", _endless_file),
    ("metadata of other types", lambda p: _raw(p, b'{"__metadata__": {"lrexp": []}}')),
    ("no JSON", _text("import os")),
    ("JSON of nothing", _text("null")),
    ("JSON of another kind", _text('{"format": 2}')),
    ("deep JSON", _text(_nested(100_000))),
    ("JSON of many lists", _text('["dict", ["format", 2], [' + "[]," * 2_000_000 + "[]]]")),
    ("another format", _parts(format=99)),
    ("no parts", _text('["dict", ["format", 2]]')),
    ("a step that is no number", _parts(step=True)),
    ("a step below zero", _parts(step=-1)),
    ("an endless step", _parts(step=2**63)),
    ("a step of many digits", _text(json.dumps(_of(PAYLOAD)).replace('"step", 1', f'"step", {"9" * 5000}'))),
    ("a step of nothing", _parts(step=None)),
    ("trials of other types", _parts(trials=5)),
    ("sizes below zero", _with_position(sizes={"steps.csv": -1})),
    ("sizes that are no numbers", _with_position(sizes={"steps.csv": True})),
    ("sizes without names", _with_position(sizes={3: 3})),
    ("no sizes", _parts(trials={"a/seed-0": {"values": {}}})),
    ("a position of nothing", _parts(trials={"a/seed-0": None})),
    ("a trial without a name", _parts(trials={3: POSITION})),
    ("values of nothing", _with_position(values=None)),
    ("other values", _with_values(evil=1)),
    ("measures of nothing", _with_values(final=None)),
    ("measures that are no numbers", _with_values(best={"loss": "1"})),
    ("measures without names", _with_values(final={1: 1.0})),
    ("steps that are no number", _with_values(steps="3")),
    ("steps below zero", _with_values(steps=-3)),
]  # fmt: skip
IN_THE_STATE: list[tuple[str, Make]] = [
    ("a state of another type", _parts(state=[])),
    ("an engine of another type", _parts(state={"engine": []})),
    ("tensors that were changed", _parts(crc32=CRC + 1)),
    ("tensors without a checksum", _parts(crc32=None)),
    ("a tensor that is not there", _holding(["tensor", "9"])),
    ("a tensor without a name", _holding(["tensor"])),
    ("a tensor of a list", _holding(["tensor", ["0"]])),
    ("a kind that is unknown", _holding(["object", "os.system"])),
    ("a kind of nothing", _holding([])),
    ("a mapping without a kind", _holding({"a": 1})),
    ("a key of a list", _holding(["dict", [["list"], 1]])),
    ("a key of another type", _holding(["dict", [1.5, 1]])),
    ("an entry without a value", _holding(["dict", ["a"]])),
    ("a number of many digits", _holding(10**100)),
    ("a complex number of texts", _holding(["complex", "1", "2"])),
    ("a complex tensor of odd numbers", _holding(["complex_tensor", ["tensor", "0"]])),
    ("a complex tensor of nothing", _holding(["complex_tensor"])),
    ("one tensor many times", _many_times),
    ("a deep state", _holding(json.loads(_nested(60)))),
    ("a sparse tensor without indices", _holding(["sparse", [3], True, ["tensor", "0"]])),
    ("a sparse tensor of numbers", _holding(["sparse", [3], True, 1, 2])),
    ("a sparse tensor of one part", _holding(["sparse", [3], True, ["tensor", "0"], ["tensor", "0"]])),
    ("a sparse tensor outside of its shape", _holding(["sparse", [3], True, ["tensor", "1"], ["tensor", "0"]])),
    ("a sparse tensor that only says that it is coalesced", _holding(["sparse", [9], True, ["tensor", "2"], ["tensor", "3"]])),
    ("an unknown layout", _holding(["compressed", "os", [3], *[["tensor", "0"]] * 3])),
    ("a compressed tensor of one part", _holding(["compressed", "sparse_csr", [3, 3], *[["tensor", "0"]] * 3])),
    ("another torch generator", _generators(torch=torch.zeros(9, dtype=torch.uint8))),
    ("no Python generator", _generators(python=None)),
    ("more Python words", _generators(python=_python(torch.zeros(626, dtype=torch.int64)))),
    ("Python words of floats", _generators(python=_python(torch.zeros(625)))),
    ("a Python word that is none", _generators(python=_python(torch.full((625,), -1)))),
    ("more NumPy words", _generators(numpy=_numpy(words=625))),
    ("a place outside of NumPy's words", _generators(numpy=_numpy(place=10**6))),
    ("a place before NumPy's words", _saved(apart={"generators": {
        **generator_states(torch.device("cpu")), "numpy": _numpy(place=-1)}})),
    ("a large CUDA generator", _generators(cuda=torch.zeros(10**5, dtype=torch.uint8))),
]  # fmt: skip
CASES = [(name, make, True) for name, make in AT_A_GLANCE]
CASES += [(name, make, False) for name, make in IN_THE_STATE]


@pytest.mark.usefixtures("at_once")
@pytest.mark.filterwarnings("ignore:Sparse", "ignore:Validating sparse")
@pytest.mark.parametrize(
    ("make", "at_a_glance"), [row[1:] for row in CASES], ids=[row[0] for row in CASES]
)
def test_a_file_that_is_no_checkpoint(
    make: Make, at_a_glance: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "group.safetensors"
    make(path)
    for read in (load_checkpoint, *([peek_checkpoint] if at_a_glance else [])):
        with pytest.raises(RunError, match=r"group\.safetensors: is no .*Delete it") as caught:
            read(path)
        assert len(str(caught.value)) < 1000
        assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*canary*")] == []


def test_what_the_cases_are_made_of_is_a_checkpoint(tmp_path: Path) -> None:
    for make in (_parts(), _with_values(), _holding(["tensor", "0"]), _generators(), _saved()):
        make(tmp_path / "group.safetensors")
        assert load_checkpoint(tmp_path / "group.safetensors").step == 1


@given(junk=st.recursive(
    st.none() | st.integers() | st.sampled_from(
        ["dict", "list", "tuple", "complex", "tensor", "sparse", "compressed", "complex_tensor", "0"]
    ),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
))  # fmt: skip
@pytest.mark.filterwarnings("ignore:Sparse", "ignore:Validating sparse")
def test_any_json_is_a_checkpoint_or_refused(
    tmp_path_factory: pytest.TempPathFactory, junk: Any
) -> None:
    path = tmp_path_factory.mktemp("junk") / "group.safetensors"
    _holding(junk)(path)
    with suppress(RunError):
        assert load_checkpoint(path).step == 1


MEASURED = """
import resource, sys, torch
from pathlib import Path
from lrexp.errors import RunError
from lrexp.runs.checkpoint import load_checkpoint, peek_checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read in (load_checkpoint, peek_checkpoint):
    try:
        read(Path(sys.argv[1]))
    except RunError:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts in kilobytes on Linux")
def test_a_header_of_many_lists_does_not_unfold(tmp_path: Path) -> None:
    path = tmp_path / "group.safetensors"
    _text('["dict", ["format", 2], [' + "[]," * 5_000_000 + "[]]]")(path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True
    )
    grown = [int(line) * 1024 for line in done.stdout.split()]
    assert len(grown) == 2, done.stderr
    assert max(grown) < 8 * path.stat().st_size  # as lists it would be twenty times as much


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
        (path,) = run.glob("checkpoints/*.safetensors")
        saved = load_checkpoint(path)
        trials = {name: asdict(position) for name, position in saved.trials.items()}
        changed: dict[str, Any] = {"state": dict(saved.state), "trials": trials}
        change(changed)
        positions = {name: Position(**position) for name, position in changed["trials"].items()}
        save_checkpoint(path, SavedGroup(saved.step, changed["state"], positions))

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
        position["values"] = {"final": None, "best": {}, "steps": "1"}


def _one_more_stage(kind: str, name: str, **trial: Any) -> Make:
    """Return what lets a run go on with a trial whose folder is another run's, say."""

    def change(plain: dict[str, Any]) -> None:
        trials = [{"name": name, "total_steps": 60, **trial}]
        units = [{"engine": "sequential", "trials": [name]}]
        plain["stages"] += [{"kind": kind, "trials": trials, "units": units, "jobs": 1}]

    return _changed_json("engine.json", change)


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
    ("a file outside by a link", _link),
    ("a folder outside by a link", _linked_trials),
    ("variants outside", _changed_json("status.json", lambda s: s.update(variants=["../../outside"]))),
    ("a list as status", lambda run: (run / "status.json").write_text("[]")),
    ("units outside", lambda run: (run / "engine.json").write_text(
        (run / "engine.json").read_text().replace('"wild', '"../../outside/wild').replace('"cycle', '"../../outside/cycle'))),
    ("a stage outside", _one_more_stage("compare", "../../outside/seed-0")),
    ("a second look outside", _one_more_stage("paired_control", "../../outside/seed-0")),
    ("a race outside", _one_more_stage("race", "../../outside/seed-0", lr=0.1)),
    ("a trial without a name", _one_more_stage("compare", "/seed-0")),
    ("a stage of another command", _one_more_stage("race", "race-60-lr-0.1/seed-0", lr=0.1)),
    ("a kind that is unknown", _one_more_stage("os.system", "wild/seed-9")),
    ("an older engine.json", lambda run: (run / "engine.json").write_text('{"units": [], "jobs": 1}')),
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
    ("a lease of nothing", lambda run: [p.with_suffix(".lease").write_text("x") for p in run.glob("checkpoints/*")]),
    ("a lease that is a folder", lambda run: [p.with_suffix(".lease").mkdir() for p in run.glob("checkpoints/*")]),
    ("a curve that is a pipe", lambda run: os.mkfifo(run / "trials/evals.csv")),
    ("jobs without an end", lambda run: (run / "engine.json").write_text('{"stages": [{"kind": "compare", "trials": [], "units": [], "jobs": Infinity}]}')),
    ("a deep status", lambda run: (run / "status.json").write_text('{"status": "interrupted", "x": ' + "[" * 900 + "]" * 900 + "}")),
    ("years of seconds", _changed_json("status.json", lambda s: s.update(seconds=10**400))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "force"),
    [  # by default one in six is forced as well
        pytest.param(spoil, force, marks=pytest.mark.long if force and row % 6 else (), id=name)
        for row, (what, spoil) in enumerate(HOSTILE)
        for force, name in ((False, what), (True, f"forced-{what}"))
    ],
)
def test_a_strangers_run_is_resumed_or_refused(
    spoil: Callable[[Path], object], force: bool, interrupted: Path, commands: Commands
) -> None:
    run, outside = interrupted / "run", interrupted.parent / "outside"
    for folder in (run, outside):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(interrupted / "begun", run)
    outside.mkdir()
    (outside / "seed-0").mkdir()
    (outside / "seed-0/result.json").write_text('{"outcome": "failed"}')  # such begin anew
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
