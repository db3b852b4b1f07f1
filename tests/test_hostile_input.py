"""Configs, data and run directories from a stranger: refused or harmless, and nothing is run.

Whatever these inputs try to run or write would leave a file named `canary`, which must not appear.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

from lrexp.errors import ConfigError, RunError, UserCodeError

BASE = {
    "name": "name: hostile",
    "model": "model: {name: mlp, args: {hidden: [4]}}",
    "data": "data: {name: digits, batch_size: 256}",
    "loss": "loss: cross_entropy",
    "optimizer": "optimizer: {name: SGD, lr: 0.1}",
    "schedule": "schedule: constant",
    "train": "train: {duration: 1st, eval_every: 1st}",
    "compare": "compare: {variants: {a: {}}}",
}
MINE = """\
import os
import subprocess
import importlib
import torch
from functools import partial
from os import system
from torch import nn
run = partial(system)

class Net(nn.Module):
    os = os
    def __init__(self, note="", depth=1):
        super().__init__()
        self.layer = nn.Linear(64, 10)
    def forward(self, x):
        return self.layer(x)
"""


class Bomb:
    """Unpickled, it leaves the canary."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch canary",)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stranger's files lie: two folders deep, so that `..` has somewhere to go."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    (inner / "mine.py").write_text(MINE)
    return inner


def write(folder: Path, *lines: str) -> Path:
    """Write the base config with some of its lines replaced."""
    changed = {line.partition(":")[0]: line for line in lines}
    path = folder / "config.yaml"
    path.write_text("\n".join((BASE | changed).values()) + "\n", encoding="utf-8")
    return path


def assert_harmless(folder: Path) -> None:
    root = folder.parents[1]
    assert [path for path in root.rglob("*") if "canary" in path.name] == []


TOUCH = "{command: touch canary}"

# what a config asks for; `@` stands for an import path below
SECTIONS = [
    "model: {name: '@', args: ARGS}",
    "data: {name: '@', args: ARGS, batch_size: 8}",
    "loss: '@'",
    "optimizer: {name: '@', lr: 1, args: ARGS}",
    "schedule: {name: '@', args: ARGS}",
    "schedule: {name: lambda, function: '@'}",
    "schedule: {name: combined, parts: [{schedule: {name: '@', args: ARGS}, start: 0, end: 1}]}",
    "schedule: {name: combined, parts: [{schedule: '@', start: 0, end: 1}]}",
    "compare: {variants: {a: {model: {name: '@', args: ARGS}}}}",
    "compare: {variants: {a: {schedule.function: '@', schedule.name: lambda}}}",
    "compare: {grid: {loss: ['@', cross_entropy]}}",
]
RUNS_CODE = [
    ("os:system", TOUCH), ("posix:system", TOUCH), ("subprocess:getoutput", "{cmd: touch canary}"),
    ("mine:os.system", TOUCH), ("mine:system", TOUCH), ("mine:run", TOUCH), ("mine:Net.os.system", TOUCH),
    ("mine:subprocess.getoutput", "{cmd: touch canary}"), ("mine:importlib.import_module", "{name: canary}"),
    ("builtins:exec", "{source: 'open(\"canary\", \"w\")'}"), ("builtins:open", "{file: canary, mode: w}"),
    ("io:open", "{file: canary, mode: w}"), ("pathlib:Path", "{}"), ("os:mkdir", "{path: canary}"),
    ("torch:os.system", TOUCH), ("torch:os", "{}"), ("torch.nn.functional:importlib.import_module", "{name: x}"),
    ("torch.nn:Module.__subclasses__", "{}"), ("mine:Net.__init__.__globals__", "{}"), ("mine:__builtins__", "{}"),
    ("torch.optim.optimizer:os.system", TOUCH), ("torchvision.datasets.mnist:os.mkdir", "{path: canary}"),
    ("torchvision.datasets.mnist:shutil.copy", "{src: mine.py, dst: canary}"),
]  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
def test_no_section_reaches_code_that_is_not_the_users(
    section: str, folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for path, args in RUNS_CODE:
        write(folder, section.replace("@", path).replace("ARGS", args))
        answer = lrexp("compare", "config.yaml")
        assert answer.code == 2, (path, answer.err)
        assert path in answer.err, answer.err
        assert "Traceback" not in answer.err
        assert_harmless(folder)
    assert not (folder / "runs").exists()


# a function of torch or torchvision that loads, fetches or writes | its arguments
LOADERS = [
    ("torch:load", "{f: evil.pt, weights_only: false}"),
    ("torch.serialization:load", "{f: evil.pt, weights_only: false}"),
    ("torch.jit:load", "{f: evil.pt}"), ("torch.package:PackageImporter", "{file_or_buffer: evil.pt}"),
    ("torch.export:load", "{f: evil.pt}"), ("torch.hub:load", "{repo_or_dir: ., model: Net, source: local}"),
    ("torch.hub:download_url_to_file", "{url: 'file:mine.py', dst: canary}"),
    ("torch.utils.model_zoo:load_url", "{url: 'file:evil.pt'}"),
    ("torch.utils.cpp_extension:load", "{name: x, sources: [x.cpp]}"),
    ("torch.utils.cpp_extension:load_inline", "{name: x, cpp_sources: ''}"),
    ("torch.ops:load_library", "{path: evil.so}"), ("torch.classes:load_library", "{path: evil.so}"),
    ("torch.multiprocessing:spawn", "{fn: x}"), ("torch.distributed.run:main", "{args: [mine.py]}"),
    ("torch.utils.collect_env:run", "{command: touch canary}"),
    ("torch.utils.data.datapipes.gen_pyi:gen_from_template",
     "{dir: ., template_name: config.yaml, output_name: canary, replacements: [[x, [y], 0]]}"),
    ("torch.utils.data.datapipes.utils.decoder:basichandlers", "{extension: pickle, data: x}"),
    ("torchvision.io:write_file", "{filename: canary, data: x}"),
    ("torchvision.datasets.utils:download_url", "{url: 'file:mine.py', root: ., filename: canary}"),
    ("torchvision.datasets.utils:extract_archive", "{from_path: evil.zip, to_path: .}"),
    ("torchvision.datasets.mnist:download_and_extract_archive", "{url: 'file:evil.zip', download_root: .}"),
    ("torchvision.datasets:LSUN", "{root: lsun}"), ("torchvision.datasets.lsun:LSUNClass", "{root: lsun}"),
    ("LSUN", "{root: lsun}"), ("LSUNClass", "{root: lsun}"),
]  # fmt: skip


def test_nothing_of_torch_that_loads_fetches_or_writes_is_reached(
    folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    torch.save({"x": Bomb()}, folder / "evil.pt")
    (folder / "lsun").mkdir()
    (folder / "lsun" / "_cache_lsun").write_bytes(pickle.dumps(Bomb()))
    for path, args in LOADERS:
        write(folder, f"data: {{name: '{path}', args: {args}}}")
        answer = lrexp("compare", "config.yaml")
        assert answer.code == 2, (path, answer.err)
        assert path in answer.err
        assert_harmless(folder)


def _fake_idx(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        torch.save((Bomb(), Bomb()), folder / name)


@pytest.mark.parametrize(
    ("name", "where"),
    [("MNIST", "MNIST/processed"), ("FashionMNIST", "FashionMNIST/processed")],
)
def test_pickles_that_torchvision_reads_are_not_run(
    name: str, where: str, folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    _fake_idx(folder / "images" / where)
    write(folder, f"data: {{name: {name}, args: {{root: images}}}}")
    answer = lrexp("compare", "config.yaml")
    assert answer.code in {2, 3}, answer.err
    assert "Traceback" not in answer.err
    assert_harmless(folder)


def test_batches_of_cifar_are_checked_before_they_are_unpickled(
    folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    batches = folder / "images" / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (batches / name).write_bytes(pickle.dumps(Bomb()))
    write(folder, "data: {name: CIFAR10, args: {root: images}}")
    answer = lrexp("compare", "config.yaml")
    assert answer.code == 2, answer.err
    assert_harmless(folder)


UNSAFE_NAMES = [
    "../canary", "../../canary", "/canary", "canary/../../canary", "a/canary", "a\\\\canary",
    "..", ".", "canary.", "canary ", ".canary", "-canary", "~canary", "C:canary", "C:\\\\canary",
    "\\\\\\\\host\\\\canary", "canary\\0", "\\0canary", "con", "CON", "con.txt", "NUL", "aux",
    "com1", "LPT9.canary", "canary:stream", "canary*", "canary?", "canary|x", "<canary>", "$canary",
    "${HOME}canary", "`canary`", "canary\\n", "\\ecanary", "\\e[31mcanary\\e[0m", "\\u202ecanary",
    "\\u200bcanary", "canar\\u0443", "", " ", "canary" * 50,
]  # fmt: skip


def test_no_name_leaves_the_run_directory_or_is_obeyed_by_a_terminal(
    folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for name in UNSAFE_NAMES:
        for line in (f'name: "{name}"', f'compare: {{variants: {{"{name}": {{}}}}}}'):
            write(folder, line)
            answer = lrexp("compare", "config.yaml")
            assert answer.code == 2, (line, answer.err)
            assert "config.yaml:" in answer.err
            shown = (answer.err + answer.out).replace("\n", "")
            assert shown.isprintable(), (line, shown)
            assert_harmless(folder)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    "seed", ["../canary", "'0'", "-1", "1e400", "0x100000000", "1.5", "[0]", "true"]
)
def test_a_seed_is_a_number(
    seed: str, folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write(folder, f"seed: {seed}")
    assert lrexp("compare", "config.yaml").code == 2
    write(folder)
    assert lrexp("compare", "config.yaml", "--set", f"seed={seed}").code == 2
    assert lrexp("compare", "config.yaml", f"--seeds={seed}").code == 2
    assert_harmless(folder)
    assert not (folder / "runs").exists()


def test_values_of_a_grid_become_safe_names(
    folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    values = ["../../x", "/x", "a\\b", "con", "\x1b[31mred", "\u202ex", "..", ""]
    grid = {"compare": {"grid": {"model.args.note": values}}, "model": {"name": "mine:Net"}}
    write(folder, *(f"{key}: {json.dumps(value)}" for key, value in grid.items()))
    answer = lrexp("compare", "config.yaml", "--out", "run")
    assert answer.code == 0, answer.err
    assert "\x1b" not in answer.out + answer.err
    trials = {path.parent.parent for path in folder.parents[1].rglob("seed-0/steps.csv")}
    assert {path.parent for path in trials} == {folder / "run" / "trials"}
    assert len(trials) == len(values)
    assert all(path.name.isprintable() and path.name.lower() != "con" for path in trials)


ESC = "\\e[31;5mX\\e]0;owned\\a\\u202e"  # colour, a window's title, letters from right to left

# what a config holds, in double quotes
ESCAPES = [
    f'"{ESC}": 1', f'model: {{name: "{ESC}"}}', f'model: {{name: mlp, args: {{"{ESC}": 1}}}}',
    f'model: {{name: "mine:{ESC}"}}', f'model: {{name: mlp, args: {{hidden: "{ESC}"}}}}',
    f'data: {{name: csv, args: {{path: "{ESC}", target: y}}}}',
    f'data: {{name: csv, args: {{path: data.csv, target: "{ESC}"}}}}',
    f'data: {{name: csv, args: {{path: data.csv, target: y, features: ["{ESC}"]}}}}',
    f'loss: "{ESC}"', f'optimizer: {{name: SGD, lr: "{ESC}"}}', f'optimizer: {{name: SGD, lr: 1, "{ESC}": 1}}',
    f'optimizer: {{name: SGD, lr: 1, groups: [{{match: "({ESC}", lr_scale: 2}}]}}',
    f'optimizer: {{name: SGD, lr: 1, groups: [{{match: "{ESC}", lr_scale: 2}}]}}',
    f'schedule: {{name: cosine, "{ESC}": 1}}', f'train: {{duration: "{ESC}"}}', f'device: "{ESC}"',
    f'compare: {{variants: {{a: {{"{ESC}": 1}}}}}}', f'compare: {{grid: {{"{ESC}": [1]}}}}',
    f'compare: {{metric: "{ESC}"}}', "data: {name: csv, args: {path: data.csv, target: z}}",
    "data: {name: csv, args: {path: data.csv, target: y}}", 'name: "[red]x[/red]"', f'x: ! "{ESC}"',
    f"# {ESC}\nx: &a [*a]",
]  # fmt: skip


@pytest.mark.parametrize("line", ESCAPES)
def test_messages_hold_nothing_that_a_terminal_obeys(
    line: str, folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "data.csv").write_text("a,\x1b[31my,\x1b[2J,y\n1,2,\x1b[31mred,\x1b]0;owned\x07\n")
    write(folder, line)
    answer = lrexp("compare", "config.yaml")
    assert answer.code == 2, answer.err
    assert (answer.err + answer.out).replace("\n", "").isprintable(), repr(answer.err)


def test_words_of_a_command_line_are_shown_without_controls(
    folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write(folder)
    evil = "\x1b[31mX\x07\u202e"
    for words in (
        ["compare", evil], ["compare", "config.yaml", "--set", f"{evil}=1"], ["plot", evil], ["runs", evil],
        ["compare", "config.yaml", "--set", f"optimizer.lr={evil}"], ["validate", f"{evil}.yaml"],
        ["compare", "config.yaml", "--trust", evil], ["compare", "config.yaml", "--device", evil],
        ["compare", "config.yaml", "--engine", evil],
    ):  # fmt: skip
        answer = lrexp(*words)
        assert answer.code == 2
        assert "\x1b" not in answer.err, words
        assert "\x07" not in answer.err, words


def test_every_kind_of_error_is_shown_without_controls() -> None:
    for kind in (ConfigError, RunError, UserCodeError):
        error = (
            ConfigError.single("k\n\x1b", "w", "v", "r")
            if kind is ConfigError
            else kind("a\x1b[2Jb\nc\td\udc80")
        )
        text = str(error)
        assert "\x1b" not in text
        assert text.encode()  # no half of a surrogate pair either
    assert str(RunError("a\nb é 漢 😀")) == "a\nb é 漢 😀"
    assert str(ConfigError.single("k\nFiles: x", "w", 1, "r")).count("\n") == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
@pytest.mark.parametrize("path", ["/dev/zero", "pipe", "huge.csv"])
@pytest.mark.parametrize("name", ["csv, args: {target: y, path: ", "text, args: {path: "])
def test_a_file_without_an_end_is_not_read(
    path: str, name: str, folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    os.mkfifo(folder / "pipe")
    with (folder / "huge.csv").open("wb") as file:
        file.truncate(2**40)  # takes no room
    write(folder, f"data: {{name: {name}{path}}}}}")
    answer = lrexp("compare", "config.yaml")
    assert answer.code == 2, answer.err
    assert "data.args.path" in answer.err


def test_wide_and_long_csv_files_are_read_in_linear_time(
    folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    width = 50_000
    names = ",".join(f"c{i}" for i in range(width - 1))
    row = ",".join(["1"] * width)
    (folder / "wide.csv").write_text(f"{names},c0\n{row}\n{row}\n")
    write(folder, "data: {name: csv, args: {path: wide.csv, target: c1}}")
    answer = lrexp("validate", "config.yaml")
    assert answer.code == 2, answer.err
    assert "'c0' more than once" in answer.err
    (folder / "cell.csv").write_text("a,y\n" + "9" * 10_000_000 + ",1\n")
    write(folder, "data: {name: csv, args: {path: cell.csv, target: y}}")
    answer = lrexp("validate", "config.yaml")
    assert answer.code == 2
    assert len(answer.err) < 5_000


# a stranger's run directory: what stands in which file
RUN_FILES = [
    ("status.json", b"[" * 100_000), ("status.json", b'{"a":' * 100_000), ("status.json", b"\xff\xfe"),
    ("status.json", b"null"), ("status.json", b'{"variants": 3, "total_steps": [], "started": {}, "pid": "x"}'),
    ("status.json", b'{"status": "running", "pid": -1, "host": 5}'), ("status.json", b'{"pid": 1e300}'),
    ("status.json", b'{"variants": ["../../../../outer/other", "/etc"], "name": "x"}'),
    ("status.json", b'{"status": "\\u001b[31mX", "name": "\\u001b]0;owned\\u0007", "command": "\\u001b[2J"}'),
    ("summary.json", b"[" * 100_000), ("summary.json", b'{"ranking": 5}'), ("summary.json", b'{"ranking": [5]}'),
    ("summary.json", b'{"ranking": [{"variant": "\\u001b[31mX\\u0007"}], "suggested_lr": "\\u001b[31m"}'),
    ("resolved.yaml", b"[" * 5_000), ("resolved.yaml", b"a: !!python/object/apply:os.system ['touch canary']"),
    ("resolved.yaml", b"\xff"), ("resolved.yaml", b"a: &a [*a]"),
    ("trials/a/seed-0/steps.csv", b"step,epoch,lr,loss\n0,0,1,__import__('os')\n"),
    ("trials/a/seed-0/steps.csv", b"\xff\xfe\n1\n"), ("trials/a/seed-0/steps.csv", b"x\n1\n"),
    ("trials/a/seed-0/result.json", b"[" * 100_000), ("trials/a/seed-0/result.json", b'{"outcome": 7}'),
    ("trials/a/seed-99999999999999999999/steps.csv", b"step,epoch,lr,loss\n0,0,1,1\n"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), RUN_FILES)
def test_a_strangers_run_directory_is_shown_or_refused(
    name: str, content: bytes, folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    good, run = folder / "runs" / "good", folder / "runs" / "run"
    for path in (good, run):
        trial = path / "trials/a/seed-0"
        trial.mkdir(parents=True)
        (path / "status.json").write_text(
            json.dumps({"status": "complete", "name": "x", "command": "compare", "variants": ["a"]})
        )
        (trial / "steps.csv").write_text("step,epoch,lr,loss\n0,0,0.1,1.0\n1,0,0.1,0.5\n")
    outside = folder.parent / "other" / "seed-0"  # what `..` would lead to
    outside.mkdir(parents=True)
    (outside / "steps.csv").write_text("step,epoch,lr,loss\n0,0,0.1,1.0\n")
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

    listed = lrexp("runs")
    assert listed.code == 0, listed.err
    assert "good" in listed.out or "x" in listed.out  # the other one is not hidden
    drawn = lrexp("plot", run)
    assert drawn.code in {0, 2, 3}, drawn.err
    for answer in (listed, drawn):
        text = answer.out + answer.err
        assert "Traceback" not in text
        assert "lrexp failed:" not in text, text  # the sentence for what nobody thought of
        assert "\x1b" not in text
        assert "\x07" not in text
    assert not any((folder.parent / "other").rglob("*.png"))
    assert_harmless(folder)


PIPES = ["lock", "status.json", "summary.json", "resolved.yaml", "trials/a/seed-0/steps.csv"]


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", PIPES)
@pytest.mark.parametrize(("make", "message"), [(_pipe, "a pipe"), (_endless, "larger than")])
def test_a_file_of_a_run_that_has_no_end_is_not_read(
    make: Callable[[Path], None], message: str, name: str, folder: Path, lrexp: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    run = a_run(folder / "runs" / "run", "compare")
    status = json.loads((run / "status.json").read_text()) | {"status": "interrupted"}
    (run / "status.json").write_text(json.dumps(status))
    (run / name).unlink(missing_ok=True)
    make(run / name)
    answers = {words[0]: lrexp(*words) for words in (["runs"], ["plot", run], ["resume", run])}
    for command, answer in answers.items():
        assert_shown(answer, command)
    if (run / "status.json").is_fifo():  # then it is none of a run
        assert [answer.code for answer in answers.values()] == [0, 2, 2]
        return
    said = answers["resume"].err
    assert answers["resume"].code in {2, 3}
    message = "is being written by" if (name, message) == ("lock", "larger than") else message
    assert (name in said and message in said) or "it has no order.json" in said
    drawn = answers["plot"]
    assert drawn.code == (0 if name == "lock" else 3), drawn.err
    assert name == "lock" or (name in drawn.err and message in drawn.err)


CONTROLS = "\x1b[31mX\x1b]0;owned\x07\x9b2J\u202ey$\\frac{_^$[/red]"


def a_run(path: Path, command: str) -> Path:
    """Write a complete run with every key that a summary and a status may have."""
    trial = path / "trials/a/seed-0"
    trial.mkdir(parents=True)
    found = {"variant": "a", "rank": 1, "mean": 0.5, "sd": 0.1, "values": [0.5, 0.6]}
    found |= {"outcomes": {"finished": 2}, "difference": {"mean": 0.0, "sd": 0.0, "num_pairs": 2}}
    found |= {"diagnosis": {"word": "unstable", "sentence": "It spiked."}}
    found |= {"settings": {"optimizer.lr": 0.1, "schedule": {"name": "cosine", "note": ["x"]}}}
    compared = {
        "metric": "val_loss",
        "direction": "min",
        "ranking": [found, found | {"variant": "b"}],
    }
    tested = {"suggested_lr": 0.1, "interval": [0.05, 0.2], "base_lr": 0.01, "max_lr": 0.3}
    tested |= {"rules": {"steepest": 0.1}, "reason": "none", "note": "steep"}
    status = {"status": "complete", "name": "n", "command": command, "variants": ["a"]}
    status |= {"seeds": [0, 1], "started": "2026-11-21T21:03:01+00:00", "total_steps": {"a": 2}}
    config = {"model": {"name": "mlp"}, "data": {"name": "digits"}, "schedule": "constant"}
    config |= {"optimizer": {"name": "SGD", "lr": 0.1}, "compare": {"metric": "val_loss"}}
    of_command = compared if command == "compare" else tested
    files = {"status.json": status, "resolved.yaml": config}
    files["summary.json"] = {"command": command, "seeds": [0, 1], **of_command}
    for name, content in files.items():
        (path / name).write_text(json.dumps(content))
    (trial / "steps.csv").write_text("step,epoch,lr,loss\n0,0,0.1,1.0\n1,0,0.2,0.5\n")
    (trial / "evals.csv").write_text("step,epoch,train_loss,val_loss\n0,0,,1.0\n2,1,0.7,0.5\n")
    (trial / "result.json").write_text('{"outcome": "finished"}')
    return path


def places(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Yield the path of every key and value; that of a key ends in None."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key, None)
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))
    if path:
        yield path


def replaced(value: Any, path: tuple[Any, ...], new: object) -> Any:
    """Return the value with one key or value in it replaced."""
    if not path:
        return new
    if path[1:] == (None,):
        return {str(new) if key == path[0] else key: item for key, item in value.items()}
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def assert_shown(answer: Any, where: object) -> None:
    """Check that an answer is for a reader: no controls, and no error that nobody thought of."""
    text = answer.out + answer.err
    assert answer.code in {0, 2, 3, 4}, (where, text)
    assert text.replace("\n", "").isprintable(), (where, text)
    assert "Traceback" not in text, where
    assert "lrexp failed:" not in text, (where, text)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("status.json", "compare"),
        ("summary.json", "find-lr"),
        ("resolved.yaml", "compare"),
        pytest.param("status.json", "find-lr", marks=pytest.mark.long),
        pytest.param("summary.json", "compare", marks=pytest.mark.long),
        pytest.param("resolved.yaml", "find-lr", marks=pytest.mark.long),
    ],
)
def test_every_string_of_a_strangers_run_is_shown_without_controls(
    name: str, command: str, folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    run = a_run(folder / "runs" / "run", command)
    (run / "trials" / "a" / "seed-1").mkdir()
    whole = json.loads((run / name).read_text())
    for path in places(whole):
        (run / name).write_text(json.dumps(replaced(whole, path, CONTROLS)))
        for words in (["runs"], ["resume", run], ["runs", "--json"], ["resume", run, "--json"]):
            assert_shown(lrexp(*words), (path, words))


FREE_TEXTS = {  # keys whose value, or whose own keys, may be any text
    "status.json": ["name", "variants"],
    "summary.json": [
        "metric",
        "variant",
        "word",
        "sentence",
        "settings",
        "rules",
        "reason",
        "note",
    ],
    "resolved.yaml": ["model", "data", "optimizer", "schedule"],
}


def with_controls(value: Any, free: Collection[str], inside: bool = False) -> Any:
    """Return the value with every free text in it replaced."""
    if isinstance(value, dict):
        return {
            f"{key}{CONTROLS}" if inside and key not in {"name", "lr"} else key: with_controls(
                item, free, inside or key in free
            )
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [with_controls(item, free, inside) for item in value]
    return CONTROLS if inside and isinstance(value, str) else value


@pytest.mark.parametrize("command", ["compare", "find-lr"])
def test_no_text_of_a_run_is_drawn_as_a_formula(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lrexp.report.plots import draw_overlay, draw_run
    from lrexp.runs.reader import load_run

    seen: list[str] = []
    draw = Figure.draw

    def looked_at(figure: Figure, renderer: RendererBase) -> None:
        draw(figure, renderer)  # warns of glyphs that no font has, and fails at bad formulas
        texts = figure.findobj(lambda artist: isinstance(artist, Text) and "$" in artist.get_text())
        assert not [text for text in texts if text.get_parse_math()]
        seen.extend(text.get_text() for text in texts)

    monkeypatch.setattr(Figure, "draw", looked_at)
    run = a_run(folder / CONTROLS.replace("/", "|"), command)
    for name, free in FREE_TEXTS.items():
        whole = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(with_controls(whole, free)))
    for summary in (True, False):
        if not summary:
            (run / "summary.json").unlink()
        loaded = load_run(run)
        draw_run(loaded)
        draw_overlay([loaded, loaded], folder)
    assert len(seen) > 10


@pytest.mark.long
@pytest.mark.parametrize("command", ["compare", "find-lr"])
@pytest.mark.parametrize("name", ["status.json", "summary.json", "resolved.yaml"])
@pytest.mark.parametrize("new", ["x", [], {"a": {}}, None, -1, "1e400"], ids=repr)
def test_a_strangers_run_is_drawn_or_refused(
    new: object, name: str, command: str, folder: Path
) -> None:
    from lrexp.report.plots import draw_run
    from lrexp.runs.reader import load_run

    run = a_run(folder / "run", command)
    whole = json.loads((run / name).read_text())
    drawn = 0
    for path in places(whole):
        (run / name).write_text(json.dumps(replaced(whole, path, new)))
        with suppress(RunError):
            drawn += bool(draw_run(load_run(run)))
    assert drawn > 0  # most values do not matter to a picture


# a key whose value is of another kind than a run writes | the value
MISFITS = [
    ("summary.json", ("ranking", 0, "outcomes"), [1]), ("summary.json", ("ranking", 0, "mean"), "x"),
    ("summary.json", ("ranking", 0, "diagnosis"), None), ("summary.json", ("ranking", 0, "variant"), None),
    ("summary.json", ("ranking", 0, "settings"), [1]), ("summary.json", ("ranking", 0, "values"), 5),
    ("summary.json", ("seeds",), 5), ("summary.json", ("ranking", 0, "rank", None), "x"),
    ("summary.json", ("suggested_lr",), "x"), ("summary.json", ("interval",), [1]),
    ("summary.json", ("suggested_lr",), -1.0),
    ("summary.json", ("rules",), [1]), ("summary.json", ("rules", "steepest"), "x"),
    ("resolved.yaml", ("compare",), "x"), ("resolved.yaml", ("optimizer",), {"name": "x", "args": [1]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "place", "new"), MISFITS)
def test_a_value_of_another_kind_is_shown_or_refused(
    name: str, place: tuple[Any, ...], new: object, folder: Path, lrexp: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    command = "find-lr" if place[0] in {"suggested_lr", "interval", "rules"} else "compare"
    run = a_run(folder / "runs" / "run", command)
    whole = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps(replaced(whole, place, new)))
    for words in (["runs"], ["resume", run], ["plot", run]):
        assert_shown(lrexp(*words), words)


@pytest.mark.parametrize("command", ["compare", "find-lr"])
def test_the_name_of_a_folder_is_shown_without_controls(
    command: str, folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    runs = folder / CONTROLS.replace("/", "|")
    run = a_run(runs / CONTROLS.replace("/", "|"), command)
    for words in (["runs", runs], ["resume", run], ["plot", run], ["runs", run]):
        assert_shown(lrexp(*words), words)
    for words in (["runs", runs, "--json"], ["resume", run, "--json"]):
        assert_shown(lrexp(*words), words)
    assert len(list((run / "plots").iterdir())) in {2, 3}


def test_a_resolved_config_is_shown_without_controls(
    folder: Path, lrexp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write(folder, f'model: {{name: "mine:Net", args: {{note: "{ESC} \\x9b2J"}}}}')
    for words in (["validate", "config.yaml"], ["validate", "config.yaml", "--json"]):
        answer = lrexp(*words)
        assert answer.code == 0, answer.err
        assert_shown(answer, words)


def test_a_run_does_not_read_trials_outside_of_it(folder: Path) -> None:
    from lrexp.runs.reader import load_run

    run, outside = folder / "run", folder / "other" / "seed-0"
    (run / "trials").mkdir(parents=True)
    outside.mkdir(parents=True)
    (outside / "steps.csv").write_text("step,epoch,lr,loss\n0,0,0.1,1.0\n")
    names = ["../../other", str(folder / "other"), "../.."]
    (run / "status.json").write_text(json.dumps({"status": "complete", "variants": names}))
    assert load_run(run).trials == ()


def test_plots_are_not_drawn_through_a_link(lrexp: Callable, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "name: x\nmodel: linear\ndata: {name: linear, batch_size: 8, args: {samples: 40}}\nloss: mse_loss\n"
        "optimizer: {name: SGD, lr: 0.1}\ntrain: {duration: 3}\n"
    )
    assert lrexp("compare", "c.yaml", "--out", "run").code == 0
    (tmp_path / "outside").mkdir()
    (tmp_path / "run/plots").symlink_to(tmp_path / "outside")
    answer = lrexp("plot", "run")
    assert answer.code == 3
    assert "plots: is a link" in answer.err
    assert list((tmp_path / "outside").iterdir()) == []
