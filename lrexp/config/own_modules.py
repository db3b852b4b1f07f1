"""Which of the modules in memory are the user's own: those that a run depends on and keeps.

A function may import a module only when it is called. So all that has been imported by now counts
if its file lies beside the config or in the working directory, and was not installed there.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from lrexp.config.local_modules import RESERVED, known_folders, loaded_files

MAX_FILES = 500  # somebody's working directory holds a large program
MAX_BYTES = 5_000_000
_MAIN = {"__main__", "__mp_main__"}  # the script that calls lrexp, or lrexp itself
_INSTALLED = {"site-packages", "dist-packages"}


def own_files(directories: Sequence[Path]) -> dict[str, Path]:
    """Return the files of the user's imported modules, by their path in one of these folders.

    Args:
        directories: in the order in which modules are looked for.

    Example:
        >>> own_files([Path("project")])  # doctest: +SKIP
        {'model.py': Path('/home/me/project/model.py')}
    """
    folders = [directory.resolve() for directory in directories]
    found: dict[str, Path] = {}
    for folder in reversed(folders):  # the first one wins
        found |= loaded_files(folder)
    listed = set(found.values())
    for file in sorted(_imported_files() - listed):
        # the deepest folder: from there it is imported as a rule
        inside = [folder for folder in folders if folder in file.parents]
        home = max(inside, key=lambda folder: len(folder.parts), default=None)
        if home is not None and not _is_foreign(file, home, folders):
            found.setdefault(file.relative_to(home).as_posix(), file)
    return dict(_within_bounds(found))


def _imported_files() -> set[Path]:
    files = set()
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name.partition(".")[0] not in RESERVED | _MAIN and isinstance(path, str):
            files.add(path)
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    library = tuple(map(sysconfig.get_path, kinds))  # once: it takes longer than all the rest
    paths = (Path(path) for path in files if not path.startswith(library))
    own = (path for path in paths if _INSTALLED.isdisjoint(path.parts))
    return {path.resolve() for path in own if path.is_absolute()}


def _is_foreign(file: Path, folder: Path, folders: Sequence[Path]) -> bool:
    """Return whether a file below a folder is of a virtual environment, or of another config."""
    below = list(takewhile(lambda parent: parent != folder, file.parents))
    others = known_folders() - set(folders)
    return any(parent in others or (parent / "pyvenv.cfg").is_file() for parent in below)


def _within_bounds(files: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    left = MAX_BYTES
    for name, file in list(files.items())[:MAX_FILES]:
        try:
            left -= file.stat().st_size
        except OSError:  # deleted since
            continue
        if left >= 0 and file.suffix == ".py":
            yield name, file
