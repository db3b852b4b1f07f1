"""A file, a path or a dict to a checked `Config`: every problem at once, in the file's order.

The pipeline: read (`document.py`), override, write short forms out, check against the schema
(`schema_errors.py`) and against code (`names.py`), then the same for each variant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from lrexp.config.checks import CHECKED, section_problems
from lrexp.config.config import BEST, Config, search_path, under_origin
from lrexp.config.document import Document, document_from_dict, read_document
from lrexp.config.fields import make_safe
from lrexp.config.metric_names import metric_problems, named_metrics
from lrexp.config.names import IN_PYTHON, PLAIN, Names
from lrexp.config.reader import read_override
from lrexp.config.schema import ExperimentConfig
from lrexp.config.schema_errors import schema_problems
from lrexp.config.tree import NAMED_SECTIONS, expand, get, locate, put
from lrexp.config.variants import Variant, read_variants
from lrexp.errors import NOTHING, ConfigError, Problem, UserCodeError, did_you_mean

PATHS = ("path", "root")  # what built-in data and torchvision call their files


def prepare(
    data: Mapping[str, object], *, directory: Path, title: str, given: Collection[str] = ()
) -> dict[str, object]:
    """Return the config with short forms written out.

    Args:
        data: the values as read.
        directory: where relative paths of built-in data start.
        title: the experiment's name where it has none.
        given: sections that Python objects stand in for.

    Example:
        >>> prepare({"data": "digits"}, directory=Path(), title="a/b.yaml")
        {'name': 'a.b.yaml', 'data': {'name': 'digits'}}
    """
    tree = expand({"name": make_safe(title), **data})
    for section in given:
        if section in NAMED_SECTIONS:
            value = tree.get(section) or {}
            tree[section] = {**value, "name": IN_PYTHON} if isinstance(value, Mapping) else value
        elif section in PLAIN:
            tree[section] = IN_PYTHON
    return _with_absolute_paths(tree, directory)


def apply(
    tree: Mapping[str, object], overrides: Mapping[str, object], directory: Path
) -> dict[str, object]:
    """Return a prepared config with dotted keys replaced; whole sections before keys in them.

    Raises:
        ConfigError: a key leads through a value that is no mapping; the problem's key is its own.
    """
    changed: object = tree
    for key in sorted(overrides, key=lambda key: len(locate(tree, key))):
        changed = put(changed, locate(changed, key), overrides[key])
    assert isinstance(changed, dict)
    return _with_absolute_paths(expand(changed), directory)


def at_home(path: str) -> Path:
    """Return a path with the user's home in place of `~`; as it is where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # of a user who does not exist
        return Path(path)


def _with_absolute_paths(tree: dict[str, object], directory: Path) -> dict[str, object]:
    """A user's own callable gets its arguments as they are written."""
    name, args = get(tree, ("data", "name")), get(tree, ("data", "args"))
    if not isinstance(name, str) or ":" in name or not isinstance(args, Mapping):
        return tree
    located = {
        key: str(directory / at_home(value))
        if key in PATHS and isinstance(value, str) and value and "\0" not in value
        else value
        for key, value in args.items()
    }
    changed = put(tree, ("data", "args"), located)
    assert isinstance(changed, dict)
    return changed


_OF_ALL = ("variants", "grid", "reference")  # keys of `compare` that are about all variants
Override: TypeAlias = tuple[str, object] | tuple[str, object, str]


def load_config(
    source: Path | str | Mapping[str, object] | Document,
    overrides: Sequence[Override] = (),
    *,
    trust: Sequence[str] = (),
    given: Collection[str] = (),
    directory: Path | None = None,
    checked: Collection[str] = CHECKED,
) -> Config:
    """Return the checked config of a YAML file or a dict.

    Args:
        source: the file, a mapping with the same keys, or a document read before.
        overrides: (dotted key, value) that replace the file's, in order; problems name them
            `--set KEY`, or by the label that comes third: ("compare.seeds", 0, "--seeds").
        trust: packages that import paths in the config may reach besides the user's own code.
        given: sections that Python objects stand in for: model, data, loss, step, eval_step,
            optimizer.
        directory: where relative paths and import paths start; by default the file's folder, or
            the working directory for a mapping.
        checked: sections whose names and arguments are checked against code; types and keys are
            checked in all.

    Raises:
        ConfigError: with every problem: syntax, keys, types, names, arguments, variants.
        UserCodeError: the user's own module raised while it was imported.

    Example:
        >>> optimizer = {"name": "SGD", "lr": 0.1}
        >>> source = {"model": "mlp", "data": "digits", "loss": "cross_entropy"}
        >>> config = load_config({**source, "optimizer": optimizer}, [("seed", 3)])
        >>> {name: v.optimizer.lr for name, v in config.variants.items()}
        {'high': 1.0, 'standard': 0.1, 'low': 0.01}
    """
    document, problems = _overridden(_read(source, directory), overrides)
    problems += _trust_problems(trust)
    names = Names(search_path(document), tuple(trust))
    tree = prepare(document.data, directory=document.directory, title=document.title, given=given)
    checker = _Checker(names, {*checked}, {*given}, document.directory)
    problems += checker.problems(tree)
    variants, wrong = read_variants(tree)
    problems += wrong
    trees = {}
    for variant in variants:
        trees[variant.name], found = checker.variant(variant, tree)
        problems += found
    problems += _reference_problems(tree, [variant.name for variant in variants])
    if problems:
        raise _reported(problems, document)
    if checker.failure is not None:
        raise checker.failure
    return Config(
        document=document,
        experiment=ExperimentConfig.model_validate(tree),
        variants={name: ExperimentConfig.model_validate(t) for name, t in trees.items()},
        overrides={variant.name: variant.overrides for variant in variants},
        trust=tuple(trust),
        origins={variant.name: variant.origins for variant in variants},
    )


def data_paths(document: Document, overrides: Sequence[Override] = ()) -> list[tuple[str, str]]:
    """Return the relative paths of built-in data, with their argument's name; imports nothing.

    Of a config with problems, what can be told.

    Example:
        >>> source = {"data": {"name": "csv", "args": {"path": "a.csv"}}}
        >>> data_paths(document_from_dict(source))
        [('path', 'a.csv')]
    """
    changed, _ = _overridden(document, overrides)
    tree = prepare(changed.data, directory=Path(), title="experiment")
    trees = [tree]
    for variant in read_variants(tree)[0]:
        with suppress(ConfigError):
            trees.append(apply(tree, variant.overrides, Path()))
    found = []
    for tree in trees:
        name, args = get(tree, ("data", "name")), get(tree, ("data", "args"))
        if isinstance(args, Mapping) and isinstance(name, str) and ":" not in name:
            pairs = [(key, args.get(key)) for key in PATHS]
            found += [(k, p) for k, p in pairs if isinstance(p, str) and _is_relative(p)]
    return list(dict.fromkeys(found))


def _is_relative(path: str) -> bool:
    return bool(path) and "\0" not in path and not at_home(path).is_absolute()


def _reference_problems(tree: Mapping[str, object], names: Sequence[str]) -> list[Problem]:
    reference = get(tree, ("compare", "reference"))
    if not isinstance(reference, str) or reference in (*names, BEST) or not names:
        return []
    remedy = did_you_mean(reference, [*names, BEST])
    return [Problem("compare.reference", "is no variant", reference, remedy)]


class _Checker:
    """Checks the config and its variants; what they share is checked once."""

    def __init__(self, names: Names, checked: set[str], given: set[str], directory: Path) -> None:
        self.failure: UserCodeError | None = None
        self._names, self._checked, self._given = names, checked - given, given
        self._trains = "optimizer" in checked
        self._directory = directory
        self._base: list[Problem] = []
        self._known: dict[tuple[str, str], list[Problem]] = {}

    def problems(self, tree: Mapping[str, object]) -> list[Problem]:
        """Return the problems of the file itself."""
        self._base = self._all(tree)
        return self._base

    def variant(
        self, variant: Variant, tree: Mapping[str, object]
    ) -> tuple[dict[str, object], list[Problem]]:
        """Return a variant's config, and the problems that the file itself does not have."""
        try:
            changed = apply(tree, variant.overrides, self._directory)
        except ConfigError as error:
            found = [under_origin(p, variant.origins) or p for p in error.problems]
            return {}, found
        # A variant holds no variants: only what they share stays in `compare`.
        compare = get(changed, ("compare",))
        if isinstance(compare, Mapping):
            shared = {k: v for k, v in compare.items() if k not in _OF_ALL}
            changed = {**changed, "compare": shared}
        known = [_identity(problem) for problem in self._base]
        new = [p for p in self._all(changed) if _identity(p) not in known]
        return changed, [_of_variant(problem, variant) for problem in new]

    def _all(self, tree: Mapping[str, object]) -> list[Problem]:
        problems = schema_problems(tree)
        if "model" in self._checked:  # else nobody knows yet what the model returns
            problems = [*_missing_loss(tree), *problems]
        for section in CHECKED:
            if section in tree and section in self._checked:
                check = partial(section_problems, section, tree[section], self._names)
                problems += self._once(section, tree[section], check)
        if self._trains:
            steps = {"step", "eval_step"}
            logs = bool(steps & self._given) or any(tree.get(step) is not None for step in steps)
            check = partial(metric_problems, tree, self._names, logs=logs)
            problems += self._once("metrics", [*named_metrics(tree), logs], check)
        return problems

    def _once(
        self, section: str, value: object, check: Callable[[], list[Problem]]
    ) -> list[Problem]:
        key = (section, repr(value))
        if key not in self._known:
            self._known[key] = []
            try:
                self._known[key] = check()
            except UserCodeError as error:
                self.failure = self.failure or error
        return self._known[key]


def _missing_loss(tree: Mapping[str, object]) -> list[Problem]:
    """Return the problem of a model that is known to return no loss, and no loss beside it."""
    model = get(tree, ("model", "name"))
    is_made = tree.get("loss") is not None or tree.get("step") is not None
    if is_made or not isinstance(model, str) or ":" in model:
        return []
    return [Problem("loss", "is required", NOTHING, "Add it, e.g. `cross_entropy`.")]


def _read(source: Path | str | Mapping[str, object] | Document, directory: Path | None) -> Document:
    if isinstance(source, Document):
        return source
    if isinstance(source, Mapping):
        return document_from_dict(source, directory)
    return read_document(source, directory)


def _overridden(
    document: Document, overrides: Sequence[Override]
) -> tuple[Document, list[Problem]]:
    problems: list[Problem] = []
    for key, value, *label in overrides:
        place = label[0] if label else f"--set {key}"
        try:
            document = document.with_override(key, value, place)
        except ConfigError as error:
            problems += error.problems
    return document, problems


def _trust_problems(trust: Sequence[str]) -> list[Problem]:
    what, remedy = "takes the name of a package", "Write e.g. --trust mypackage."
    return [
        Problem("", what, prefix, remedy, "--trust")
        for prefix in trust
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", prefix)
    ]


def _of_variant(problem: Problem, variant: Variant) -> Problem:
    """Return a problem that a variant brought about, with the key of what it changes."""
    at_override = under_origin(problem, variant.origins)
    if at_override and variant.home:
        section = problem.key.partition(".")[0]
        if problem.what == "is required" and section in variant.overrides:
            value = variant.overrides[section]
            first = next(iter(value), "name") if isinstance(value, Mapping) else "name"
            one_key = f"`{section}.{first}: ...`"
            remedy = f"A whole section is replaced here; to change one key, write {one_key}."
            return replace(at_override, remedy=remedy)
        return at_override
    key = f"{variant.home}.{problem.key}" if variant.home else problem.key
    return replace(problem, key=key, what=f"{problem.what}, in variant {variant.name!r}")


def _identity(problem: Problem) -> tuple[str, str, str]:
    given = "" if problem.given is NOTHING else repr(problem.given)
    return problem.key, problem.what, given


def _reported(problems: Sequence[Problem], document: Document) -> ConfigError:
    """Return one error: each problem once, with its place, in the order of the file."""
    placed = ConfigError(problems).placed(document.place_of).problems
    once = {(problem.place, *_identity(problem)): problem for problem in placed}

    def line(problem: Problem) -> tuple[int, int]:
        place = problem.place.removeprefix(f"{document.name}:")
        return (0, int(place)) if place.isdigit() else (1, 0)

    return ConfigError(sorted(once.values(), key=line))


Overrides: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any] | str]


def changes_of(
    overrides: Overrides,
    names: Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> list[tuple[str, Any] | tuple[str, Any, str]]:
    """Return all that changes the config, each flag with its name for messages.

    `names` are sections given in Python, where no flag set them.
    """
    items = overrides.items() if isinstance(overrides, Mapping) else overrides
    pairs = [read_override(item) if isinstance(item, str) else item for item in items]
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    labelled = [(key, value, f"--{key.rpartition('.')[2]}") for key, value in given.items()]
    sections = [(key, value, "") for key, value in (names or {}).items()]
    return [*pairs, *sections, *labelled]


def is_of_config(section: Any) -> bool:
    """Return whether a section is given as a config has it: a name, or a mapping with one."""
    has_name = isinstance(section, Mapping) and isinstance(section.get("name"), str)
    return isinstance(section, str) or has_name
