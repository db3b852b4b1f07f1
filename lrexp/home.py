"""Where a run that may have been moved finds the user's modules and data.

A run remembers the folder of its config twice: as it was, and relative to itself, for whole
projects are moved as well. It goes on from the first place that has the modules it began with and
the data that its config names; the run itself is one, for it keeps the modules.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrexp.config import data_paths, document_from_text
from lrexp.config.local_modules import find_file, home_of
from lrexp.errors import NOTHING, ConfigError, Problem, RunError
from lrexp.order import Order
from lrexp.store.files import find_bytes

FORCE = "or pass --force to go on all the same."
_IMPORT_PATH = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_][\w.]*")
_MAX_BYTES = 50_000_000  # of a module: a stranger's run may name any file


@dataclass(frozen=True)
class Origin:
    """Where a run came from, and the modules that it began with.

    Args:
        folder: of its config, as it was.
        from_run: the same, relative to the run; None between two drives of Windows.
        modules: path inside a folder -> digest.
    """

    folder: str
    from_run: str | None
    modules: Mapping[str, str]

    @classmethod
    def of(cls, order: Order, run: Path, modules: Mapping[str, bytes]) -> Origin:
        """Return the origin of a run that begins."""
        digests = {name: digest(content) for name, content in modules.items()}
        return cls(order.directory, _relative(order.directory, run), digests)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Origin:
        """Return the origin that order.json holds.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        modules = {str(name): str(value) for name, value in dict(plain["modules"]).items()}
        from_run = plain["from_run"]
        return cls(str(plain["directory"]), None if from_run is None else str(from_run), modules)

    def to_plain(self) -> dict[str, Any]:
        """Return what order.json holds of it."""
        return {
            "directory": self.folder,
            "from_run": self.from_run,
            "modules": dict(self.modules),
        }

    def moved(self, folder: str, run: Path) -> Origin:
        """Return the origin of a run that goes on in another folder."""
        return replace(self, folder=folder, from_run=_relative(folder, run))


def digest(content: bytes) -> str:
    """Return a hash of a module's text; ends of lines are up to the system."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def find_home(run: Path, order: Order, origin: Origin) -> Path:
    """Return where relative paths and import paths start.

    Modules that were changed where they were are not passed over for those that the run keeps:
    whoever changed them shall know that it goes on without the change.

    Raises:
        ConfigError: a file of data is in none of these places.
    """
    document = document_from_text(order.text, order.name, Path(order.directory))
    data = [] if "data" in order.objects.sections else data_paths(document, order.changes)
    here = run.absolute()
    places = [place for place in _places(here, origin) if place.is_dir()]
    same = [place for place in places if _all_same(place, origin.modules)]
    changed = [p for p in places if p not in same and _has_all(p, origin.modules)]
    fitting = [*same, *changed, here]
    with_data = [p for p in fitting if all((p / path).exists() for _, path in data)]
    home = [*with_data, *fitting][0]
    # of torchvision's `root` the rest may be made, or downloaded
    missing = [path for key, path in data if key == "path" and not (home / path).exists()]
    if missing:
        raise ConfigError([_missing(run, path, [*same, here]) for path in missing])
    return home


def changed_modules(run: Path, order: Order, modules: Mapping[str, str]) -> Iterator[Problem]:
    """Yield each module that is not the one that the run began with.

    Args:
        run: its directory.
        order: of the run, with the directory where it goes on.
        modules: those that it began with.
    """
    home = Path(order.directory)
    for name, known in modules.items():
        file = _file(home, name) or home / name
        if _digest(file) == known:
            continue
        kept = run / name
        what, remedy = f"is not the module that the run began with, {kept}", "Put that one back"
        if file.absolute() == kept.absolute():
            what = "was changed after the run began" if file.is_file() else "is missing"
            remedy = "Put it back as it was"
        yield Problem("", what, NOTHING, f"{remedy}, {FORCE}", str(file))
    for file, inside in _imported(order, [home, Path.cwd()]):
        if inside.as_posix() not in modules:
            what = "is no module that the run began with, and its config would import it"
            yield Problem("", what, NOTHING, f"Look at both, {FORCE}", str(file))


def _places(here: Path, origin: Origin) -> list[Path]:
    """Return where the config may lie now, apart from the run itself, which is `here`."""
    places = [Path(origin.folder), Path.cwd()]
    if origin.from_run is not None:
        places.insert(1, Path(os.path.normpath(here / origin.from_run)))
    return [place for place in dict.fromkeys(places) if place != here]


def _all_same(place: Path, modules: Mapping[str, str]) -> bool:
    found = {name: _file(place, name) for name in modules}
    return all(file and _digest(file) == modules[name] for name, file in found.items())


def _has_all(place: Path, modules: Mapping[str, str]) -> bool:
    """Return whether modules lie in a place, and the others in the working directory."""
    return any((place / name).is_file() for name in modules) and all(
        _file(place, name) for name in modules
    )


def _file(place: Path, name: str) -> Path | None:
    """Return a module's file as it would be imported: from a place, or the working directory."""
    folders = (place, Path.cwd())
    return next((f / name for f in folders if (f / name).is_file()), None)


def _digest(path: Path) -> str | None:
    try:
        content = find_bytes(path, _MAX_BYTES)
    except RunError:
        return None
    return None if content is None else digest(content)


def _missing(run: Path, path: str, places: Sequence[Path]) -> Problem:
    what = "is not where the run was, nor where it is now"
    remedy = f"Put the file in its place: {' or '.join(str(place / path) for place in places)}."
    return Problem("data.args.path", what, path, remedy, str(run / "config.yaml"))


def _relative(folder: str, run: Path) -> str | None:
    try:
        return os.path.relpath(folder, run.absolute())
    except ValueError:  # on another drive
        return None


def _imported(order: Order, folders: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the files of the modules that the config names, and their paths inside a folder."""
    data = document_from_text(order.text, order.name, Path(order.directory)).data
    kept = {key: value for key, value in data.items() if key not in order.objects.sections}
    values = [kept, *(change[1] for change in order.changes)]
    for text in dict.fromkeys(_texts(values)):
        match = _IMPORT_PATH.fullmatch(text)
        home = home_of(match[1], folders) if match else None
        file = find_file(match[1], home) if match and home else None
        if file is not None and home is not None:
            yield file, file.relative_to(home)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
