"""What the commands print: results on stdout, everything else on stderr, a document for `--json`.

As in `cli`, nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lrexp.errors import InterruptedRunError, LrexpError, is_interruption, without_controls
from lrexp.runs.signals import delayed_signals, ended_by_signals

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from lrexp.report.result import RangeTest
    from lrexp.runs.reader import Run

NO_SIGNAL = 4
NOTHING_WRITTEN = "Interrupted before training; nothing was written."
MOST_SEEDS = 50  # that are proposed: more are seldom trained
MIN_SEEDS = 6  # below that no statistics can tell two variants apart


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    from lrexp.report.text import json_text

    typer.echo(json_text(value))


def say(text: object) -> None:
    """Print a line that may hold the name of a file."""
    typer.echo(without_controls(str(text)))


def messages(json: bool) -> AbstractContextManager[object]:
    """Return what keeps the prints of user code off stdout while it belongs to a JSON document."""
    return redirect_stdout(sys.stderr) if json else nullcontext()


def stdout() -> Console:
    """Return the console for results."""
    from lrexp.report.text import Screen

    return Screen()


def stderr(quiet: bool) -> Console:
    """Return the console for progress and notes; a quiet one shows none."""
    from lrexp.report.text import Screen

    return Screen(stderr=True, quiet=quiet)


def show_comparison(
    run: Run, again: str, failure: Exception | None, *, quiet: bool, json: bool
) -> None:
    """Print a comparison's result.

    Args:
        run: with its summary.
        again: words of a command line that would train the same again.
        failure: of some trials; raised in the end.
        quiet, json: the command's flags.
    """
    from lrexp.report.ranking import ranking_table

    summary = run.summary or {}
    if json:
        print_json({**summary, "run": str(run.path)})
    elif not quiet:
        stdout().print(ranking_table(summary))
        _print_files(run.path, _following(summary, run.path, again, failure))
    if failure is not None:
        raise failure


def show_range_test(result: RangeTest, following: str, *, quiet: bool, json: bool) -> None:
    """Print what range tests suggest; without a suggestion that is the exit code, too.

    Args:
        result: with its run.
        following: the command that makes sense after it.
        quiet, json: the command's flags.
    """
    from lrexp.report.tables import race_panel, suggestion_panel

    assert result.run is not None
    summary = result.run.summary or {}
    if json:
        print_json({**summary, "run": str(result.run.path)})
    elif not quiet:
        stdout().print((race_panel if summary.get("race") else suggestion_panel)(summary))
        _print_files(result.run.path, following if result.suggested_lr is not None else None)
    if result.suggested_lr is None:
        raise typer.Exit(NO_SIGNAL)


def show_found(
    found: Mapping[str, Any], table: Callable[[Any], RenderableType], *, json: bool
) -> None:
    """Print what was found as JSON, or as the table that `table` makes of it."""
    if json:
        print_json(found)
    else:
        stdout().print(table(found))


def _print_files(run: Path, following: str | None) -> None:
    say(f"Files: {run}")
    say(f"Plots: {run / 'plots' if _is_drawn(run) else f'lrexp plot {run} draws them'}")
    if (run / "report.html").exists():
        say(f"Page:  {run / 'report.html'}")
    if following is not None:
        say(f"Next:  lrexp {following}")


def _is_drawn(run: Path) -> bool:
    """Return whether a run was drawn after it ended: older pictures show a part of it."""
    drawn = [picture.stat().st_mtime for picture in run.glob("plots/*.png")]
    summary = run / "summary.json"
    return bool(drawn) and summary.exists() and min(drawn) >= summary.stat().st_mtime


def _following(
    summary: Mapping[str, Any], run: Path, again: str, failure: Exception | None
) -> str | None:
    """Return the command that makes sense after a comparison, if there is one."""
    if failure is not None:
        return None
    if not any((row.get("outcomes") or {}).get("finished") for row in summary["ranking"]):
        return f"find-lr {again}"
    if _best_is_at_an_end(summary):
        return f"find-lr {again}"  # more seeds would not tell what lies beyond
    needed = (summary.get("declared") or {}).get("seeds_needed", MIN_SEEDS)
    asked = [c.get("seeds_needed") or 0 for c in summary.get("comparisons") or ()]
    wanted = max([needed, *(count for count in asked if count <= MOST_SEEDS)])
    kept = shlex.quote(str(run))  # its trials, to which seeds are added
    few = len(summary.get("seeds") or ()) < wanted
    return f"resume {kept} --seeds {wanted}" if few else f"plot {kept}"


def _best_is_at_an_end(summary: Mapping[str, Any]) -> bool:
    """Return whether the best of several LRs is the lowest or the highest that was tried."""
    curves = summary.get("lr_sensitivity") or []
    if len(curves) != 1:
        return False
    lrs = curves[0]["lrs"]
    return curves[0]["best_lr"] in (min(lrs), max(lrs))


def again_words(config: Path, changes: list[str] | None) -> str:
    """Return the config and its changes as words of a command line."""
    return shlex.join([str(config), *(word for c in changes or () for word in ("--set", c))])


@dataclass(frozen=True)
class Caller:
    """Who calls a command: asked whether to stop, and whether a signal may end the process."""

    stop: Callable[[], object] | None = None
    ends: bool = False


@contextmanager
def before_training() -> Iterator[None]:
    """Say that nothing was written; once there is a run, its own message says how to go on."""
    try:
        yield
    except LrexpError:
        raise
    except BaseException as error:
        if not is_interruption(error):
            raise
        raise InterruptedRunError(NOTHING_WRITTEN) from None


@contextmanager
def loading(console: Console, caller: Caller) -> Iterator[None]:
    """Say that torch is imported; Ctrl-C waits for the end of that, or ends the process."""
    if not caller.ends:
        with before_training(), delayed_signals(), console.status("Loading torch"):
            yield
        return
    calm = "\x1b[?25h\r\x1b[K" if console.is_terminal else ""  # shows the cursor, clears the line
    ended = ended_by_signals(f"{calm}{NOTHING_WRITTEN}\n", InterruptedRunError.exit_code)
    with before_training(), ended, console.status("Loading torch"):
        yield
