"""What names stand for, and which import paths a config may reach.

A refused path must not even import its module: modules here leave a file behind when they run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision

from lrexp.config import Config, Names, load_config, resolve
from lrexp.config.lookup import LOSSES, torchvision_names
from lrexp.data import DATASETS
from lrexp.errors import ConfigError, UserCodeError
from lrexp.models import MODELS
from lrexp.schedules import SCHEDULES

from .conftest import GOOD

MINE = """\
import functools
import math
import os
from os import system
from subprocess import run
from pathlib import Path
from collections import OrderedDict
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.hub import load
from torchvision.models import resnet18
import numpy

Path("imported").touch()
NUMBER = 5
partial_of_system = functools.partial(os.system)

def make(width=3):
    return nn.Linear(width, width)

narrow = functools.partial(make, width=1)

@functools.lru_cache
def cached():
    return make()

class Net(nn.Module):
    @classmethod
    def small(cls):
        return cls()
    os = os

class Loss:
    def __call__(self, output, target):
        return ((output - target) ** 2).mean()

instance = Loss()
"""


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        *(("model", name, made) for name, made in MODELS.items()),
        *(("data", name, made) for name, made in DATASETS.items()),
        *(("schedule", name, made) for name, made in SCHEDULES.items()),
        *(("loss", name, getattr(torch.nn.functional, name)) for name in LOSSES),
        ("optimizer", "SGD", torch.optim.SGD),
        ("optimizer", "AdamW", torch.optim.AdamW),
        ("schedule", "StepLR", torch.optim.lr_scheduler.StepLR),
        ("schedule", "OneCycleLR", torch.optim.lr_scheduler.OneCycleLR),
        ("optimizer", "torch.optim:Adam", torch.optim.Adam),
        ("loss", "torch.nn.functional:mse_loss", torch.nn.functional.mse_loss),
        ("loss", "torch.nn.functional:cosine_similarity", torch.nn.functional.cosine_similarity),
        ("model", "torch.nn:Linear", torch.nn.Linear),
        ("model", "torch.nn.modules.linear:Linear", torch.nn.Linear),
        ("model", "torchvision.models:resnet18", torchvision.models.resnet18),
        ("data", "torchvision.datasets:FakeData", torchvision.datasets.FakeData),
        ("data", "torch.utils.data:TensorDataset", torch.utils.data.TensorDataset),
    ],
)  # fmt: skip
def test_names_that_need_no_trust(kind: str, name: str, expected: object) -> None:
    assert resolve(kind, name, directories=[]) is expected  # type: ignore[arg-type]


def test_names_of_torchvision() -> None:
    resnet, mnist = (
        resolve("model", "resnet18", directories=[]),
        resolve("data", "MNIST", directories=[]),
    )
    assert resnet(num_classes=3).fc.out_features == 3
    assert mnist.name == "MNIST"  # type: ignore[attr-defined]
    assert "resnet18" in torchvision_names("models")
    assert "CIFAR10" in torchvision_names("datasets")


def test_a_class_as_loss_is_made_without_arguments(write: Callable[..., Path]) -> None:
    write(MINE, "mine.py")
    found = resolve("loss", "torch.nn:MSELoss", directories=[])
    assert isinstance(found, torch.nn.MSELoss)
    found = resolve("loss", "mine:Loss", directories=[Path.cwd()])
    assert found(torch.ones(2), torch.zeros(2)) == 1
    with pytest.raises(UserCodeError, match="making the loss torch.nn:Linear"):
        resolve("loss", "torch.nn:Linear", directories=[])
    with pytest.raises(ConfigError, match="instances cannot be called"):
        resolve("loss", "torch.utils.data:Sampler", directories=[])


# path | allowed without --trust
OWN = [
    ("mine:make", True), ("mine:Net", True), ("mine:Net.small", True), ("mine:instance", True),
    ("mine:narrow", True), ("mine:cached", True), ("mine:mse_loss", True), ("mine:resnet18", True),
    ("package.inner:make", True), ("package:make", True), ("package.deep.er:make", True),
    ("mine:system", False), ("mine:run", False), ("mine:load", False), ("mine:OrderedDict", False),
    ("mine:Path", False), ("mine:partial_of_system", False), ("mine:os.system", False),
    ("mine:Net.os.system", False), ("mine:numpy.save", False), ("mine:NUMBER", False),
    ("mine:math", False), ("mine:absent", False), ("mine:make.width", False),
    ("mine:__builtins__", False), ("mine:__loader__.load_module", False),
    ("mine:Net.__init__", False), ("mine:Net.__subclasses__", False),
]  # fmt: skip


@pytest.mark.parametrize(("path", "allowed"), OWN)
def test_what_ones_own_module_gives(path: str, allowed: bool, write: Callable[..., Path]) -> None:
    write(MINE, "mine.py")
    write("def make(): ...\n", "package/__init__.py")
    write("from . import make\nfrom .deep import er\n", "package/inner.py")
    write("", "package/deep/__init__.py")
    write("def make(): ...\n", "package/deep/er.py")
    if allowed:
        assert callable(resolve("model", path, directories=[Path.cwd()]))
    else:
        with pytest.raises(ConfigError) as caught:
            resolve("model", path, directories=[Path.cwd()])
        assert caught.value.problems[0].given == path
        assert caught.value.problems[0].remedy


CANARY = "import pathlib\npathlib.Path('canary').touch()\ndef make(): ...\n"

REFUSED = [
    ("os:system", "--trust os "), ("posix:system", "--trust posix "), ("subprocess:run", "--trust"),
    ("builtins:eval", "--trust builtins"), ("importlib:import_module", "--trust"),
    ("pathlib:Path.touch", "--trust pathlib"), ("random:random", "random.py"),
    ("torch:load", "--trust torch"), ("torch:save", "--trust torch"), ("torch.hub:load", "--trust torch.hub"),
    ("torch.utils.cpp_extension:load_inline", "--trust"), ("torch.jit:load", "--trust"),
    ("torch.utils.collect_env:run", "--trust"), ("torch.distributed.run:main", "--trust"),
    ("torchvision.io:write_file", "--trust"), ("torchvision.datasets.utils:download_url", "--trust"),
    ("torch.nn:importlib", "does not exist"), ("torch.nn.functional:warnings", "cannot be called"), ("torch.nn.functional:Tensor", "--trust torch"),
    ("torchvision.datasets.mnist:download_and_extract_archive", "--trust"),
    ("torch.nn.modules.module:namedtuple", "--trust"), ("torch:os.system", "--trust"),
    ("torch.nn:functional.mse_loss", "no class"),
    ("yaml:load", "--trust yaml"), ("numpy:save", "--trust numpy"), ("pydantic.main:BaseModel", "--trust pydantic"),
    ("lrexp.store:write_whole", "--trust lrexp"), ("elsewhere:make", "--trust elsewhere"),
    ("site_package:make", "--trust site_package"), ("folder.file:make", "folder/__init__.py"),
    ("package.absent:make", "package/absent.py"), ("_private:make", "private"), ("mine._x:make", "private"),
    ("mine:_make", "private"), ("mine", "package.module:attribute"), ("mine:", "package.module:attribute"),
    (":make", "package.module:attribute"), ("mine:make()", "package.module:attribute"),
    ("../mine:make", "package.module:attribute"), ("mine.py:make", "mine/py.py"),
    ("a b:c", "package.module:attribute"), ("mine:make:x", "package.module:attribute"),
    ("mine:make\n", "package.module:attribute"), ("mïne:make", "package.module:attribute"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "remedy"), REFUSED)
def test_a_refused_path_runs_nothing(
    path: str, remedy: str, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("random.py", "folder/file.py", "folder2/elsewhere.py", "_private.py"):
        write(CANARY, name)
    write("", "package/__init__.py")
    write("", "mine/__init__.py") if path == "mine.py:make" else write(
        CANARY, "site/site_package.py"
    )
    monkeypatch.syspath_prepend("site")  # installed, that is: not beside the config
    with pytest.raises(ConfigError) as caught:
        resolve("function", path, directories=[Path.cwd()])
    assert remedy in str(caught.value)
    assert not Path("canary").exists()


def test_trust_opens_a_package_and_what_is_in_it(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("import os\ndef make(): ...\n", "site/trusted_package/__init__.py")
    write("from os import system\nraise_ = 1\n", "site/trusted_package/inner.py")
    write(CANARY, "site/trusted_packages.py")
    monkeypatch.syspath_prepend(str(Path("site").absolute()))
    names = Names((Path.cwd(),), ("trusted_package", "os", "torch.hub"))
    assert names.resolve("model", "trusted_package:make").__name__ == "make"
    assert callable(names.resolve("model", "trusted_package.inner:system"))
    assert callable(names.resolve("model", "os:system"))
    assert callable(names.resolve("model", "torch.hub:load"))
    for path in ("trusted_packages:make", "torch:load", "subprocess:run"):
        with pytest.raises(ConfigError, match="--trust"):
            names.resolve("model", path)
    assert not Path("canary").exists()
    with pytest.raises(ConfigError, match="does not exist: trusted_package.absent"):
        names.resolve("model", "trusted_package.absent:make")


@pytest.mark.parametrize("trust", ["", "a b", "os;system", "../x", "os."])
def test_a_trust_that_is_no_package(trust: str, load: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match="--trust: takes the name of a package"):
        load(GOOD, trust=[trust])


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


def test_a_loss_takes_output_and_target(write: Callable[..., Path]) -> None:
    write("def one(output): ...\ndef two(a, b, c=1): ...\ndef three(a, b, c): ...\n", "mine.py")
    load_config(write(GOOD.replace("cross_entropy", "mine:two")))
    for name in ("one", "three"):
        with pytest.raises(ConfigError, match=r"loss: must take two arguments, \(output, target\)"):
            load_config(write(GOOD.replace("cross_entropy", f"mine:{name}")))


def test_schedules_of_ones_own(write: Callable[..., Path]) -> None:
    write("def decay(power=1): ...\ndef factor(step): return 1.0\n", "mine.py")
    config = load_config(
        write(
            GOOD
            + """\
schedule:
  name: combined
  parts:
  - {start: 0, end: 50%, schedule: {name: lambda, function: 'mine:factor'}}
  - {start: 50%, end: 100%, schedule: 'mine:decay'}
"""
        )
    )
    first, second = config.names.schedule_params(config.experiment)["parts"]
    assert first["schedule"]["function"].__name__ == "factor"
    assert second["schedule"]["name"].__name__ == "decay"
    assert config.names.schedule(config.experiment) == "combined"
    text = GOOD + "schedule: {name: 'mine:decay', args: {pover: 2}}\n"
    with pytest.raises(ConfigError, match=r"exp.yaml:5: schedule.args.pover: .*'power'"):
        load_config(write(text))
    config = load_config(write(text.replace("pover", "power")))
    assert config.names.schedule(config.experiment).__name__ == "decay"  # type: ignore[union-attr]


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
        return config.names.model(config.experiment)

    a, b = make("a"), make("b")
    assert (a(), b()) == (("a", "a"), ("b", "b"))
    assert make("a") is a
    assert make("b") is b
    assert resolve("model", "model:late", directories=[Path("a").absolute()])() == "a"


def test_a_module_that_changed_is_imported_anew(write: Callable[..., Path]) -> None:
    write("def make(): return 1\n", "mine.py")
    first = resolve("model", "mine:make", directories=[Path.cwd()])
    write("def make(): return 22\n", "mine.py")
    second = resolve("model", "mine:make", directories=[Path.cwd()])
    assert (first(), second()) == (1, 22)


def test_a_library_of_the_same_name_stays_what_it_is(write: Callable[..., Path]) -> None:
    import yaml

    write("import torch\ndef make(): return 'own'\n", "yaml.py")
    assert resolve("model", "yaml:make", directories=[Path.cwd()])() == "own"
    assert sys.modules["yaml"] is yaml
    assert sys.modules["torch"] is torch


def test_beside_the_config_comes_before_the_working_directory(write: Callable[..., Path]) -> None:
    write("def make(): return 'cwd'\n", "mine.py")
    write("def only(): return 'cwd'\n", "other.py")
    write("def make(): return 'beside'\n", "configs/mine.py")
    config = load_config(write(GOOD.replace("model: mlp", "model: mine:make"), "configs/e.yaml"))
    assert config.names.model(config.experiment)() == "beside"
    assert config.names.resolve("model", "other:only")() == "cwd"


def test_a_section_that_was_a_python_object() -> None:
    config = load_config(
        {"optimizer": {"name": "SGD", "lr": 1}, "data": {"batch_size": 8}, "model": {"name": "x"}},
        given={"model", "data", "loss"},
    )
    assert config.experiment.model.name == "(Python object)"
    assert config.experiment.data.batch_size == 8
    with pytest.raises(ConfigError, match=r"loss: was given as a Python object"):
        load_config(
            {**config.experiment.model_dump(), "compare": None, "model": "mlp", "data": "digits"}
        )
