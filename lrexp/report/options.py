"""Arguments and options that commands share, so that one name means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Race = Annotated[
    bool, typer.Option("--race", help="Verify the LR by short trainings around it; see --budget.")
]
Budget = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="What --race may train, all its trainings together: 1 (the default) is one full one.",
    ),
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
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
