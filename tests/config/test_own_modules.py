"""The user's own modules: what they raise, their siblings, two of the same name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from lrexp.config.document import document_from_dict
from lrexp.config.load import data_paths, load_config
from lrexp.config.names import Names
from lrexp.config.trust import own_files
from lrexp.errors import ConfigError, UserCodeError

from .good_config import GOOD

# the module's text | where it raises | what it raises
RAISING = [
    ("x = 1\nraise ValueError('no data')\n", "mine.py:2", "ValueError: no data"),
    ("def f(:\n  pass\n", "mine.py:1", "SyntaxError"),
    ("import absent_package\n", "mine.py:1", "No module named 'absent_package'"),
    ("import helper\n", "helper.py:2", "KeyError: 'x'"),
    ("import sys\nsys.exit(3)\n", "mine.py:2", "SystemExit: 3"),
    ("from torch import absent_name\n", "mine.py:1", "cannot import name 'absent_name'"),
]


@pytest.mark.parametrize(("text", "place", "said"), RAISING)
def test_a_module_that_raises(text: str, place: str, said: str, write: Callable[..., Path]) -> None:
    write(text, "mine.py")
    write("\n{}['x']\n", "helper.py")
    config = write(GOOD.replace("model: mlp", "model: mine:make"))
    with pytest.raises(UserCodeError) as caught:
        load_config(config)
    assert caught.value.exit_code == 3
    assert place in str(caught.value)
    assert said in str(caught.value)
    assert "mine:make" in str(caught.value)


def test_problems_of_the_config_come_before_a_module_that_raises(
    write: Callable[..., Path],
) -> None:
    write("raise ValueError\n", "mine.py")
    config = write(GOOD.replace("model: mlp", "model: mine:make").replace("0.01", "-1"))
    with pytest.raises(ConfigError, match=r"optimizer.lr"):
        load_config(config)


def test_nothing_is_imported_twice_or_printed_to_stdout(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write("print('importing')\ndef make(): ...\n", "mine.py")
    config = write(GOOD.replace("model: mlp", "model: mine:make").replace("digits", "mine:make"))
    load_config(config)
    load_config(config)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("importing") == 1


def test_two_folders_with_modules_of_the_same_names(write: Callable[..., Path]) -> None:
    for folder in ("a", "b"):
        write(f"WHO = '{folder}'\n", f"{folder}/helper.py")
        write(
            "import helper\nfrom part.inner import inner\n"
            "def make():\n    return helper.WHO, inner()\n"
            "def late():\n    import lazy\n    return lazy.WHO\n",
            f"{folder}/model.py",
        )
        write("", f"{folder}/part/__init__.py")
        write(f"def inner():\n    return '{folder}'\n", f"{folder}/part/inner.py")
        write(GOOD.replace("model: mlp", "model: model:make"), f"{folder}/exp.yaml")
    write("WHO = 'a'\n", "a/lazy.py")

    def make(folder: str) -> Callable[..., object]:
        config = load_config(f"{folder}/exp.yaml")
        return config.names.of("model", config.experiment)

    a, b = make("a"), make("b")
    assert (a(), b()) == (("a", "a"), ("b", "b"))
    assert make("a") is a
    assert make("b") is b
    assert Names([Path("a").absolute()]).resolve("model", "model:late")() == "a"


def test_a_module_that_changed_is_imported_anew(write: Callable[..., Path]) -> None:
    write("def make(): return 1\n", "mine.py")
    first = Names([Path.cwd()]).resolve("model", "mine:make")
    write("def make(): return 22\n", "mine.py")
    second = Names([Path.cwd()]).resolve("model", "mine:make")
    assert (first(), second()) == (1, 22)


def test_a_library_of_the_same_name_stays_what_it_is(write: Callable[..., Path]) -> None:
    write("import torch\ndef make(): return 'own'\n", "yaml.py")
    assert Names([Path.cwd()]).resolve("model", "yaml:make")() == "own"
    assert sys.modules["yaml"] is yaml
    assert sys.modules["torch"] is torch


def test_beside_the_config_comes_before_the_working_directory(write: Callable[..., Path]) -> None:
    write("def make(): return 'cwd'\n", "mine.py")
    write("def only(): return 'cwd'\n", "other.py")
    write("def make(): return 'beside'\n", "configs/mine.py")
    config = load_config(write(GOOD.replace("model: mlp", "model: mine:make"), "configs/e.yaml"))
    assert config.names.of("model", config.experiment)() == "beside"
    assert config.names.resolve("model", "other:only")() == "cwd"


def test_modules_that_the_caller_imported_itself_stay(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook, which imports a module beside it before it calls lrexp."""
    write("class Net: ...\n", "nets.py")
    write("import nets\ndef make(): return nets.Net()\n", "mine.py")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    nets = importlib.import_module("nets")
    made = Names([Path.cwd()]).resolve("model", "mine:make")()
    assert type(made) is nets.Net
    write("class Net: ...\n\n", "nets.py")  # edited; the notebook has not imported it again
    Names([Path.cwd()]).resolve("model", "mine:make")
    assert sys.modules["nets"] is nets
    del sys.modules["nets"]


def test_lrexp_itself_is_never_taken_from_a_folder(write: Callable[..., Path]) -> None:
    write("", "lrexp/__init__.py")
    write("def make(): return 1\n", "mine.py")
    before = {name: module for name, module in sys.modules.items() if name.startswith("lrexp")}
    Names([Path.cwd()]).resolve("model", "mine:make")
    assert {n: sys.modules[n] for n in before} == before
    with pytest.raises(ConfigError, match="--trust lrexp"):
        Names([Path.cwd()]).resolve("model", "lrexp:make")


def put_module(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    module = ModuleType(name)
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, name, module)


def test_all_that_was_imported_from_the_users_folders_is_the_users(
    tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("import part.inner\ndef make():\n    import lazy_one\n", "configs/mine.py")
    write("", "configs/lazy_one.py")
    write("", "configs/part/__init__.py")
    write("", "configs/part/inner.py")
    config = load_config(write(GOOD.replace("model: mlp", "model: mine:make"), "configs/e.yaml"))
    imported = {"mine.py", "part/__init__.py", "part/inner.py"}
    assert set(config.own_files()) == imported
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "configs")])
    config.names.of("model", config.experiment)()
    put_module("beside", tmp_path / "beside.py", monkeypatch)
    put_module("deep.inside", tmp_path / "src/deep/inside.py", monkeypatch)
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/pyvenv.cfg").touch()
    for name, file in {
        "lib": "venv/src/lib.py",
        "pack": "x/site-packages/pack.py",
        "__main__": "train.py",
        "torch.extra": "torch/extra.py",
        "built": "built.so",
        "elsewhere": "../elsewhere.py",
    }.items():
        put_module(name, tmp_path / file, monkeypatch)
    put_module("gone", tmp_path / "gone.py", monkeypatch)
    (tmp_path / "gone.py").unlink()
    others = {"lazy_one.py", "beside.py", "src/deep/inside.py"}
    assert set(config.own_files()) == imported | others


def test_the_users_modules_are_bounded(
    tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("def make(): ...\n", "mine.py")
    config = load_config(write(GOOD.replace("model: mlp", "model: mine:make")))
    assert list(config.own_files()) == ["mine.py"]
    for number in range(9):
        put_module(f"more_{number}", tmp_path / f"more_{number}.py", monkeypatch)
        (tmp_path / f"more_{number}.py").write_text("#" * 1000)
    every = ["mine.py", *(f"more_{number}.py" for number in range(9))]
    assert list(own_files([tmp_path])) == list(config.own_files()) == every
    assert list(own_files([tmp_path], max_files=4)) == every[:4]
    assert list(own_files([tmp_path], max_files=4, max_bytes=2500)) == every[:3]


DATA = {"data": {"name": "csv", "args": {"path": "d/a.csv", "target": "y"}}}


@pytest.mark.parametrize(
    ("source", "changes", "expected"),
    [
        (DATA, [], [("path", "d/a.csv")]),
        (DATA, [("data.args.path", "b.csv")], [("path", "b.csv")]),
        (DATA, [("data.args.path", "/b.csv")], []),
        (DATA, [("data.args.path", "~/b.csv")], []),
        (DATA, [("data.args.path", "~nobody-of-this-name/b.csv")], [("path", "~nobody-of-this-name/b.csv")]),
        (DATA, [("data.name", "mine:load")], []),  # the user's own code opens its files itself
        (DATA, [("data.args", None)], []),
        (DATA, [("nothing.at.all[3]", 1)], [("path", "d/a.csv")]),
        ({"data": "digits"}, [], []),
        ({"data": {"name": "FashionMNIST", "args": {"root": "d"}}}, [], [("root", "d")]),
        (
            {**DATA, "compare": {"variants": {"a": {}, "b": {"data.args.path": "../b.csv"}}}},
            [],
            [("path", "d/a.csv"), ("path", "../b.csv")],
        ),
        (
            {**DATA, "compare": {"grid": {"data.args.path": ["1.csv", "2.csv"]}}},
            [],
            [("path", "d/a.csv"), ("path", "1.csv"), ("path", "2.csv")],
        ),
    ],
)  # fmt: skip
def test_relative_data_is_known_before_anything_is_imported(
    source: dict[str, object], changes: list[tuple[str, object]], expected: list[tuple[str, str]]
) -> None:
    assert data_paths(document_from_dict(source), changes) == expected
