"""Configs, data and run directories from a stranger: refused or harmless, and nothing is run.

Whatever these inputs try to run or write would leave a file named `canary`, which must not appear.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

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


def test_a_run_does_not_read_trials_outside_of_it(folder: Path) -> None:
    from lrexp import load_run

    run, outside = folder / "run", folder / "other" / "seed-0"
    (run / "trials").mkdir(parents=True)
    outside.mkdir(parents=True)
    (outside / "steps.csv").write_text("step,epoch,lr,loss\n0,0,0.1,1.0\n")
    names = ["../../other", str(folder / "other"), "../.."]
    (run / "status.json").write_text(json.dumps({"status": "complete", "variants": names}))
    assert load_run(run).trials == ()
