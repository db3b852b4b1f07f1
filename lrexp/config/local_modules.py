"""The user's own modules: finding their file without importing anything, then importing them.

Two configs in two folders may each have a `model.py`, with helpers beside it, in one process: the
modules of a folder are swapped in while its code is imported. A file that changed on disk since is
imported anew, as in a notebook where the model is edited between two comparisons.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

_Stamp: TypeAlias = tuple[int, int]  # time of last change in ns, size

# folder -> its modules by name, each with the stamp of its file
_known: dict[Path, dict[str, tuple[ModuleType, _Stamp]]] = {}

# Never taken from a user's folder, whatever lies there.
RESERVED = frozenset({*sys.stdlib_module_names, "lrexp", "torch", "torchvision"})


def find_file(module: str, directory: Path) -> Path | None:
    """Return the file of `package.module` in a folder, found by name alone.

    Every package on the way needs an `__init__.py`.
    """
    *packages, last = module.split(".")
    folder = directory
    for package in packages:
        folder = folder / package
        if not (folder / "__init__.py").is_file():
            return None
    for file in (folder / last / "__init__.py", folder / f"{last}.py"):
        if file.is_file():
            return file
    return None


def home_of(module: str, directories: Sequence[Path]) -> Path | None:
    """Return the first folder that holds the top-level name of `module`."""
    top = module.partition(".")[0]
    if top in RESERVED:
        return None
    return next((d for d in directories if find_file(top, d)), None)


def import_from(module: str, directory: Path) -> ModuleType:
    """Import a module from a folder; its siblings can be imported by it.

    What the module prints goes to stderr: stdout belongs to results. The folder stays at the end
    of `sys.path`, for imports inside functions and for worker processes that unpickle its classes.

    Raises:
        Exception: whatever the module raises.
    """
    directory = directory.resolve()
    with _swapped_in(directory), redirect_stdout(sys.stderr):
        imported = importlib.import_module(module)
    if str(directory) not in sys.path:
        sys.path.append(str(directory))
    return imported


def loaded_files(directory: Path) -> dict[str, Path]:
    """Return the files of a folder's imported modules, by their path inside the folder."""
    directory = directory.resolve()
    modules = [module for module, _ in _known.get(directory, {}).values()]
    files = [Path(str(module.__file__)).resolve() for module in modules]
    return {f.relative_to(directory).as_posix(): f for f in files if f.is_relative_to(directory)}


def forget_modules() -> None:
    """Forget all that was imported from the users' folders: it is imported anew when asked for."""
    for known in _known.values():
        for name, (module, _) in known.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
    _known.clear()


def known_folders() -> set[Path]:
    """Return the folders that modules were imported from."""
    return set(_known)


@contextmanager
def _swapped_in(directory: Path) -> Iterator[None]:
    """Give the folder's names precedence in `sys.path` and `sys.modules`."""
    known = _known.setdefault(directory, {})
    if any(_stamp(module) != stamp for module, stamp in known.values()):
        for name in known:
            sys.modules.pop(name, None)
        known.clear()
    tops = {name.partition(".")[0] for name in sys.modules}
    ours = {top for top in tops if home_of(top, [directory])}
    hidden = {
        name: module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in ours and not _lies_in(module, directory)
    }
    for name in hidden:
        del sys.modules[name]
    sys.modules.update({name: module for name, (module, _) in known.items()})
    before = set(sys.modules)
    sys.path.insert(0, str(directory))
    importlib.invalidate_caches()  # the file may have been written a moment ago
    try:
        yield
    finally:
        sys.path.remove(str(directory))
        for name in set(sys.modules) - before:
            if _lies_in(sys.modules[name], directory):
                known[name] = (sys.modules[name], _stamp(sys.modules[name]))
        # A library's module of the same name comes back; another config's gives way.
        elsewhere = {name: m for name, m in hidden.items() if not _is_of_a_config(name, m)}
        sys.modules.update(elsewhere)


def _lies_in(module: ModuleType, directory: Path) -> bool:
    """Return whether a loaded module is `directory/top.py` or lies in `directory/top/`.

    Not simply anywhere below: a virtual environment may lie in the working directory.
    """
    file = getattr(module, "__file__", None)
    name = getattr(module, "__name__", "")
    if not isinstance(file, str) or not isinstance(name, str):
        return False
    top = name.partition(".")[0]
    path = Path(file)
    return path == directory / f"{top}.py" or directory / top in path.parents


def _is_of_a_config(name: str, module: ModuleType) -> bool:
    return any(name in known and known[name][0] is module for known in _known.values())


def _stamp(module: ModuleType) -> _Stamp:
    try:
        info = Path(str(module.__file__)).stat()
    except OSError:
        return (0, 0)
    return (info.st_mtime_ns, info.st_size)
