"""Which code a config may reach, and importing it.

A config from a stranger must not be able to run `os:system`. So an import path reaches the user's
own code (beside the config file or in the working directory), the parts of torch and torchvision
that only build things, and what `--trust` names. Files are found before anything is imported. Two
configs may each have a `model.py`: the modules of a folder are swapped in while its code is
imported, and a file that changed on disk is imported anew.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from itertools import takewhile
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

from lrexp.errors import ConfigError, LrexpError, UserCodeError, did_you_mean, user_error

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
    if _is_in_place(module, directory):
        return sys.modules[module]
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


def _is_in_place(module: str, directory: Path) -> bool:
    """Return whether all that was imported from the folder is loaded, as its files are now."""
    known = _known.get(directory, {})
    return module in known and all(
        sys.modules.get(name) is loaded and _stamp(loaded) == stamp
        for name, (loaded, stamp) in known.items()
    )


@contextmanager
def _swapped_in(directory: Path) -> Iterator[None]:
    """Give the folder's names precedence in `sys.path` and `sys.modules`."""
    known = _known.setdefault(directory, {})
    if any(_stamp(module) != stamp for module, stamp in known.values()):
        for name in known:
            sys.modules.pop(name, None)
        known.clear()
    # of thousands of modules, few have the name of something in the folder
    held = {file.name.partition(".")[0] for file in directory.iterdir()} & sys.modules.keys()
    ours = {top for top in held if home_of(top, [directory])}
    hidden = {
        name: module
        for name, module in list(sys.modules.items() if ours else ())
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


MAX_FILES = 500  # somebody's working directory holds a large program
MAX_BYTES = 5_000_000
_MAIN = {"__main__", "__mp_main__"}  # the script that calls lrexp, or lrexp itself
_INSTALLED = {"site-packages", "dist-packages"}


def own_files(
    directories: Sequence[Path], *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES
) -> dict[str, Path]:
    """Return the files of the user's imported modules, by their path in one of these folders.

    Args:
        directories: in the order in which modules are looked for.
        max_files: how many are listed at most, those that lrexp itself imported first.
        max_bytes: how many their texts have together at most.

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
    return dict(_within_bounds(list(found.items())[:max_files], max_bytes))


def _imported_files() -> set[Path]:
    """Return the files of all modules but those of libraries."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    library = tuple(sysconfig.get_path(name) for name in names)
    reserved = RESERVED | _MAIN
    found = set()
    for name, module in list(sys.modules.items()):
        # not getattr, which some modules answer by importing others
        file = getattr(module, "__dict__", {}).get("__file__")
        if not isinstance(file, str) or file.startswith(library):  # most of thousands
            continue
        if name.partition(".")[0] in reserved:
            continue
        path = Path(file)
        if path.is_absolute() and _INSTALLED.isdisjoint(path.parts):
            found.add(path.resolve())
    return found


def _is_foreign(file: Path, folder: Path, folders: Sequence[Path]) -> bool:
    """Return whether a file below a folder is of a virtual environment, or of another config."""
    below = list(takewhile(lambda parent: parent != folder, file.parents))
    others = set(_known) - set(folders)
    return any(parent in others or (parent / "pyvenv.cfg").is_file() for parent in below)


def _within_bounds(files: Iterable[tuple[str, Path]], max_bytes: int) -> Iterator[tuple[str, Path]]:
    left = max_bytes
    for name, file in files:
        try:
            left -= file.stat().st_size
        except OSError:  # deleted since
            continue
        if left >= 0 and file.suffix == ".py":
            yield name, file


AnyCallable: TypeAlias = Callable[..., Any]
# The rest of torch can load pickles (torch.load), download and run code (torch.hub), or start
# processes (torch.utils.cpp_extension, torch.distributed).
OPEN_PACKAGES = (
    "torch.nn",
    "torch.optim",
    "torch.utils.data",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.ops",
    "torchvision.transforms",
)

_CLOSED = (
    "torch.utils.data.datapipes",  # its code generator writes any text to any file
    "torch.utils.data.graph",
    "torchvision.datasets.lsun",  # opens a pickle that lies beside the images
    "torchvision.datasets.utils",  # downloads any URL to any place
)

_WORD = r"[A-Za-z_][A-Za-z0-9_]*"
_PATH = re.compile(rf"({_WORD}(?:\.{_WORD})*):({_WORD}(?:\.{_WORD})*)")


def import_callable(
    path: str, *, directories: Sequence[Path], trust: Sequence[str] = ()
) -> AnyCallable:
    """Return what an import path names: `package.module:attribute`, or `module:Class.method`.

    Raises:
        ConfigError: with key "", when the path is refused or leads nowhere.
        UserCodeError: the module raised while it was imported.

    Example:
        >>> import_callable("torch.nn:Linear", directories=[])
        <class 'torch.nn.modules.linear.Linear'>
    """
    match = _PATH.fullmatch(path)
    if not match:
        raise _refused(path, "is no import path", "Write it as package.module:attribute.")
    module_name, attribute = match[1], match[2]
    private = [w for w in re.split(r"[.:]", path) if w.startswith("_")]
    if private:
        raise _refused(path, f"reaches the private name {private[0]!r}", "Name a public one.")
    module = _module(module_name, path, directories, trust)
    found = _attribute(module, attribute, path)
    if not _trusted(module_name, trust):
        _check_origin(found, path, directories, trust)
    return found


def import_trusted(trust: Sequence[str], directories: Sequence[Path]) -> None:
    """Import the trusted packages that there are: each may register what it adds to lrexp.

    Raises:
        UserCodeError: one raised while it was imported.
    """
    for name in trust:
        with suppress(ConfigError):  # there is none of that name: then it adds nothing
            _module(name, name, directories, trust)


def _module(name: str, path: str, directories: Sequence[Path], trust: Sequence[str]) -> ModuleType:
    """Import the module, from the first place that may give it."""
    home = home_of(name, directories)
    if home is not None:
        if not find_file(name, home):
            expected = home / f"{name.replace('.', '/')}.py"
            remedy = f"There is no {expected} (every folder on the way needs an __init__.py)."
            raise _refused(path, "names a module that does not exist", remedy)
        return _import(name, path, functools.partial(import_from, name, home))
    if _trusted(name, trust) or _is_open(name):
        if name.startswith("torchvision"):
            from lrexp.workloads.torchvision_data import torchvision_module

            torchvision_module(name.split(".")[1] if "." in name else "models", "")
        return _import(name, path, functools.partial(importlib.import_module, name))
    raise _refused(path, *_why_refused(name, directories))


def _import(name: str, path: str, import_now: Callable[[], ModuleType]) -> ModuleType:
    try:
        return import_now()
    except LrexpError:
        raise
    except SyntaxError as error:
        where = f"{error.filename}:{error.lineno}"
        raise UserCodeError(f"{where}: SyntaxError: {error.msg}, while importing {path}") from error
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            what = f"names a module that does not exist: {missing}"
            raise _refused(path, what, "Correct it.") from None
        raise user_error(error, f"importing {path}") from error


def _attribute(module: ModuleType, attribute: str, path: str) -> AnyCallable:
    found: Any = module
    for word in attribute.split("."):
        if found is not module and not isinstance(found, type):
            what = f"looks for {word!r} in something that is no class"
            raise _refused(path, what, "Write package.module:attribute.")
        if not hasattr(found, word):
            public = [n for n in vars(found) if not n.startswith("_") and callable(vars(found)[n])]
            remedy = did_you_mean(word, public) if public else "It has no public callable."
            remedy = remedy if len(remedy) < 200 else "Correct the name."
            raise _refused(path, f"names {word!r}, which does not exist", remedy)
        found = getattr(found, word)
    if isinstance(found, ModuleType) or not callable(found):
        what = f"names something that cannot be called ({type(found).__name__})"
        raise _refused(path, what, "Name a function or class.")
    callable_found: AnyCallable = found
    return callable_found


def _check_origin(
    found: AnyCallable, path: str, directories: Sequence[Path], trust: Sequence[str]
) -> None:
    """Refuse what a reachable module merely imported: `model:system` after `from os import ...`."""
    while isinstance(found, functools.partial | MethodType):  # a class method
        found = found.func if isinstance(found, functools.partial) else found.__func__
    origin = getattr(found, "__module__", None)
    if isinstance(found, BuiltinFunctionType) and (origin or "torch").partition(".")[0] == "torch":
        return  # functions of torch written in C++
    named = isinstance(found, type | FunctionType | BuiltinFunctionType)
    if not named and not hasattr(found, "__wrapped__"):
        origin = type(found).__module__  # an object with __call__
    origin = str(origin)
    if home_of(origin, directories) or _trusted(origin, trust) or _is_open(origin):
        return
    what = f"names something from {origin!r}, which a config may not reach"
    remedy = f"Wrap it in a function of your own, or pass --trust {origin} if you trust it."
    raise _refused(path, what, remedy)


def _refused(path: str, what: str, remedy: str) -> ConfigError:
    return ConfigError.single("", what, path, remedy)


def _why_refused(name: str, directories: Sequence[Path]) -> tuple[str, str]:
    """Return what is wrong and the remedy."""
    top = name.partition(".")[0]
    if top in ("torch", "torchvision"):
        what = "is refused: this part of torch can load or run code"
        remedy = f"Open to configs: {', '.join(OPEN_PACKAGES)}. Or pass --trust {name}."
        return what, remedy
    if top in sys.stdlib_module_names:
        what = "is refused: a config must not reach the standard library"
        own = [d / f"{top}.py" for d in directories if find_file(top, d)]
        rename = f"Rename {own[0]}: {top!r} is a standard module. " if own else ""
        return what, f"{rename}Pass --trust {name} if you trust this config."
    places = " or ".join(dict.fromkeys(str(d) for d in directories))
    if _is_installed(top):
        what = "is refused: it is neither beside the config nor in the working directory"
        return what, f"Pass --trust {top} if you trust this config with that package."
    folder = next((d / top for d in directories if (d / top).is_dir()), None)
    if folder:
        return "names a folder that is no package", f"Add an empty {folder}/__init__.py."
    what = "names a module that is not there"
    return what, f"Expected {top}.py in {places}; other packages need --trust {top}."


def _trusted(name: str, trust: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in trust if prefix)


def _is_open(name: str) -> bool:
    return _trusted(name, OPEN_PACKAGES) and not _trusted(name, _CLOSED)


def _is_installed(top: str) -> bool:
    try:
        return importlib.util.find_spec(top) is not None  # imports nothing for a top-level name
    except (ImportError, ValueError, AttributeError):
        return False
