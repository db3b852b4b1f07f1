"""The README and the help name everything there is, and what they show runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import lrexp as lrexp_library
from lrexp.cli import app
from lrexp.config.load import load_config
from lrexp.config.schema import ExperimentConfig
from lrexp.schedules.build import SCHEDULES
from lrexp.workloads.builtin_data import DATASETS
from lrexp.workloads.models import MODELS

ROOT = Path(__file__).parents[1]

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme_and_shows_an_example(name: str, lrexp: Callable) -> None:
    assert f"lrexp {name}" in README
    answer = lrexp(name, "--help")
    assert answer.code == 0
    assert f"Example: lrexp {name}" in " ".join(answer.out.split())


@pytest.mark.parametrize("name", [*SCHEDULES, *DATASETS, *MODELS])
def test_every_built_in_name_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("key", ExperimentConfig.model_fields)
def test_every_section_of_a_config_is_in_the_readme(key: str) -> None:
    assert re.search(rf"^{key}:|`{key}", README, re.MULTILINE)


def test_every_commands_options_in_the_readme_exist(lrexp: Callable) -> None:
    for line in re.findall(r"^\s*(?:\.venv/bin/)?lrexp (.*)$", README, re.MULTILINE):
        words = shlex.split(line.partition("#")[0])
        command, options = words[0], [w for w in words if w.startswith("--")]
        if command.startswith("-"):
            continue
        assert command in COMMANDS, line
        shown = lrexp(command, "--help").out
        assert [o for o in options if o.split("=")[0] not in shown] == [], line


def test_the_config_of_the_readme_is_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (whole,) = [block for block in blocks if "compare:" in block]
    (tmp_path / "readme.yaml").write_text(whole)
    config = load_config(tmp_path / "readme.yaml")
    assert list(config.variants) == ["standard", "high", "adam"]
    (own,) = [block for block in blocks if "my_experiment" in block]
    given = yaml.safe_load((ROOT / "configs/own/experiment.yaml").read_text())
    for section in ("model", "data", "loss"):
        shown, real = yaml.safe_load(own)[section], given[section]
        assert (shown if isinstance(shown, str) else shown["name"]) == (
            real if isinstance(real, str) else real["name"]
        )


def test_the_python_of_the_readme_names_what_there_is() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    compile(block, "README.md", "exec")
    used = set(re.findall(r"lrexp\.(\w+)", block))
    assert used <= set(lrexp_library.__all__)
    assert len(used) >= 7


def test_files_named_in_the_readme_exist() -> None:
    for path in set(re.findall(r"(?:configs|lrexp|tests)/[\w./-]+\.(?:yaml|py|md|png)", README)):
        assert (ROOT / path).exists(), path
