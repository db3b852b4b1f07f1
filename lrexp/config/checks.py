"""What the values of a section mean together with code: names, arguments, schedule parameters.

Each section is checked as it stands in the file, whether or not the schema found something wrong
in it or elsewhere, so that one reading finds every problem.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from lrexp.config.names import Names
from lrexp.config.rule_names import RULES
from lrexp.config.trust import AnyCallable
from lrexp.errors import ConfigError, Problem
from lrexp.schedules.signatures import check_arguments, one_of

Section: TypeAlias = Mapping[str, Any]


def section_problems(section: str, value: object, names: Names) -> list[Problem]:
    """Return what is wrong with one section, keys from the top of the config.

    Raises:
        UserCodeError: the user's own module raised while it was imported.

    Example:
        >>> section_problems("loss", "mse", Names(()))[0].remedy
        "Did you mean 'mse_loss'?"
    """
    if section == "loss":
        return _loss(value, names) if isinstance(value, str) and value else []
    if section == "find_lr":
        return _find_lr(value, names) if isinstance(value, Mapping) else []
    if section not in _CHECKS or not isinstance(value, Mapping):
        return []
    name = value.get("name")
    if not isinstance(name, str) or not name:
        return []  # the schema's business
    try:
        return _CHECKS[section](name, value, names)
    except ConfigError as error:
        return list(error.under(f"{section}.name").problems)


def _model(name: str, section: Section, names: Names) -> list[Problem]:
    from lrexp.workloads.models import FACTS, FILLED

    function = names.resolve("model", name)
    automatic = () if ":" in name else FILLED  # a model of one's own is told with $in_features
    return _args("model", function, section, facts=FACTS, automatic=automatic)


def _data(name: str, section: Section, names: Names) -> list[Problem]:
    return _args("data", names.resolve("data", name), section)


def _optimizer(name: str, section: Section, names: Names) -> list[Problem]:
    function = names.resolve("optimizer", name)
    filled = {"lr": "optimizer.lr", "params": "the model"}
    # torch compares with <, which NaN passes
    problems = _args("optimizer", function, section, filled=filled, finite=True)
    if problems or ":" in name:
        return problems
    return _refused_by_torch(function, section)


def _schedule(name: str, section: Section, names: Names) -> list[Problem]:
    from lrexp.schedules.build import check_schedule

    found = names.resolve("schedule", name)
    written = {key: value for key, value in section.items() if key != "name"}
    try:
        params = names.with_callables(written)
    except ConfigError as error:
        return list(error.under("schedule").problems)
    problems = check_schedule(found if ":" in name else name, params)
    return list(ConfigError(problems).under("schedule").problems)


def _loss(name: str, names: Names) -> list[Problem]:
    try:
        function = names.resolve("loss", name)
    except ConfigError as error:
        return list(error.under("loss").problems)
    try:
        inspect.signature(function).bind("output", "target")
    except TypeError:
        what = "must take two arguments, (output, target)"
        return [Problem("loss", what, name, "Give its other parameters defaults.")]
    except ValueError:  # no signature to be had
        pass
    return []


def _find_lr(section: Section, names: Names) -> list[Problem]:
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


_CHECKS: dict[str, Callable[[str, Section, Names], list[Problem]]] = {
    "model": _model,
    "data": _data,
    "optimizer": _optimizer,
    "schedule": _schedule,
}

TRAINED = ("model", "data", "loss", "optimizer", "schedule")
CHECKED = (*TRAINED, "find_lr")  # last: the modules that the others name may register its rule


def _args(section: str, function: AnyCallable, value: Section, **options: Any) -> list[Problem]:
    args = value.get("args", {})
    if not isinstance(args, Mapping):
        return []
    problems = check_arguments(function, args, title=str(value["name"]), **options)
    return [replace(p, key=f"{section}.args.{p.key}") for p in problems]


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
