"""The house keeps its shape: imports point one way, files stay short, light parts import light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lrexp

PACKAGE = Path(lrexp.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# From what a user touches down to what everything rests on: an import points to a later row.
LEVELS = [
    {"__main__"},
    {"cli"},
    {"api"},
    {"report"},
    {"runs"},
    {"engine"},
    {"analysis"},
    {"config"},
    {"workloads"},
    {"schedules"},  # of which workloads use `signatures.py` and nothing else: see below
    {"records"},
    {"errors"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
# The first adapter wraps the loop itself, and executors train runs, so they stand beside `api`; others
# use public names only.
BESIDE_API = [
    PACKAGE / "integrations" / f"{name}.py"
    for name in ("lr_finder", "attach", "ray", "ray_cluster", "slurm", "slurm_job", "sbatch")
]


def name_of(path: Path) -> str:
    """Return a file's name in LEVELS: that of its folder, or its own."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path, *, at_import: bool = False) -> Iterator[tuple[str, int]]:
    """Yield the modules of lrexp that a file imports, with the line; functions' imports as well."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_import else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lrexp":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = (PACKAGE.parent / (inner.replace(".", "/") + ".py")).exists()
                yield inner if is_module else str(node.module), node.lineno


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = name_of(path)
    if own == "__init__":  # imports each public name when it is first used
        return
    for module, line in imported(path):
        target = [*module.split("."), "lrexp"][1]
        place = f"{path}:{line}"
        if own == "integrations" and path not in BESIDE_API:
            public = ("lrexp", "integrations")
            assert target in public, f"{place}: an integration uses public names of lrexp only"
        elif target not in (own, "lrexp"):
            level = LEVEL["api"] if own == "integrations" else LEVEL[own]
            assert LEVEL[target] > level, f"{place}: {own} must not import {target}"


def test_workloads_and_schedules_stand_side_by_side() -> None:
    used = {
        m for p in FILES if name_of(p) == "workloads" for m, _ in imported(p) if "schedules" in m
    }
    assert used <= {"lrexp.schedules.signatures"}


def test_there_are_no_cycles() -> None:
    graph = {module_of(path): {m for m, _ in imported(path, at_import=True)} for path in FILES}
    while graph:
        leaves = {module for module, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"these import each other: {sorted(graph)}"
        graph = {module: needs for module, needs in graph.items() if module not in leaves}


def test_the_house_is_of_eight_folders_and_six_modules() -> None:
    top = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert {path.name for path in top if path.is_dir()} == {
        "config", "workloads", "schedules", "engine", "analysis", "runs", "report", "integrations",
    }  # fmt: skip
    assert {path.stem for path in top if path.suffix == ".py"} == {
        "__init__", "__main__", "cli", "api", "records", "errors",
    }  # fmt: skip


def test_no_file_is_long() -> None:
    long = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in long.items() if lines > 500} == {}


def test_text_is_run_in_two_named_places_alone() -> None:
    """`as_function` checks what it is given, and the other text is empty."""

    class Found(ast.NodeVisitor):
        def __init__(self, path: Path) -> None:
            self.file, self.function, self.calls = path.name, "", set[str]()

        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            self.function = node.name
            self.generic_visit(node)

        def visit_Call(self, node: ast.Call) -> None:
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in {"exec", "eval", "compile", "__import__", "FunctionType", "CodeType"}:
                self.calls.add(f"{self.file}: {self.function}: {name}")
            self.generic_visit(node)

    calls = set[str]()
    for path in FILES:
        found = Found(path)
        found.visit(ast.parse(path.read_text(encoding="utf-8")))
        calls |= found.calls
    assert (
        calls
        == {
            "program.py: as_function: exec",
            "program.py: as_function: compile",
            "signals.py: _forget_interruption: exec",
            "losses.py: copy_loss: FunctionType",  # a closure's own code, with copies of what it closes over
        }
    )


LIGHT = {  # modules -> what importing them must not import
    "lrexp": "numpy torch matplotlib pydantic rich",
    "lrexp.cli": "numpy torch matplotlib pydantic",
    "lrexp.runs.listing": "numpy torch matplotlib yaml",
    "lrexp.analysis.suggest lrexp.analysis.race": "torch scipy matplotlib",
    "lrexp.report.tables lrexp.report.ranking lrexp.report.plots": "torch scipy matplotlib",
    "lrexp.report.data": "torch scipy matplotlib",
    "lrexp.config.load lrexp.schedules.build lrexp.runs.lengths": "torch sklearn scipy torchvision",
}


@pytest.mark.parametrize("modules", LIGHT)
def test_light_parts_import_nothing_heavy(modules: str) -> None:
    code = (
        f"import sys, {', '.join(modules.split())}; "
        f"sys.exit(' '.join({{*'{LIGHT[modules]}'.split()}} & {{*sys.modules}}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
