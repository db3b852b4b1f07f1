"""The README and the help name everything there is, and what they show runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

import lrexp as lrexp_library
from lrexp.cli import app
from lrexp.config.load import load_config
from lrexp.config.schema import ExperimentConfig
from lrexp.report.commands import commands
from lrexp.schedules.build import SCHEDULES
from lrexp.workloads.builtin_data import DATASETS
from lrexp.workloads.models import MODELS

ROOT = Path(__file__).parents[1]

README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "configs/README.md").read_text(encoding="utf-8")
REGISTERED = [*app.registered_commands, *commands.registered_commands]
COMMANDS = [c.name or c.callback.__name__.replace("_", "-") for c in REGISTERED]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_docs_and_shows_an_example(name: str, lrexp: Callable) -> None:
    assert f"lrexp {name}" in README + REFERENCE
    answer = lrexp(name, "--help")
    assert answer.code == 0
    assert f"Example: lrexp {name}" in " ".join(answer.out.split())


@pytest.mark.parametrize("name", [*SCHEDULES, *DATASETS, *MODELS])
def test_every_built_in_name_is_in_the_reference(name: str) -> None:
    assert f"`{name}`" in REFERENCE


@pytest.mark.parametrize("key", ExperimentConfig.model_fields)
def test_every_section_of_a_config_is_in_the_reference(key: str) -> None:
    assert re.search(rf"^{key}:|`{key}", REFERENCE, re.MULTILINE)


@pytest.mark.parametrize("text", [README, REFERENCE], ids=["README", "reference"])
def test_the_options_of_commands_exist(text: str, lrexp: Callable) -> None:
    for line in re.findall(r"^\s*(?:\.venv/bin/)?lrexp (.*)$", text, re.MULTILINE):
        words = shlex.split(line.partition("#")[0])
        command, options = words[0], [w for w in words if w.startswith("--")]
        if command.startswith("-"):
            continue
        assert command in COMMANDS, line
        shown = lrexp(command, "--help").out
        assert [o for o in options if o.split("=")[0] not in shown] == [], line


def test_the_config_of_the_reference_is_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", REFERENCE, re.DOTALL)
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


def python_of(title: str, text: str) -> list[str]:
    section = text.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_the_python_of_the_reference_names_what_there_is() -> None:
    (block,) = python_of("In Python", REFERENCE)
    compile(block, "configs/README.md", "exec")
    used = set(re.findall(r"lrexp\.(\w+)", block))
    assert used <= set(lrexp_library.__all__)
    assert len(used) >= 7


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.layer(a + b)


class Classifier(nn.Module):
    """As those of Hugging Face: it returns its loss where it is given labels."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 8), nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.head(self.embedding(input_ids).mean(1))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def write_houses(path: Path) -> None:
    cities = ["Köln", "Bonn", ""]
    rows = [f"{cities[i % 3]};{40 + i},5;{1000 * (40 + i)} €" for i in range(160)]
    path.write_text("\n".join(["city;m2;price_eur", *rows]), encoding="cp1252")


def test_what_people_have_trains_as_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_houses(tmp_path / "houses.csv")
    g = torch.Generator().manual_seed(0)
    x, ids = torch.randn(160, 8, generator=g), torch.randint(0, 50, (160, 6), generator=g)
    y, model = x.sum(1, keepdim=True), Classifier()
    names = {
        "x": x, "y": y, "x_val": x[:50], "y_val": y[:50], "a": x, "b": x.flip(0),
        "weight": torch.rand(160, 1, generator=g), "TwoInputs": TwoInputs,
        "ids": ids, "labels": (ids[:, 0] > 25).long(), "make_classifier": Classifier,
        "model": model, "optimizer": torch.optim.Adam(model.parameters(), 0.01),
        "triplets": (x, x + 0.1, x.flip(0)), "embedding": lambda: nn.Linear(8, 4),
        "Mine": torch.optim.NAdam,
    }  # fmt: skip
    blocks = python_of("Your own model and data", README)
    blocks[1:1] = python_of("Steps and optimizers of your own", REFERENCE)
    assert len(blocks) == 7
    runs = []
    for block in blocks:
        exec(block, names)
        runs.append(names["run"])
    for run in runs:
        assert run.status["status"] == "complete"
        assert {t.result["outcome"] for t in run.trials} == {"finished"}
    assert "val_rmse" in runs[-1].trials[0].evals
    assert names["best"]["variant"] in {"high", "standard", "low"}
    assert len(names["found"].curves) == 3


def test_the_readme_is_a_users_page() -> None:
    assert len(README.split()) <= 1_800


def test_the_loop_of_the_readme_runs() -> None:
    """What `attach` is for, as the README has it."""
    (block,) = python_of("In the training that you have", README)
    x = torch.randn(640, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Linear(4, 1)
    names = {
        "lrexp": lrexp_library, "model": model, "loss_fn": nn.functional.mse_loss,
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
        "loader": [(one, one.sum(1, keepdim=True)) for one in x.split(6)],
    }  # fmt: skip
    exec(block, names)
    assert 0.001 < names["lr"] < 10


@pytest.mark.parametrize("folder", ["", "configs", "lrexp", "tests/benchmarks"])
def test_links_lead_to_files(folder: str) -> None:
    path = ROOT / folder / "README.md"
    text = path.read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for link in re.findall(r"\]\(([\w./-]+)(?:#[^)]*)?\)", prose):
        assert (path.parent / link).exists(), link
    for name in set(re.findall(r"(?:configs|lrexp|tests)/[\w./-]+\.(?:yaml|py|md|png)", text)):
        assert (ROOT / name).exists() or (path.parent / name).exists(), name
