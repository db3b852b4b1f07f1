"""Run directories from a stranger that are resumed: nothing is run, nothing outside is touched."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lrexp.errors import RunError
from lrexp.store.checkpoint import load_checkpoint

from .test_torn_files import KIND, STOP
from .torture import Starter


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
    ("an archive of nothing", lambda p: _zip(p, {})),
    ("an archive of a pickle", lambda p: _zip(p, {"archive/data.pkl": pickle.dumps(Bomb()), "archive/version": b"3"})),
    ("a bomb of zeros", lambda p: _zip(p, {"archive/data.pkl": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED)),
    ("an archive that climbs", lambda p: _zip(p, {"../../canary": b"x", "archive/data.pkl": b""})),
    ("empty", lambda p: p.write_bytes(b"")),
    ("text", lambda p: p.write_text("import os\n")),
    ("a directory", lambda p: p.mkdir()),
    ("nested deeply", lambda p: p.write_bytes(b"]" * 100_000 + b".")),
]  # fmt: skip


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


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, commands: Starter) -> Path:
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
]  # fmt: skip


@pytest.mark.parametrize("spoil", [row[1] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
@pytest.mark.parametrize("force", [False, True], ids=["", "forced"])
def test_a_strangers_run_is_resumed_or_refused(
    spoil: Callable[[Path], object], force: bool, interrupted: Path, commands: Starter
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
