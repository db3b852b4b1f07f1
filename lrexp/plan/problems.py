"""Finding what is wrong in all variants at once, each problem placed where it can be mended."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from lrexp.config import Config, ExperimentConfig
from lrexp.errors import ConfigError, Problem

T = TypeVar("T")


class Problems:
    """Collects the ConfigErrors of independent checks, to report them together."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, ConfigError):
            self.found += [p for p in error.problems if p not in self.found]
            return True
        return False

    def raise_any(self) -> None:
        """Raise what was collected, if anything."""
        if self.found:
            raise ConfigError(self.found)


def for_every_variant(config: Config, plan: Callable[[str, ExperimentConfig], T]) -> dict[str, T]:
    """Return `plan(name, settings)` of every variant, or raise the problems of all of them."""
    made: dict[str, T] = {}
    problems = Problems()
    for name, settings in config.variants.items():
        with problems:
            try:
                made[name] = plan(name, settings)
            except ConfigError as error:
                raise config.locate(name, error) from None
    problems.raise_any()
    return made
