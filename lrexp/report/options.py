"""Arguments and options that commands share, so that one name means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lrexp import __version__

RUNS = Path("runs")

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment, a YAML file.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the config, e.g. --set optimizer.lr=0.1; may be repeated.",
    ),
]
Seeds = Annotated[int | None, typer.Option(help="Number of seeds (replicates).", min=1)]
MoreSeeds = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Add seeds to a comparison, up to N; also a finished one.", min=1
    ),
]
UntilDecided = Annotated[
    bool,
    typer.Option(
        "--until-decided",
        help="Go on with more seeds until every verdict is decided; see --max-seeds.",
    ),
]
MaxSeeds = Annotated[
    int | None,
    typer.Option(metavar="N", help="Where --until-decided ends; at most five looks up to it."),
]
Select = Annotated[
    str | None,
    typer.Option(metavar="final|best", help="Rank by the last evaluation or by the best one."),
]
Device = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
]
Engine = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="How trials are trained: auto, sequential or vectorized."),
]
Jobs = Annotated[int | None, typer.Option(metavar="N", help="Worker processes; 1: none.", min=1)]
Executor = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Who starts workers: local, processes, ray, slurm, or a registered name.",
    ),
]
RunDirectory = Annotated[Path, typer.Argument(metavar="RUN", help="The run directory.")]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The run directory itself; must be new or empty.")
]
RunsDir = Annotated[Path, typer.Option(metavar="DIR", help="Where new run directories go.")]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PREFIX", help="Let import paths in the config reach this package; may be repeated."
    ),
]
Write = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write a copy of the config with the suggested LR."),
]
Race = Annotated[bool, typer.Option("--race", help="The same as --budget 1x.")]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="60s|5min|1x|10%|0",
        help="What trainings of several LRs may take after the range test: time, whole trainings "
        "in steps, a share of the time of one. Default: 20 s, or 10% if that is longer.",
    ),
]
RangeTestAlone = Annotated[
    bool, typer.Option("--range-test", help="The range test alone: the same as --budget 0.")
]
NoPlots = Annotated[
    bool,
    typer.Option(
        "--no-plots",
        help="Draw no pictures; lrexp plot RUN draws them later. LREXP_PLOTS=0 does the same.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
GoOn = Annotated[
    bool, typer.Option("--force", help="Go on although code, data or machine changed.")
]
Follow = Annotated[bool, typer.Option("--follow", help="Show a running one until it ends.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Metric = Annotated[str | None, typer.Option(metavar="NAME", help="A column of evals.csv.")]
Tables = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Results: CSV, or JSON lines.")
]
By = Annotated[
    str | None,
    typer.Option(
        metavar="COL",
        help="The column that names the variants; `file` is the name of the file. Without it "
        "every column of numbers is a variant.",
    ),
]
MetricColumn = Annotated[str | None, typer.Option(metavar="COL", help="The column of the result.")]
Pair = Annotated[
    str | None,
    typer.Option(
        metavar="COL",
        help="The column that pairs trainings: a seed that fixes weights and batches.",
    ),
]
Direction = Annotated[
    str | None, typer.Option(metavar="min|max", help="Whether lower or higher is better.")
]
Difference = Annotated[
    str,
    typer.Option(metavar="SIZE", help="In the metric's unit, or a share of the reference: 1%."),
]
RunDirectories = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")]
PlotsDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where the pictures go; default: the run's plots/."),
]
Picture = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The picture; default: NAME-lr.png here.")
]
LrFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the LRs too: a line a step, a column a variant."),
]
Reference = Annotated[
    str | None,
    typer.Option(metavar="VARIANT", help="The variant that the others are compared with."),
]


def _print_version(given: bool) -> None:
    if given:
        typer.echo(f"lrexp {__version__}")
        raise typer.Exit


def _forget_timings(given: bool) -> None:
    if given:
        from lrexp.runs.timings import forget_timings, timings_path

        what = "Removed" if forget_timings() else "There is no"
        typer.echo(f"{what} {timings_path()}.")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version."),
]
Forget = Annotated[
    bool,
    typer.Option(
        "--forget-timings",
        is_eager=True,
        callback=_forget_timings,
        help="Remove what was measured of this machine, to choose engines anew.",
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error; any place will do.")
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be trained, where and how long; train nothing."),
]
To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="NAME",
        help="A tracker: tensorboard, wandb, mlflow, ...; "
        "or a framework: torch, hf, lightning, keras, timm.",
    ),
]
Exported = Annotated[
    Path, typer.Argument(metavar="RUN|CONFIG", help="A run directory; for a framework or a config.")
]
Variant = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of a config or a comparison; by default itself, the best."),
]
TrackerDir = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="For files; by default in the run.")
]
Log = Annotated[
    list[str] | None,
    typer.Option(metavar="TRACKER", help="Log to tensorboard, wandb, mlflow, ...; repeatable."),
]
NoReport = Annotated[bool, typer.Option("--no-report", help="Write no report.html into the run.")]
PageFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="The page; by default report.html in the run."),
]
