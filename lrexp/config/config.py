"""A checked config: the experiment of the file itself and of each of its variants.

`resolved_tree` writes it complete: every default, every duration in steps, variants explicit.
Loading that gives the same training for every variant, whatever defaults a later version has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lrexp.config.document import Document
from lrexp.config.names import IN_PYTHON, Names
from lrexp.config.schema import ExperimentConfig
from lrexp.config.tree import locate
from lrexp.config.trust import own_files
from lrexp.config.units import Clock, parse_duration
from lrexp.errors import ConfigError, Problem

STANDARD, BEST = "standard", "best"  # names that compare.reference knows


@dataclass(frozen=True)
class Config:
    """What `load_config` returns.

    Args:
        document: the file as it was written.
        experiment: the file itself.
        variants: the file with each variant's overrides applied.
        overrides: what each variant changes, as dotted keys.
        trust: packages that import paths may reach besides.
        origins: for each variant, dotted key -> dotted key of the place where it is written.
    """

    document: Document
    experiment: ExperimentConfig
    variants: dict[str, ExperimentConfig]
    overrides: dict[str, dict[str, object]]
    trust: tuple[str, ...] = ()
    origins: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> Names:
        """Return what resolves the names of this config."""
        return Names(search_path(self.document), self.trust)

    @property
    def reference(self) -> str:
        """Return the variant that the others are compared with, or `best` for the one that wins.

        What nobody declared is chosen before training all the same: a variant called standard,
        else the first; a grid has no baseline, and there it is the best.
        """
        compare = self.experiment.compare
        if compare.reference is not None:
            return compare.reference
        if STANDARD in self.variants:
            return STANDARD
        return BEST if compare.grid is not None else next(iter(self.variants))

    def own_files(self) -> dict[str, bytes]:
        """Return the user's modules that were imported by now: path beside the config -> source.

        A run keeps them, so that its resolved config can be run again from there.
        """
        found = own_files(search_path(self.document))
        return {name: path.read_bytes() for name, path in found.items()}

    def locate(self, variant: str, error: ConfigError) -> ConfigError:
        """Return an error of one variant with each problem placed where the user can mend it.

        A problem with a key that the variant changes is placed at the variant; another one where
        the key stands in the file.
        """
        origins = self.origins.get(variant, {})
        placed = [under_origin(problem, origins) or problem for problem in error.problems]
        return ConfigError(placed).placed(self.document.place_of)


def under_origin(problem: Problem, origins: Mapping[str, str]) -> Problem | None:
    """Return the problem with the key where an override wrote it; None if none did."""
    key = problem.key
    for override, origin in sorted(origins.items(), key=lambda item: -len(item[0])):
        if key == override or key.startswith((f"{override}.", f"{override}[")):
            return replace(problem, key=origin + key[len(override) :])
    for override, origin in origins.items():
        if override.startswith(f"{key}."):  # the whole is wrong through what it holds
            return replace(problem, key=origin)
    return None


def search_path(document: Document) -> tuple[Path, ...]:
    """Return the folders whose modules are the user's own, in order."""
    folders = (document.directory.absolute(), Path.cwd())
    return tuple(dict.fromkeys(folders))


_DECLARED = ("variants", "grid")


def resolve_units(experiment: ExperimentConfig, clock: Clock) -> ExperimentConfig:
    """Return the experiment with its durations as `Nst`; the clock knows its `total_steps`.

    Raises:
        ConfigError: a duration means nothing to this clock; its key is "".

    Example:
        >>> clock = Clock(total_steps=220, steps_per_epoch=22)
        >>> resolve_units(experiment, clock).train.eval_every  # doctest: +SKIP
        '22st'
    """
    tree = _dumped(experiment)
    tree["train"]["duration"] = f"{clock.total_steps}st"
    every = experiment.train.eval_every
    if clock.steps_per_epoch is None and parse_duration(every).unit == "ep":
        every = clock.total_steps or every  # of a range test, which evaluates nothing
    tree["train"]["eval_every"] = f"{clock.steps(every, at_least=1)}st"
    tree["schedule"] = _resolved_schedule(tree["schedule"], clock)
    return ExperimentConfig.model_validate(tree)


def resolved_tree(config: Config, clocks: Mapping[str, Clock]) -> dict[str, Any]:
    """Return the complete config as plain values.

    `clocks` are the variants', with `total_steps` set; a variant without one keeps its durations as
    they were written.

    Example:
        >>> resolved_tree(config, {"high": clock})["train"]  # doctest: +SKIP
        {'duration': '220st', 'eval_every': '22st', 'accumulate': 1, 'grad_clip': None}
    """
    clock = _clock_of_base(config, clocks)
    base = _plain(config.experiment, clock)
    if _is_alone(config):
        return base
    base["compare"] = {k: v for k, v in base["compare"].items() if k not in _DECLARED}
    base["compare"]["reference"] = config.reference
    base["compare"]["variants"] = {
        name: _differences(base, _plain(variant, clocks.get(name)))
        for name, variant in config.variants.items()
    }
    return base


def _plain(experiment: ExperimentConfig, clock: Clock | None) -> dict[str, Any]:
    if clock is not None:
        experiment = resolve_units(experiment, clock)
    tree = _dumped(experiment)
    compare = tree["compare"]
    tree["compare"] = {k: v for k, v in compare.items() if k not in _DECLARED or v is not None}
    return tree


def _dumped(experiment: ExperimentConfig) -> dict[str, Any]:
    """Return all values; how the user's own data is batched may be up to it, and stays so."""
    tree, data = experiment.model_dump(), experiment.data
    if ":" in data.name or data.name == IN_PYTHON:
        options = data.options
        tree["data"] = {k: v for k, v in tree["data"].items() if options.get(k, v) is not None}
    return tree


def _clock_of_base(config: Config, clocks: Mapping[str, Clock]) -> Clock | None:
    """Return the clock of a variant that counts time as the file itself does, if there is one."""
    own = config.experiment
    for name, variant in config.variants.items():
        if name in clocks and (variant.data, variant.train) == (own.data, own.train):
            return clocks[name]
    return None


def _is_alone(config: Config) -> bool:
    """Return whether the config was narrowed to the file itself, as for a range test."""
    (name, *others) = config.variants
    return not others and name not in config.origins


def _differences(base: Mapping[str, Any], variant: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be put into `base` to give `variant`, as dotted keys."""
    found: dict[str, Any] = {}
    for section, value in variant.items():
        if section != "compare":
            found.update(_difference(section, base.get(section), value))
    return found


def _difference(key: str, base: Any, variant: Any) -> dict[str, Any]:
    if type(base) is type(variant) and repr(base) == repr(variant):  # repr: 1 is not 1.0
        return {}
    nested = isinstance(base, Mapping) and isinstance(variant, Mapping)
    # A key can be changed or added by its dotted name; removing one needs the whole mapping.
    if nested and base.keys() <= variant.keys() and all(map(_is_plain_key, variant)):
        found: dict[str, Any] = {}
        for name, value in variant.items():
            if name in base:
                found.update(_difference(f"{key}.{name}", base[name], value))
            else:
                found[f"{key}.{name}"] = value
        return found
    return {key: variant}


def _is_plain_key(name: str) -> bool:
    return bool(name.strip()) and not set(".[") & set(name) and locate({}, name) == (name,)


def _resolved_schedule(section: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    durations = _duration_names(section.get("name"))
    resolved = {
        key: _in_steps(value, clock) if key in durations else value
        for key, value in section.items()
    }
    if isinstance(section.get("parts"), list):
        resolved["parts"] = [_resolved_part(part, clock) for part in section["parts"]]
    return resolved


def _resolved_part(part: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    inner = part["schedule"]
    inner = {"name": inner} if isinstance(inner, str) else inner
    ends = {key: _in_steps(part[key], clock) for key in ("start", "end")}
    return {**part, **ends, "schedule": _resolved_schedule(inner, clock)}


def _in_steps(value: Any, clock: Clock) -> Any:
    if isinstance(value, list):
        return [_in_steps(item, clock) for item in value]
    return None if value is None else f"{clock.steps(value)}st"


def _duration_names(name: object) -> set[str]:
    """Return which of a schedule's parameters are durations; every schedule takes a warmup."""
    from lrexp.schedules.build import SCHEDULES
    from lrexp.schedules.schedule import is_duration
    from lrexp.schedules.signatures import named_parameters

    if name not in SCHEDULES:
        return {"warmup"}
    known = named_parameters(SCHEDULES[str(name)])
    return {key for key, parameter in known.items() if is_duration(parameter.annotation)}
