"""The faults of `mutants.py` fit the package as it is: each would change one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from mutants import MUTANTS, Mutant

import lrexp

PACKAGE = Path(lrexp.__file__).parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_changes_one_place_and_leaves_python(mutant: Mutant, tmp_path: Path) -> None:
    copy = tmp_path / mutant.file
    copy.parent.mkdir(parents=True, exist_ok=True)
    before = (PACKAGE / mutant.file).read_text(encoding="utf-8")
    copy.write_text(before, encoding="utf-8")
    mutant.apply(tmp_path)
    after = copy.read_text(encoding="utf-8")
    assert after != before
    assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(before))


def test_they_are_twenty_or_more_over_all_folders() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert {mutant.file.split("/")[0] for mutant in MUTANTS if "/" in mutant.file} == folders
