"""Which import paths a config may reach.

A refused path must not even import its module: modules here leave a file behind when they run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lrexp.config.config import Config
from lrexp.config.names import Names
from lrexp.errors import ConfigError

from .good_config import GOOD

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
        assert callable(Names([Path.cwd()]).resolve("model", path))
    else:
        with pytest.raises(ConfigError) as caught:
            Names([Path.cwd()]).resolve("model", path)
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
    ("lrexp.runs.files:write_whole", "--trust lrexp"), ("elsewhere:make", "--trust elsewhere"),
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
        Names([Path.cwd()]).resolve("function", path)
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
    with pytest.raises(ConfigError, match=r"does not exist: trusted_package\.absent"):
        names.resolve("model", "trusted_package.absent:make")


@pytest.mark.parametrize("trust", ["", "a b", "os;system", "../x", "os."])
def test_a_trust_that_is_no_package(trust: str, load: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match="--trust: takes the name of a package"):
        load(GOOD, trust=[trust])
