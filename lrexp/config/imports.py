"""Import paths `package.module:attribute`, and which of them a config may reach.

A config from a stranger must not be able to run `os:system`. So an import path reaches the user's
own code (beside the config file or in the working directory), the parts of torch and torchvision
that only build things, and what `--trust` names; the standard library, and whatever one of these
modules merely imported, are refused. Files are found before anything is imported.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

from lrexp.config.local_modules import find_file, home_of, import_from
from lrexp.errors import ConfigError, LrexpError, UserCodeError, did_you_mean, user_error

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
    """Return what an import path names.

    Args:
        path: `package.module:attribute`; the attribute may be `Class.method`.
        directories: folders whose modules are the user's own, in order.
        trust: packages that may be reached besides.

    Raises:
        ConfigError: with key "", when the path is refused or leads nowhere.
        UserCodeError: the module raised while it was imported.

    Example:
        >>> import_callable("torch.nn:Linear", directories=[])
        <class 'torch.nn.modules.linear.Linear'>
    """
    match = _PATH.fullmatch(path)
    if not match:
        what = "is no import path"
        raise ConfigError.single("", what, path, "Write it as package.module:attribute.")
    module_name, attribute = match[1], match[2]
    private = [w for w in re.split(r"[.:]", path) if w.startswith("_")]
    if private:
        what = f"reaches the private name {private[0]!r}"
        raise ConfigError.single("", what, path, "Name a public one.")
    module = _module(module_name, path, directories, trust)
    found = _attribute(module, attribute, path)
    if not _trusted(module_name, trust):
        _check_origin(found, path, directories, trust)
    return found


def _module(name: str, path: str, directories: Sequence[Path], trust: Sequence[str]) -> ModuleType:
    """Import the module, from the first place that may give it."""
    home = home_of(name, directories)
    if home is not None:
        if not find_file(name, home):
            expected = home / f"{name.replace('.', '/')}.py"
            remedy = f"There is no {expected} (every folder on the way needs an __init__.py)."
            raise ConfigError.single("", "names a module that does not exist", path, remedy)
        return _import(name, path, functools.partial(import_from, name, home))
    if _trusted(name, trust) or _is_open(name):
        if name.startswith("torchvision"):
            from lrexp.data.torchvision_import import torchvision_module

            torchvision_module(name.split(".")[1] if "." in name else "models", "")
        return _import(name, path, functools.partial(importlib.import_module, name))
    raise ConfigError.single("", *_why_refused(name, path, directories))


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
            what, remedy = f"names a module that does not exist: {missing}", "Correct it."
            raise ConfigError.single("", what, path, remedy) from None
        raise user_error(error, f"importing {path}") from error


def _attribute(module: ModuleType, attribute: str, path: str) -> AnyCallable:
    found: Any = module
    for word in attribute.split("."):
        if found is not module and not isinstance(found, type):
            what = f"looks for {word!r} in something that is no class"
            raise ConfigError.single("", what, path, "Write package.module:attribute.")
        if not hasattr(found, word):
            public = [n for n in vars(found) if not n.startswith("_") and callable(vars(found)[n])]
            remedy = did_you_mean(word, public) if public else "It has no public callable."
            remedy = remedy if len(remedy) < 200 else "Correct the name."
            raise ConfigError.single("", f"names {word!r}, which does not exist", path, remedy)
        found = getattr(found, word)
    if isinstance(found, ModuleType) or not callable(found):
        what = f"names something that cannot be called ({type(found).__name__})"
        raise ConfigError.single("", what, path, "Name a function or class.")
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
    raise ConfigError.single("", what, path, remedy)


def _why_refused(name: str, path: str, directories: Sequence[Path]) -> tuple[str, object, str]:
    """Return what is wrong, the value and the remedy."""
    top = name.partition(".")[0]
    if top in ("torch", "torchvision"):
        what = "is refused: this part of torch can load or run code"
        remedy = f"Open to configs: {', '.join(OPEN_PACKAGES)}. Or pass --trust {name}."
        return what, path, remedy
    if top in sys.stdlib_module_names:
        what = "is refused: a config must not reach the standard library"
        own = [d / f"{top}.py" for d in directories if find_file(top, d)]
        rename = f"Rename {own[0]}: {top!r} is a standard module. " if own else ""
        return what, path, f"{rename}Pass --trust {name} if you trust this config."
    places = " or ".join(dict.fromkeys(str(d) for d in directories))
    if _is_installed(top):
        what = "is refused: it is neither beside the config nor in the working directory"
        return what, path, f"Pass --trust {top} if you trust this config with that package."
    folder = next((d / top for d in directories if (d / top).is_dir()), None)
    if folder:
        return "names a folder that is no package", path, f"Add an empty {folder}/__init__.py."
    what = "names a module that is not there"
    return what, path, f"Expected {top}.py in {places}; other packages need --trust {top}."


def _trusted(name: str, trust: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in trust if prefix)


def _is_open(name: str) -> bool:
    return _trusted(name, OPEN_PACKAGES) and not _trusted(name, _CLOSED)


def _is_installed(top: str) -> bool:
    try:
        return importlib.util.find_spec(top) is not None  # imports nothing for a top-level name
    except (ImportError, ValueError, AttributeError):
        return False
