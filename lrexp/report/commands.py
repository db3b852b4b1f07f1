"""The commands that read runs, finished or not: they train nothing and import no torch.

As in `cli`, which adds these commands to its own, each parses, calls and prints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lrexp.report.console import print_json, say, show_found, stdout
from lrexp.report.options import (
    RUNS,
    By,
    Difference,
    Direction,
    Exported,
    Follow,
    Json,
    Metric,
    MetricColumn,
    PageFile,
    Pair,
    Reference,
    RunDirectories,
    RunDirectory,
    Select,
    Set,
    Tables,
    To,
    TrackerDir,
    Trust,
    Variant,
)

commands = typer.Typer()


@commands.command(epilog="Example: lrexp show runs/20261121-210301-digits-lr-compare-3f9c --follow")
def show(run: RunDirectory, follow: Follow = False, json: Json = False) -> None:
    """Show the tables and verdicts of a run again; of a running one, how far it has come."""
    from lrexp.report.show import follow as followed
    from lrexp.report.show import progress_of, shown_run
    from lrexp.runs.reader import load_run

    found = followed(run, stdout()) if follow and not json else load_run(run)
    if json:
        print_json({**(found.summary or progress_of(found)), "run": str(run)})
    else:
        stdout().print(shown_run(found))


@commands.command(epilog="Example: lrexp runs")
def runs(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Holds the runs.")] = RUNS,
    json: Json = False,
) -> None:
    """List runs: name, command, status, best variant, age."""
    from lrexp.report.tables import runs_table
    from lrexp.runs.listing import list_runs

    missing = directory == RUNS and not directory.exists()  # nothing was run yet
    found = [] if missing else list_runs(directory)
    if json:
        print_json([run.to_plain() for run in found])
    elif found:
        stdout().print(runs_table(found))
    else:
        say(f"No runs in {directory}.")


@commands.command(epilog="Example: lrexp verdict runs/... --metric val_accuracy --reference cosine")
def verdict(
    run: RunDirectory,
    reference: Reference = None,
    metric: Metric = None,
    select: Select = None,
    json: Json = False,
) -> None:
    """Judge a comparison anew, by another reference or metric, without training."""
    from lrexp.report.judgement import judgement_table
    from lrexp.runs.judged import judge_run
    from lrexp.runs.reader import load_run

    judged = judge_run(load_run(run), reference, metric, select)
    show_found(judged, judgement_table, json=json)


@commands.command(epilog="Example: lrexp judge results.csv --by lr --pair seed --metric val_loss")
def judge(
    files: Tables,
    by: By = None,
    metric: MetricColumn = None,
    pair: Pair = None,
    direction: Direction = None,
    reference: Reference = None,
    json: Json = False,
) -> None:
    """Give verdicts on results made elsewhere: tables with one row per training."""
    from lrexp.report.judgement import judgement_table
    from lrexp.runs.judged import judge as judge_files

    which = {"direction": direction, "reference": reference}
    judged = judge_files(files, by, metric, pair, **which)
    show_found(judged, judgement_table, json=json)


@commands.command(epilog="Example: lrexp power runs/... --difference 1%")
def power(
    run: RunDirectory,
    difference: Difference,
    json: Json = False,
) -> None:
    """Say how many seeds a difference takes, by how the seeds of a run differed."""
    from lrexp.report.judgement import power_table
    from lrexp.runs.judged import power_of
    from lrexp.runs.reader import load_run

    show_found(power_of(load_run(run), difference), power_table, json=json)


@commands.command(epilog="Example: lrexp export configs/quickstart.yaml --to torch")
def export(
    what: Exported,
    to: To,
    out: TrackerDir = None,
    variant: Variant = None,
    set_: Set = None,
    trust: Trust = None,
) -> None:
    """Put a run into a tracker, or print the lines that bring a config into your own training."""
    from lrexp.report.training_code import FRAMEWORKS, export_config
    from lrexp.runs.reader import load_run
    from lrexp.runs.trackers import export_run

    if to in FRAMEWORKS or what.is_file():
        changes = set_ or ()
        code = export_config(what, to, variant=variant, overrides=changes, trust=trust or ())
        typer.echo(code)
    else:
        say(f"Logged: {export_run(load_run(what), to, out)}")


@commands.command(epilog="Example: lrexp report runs/20261121-210301-digits-lr-compare-3f9c")
def report(runs: RunDirectories, out: PageFile = None) -> None:
    """Write one HTML page of a run, or of several compared, that needs nothing else to be read."""
    from lrexp.report.page import write_page
    from lrexp.runs.reader import load_run

    say(write_page([load_run(run) for run in runs], out))
