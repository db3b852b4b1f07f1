"""The page of a run, kept up to date while the run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from lrexp.records import Record
from lrexp.runs.choosing import RunOptions
from lrexp.runs.reader import Run

FIRST_SECONDS = 5.0  # a run that is over by then has its page at the end alone
SECONDS = 10.0  # between two pages, and so between two reloads
MOST_SHARE = 0.02  # of the time that pages may take


class LivePage:
    """A sink that writes a page every few seconds.

    Args:
        write: called with the run directory, and the seconds after which the page reloads itself.
        run: the run directory.
    """

    def __init__(self, write: Callable[[Run | Path, float | None], object], run: Path) -> None:
        self._write, self._run = write, run
        self._next = time.monotonic() + FIRST_SECONDS

    def __call__(self, record: Record) -> None:
        """Write the page where it is due."""
        begun = time.monotonic()
        if begun >= self._next:
            self._write(self._run, SECONDS)
            taken = time.monotonic() - begun
            self._next = time.monotonic() + max(SECONDS, taken / MOST_SHARE)


def last_page(options: RunOptions, run: Run | Path) -> None:
    """Write the page of a run that has ended, somehow: it does not reload itself any more.

    A run that was read already is not read again.
    """
    if options.page is not None:
        try:
            options.page(run, None)
        except Exception as error:  # the run is as good without
            what = f"{type(error).__name__}: {error}"
            options.reporter.say(f"There is no report.html: {what}", "yellow")
