"""Runs that are resumed in another place, by themselves or with their whole project."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stopping import After

from lrexp.errors import Problem
from lrexp.runs.builder import Objects
from lrexp.runs.resume import (
    changed_modules,
    changed_settings,
    noted_surroundings,
    read_spec,
)
from lrexp.runs.spec import RunSpec, describe_again, digest
from lrexp.runs.stages import read_stages
from lrexp.runs.writer import RunWriter, resumed

CONFIG = """\
model: {name: 'own:Net'}
data: {name: csv, batch_size: 8, val_fraction: 0.2, args: {path: data/table.csv, target: y}}
loss: mse_loss
optimizer: {name: SGD, lr: 0.01}
engine: sequential
train: {duration: 12st, eval_every: 4st}
compare: {variants: {a: {}, b: {optimizer.lr: 0.001}}}
"""
OWN = """\
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        import lazy
        return lazy.FACTOR * self.layer(x)
"""


def write_project(folder: Path) -> Path:
    (folder / "configs/data").mkdir(parents=True)
    (folder / "configs/own.py").write_text(OWN)
    (folder / "configs/lazy.py").write_text("FACTOR = 1\n")
    rows = "\n".join(f"{n / 10},{n / 5}" for n in range(40))
    (folder / "configs/data/table.csv").write_text(f"x,y\n{rows}\n")
    (folder / "configs/small.yaml").write_text(CONFIG)
    return folder / "configs/small.yaml"


@pytest.fixture
def project(lrexp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a run in it that was interrupted; the working directory is elsewhere."""
    config = write_project(tmp_path / "project")
    monkeypatch.setattr(sys, "path", [*sys.path])  # else other tests' modules of the same names
    monkeypatch.delitem(sys.modules, "lazy", raising=False)
    answer = lrexp("compare", config, "--out", tmp_path / "project/runs/one", stop=After(4))
    assert answer.code == 130, answer.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "project"


def read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def test_modules_that_functions_import_are_kept_and_compared(
    lrexp: Callable, project: Path
) -> None:
    run = project / "runs/one"
    assert (run / "lazy.py").read_text() == "FACTOR = 1\n"
    modules = read(run / "order.json")["modules"]
    assert modules == {"own.py": digest(OWN.encode()), "lazy.py": digest(b"FACTOR = 1\n")}
    (project / "configs/lazy.py").write_text("FACTOR = 2\n")
    answer = lrexp("resume", run)
    assert answer.code == 2
    assert "lazy.py: is not the module that the run began with" in answer.err


@pytest.mark.parametrize("name", ["moved", "mo: ved # "])
def test_a_project_may_be_moved_with_its_data(
    lrexp: Callable, project: Path, tmp_path: Path, name: str
) -> None:
    moved = tmp_path / name
    project.rename(moved)
    answer = lrexp("resume", moved / "runs/one")
    assert answer.code == 0, answer.err
    status = read(moved / "runs/one/status.json")
    assert (status["status"], status["counts"]) == ("complete", {"finished": 2})
    assert "forced" not in status
    assert [sorted(resumed) for resumed in status["resumed"]] == [["at"]]


def test_data_may_be_put_into_a_run_that_was_moved_alone(
    lrexp: Callable, project: Path, tmp_path: Path
) -> None:
    run = tmp_path / "elsewhere/one"
    (project / "runs/one").rename(run)
    data = tmp_path / "table.csv"
    (project / "configs/data/table.csv").rename(data)
    shutil.rmtree(project)
    answer = lrexp("resume", "one")
    assert answer.code == 2, answer.err
    place = run / "data/table.csv"
    assert (
        f"data.args.path: is not where the run was, nor where it is now (got 'data/table.csv'). Put the file in its place: {place}."
        in answer.err.replace("\n", " ")
    )
    assert lrexp("resume", "one", "--force").code == 2
    place.parent.mkdir()
    data.rename(place)
    answer = lrexp("resume", "one")
    assert answer.code == 0, answer.err


def test_the_working_directory_may_hold_what_the_project_held(
    lrexp: Callable, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "runs/one").rename(tmp_path / "one")
    (project / "configs").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    answer = lrexp("resume", tmp_path / "one")
    assert answer.code == 0, answer.err


def test_a_module_that_was_edited_inside_a_moved_run_is_refused(
    lrexp: Callable, project: Path, tmp_path: Path
) -> None:
    run = tmp_path / "elsewhere/one"
    (project / "runs/one").rename(run)
    (project / "configs/data").rename(run / "data")
    shutil.rmtree(project)
    (run / "lazy.py").write_text("FACTOR = 2\n")
    answer = lrexp("resume", run)
    assert answer.code == 2
    assert "lazy.py: was changed after the run began" in answer.err
    (run / "lazy.py").unlink()
    assert "lazy.py: is missing" in lrexp("resume", run).err
    (run / "lazy.py").write_bytes(b"FACTOR = 1\r\n")  # as another system ends a line
    answer = lrexp("resume", run)
    assert answer.code == 0, answer.err


def test_modules_of_the_working_directory_do_not_stand_in_for_those_of_a_run(
    lrexp: Callable, project: Path, tmp_path: Path
) -> None:
    run = tmp_path / "elsewhere/one"
    (project / "runs/one").rename(run)
    (project / "configs/data").rename(run / "data")
    shutil.rmtree(project)
    canary = tmp_path / "canary"
    for name in ("own", "lazy"):
        (tmp_path / f"elsewhere/{name}.py").write_text(f"open({str(canary)!r}, 'w')\n")
    answer = lrexp("resume", run)
    assert answer.code == 0, answer.err
    assert not canary.exists()
    text = read(run / "order.json")["text"].replace("own:Net", "other:Net")
    (run / "status.json").write_text("[]")
    (run / "config.yaml").write_text(text)
    (run / "order.json").write_text(json.dumps(read(run / "order.json") | {"text": text}))
    (tmp_path / "elsewhere/other.py").write_text(f"open({str(canary)!r}, 'w')\n")
    answer = lrexp("resume", run)
    assert answer.code == 2
    assert "other.py: is no module that the run began with" in answer.err
    assert not canary.exists()


def spec_of(directory: str) -> RunSpec:
    return RunSpec("compare", CONFIG, "small.yaml", directory)


@pytest.mark.parametrize(
    ("then", "now", "fits"),
    [
        ("a: /old/d.csv", "a: /new/d.csv", True),
        ("a: [{b: /old}]", "a:\n- b: /new", True),
        ("a: /old/x: y.csv", "a: '/new/x: y.csv'", False),  # no YAML
        ("a: '/old/x: y.csv'", 'a: "/new/x: y.csv"', True),
        ("a: /older/d.csv", "a: /older/d.csv", True),
        ("a: /older/d.csv", "a: /newer/d.csv", False),
        ("a: see /old/d.csv", "a: see /new/d.csv", False),
        ("a: 1", "a: 1.0", False),
        ("a: 1", "a: true", False),
        ("a: 1e-3", "a: 0.001", True),
        ("a: 1", "a: 2", False),
        (None, "a: 1", False),
    ],
)
def test_settings_are_compared_with_their_paths_moved(
    then: str | None, now: str, fits: bool, tmp_path: Path
) -> None:
    (tmp_path / "order.json").write_text(json.dumps({"directory": "/old"}))
    if then is not None:
        (tmp_path / "resolved.yaml").write_text(then)
    problems = list(changed_settings(tmp_path, spec_of("/new"), now))
    assert len(problems) == (not fits)
    if problems:  # resolved.yaml leads to where the data was
        assert f"Run {tmp_path / 'config.yaml'} anew instead" in str(problems[0])


def test_a_moved_run_says_where_it_is(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = project.rename(tmp_path / "moved")
    run = moved / "runs/one"
    spec, problems = read_spec(run, Objects(), (), force=False)
    assert (spec.directory, problems) == (str(moved / "configs"), [])
    plan = spec.plan()
    describe_again(run, spec, plan, read_stages(run)[0].choice)
    assert f"path: {moved}/configs/data/table.csv" in (run / "resolved.yaml").read_text()
    saved = read(run / "order.json")
    assert (saved["directory"], saved["from_run"]) == (str(moved / "configs"), "../../configs")
    assert read_spec(run, Objects(), (), force=False)[0].directory == spec.directory
    assert list(changed_settings(run, spec, (run / "resolved.yaml").read_text())) == []


@pytest.mark.usefixtures("at_once")
def test_a_module_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    [problem] = changed_modules(tmp_path / "run", spec_of(str(tmp_path)), {"pipe": digest(b"")})
    assert "pipe: is not the module that the run began with" in str(problem)


def test_another_model_of_device_is_noted(tmp_path: Path) -> None:
    then = {"device_name": "A", "cuda": None, "python": "3.11"}
    (tmp_path / "environment.json").write_text(json.dumps(then))
    assert noted_surroundings(tmp_path, then) == []
    assert noted_surroundings(tmp_path, then | {"device_name": "B"}) == [
        "device_name was A and is B now"
    ]


def test_status_keeps_what_was_forced_each_time(tmp_path: Path) -> None:
    earlier: dict[str, Any] = {}
    problem = Problem("", "was edited", 1, "Undo it.", "x.py")
    for forced in ([], [problem], [], *([] for _ in range(150))):
        RunWriter(tmp_path, {"resumed": resumed(earlier, forced)}, earlier)
        earlier = read(tmp_path / "status.json")
        if len(earlier["resumed"]) == 3:
            told = [entry.get("forced") for entry in earlier["resumed"]]
            assert told == [None, [str(problem)], None]
    assert len(earlier["resumed"]) == 100
