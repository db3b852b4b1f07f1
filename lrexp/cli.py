"""The command line: parse, call, print. Each command is a thin layer on the Python API.

Nothing heavy is imported here: torch comes in with the command that needs it, so that
`lrexp --help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lrexp.errors import (
    ConfigError,
    FailedTrialsError,
    InterruptedRunError,
    LrexpError,
    RunError,
    is_interruption,
    without_controls,
)
from lrexp.report.commands import commands
from lrexp.report.console import (
    Caller,
    again_words,
    before_training,
    loading,
    messages,
    print_json,
    say,
    show_comparison,
    show_range_test,
    stderr,
    stdout,
)
from lrexp.report.options import (
    RUNS,
    Budget,
    ConfigFile,
    Debug,
    Device,
    DryRun,
    Engine,
    Executor,
    Force,
    Forget,
    GoOn,
    Jobs,
    Json,
    Log,
    LrFile,
    MaxSeeds,
    MoreSeeds,
    NoPlots,
    NoReport,
    Out,
    Picture,
    PlotsDir,
    Quiet,
    Race,
    RangeTestAlone,
    RunDirectories,
    RunDirectory,
    RunsDir,
    Seeds,
    Select,
    Set,
    Trust,
    UntilDecided,
    Version,
    Write,
)
from lrexp.runs.signals import borrowed_signals, ignore_signals, outlive_readers, take_signals

EXIT_CODES = (
    "Exit codes: 0 done, 2 the command line or config is wrong, 3 the run failed, "
    "4 find-lr found no usable signal, 130 interrupted."
)

app = typer.Typer(
    name="lrexp",
    help="Learning-rate experiments in PyTorch: which rate, which schedule, is the difference "
    "real?",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(_version: Version = False, _forget: Forget = False, _debug: Debug = False) -> None:
    """Learning-rate experiments in PyTorch."""


@dataclass(frozen=True)
class _Shown:
    """A command that trains, and what is seen of it."""

    context: typer.Context
    quiet: bool
    json: bool
    no_plots: bool
    no_report: bool

    def dry_run(self, command: Literal["compare", "find-lr"], of: Path, **options: Any) -> None:
        """Print what a command would train."""
        console = stderr(self.quiet)
        with loading(console, self.context.obj):
            from lrexp import api
        with before_training(), messages(self.json):
            ahead = api.dry_run(of, command=command, console=console, **options)
        if self.json:
            print_json(ahead.to_plain())
        else:
            say(ahead)

    def trained(self, verb: str, of: Path, **options: Any) -> tuple[Any, FailedTrialsError | None]:
        """Return what the verb of `lrexp.api` returns, and why trials of a comparison failed."""
        console = stderr(self.quiet)
        with loading(console, self.context.obj):
            from lrexp import api
            from lrexp.runs import train  # noqa: F401  # and torch with it
            from lrexp.runs.reader import load_run

        options["report"] = not self.no_report
        if self.no_plots:
            options["draw"] = None
        try:
            with before_training(), messages(self.json):
                stop = self.context.obj.stop
                return getattr(api, verb)(of, stop=stop, console=console, **options), None
        except FailedTrialsError as error:  # the other trials have a result
            run = load_run(error.run)
            if run.command != "compare":
                raise
            return run, error


@app.command(epilog="Example: lrexp compare configs/quickstart.yaml --seeds 3")
def compare(
    context: typer.Context,
    config: ConfigFile,
    set_: Set = None,
    seeds: Seeds = None,
    select: Select = None,
    until_decided: UntilDecided = False,
    max_seeds: MaxSeeds = None,
    device: Device = None,
    engine: Engine = None,
    jobs: Jobs = None,
    executor: Executor = None,
    out: Out = None,
    runs_dir: RunsDir = RUNS,
    trust: Trust = None,
    dry_run: DryRun = False,
    log: Log = None,
    no_plots: NoPlots = False,
    no_report: NoReport = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train every variant × seed from the same weights and batches, and rank them."""
    shown = _Shown(context, quiet, json, no_plots, no_report)
    given = {
        "seeds": seeds,
        "overrides": set_ or (),
        "trust": trust or (),
        "device": device,
        "engine": engine,
        "jobs": jobs,
        "executor": executor,
    }
    if dry_run:
        shown.dry_run("compare", config, **given)
        return
    run, failure = shown.trained(
        "compare",
        config,
        select=select,
        until_decided=until_decided,
        max_seeds=max_seeds,
        log=log,
        out=out,
        runs_dir=runs_dir,
        **given,
    )
    show_comparison(run, again_words(config, set_), failure, quiet=quiet, json=json)


@app.command(epilog="Example: lrexp find-lr configs/quickstart.yaml --write tuned.yaml")
def find_lr(
    context: typer.Context,
    config: ConfigFile,
    set_: Set = None,
    seeds: Seeds = None,
    budget: Budget = None,
    range_test: RangeTestAlone = False,
    race: Race = False,
    device: Device = None,
    engine: Engine = None,
    jobs: Jobs = None,
    executor: Executor = None,
    write: Write = None,
    force: Force = False,
    out: Out = None,
    runs_dir: RunsDir = RUNS,
    trust: Trust = None,
    dry_run: DryRun = False,
    log: Log = None,
    no_plots: NoPlots = False,
    no_report: NoReport = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find a learning rate: an LR range test on copies of the model, then trainings of several."""
    if range_test and (race or budget not in (None, "0")):
        what, remedy = "allows no trainings", "Leave out --budget and --race, or --range-test."
        raise ConfigError.single("--range-test", what, budget or "--race", remedy)
    budget = "0" if range_test else budget
    shown = _Shown(context, quiet, json, no_plots, no_report)
    given = {
        "seeds": seeds,
        "overrides": set_ or (),
        "trust": trust or (),
        "device": device,
        "engine": engine,
        "jobs": jobs,
        "executor": executor,
    }
    if dry_run:
        shown.dry_run("find-lr", config, **given)
        return
    result, _ = shown.trained(
        "find_lr",
        config,
        race=race or None,
        budget=budget,
        log=log,
        out=out,
        runs_dir=runs_dir,
        write=write,
        force=force,
        **given,
    )
    raced = "".join([" --race" * race, "" if budget is None else f" --budget {budget}"])
    again = f"find-lr {again_words(config, set_)}{raced} --write tuned.yaml"
    following = f"compare {write}" if write else again
    show_range_test(result, following, quiet=quiet, json=json)


@app.command(epilog="Example: lrexp resume runs/20261121-210301-digits-lr-compare-3f9c")
def resume(
    context: typer.Context,
    run: RunDirectory,
    seeds: MoreSeeds = None,
    until_decided: UntilDecided = False,
    max_seeds: MaxSeeds = None,
    force: GoOn = False,
    jobs: Jobs = None,
    executor: Executor = None,
    write: Write = None,
    trust: Trust = None,
    log: Log = None,
    no_plots: NoPlots = False,
    no_report: NoReport = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Continue an interrupted run to the very result it would have had; or add seeds to one."""
    shown = _Shown(context, quiet, json, no_plots, no_report)
    ended, failure = shown.trained(
        "resume",
        run,
        seeds=seeds,
        until_decided=until_decided,
        max_seeds=max_seeds,
        force=force,
        jobs=jobs,
        executor=executor,
        log=log,
        write=write,
        trust=trust or (),
    )
    again = again_words(run / "resolved.yaml", None)
    if hasattr(ended, "suggestion"):
        following = f"compare {write}" if write else f"find-lr {again} --write tuned.yaml"
        show_range_test(ended, following, quiet=quiet, json=json)
    else:
        show_comparison(ended, again, failure, quiet=quiet, json=json)


@app.command(hidden=True, epilog="Example: lrexp worker runs/20261121-...-3f9c high/seed-0")
def worker(
    run: RunDirectory,
    trials: Annotated[list[str], typer.Argument(metavar="TRIAL...", help="VARIANT/seed-N.")],
    device: Device = None,
    threads: Annotated[int, typer.Option(help="Of torch.", min=1)] = 1,
    objects: Annotated[str | None, typer.Option(help="Digest of objects.pkl.")] = None,
    parent: Annotated[int | None, typer.Option(help="Ends when this process does.")] = None,
    trust: Trust = None,
    force: Annotated[bool, typer.Option("--force", help="As of resume.")] = False,
) -> None:
    """Train these trials of a run; exits with 0 done, 3 some failed, 130 stopped, 2 could not."""
    from lrexp.runs.worker import WorkerOptions, work

    options = WorkerOptions(device, threads, tuple(trust or ()), force, objects, parent)
    raise typer.Exit(work(run, trials, options))


@app.command(epilog="Example: lrexp plot runs/20261121-210301-digits-lr-compare-3f9c")
def plot(runs: RunDirectories, out: PlotsDir = None) -> None:
    """Redraw the plots of finished, running or interrupted runs; several are overlaid."""
    from lrexp import api

    for path in api.plot(runs, out=out):
        say(path)


@app.command(epilog="Example: lrexp schedule configs/schedules.yaml --out lr.png")
def schedule(
    config: ConfigFile,
    set_: Set = None,
    out: Picture = None,
    csv: LrFile = None,
    trust: Trust = None,
    json: Json = False,
) -> None:
    """Draw the LR trace of every variant without training.

    Checks keys and types in the whole config; names and arguments in the sections it draws from:
    the schedule, and the data where a duration is in epochs or tokens. `lrexp validate` checks all.
    """
    from lrexp import api
    from lrexp.report.tables import schedule_table

    with messages(json):
        traces = api.schedule(config, overrides=set_ or (), trust=trust or (), out=out, csv=csv)
    if json:
        print_json({"lr": {k: v.tolist() for k, v in traces.lr.items()}, "plot": traces.plot})
    else:
        stdout().print(schedule_table(traces.lr))
        if traces.reactive:
            names = ", ".join(traces.reactive)
            say(f"As if the loss never changed: {names}.")
        say(f"Plot: {traces.plot}")
        if csv is not None:
            say(f"LRs:  {csv}")


@app.command(epilog="Example: lrexp validate configs/quickstart.yaml --set train.duration=2ep")
def validate(config: ConfigFile, set_: Set = None, trust: Trust = None, json: Json = False) -> None:
    """Check a config and print it fully resolved, units turned into steps."""
    from lrexp import api

    with messages(json):
        resolved = api.validate(config, overrides=set_ or (), trust=trust or ())
    if json:
        print_json(resolved.tree)
    else:
        typer.echo(resolved.text, nl=False)


@app.command(epilog="Example: lrexp schema > lrexp.schema.json")
def schema() -> None:
    """Print the JSON Schema of a config, for editors."""
    from lrexp.config.schema import json_schema

    print_json(json_schema())


@app.command(epilog="Example: lrexp init my-experiment.yaml")
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path(
        "lrexp.yaml"
    ),
    force: Force = False,
) -> None:
    """Write a commented starter config."""
    from lrexp.config.document import starter
    from lrexp.runs.files import write_whole

    if file.exists() and not force:
        raise ConfigError.single("FILE", "exists already", str(file), "Give another, or --force.")
    write_whole(file, starter())
    say(f"Wrote {file}. Next: lrexp compare {file}")


app.add_typer(commands)


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        outlive_readers()
        take_signals()  # for good: until the end there is no moment without
        code = _run(sys.argv[1:], Caller(ends=True))
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        code = InterruptedRunError.exit_code
    ignore_signals()
    sys.exit(code)


def run(arguments: list[str], *, stop: Callable[[], object] | None = None) -> int:
    """Run one command and return its exit code; errors are printed, never raised.

    Signals are handled afterwards as they were before. Ctrl-C ends the command with 130, never the
    program; while torch is imported, it waits for the end of that.

    Args:
        arguments: the words after `lrexp`.
        stop: as of `lrexp.compare`.
    """
    with borrowed_signals():
        return _run(arguments, Caller(stop))


@cache
def _command() -> Callable[..., object]:
    """Return the commands as Typer reads them from the functions above: 20 ms, so but once."""
    return typer.main.get_command(app)


def _run(arguments: list[str], caller: Caller) -> int:
    # Spinning OpenMP threads starve each other on shared cores; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    try:
        _command()(arguments, prog_name="lrexp", obj=caller)
    except SystemExit as exit_:  # how Typer ends, after it has shown usage errors
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException as error:  # user code may raise anything
        known = error if isinstance(error, LrexpError) else None
        if known is None and is_interruption(error):
            known = InterruptedRunError("Interrupted.")
        if debug:
            traceback.print_exc()
        else:
            typer.echo(_unexpected(error) if known is None else str(known), err=True)
        return RunError.exit_code if known is None else known.exit_code
    return 0


def _unexpected(error: BaseException) -> str:
    text = without_controls(f"{type(error).__name__}: {error}")
    return f"lrexp failed: {text}\nRun it again with --debug for details."
