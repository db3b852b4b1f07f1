"""A torchvision that does not fit torch: explained where it is named, harmless elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from starting import Starter

from .good_config import GOOD

ROOT = Path(__file__).parents[2]
LOAD = """\
import sys
from lrexp.config.load import load_config
from lrexp.errors import ConfigError
for path in sys.argv[1:]:
    try:
        load_config(path)
        print("loaded")
    except ConfigError as error:
        print(error)
print("torchvision" in sys.modules)
"""


@pytest.fixture
def run(starter: Starter) -> Callable[..., list[str]]:
    """Load configs in a process with a folder of modules before all others; return what it says."""

    def loaded(folder: Path, *configs: str) -> list[str]:
        process = starter.start(
            ["-c", LOAD, *configs],
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=subprocess.PIPE,
            text=True,
        )
        out, _ = process.communicate(timeout=100)
        assert process.returncode == 0
        return out.splitlines()

    return loaded


MISMATCH = 'raise RuntimeError("operator torchvision::nms does not exist")'


def test_a_torchvision_that_does_not_fit(
    write: Callable[..., Path], run: Callable[..., list[str]]
) -> None:
    write(MISMATCH, "broken/torchvision/__init__.py")
    write(GOOD.replace("mlp", "resnet18"), "model.yaml")
    write(GOOD.replace("digits", "{name: MNIST, args: {root: x}}"), "data.yaml")
    write(GOOD.replace("mlp", "torchvision.models:resnet18"), "path.yaml")
    write(GOOD.replace("mlp", "mpl"), "typo.yaml")
    write(GOOD, "good.yaml")
    model, data, path, typo, good, _ = run(
        Path("broken"), "model.yaml", "data.yaml", "path.yaml", "typo.yaml", "good.yaml"
    )
    for line, place in ((model, "model.yaml:1: model.name: "), (data, "data.yaml:2: data.name: ")):
        assert line.startswith(place)
        assert "torchvision" in line
        assert "torch" in line.replace("torchvision", "")
        assert "pip install" in line
    assert path.startswith("path.yaml:1: model.name: ")
    assert "pip install" in path
    assert "mlp" in typo  # the built-in names are shown as well
    assert good == "loaded"


def test_nothing_else_imports_torchvision(
    write: Callable[..., Path], run: Callable[..., list[str]]
) -> None:
    write("import nothing_of_that_name\n", "broken/torchvision/__init__.py")
    write(GOOD + "schedule: {name: StepLR, args: {step_size: 3}}\n")
    assert run(Path("broken"), "exp.yaml") == ["loaded", "False"]


def test_reading_and_checking_keys_needs_no_torch() -> None:
    code = (
        "import sys; from lrexp.config import reader, schema; "
        "schema.json_schema(); reader.parse_value('1');"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
