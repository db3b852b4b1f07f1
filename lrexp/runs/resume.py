"""Whether a run can be resumed here: same code, same data, same config, same arithmetic.

What does not fit is told all at once; with `--force` the run goes on all the same. A run may have
been moved: it goes on from the first place that has the modules it began with and the data that its
config names. It may come from a stranger: packages are trusted only by who resumes it.
"""

from __future__ import annotations

import os
import platform
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrexp import __version__
from lrexp.config.document import document_from_text
from lrexp.config.load import data_paths
from lrexp.config.reader import MAX_BYTES, read_yaml
from lrexp.config.trust import find_file, home_of
from lrexp.errors import NOTHING, ConfigError, Problem, RunError
from lrexp.runs.builder import Objects
from lrexp.runs.files import find_bytes, find_text, read_json
from lrexp.runs.spec import Origin, RunSpec, digest, installed

FORCE = "or pass --force to go on all the same."
_IMPORT_PATH = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_][\w.]*")
_MAX_BYTES = 50_000_000  # of a module: a stranger's run may name any file


def find_home(run: Path, spec: RunSpec, origin: Origin) -> Path:
    """Return where relative paths and import paths start.

    Modules that were changed where they were are not passed over for those that the run keeps:
    whoever changed them shall know that it goes on without the change. Data that is in none of
    these places is a ConfigError.
    """
    document = document_from_text(spec.text, spec.name, Path(spec.directory))
    data = [] if "data" in spec.objects.sections else data_paths(document, spec.changes)
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


def changed_modules(run: Path, spec: RunSpec, modules: Mapping[str, str]) -> Iterator[Problem]:
    """Yield each module that is not the one that the run began with."""
    home = Path(spec.directory)
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
    for file, inside in _imported(spec, [home, Path.cwd()]):
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


def _imported(spec: RunSpec, folders: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the files of the modules that the config names, and their paths inside a folder."""
    data = document_from_text(spec.text, spec.name, Path(spec.directory)).data
    kept = {key: value for key, value in data.items() if key not in spec.objects.sections}
    values = [kept, *(change[1] for change in spec.changes)]
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


_SAME = {  # of environment.json: what numbers depend on
    "lrexp": "Install that version",
    "packages.torch": "Install that version",
    "device": "Use a machine with that device",
    "default_dtype": "Call torch.set_default_dtype",
    "matmul_precision": "Call torch.set_float32_matmul_precision",
    "deterministic_algorithms": "Call torch.use_deterministic_algorithms",
    "threads": "Set OMP_NUM_THREADS to that number",
}

_NOTED = ("device_name", "cuda", "python")  # a last bit may differ, and often does not


def require_plain_files(run: Path) -> None:
    """Refuse a run that would have other files written than its own, or a pipe waited for.

    Asked before any of its files is opened to be written, its lock included.
    """
    for folder, folders, files in os.walk(run):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if what := _why_not_plain(path):
                raise RunError(f"{path}: is {what}. Put a file in its place, or remove it.")


def read_spec(
    run: Path, objects: Objects, trust: Sequence[str], *, force: bool
) -> tuple[RunSpec, list[Problem]]:
    """Return the spec of a run as it can be planned here, and what was forced.

    Paths start where `find_home` finds what they led to. What does not fit is a ConfigError; a
    damaged order.json is a RunError.
    """
    plain = _read_plain(run)
    try:
        spec = RunSpec.from_plain(plain, objects)
        origin = Origin.from_plain(plain)
        given = sorted(str(section) for section in plain["objects"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run / 'order.json'}: is damaged: {error}. Run it anew.") from error
    _check_objects(run, given, objects)
    _check_trust(run, spec.trust, trust)
    here = replace(spec, directory=str(find_home(run, spec, origin)))
    problems = [*_changed_config(run, spec), *changed_modules(run, here, origin.modules)]
    refuse(problems, force=force)
    return here, problems


def refuse(problems: Iterable[Problem], *, force: bool) -> None:
    """Raise a ConfigError of all problems, if there are any, unless it is forced."""
    found = list(problems)
    if found and not force:
        raise ConfigError(found)


def changed_surroundings(
    run: Path, now: Mapping[str, Any], jobs: tuple[int, int]
) -> Iterator[Problem]:
    """Yield what differs from environment.json, which would be `now`.

    Of `jobs`, worker processes then and now, each of several has one thread.
    """
    then = read_json(run / "environment.json")
    one_thread = [{"threads": 1} if count > 1 else {} for count in jobs]
    old, new = {**then, **one_thread[0]}, {**now, **one_thread[1]}
    place = str(run / "environment.json")
    for key, remedy in _SAME.items():
        was, is_ = _get(old, key), _get(new, key)
        if was != is_:
            what = f"{key.removeprefix('packages.')} was {was} and is {is_} now: numbers may differ"
            yield Problem("", what, NOTHING, f"{remedy}, {FORCE}", place)
    for name, data in _mapping(then.get("data")).items():
        is_ = _mapping(new.get("data")).get(name)
        if None not in (data, is_) and data != is_:
            what = f"the data of variant {name} is not the same any more"
            yield Problem("", what, NOTHING, f"Put the old data back, {FORCE}", place)


def changed_versions(run: Path) -> Iterator[Problem]:
    """Yield lrexp or torch where a worker has another one than the run began with.

    Machines of a cluster may have other packages than the one that planned the run.
    """
    place = run / "environment.json"
    then, now = read_json(place), {"lrexp": __version__, "packages.torch": installed("torch")}
    for key, version in now.items():
        if (was := _get(then, key)) != version:
            name = key.removeprefix("packages.")
            what = f"{name} was {was} and is {version} on {platform.node()}: numbers may differ"
            yield Problem("", what, NOTHING, f"{_SAME[key]} there, {FORCE}", str(place))


def changed_settings(run: Path, spec: RunSpec, resolved: str) -> Iterator[Problem]:
    """Yield a problem if resolved.yaml is not what the config resolves to."""
    path = run / "resolved.yaml"
    saved = str(read_json(run / "order.json").get("directory"))
    then = _moved(_read_config(path), saved, spec.directory)
    if repr(_but_seeds(then)) != repr(_but_seeds(_parsed(resolved))):  # repr: 1 is not 1.0
        what = "is not what the config comes to now: it was edited, or defaults or data changed"
        config = Path(spec.directory) / Path(spec.name or "").name
        moved = config if config.is_file() else run / "config.yaml"
        anew = path if saved == spec.directory else moved  # it leads to where data was
        yield Problem("", what, NOTHING, f"Run {anew} anew instead, {FORCE}", str(path))


def _but_seeds(tree: object) -> object:
    """Return a config without its number of seeds: order.json has it, which is written first."""
    if not isinstance(tree, Mapping) or not isinstance(tree.get("compare"), Mapping):
        return tree
    compare = {key: value for key, value in tree["compare"].items() if key != "seeds"}
    return {**tree, "compare": compare}


def noted_surroundings(run: Path, now: Mapping[str, Any]) -> list[str]:
    """Return what differs from environment.json and is no reason to refuse, in words."""
    then = read_json(run / "environment.json")
    return [
        f"{key} was {then[key]} and is {now.get(key)} now"
        for key in _NOTED
        if key in then and then[key] != now.get(key)
    ]


def _read_config(path: Path) -> object:
    try:
        return _parsed(find_text(path, MAX_BYTES) or "")
    except (ConfigError, RunError):
        return None


def _parsed(text: str) -> object:
    return read_yaml(text, "resolved.yaml")[0]


def _moved(value: object, old: str, new: str) -> object:
    """Return the value with paths of one folder, or in it, in place of those of another."""
    if isinstance(value, Mapping):
        return {key: _moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, old, new) for item in value]
    if isinstance(value, str) and (value == old or value.startswith((f"{old}/", f"{old}\\"))):
        return new + value[len(old) :]
    return value


def _read_plain(run: Path) -> dict[str, Any]:
    path = run / "order.json"
    if path.is_file():
        return read_json(path)
    what = "cannot be resumed: it has no order.json"
    remedy = "It ended before any training, or an older lrexp made it. Run its config anew."
    raise ConfigError([Problem("", what, NOTHING, remedy, str(run))])


def _why_not_plain(path: Path) -> str:
    """Return what a path is that is neither a file nor a folder; "" where it is one."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:  # a living writer's temporary file
        return ""
    if stat.S_ISLNK(mode):
        return "a link, which may lead out of the run"
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "a pipe or a device, and no file"


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


def _changed_config(run: Path, spec: RunSpec) -> Iterator[Problem]:
    path = run / "config.yaml"
    try:
        content = find_bytes(path)
    except RunError:
        content = None
    text = (content or b"").decode(errors="replace")
    if text != spec.text:
        what = "was changed after the run began, which goes on with the settings it had"
        anew = "A schedule depends on its length from the first step on: run the file anew for"
        more = "More seeds: lrexp resume RUN --seeds N"
        remedy = f"{anew} another duration or other settings, {FORCE} {more}."
        yield Problem("", what, NOTHING, remedy, str(path))


def _get(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for part in key.split("."):
        value = _mapping(value).get(part)
    return value


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
