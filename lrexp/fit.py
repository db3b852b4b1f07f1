"""Whether a run can be resumed here: same code, same data, same config, same arithmetic.

What does not fit is told all at once, each with the place and the remedy; with `--force` the run
goes on all the same. A run may come from a stranger: modules that lie elsewhere are imported only
where the run holds the same ones, and packages are trusted only by who resumes it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrexp.config.document import document_from_text
from lrexp.config.local_modules import find_file, home_of
from lrexp.errors import NOTHING, ConfigError, Problem, RunError
from lrexp.order import Order
from lrexp.plan import Objects

_FORCE = "or pass --force to go on all the same."
_IMPORT_PATH = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_][\w.]*")
_SAME = {  # of environment.json: what numbers depend on
    "lrexp": "Install that version",
    "packages.torch": "Install that version",
    "device": "Use a machine with that device",
    "default_dtype": "Call torch.set_default_dtype",
    "matmul_precision": "Call torch.set_float32_matmul_precision",
    "deterministic_algorithms": "Call torch.use_deterministic_algorithms",
    "threads": "Set OMP_NUM_THREADS to that number",
}


def read_order(
    run: Path, objects: Objects, trust: Sequence[str], *, force: bool
) -> tuple[Order, list[Problem]]:
    """Return the order of a run as it can be planned here, and what was forced.

    Paths start where they did; where that folder or a module in it is gone, at the run directory,
    which holds the modules.

    Raises:
        ConfigError: it cannot be resumed like this, or its files were changed and `force` is not
            given.
        RunError: order.json is damaged, or a link leads out of the run.
    """
    _refuse_links(run)
    plain = _read_plain(run)
    try:
        order = Order.from_plain(plain, objects)
        modules = tuple(str(name) for name in plain["modules"])
        given = sorted(str(section) for section in plain["objects"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run / 'order.json'}: is damaged: {error}. Run it anew.") from error
    _check_objects(run, given, objects)
    _check_trust(run, order.trust, trust)
    here = replace(order, directory=str(_home(run, Path(order.directory), modules)))
    problems = [*_changed_config(run, order), *_changed_modules(run, here, modules)]
    refuse(problems, force=force)
    return here, problems


def refuse(problems: Iterable[Problem], *, force: bool) -> None:
    """Raise a ConfigError of all problems, unless it is forced.

    Raises:
        ConfigError: there are some.
    """
    found = list(problems)
    if found and not force:
        raise ConfigError(found)


def changed_surroundings(
    run: Path, now: Mapping[str, Any], jobs: tuple[int, int]
) -> Iterator[Problem]:
    """Yield what differs from environment.json.

    Args:
        run: its directory.
        now: what environment.json would be.
        jobs: worker processes then and now; each of several has one thread.

    Raises:
        RunError: environment.json is damaged.
    """
    then = _read_json(run / "environment.json")
    one_thread = [{"threads": 1} if count > 1 else {} for count in jobs]
    old, new = {**then, **one_thread[0]}, {**now, **one_thread[1]}
    place = str(run / "environment.json")
    for key, remedy in _SAME.items():
        was, is_ = _get(old, key), _get(new, key)
        if was != is_:
            what = f"{key.removeprefix('packages.')} was {was} and is {is_} now: numbers may differ"
            yield Problem("", what, NOTHING, f"{remedy}, {_FORCE}", place)
    for name, data in _mapping(then.get("data")).items():
        is_ = _mapping(new.get("data")).get(name)
        if None not in (data, is_) and data != is_:
            what = f"the data of variant {name} is not the same any more"
            yield Problem("", what, NOTHING, f"Put the old data back, {_FORCE}", place)


def changed_settings(run: Path, order: Order, resolved: str) -> Iterator[Problem]:
    """Yield a problem if resolved.yaml is not what the config resolves to."""
    path = run / "resolved.yaml"
    saved = _read_json(run / "order.json").get("directory")
    try:
        text = path.read_text(encoding="utf-8").replace(str(saved), order.directory)
    except OSError:
        text = ""
    if text != resolved:
        what = "is not what the config comes to now: it was edited, or defaults or data changed"
        yield Problem("", what, NOTHING, f"Run {path} anew instead, {_FORCE}", str(path))


def _read_plain(run: Path) -> dict[str, Any]:
    path = run / "order.json"
    if path.is_file():
        return _read_json(path)
    what = "cannot be resumed: it has no order.json"
    remedy = f"It ended before any training, or an older lrexp made it. Run {run}/config.yaml anew."
    raise ConfigError([Problem("", what, NOTHING, remedy, str(run))])


def _refuse_links(run: Path) -> None:
    """Refuse a run that would have other files written than its own."""
    for folder, folders, files in os.walk(run):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink():
                raise RunError(
                    f"{path}: is a link, which may lead out of the run. Put what it leads to in "
                    "its place, or remove it."
                )


def _check_objects(run: Path, saved: Sequence[str], objects: Objects) -> None:
    given = sorted(objects.sections)
    if given == list(saved):
        return
    if not saved:
        what = f"was not made with {' and '.join(given)} given as Python objects"
        raise ConfigError([Problem("", what, NOTHING, "Leave them out.", str(run))])
    arguments = ", ".join([repr(str(run)), *(f"{name}=..." for name in saved)])
    what = f"was made with {' and '.join(saved)} given as Python objects"
    remedy = f"Resume it in Python, with the same ones: lrexp.resume({arguments})."
    raise ConfigError([Problem("", what, NOTHING, remedy, str(run))])


def _check_trust(run: Path, saved: Sequence[str], given: Sequence[str]) -> None:
    missing = [prefix for prefix in saved if prefix not in given]
    if missing:
        what = f"was made with --trust {' --trust '.join(missing)}"
        remedy = "Repeat that if you still trust its config with it."
        raise ConfigError([Problem("", what, NOTHING, remedy, str(run))])


def _home(run: Path, original: Path, modules: Iterable[str]) -> Path:
    """Return where relative paths and import paths start."""
    folders = (original, Path.cwd())
    if original.is_dir() and all(any((f / m).is_file() for f in folders) for m in modules):
        return original
    return run.absolute()


def _changed_config(run: Path, order: Order) -> Iterator[Problem]:
    path = run / "config.yaml"
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        text = ""
    if text != order.text:
        what = "was changed after the run began, which goes on with the settings it had"
        remedy = f"Run the file anew for other settings, {_FORCE}"
        yield Problem("", what, NOTHING, remedy, str(path))


def _changed_modules(run: Path, order: Order, modules: Collection[str]) -> Iterator[Problem]:
    """Yield each module that is not the one that the run holds."""
    folders = [Path(order.directory), Path.cwd()]
    if folders[0] == run.absolute():
        return  # what it holds is what is imported
    for name in modules:
        file = next((f / name for f in folders if (f / name).is_file()), None)
        if file is not None and _content(file) != _content(run / name):
            what = f"is not the module that the run began with, {run / name}"
            yield Problem("", what, NOTHING, f"Put that one back, {_FORCE}", str(file))
    known = {Path(name) for name in modules}
    for file, inside in _imported(order, folders):
        if inside not in known:
            what = "is no module that the run began with, and its config would import it"
            yield Problem("", what, NOTHING, f"Look at both, {_FORCE}", str(file))


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


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes().replace(b"\r\n", b"\n")  # it is kept as text
    except OSError:
        return None


def _get(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for part in key.split("."):
        value = _mapping(value).get(part)
    return value


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: is damaged: {error}. Run the config anew.") from error
    return dict(_mapping(value))
