"""A checked config: the experiment of the file itself and of each of its variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lrexp.config.document import Document
from lrexp.config.names import Names
from lrexp.config.schema import ExperimentConfig
from lrexp.config.trust import own_files
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
