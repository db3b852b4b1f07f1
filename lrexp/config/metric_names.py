"""The metrics that a config names: in `metrics`, as what ranks, as what a schedule follows."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

from lrexp.config.names import IN_PYTHON, Names
from lrexp.config.tree import get
from lrexp.errors import ConfigError, Problem
from lrexp.records import METRICS, column_of
from lrexp.schedules.signatures import under

EVERY_STEP = "loss"  # what a controller may monitor: the training loss; all else is evaluated


def named_metrics(tree: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return (key, name) of every metric that a config names, whatever else is wrong with it.

    Example:
        >>> named_metrics({"metrics": ["f1_macro"], "schedule": {"monitor": "val_f1_macro"}})
        [('metrics[0]', 'f1_macro'), ('schedule.monitor', 'val_f1_macro')]
    """
    listed, metric = tree.get("metrics"), get(tree, ("compare", "metric"))
    monitor = get(tree, ("schedule", "monitor"))
    found: list[tuple[str, object]] = []
    if isinstance(listed, list | tuple):
        found += [(f"metrics[{i}]", name) for i, name in enumerate(listed)]
    found += [("compare.metric", metric), ("schedule.monitor", monitor)]
    return [(key, n) for key, n in found if isinstance(n, str) and n and n != EVERY_STEP]


def asked_metrics(tree: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    """Return key and name of every metric that a config asks for, by column."""
    found: dict[str, tuple[str, str]] = {}
    for key, name in named_metrics(tree):
        found.setdefault(column_of(name), (key, name))
    return found


def metric_problems(
    tree: Mapping[str, object], names: Names, *, logs: bool = False
) -> list[Problem]:
    """Return which metrics lead nowhere, or to the same column.

    Args:
        tree: the config, names: of it.
        logs: whether a step may log numbers of any name.

    Raises:
        UserCodeError: the user's own module raised while it was imported.
    """
    return list(_problems(tree, names, logs=logs))


def _problems(tree: Mapping[str, object], names: Names, *, logs: bool) -> Iterator[Problem]:
    first = asked_metrics(tree)
    for key, name in named_metrics(tree):
        other = first[column_of(name)][1]
        is_own = ":" in name and not name.startswith(IN_PYTHON)
        is_taken = is_own and not _is_free(name, names)
        if is_taken or (_meant(other) != _meant(name) and (is_own or key.startswith("metrics["))):
            what = f"has the column {column_of(name)}, as another metric has"
            yield Problem(key, what, name, "Give one of the functions another name.")
        elif is_own:
            yield from under(key, _of_function(name, names))
        elif ":" not in name and not logs:
            yield from _of_name(key, name, first)


def _is_free(name: str, names: Names) -> bool:
    """Return whether no other function is registered under the column of a function."""
    registered = METRICS.get(column_of(name))
    if registered is None or registered.function is None:
        return registered is None
    try:
        return names.resolve("function", name) is registered.function
    except ConfigError:  # it is told as that of the function
        return True


def _of_function(name: str, names: Names) -> list[Problem]:
    try:
        function = names.resolve("function", name)
    except ConfigError as error:
        return list(error.problems)
    try:
        inspect.signature(function).bind("output", "target")
    except TypeError:
        what = "must take two arguments, (output, target)"
        return [Problem("", what, name, "Give its other parameters defaults.")]
    except ValueError:  # no signature to be had
        pass
    return []


def _of_name(key: str, name: str, asked: Mapping[str, tuple[str, str]]) -> Iterator[Problem]:
    column = column_of(name)
    if column in METRICS or ":" in asked[column][1]:
        return
    from lrexp.workloads.answers import is_scorer, metric_remedy, scorer_names

    if not is_scorer(column.removeprefix("val_")):
        known = [*METRICS, *(column for column, (_, n) in asked.items() if n != name)]
        what = "is no metric: neither a scorer of scikit-learn nor a function"
        yield Problem(key, what, name, metric_remedy(name, [*known, *scorer_names()]))


def _meant(name: str) -> str:
    return name if ":" in name else column_of(name)
