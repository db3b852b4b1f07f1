"""A comparison that goes on until it is decided: judged at several numbers of seeds.

Each look is a chance of a false claim, so the looks share the 5 % (`statistics.look_alpha`).
"""

from __future__ import annotations

from dataclasses import dataclass

from lrexp.analysis.claims import BETTER, NO_DIFFERENCE
from lrexp.analysis.statistics import looks_between
from lrexp.errors import NOTHING, ConfigError
from lrexp.runs.reader import Run


@dataclass(frozen=True)
class Until:
    """What `--until-decided --max-seeds N` ask for.

    Args:
        decided: whether to go on until every verdict is decided.
        most: seeds.
    """

    decided: bool = False
    most: int | None = None

    def looks(self, first: int) -> list[int] | None:
        """Return the numbers of seeds at which to judge; None where nothing is asked for.

        Raises:
            ConfigError: one stands without the other, or the most is not more than there are.
        """
        if not self.decided:
            if self.most is not None:
                remedy = "Add --until-decided, or give --seeds."
                raise ConfigError.single("--max-seeds", "has no use alone", self.most, remedy)
            return None
        remedy = f"Give e.g. --max-seeds {4 * first}."
        if self.most is None:
            raise ConfigError.single("--until-decided", "needs --max-seeds", NOTHING, remedy)
        if isinstance(self.most, bool) or not isinstance(self.most, int) or self.most <= first:
            what = f"must be more than the {first} that there are"
            raise ConfigError.single("--max-seeds", what, self.most, remedy)
        return looks_between(first, self.most)


def goes_on(run: Run) -> int | None:
    """Return with how many seeds a comparison goes on that has ended; None where it is decided."""
    looks = ((run.summary or {}).get("declared") or {}).get("looks") or ()
    more = (n for n in looks if n > num_seeds(run))
    return next(more, None) if is_undecided(run) else None


def num_seeds(run: Run) -> int:
    """Return how many seeds a run says that it has."""
    seeds = run.status.get("seeds")
    return len(seeds) if isinstance(seeds, list) else 0


def is_undecided(run: Run) -> bool:
    """Return whether a comparison that has ended leaves a verdict open."""
    kinds = [c["kind"] for c in (run.summary or {}).get("comparisons") or ()]
    return not all(kind in (BETTER, NO_DIFFERENCE) for kind in kinds)
