"""Whether the sections of an experiment fit the code that they name.

Each section is checked as it stands in the file, whether or not the schema found something wrong,
so that one reading finds every problem.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

from lrexp.config.names import CLOSURE, GROUP_KEYS, PLAIN, TAKEN, Names, made
from lrexp.config.rule_names import RULES
from lrexp.config.trust import AnyCallable
from lrexp.errors import ConfigError, Problem, did_you_mean
from lrexp.schedules.signatures import check_arguments, one_of, under

Section: TypeAlias = Mapping[str, Any]


def section_problems(section: str, value: object, names: Names) -> list[Problem]:
    """Return what is wrong with one section, keys from the top of the config.

    Raises:
        UserCodeError: the user's own module raised while it was imported.

    Example:
        >>> section_problems("loss", {"name": "mse"}, Names(()))[0].remedy
        "Did you mean 'mse_loss'?"
    """
    if section in PLAIN:
        is_name = isinstance(value, str) and value
        return _check_step(section, str(value), names) if is_name else []
    if section == "find_lr":
        return _check_rule(value, names) if isinstance(value, Mapping) else []
    value = value if section in _CHECKS and isinstance(value, Mapping) else {}
    parts, name = value.get("parts"), value.get("name")
    if section == "optimizer" and isinstance(parts, list) and parts:
        return _check_parts(parts, names)
    if not isinstance(name, str) or not name:
        return []  # the schema's business
    try:
        return _CHECKS[section](name, value, names)
    except ConfigError as error:
        key = section if section == "loss" else f"{section}.name"
        return under(key, error.problems)


def _check_model(name: str, section: Section, names: Names) -> list[Problem]:
    from lrexp.workloads.models import FACTS, FILLED

    function = names.resolve("model", name)
    automatic = () if ":" in name else FILLED  # a model of one's own is told with $in_features
    return _args("model", function, section, facts=FACTS, automatic=automatic)


def _check_data(name: str, section: Section, names: Names) -> list[Problem]:
    return _args("data", names.resolve("data", name), section)


def _check_optimizer(name: str, section: Section, names: Names) -> list[Problem]:
    from lrexp.workloads.optimizers import needs_closure

    function = names.resolve("optimizer", name)
    filled = {"lr": "optimizer.lr", "params": "the model"}
    if isinstance(function, type) and needs_closure(function):
        return [Problem("optimizer.name", CLOSURE, name, "Use another optimizer.")]
    # torch compares with <, which NaN passes
    problems = _args("optimizer", function, section, filled=filled, finite=True)
    problems += _group_problems(name, function, section, filled)
    if problems or ":" in name:
        return problems
    return _refused_by_torch(function, section)


def _check_parts(parts: list[Any], names: Names) -> list[Problem]:
    problems = []
    for i, part in enumerate(parts):
        for problem in section_problems("optimizer", part, names):
            key = problem.key.replace("optimizer", f"optimizer.parts[{i}]", 1)
            problems.append(replace(problem, key=key))
    return problems


def _group_problems(
    name: str, function: AnyCallable, section: Section, filled: Mapping[str, str]
) -> list[Problem]:
    """Return what is wrong with the arguments that groups set."""
    groups = section.get("groups")
    problems = []
    for i, group in enumerate(groups if isinstance(groups, list) else []):
        if isinstance(group, Mapping):
            own = {k: v for k, v in group.items() if k not in GROUP_KEYS}
            found = check_arguments(function, own, title=name, filled=filled, finite=True)
            known = {"params", "lr", *GROUP_KEYS}
            found = [p for p in found if p.what != "is required" and p.key not in known]
            names = [*GROUP_KEYS, *inspect.signature(function).parameters]
            found = [
                p if p.key in names else replace(p, remedy=did_you_mean(p.key, names))
                for p in found
            ]
            problems += under(f"optimizer.groups[{i}]", found)
    return problems


def _check_schedule(name: str, section: Section, names: Names) -> list[Problem]:
    from lrexp.schedules.build import check_schedule

    found = names.resolve("schedule", name)
    written = {key: value for key, value in section.items() if key != "name"}
    try:
        params = names.with_callables(written)
    except ConfigError as error:
        return under("schedule", error.problems)
    return under("schedule", check_schedule(found if ":" in name else name, params))


def _check_step(section: Any, name: str, names: Names) -> list[Problem]:
    try:
        function = names.resolve(section, name)
    except ConfigError as error:
        return under(section, error.problems)
    with suppress(ValueError):  # no signature to be had
        if not _takes(inspect.signature(function), 2):
            what = f"must take two arguments, ({', '.join(TAKEN[section])})"
            return [Problem(section, what, name, "Give its other parameters defaults.")]
    return []


def _check_loss(name: str, section: Section, names: Names) -> list[Problem]:
    found = names.resolve("loss", name)
    args = section.get("args", {})
    if not isinstance(args, Mapping):
        return []
    compared = {} if isinstance(found, type) else dict.fromkeys(_compared(found), "the batch")
    problems = _args("loss", found, section, filled=compared) if args else []
    if problems:
        return problems
    function = made(found, name, "loss", args)
    with suppress(ValueError):  # no signature to be had
        signature = inspect.signature(function)
        if not any(_takes(signature, count) for count in (2, 3)):
            what = "must take two arguments, (output, target), or three with a weight"
            return [Problem("loss", what, name, "Give its other parameters defaults.")]
    return []


def _check_rule(section: Section, names: Names) -> list[Problem]:
    rule = section.get("rule")
    if not isinstance(rule, str) or not rule:
        return []  # the schema's business
    if rule not in RULES:
        names.import_trusted()
    problem = one_of("find_lr.rule", rule, RULES)
    if problem is None:
        return []
    own = "Your own: @lrexp.register_rule, in a module that the config or --trust names."
    return [replace(problem, remedy=f"{problem.remedy} {own}")]


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _compared(function: AnyCallable) -> list[str]:
    """Return the parameters that are given the output and the target."""
    try:
        return list(inspect.signature(function).parameters)[:2]
    except (TypeError, ValueError):
        return []


_CHECKS: dict[str, Callable[[str, Section, Names], list[Problem]]] = {
    "model": _check_model,
    "data": _check_data,
    "loss": _check_loss,
    "optimizer": _check_optimizer,
    "schedule": _check_schedule,
}

TRAINED = ("model", "data", "loss", *PLAIN, "optimizer", "schedule")
CHECKED = (*TRAINED, "find_lr")  # last: the modules that the others name may register its rule


def _args(section: str, function: AnyCallable, value: Section, **options: Any) -> list[Problem]:
    args = value.get("args", {})
    if not isinstance(args, Mapping):
        return []
    problems = check_arguments(function, args, title=str(value["name"]), **options)
    return under(f"{section}.args", problems)


def _refused_by_torch(cls: AnyCallable, section: Section) -> list[Problem]:
    """Try the settings on one small parameter: torch checks ranges when it makes an optimizer."""
    import torch

    lr, args = section.get("lr"), section.get("args", {})
    usable = isinstance(lr, int | float) and not isinstance(lr, bool) and 0 < lr < float("inf")
    if not usable or not isinstance(args, Mapping):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the engine makes it again, and warns then
            cls([torch.nn.Parameter(torch.zeros(1, 1))], lr=lr, **args)
    except (ValueError, TypeError, RuntimeError) as error:
        said = str(error).split("\n", maxsplit=1)[0]
        what = f"is refused by {section['name']}: {said}"
        return [Problem("optimizer.args", what, dict(args), "Change the argument.")]
    return []
