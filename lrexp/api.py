"""The verbs that the command line and Python share: compare, find_lr, resume, plot, schedule, ...

Each run is written to its directory first; summaries, tables and plots are made from the files.
`plot` and `schedule` need no torch, so what trains is imported by the verbs that train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from lrexp.errors import ConfigError
from lrexp.report.data.lr import trace_name
from lrexp.report.display import progress_console, show
from lrexp.report.plots import draw_overlay, draw_run, draw_schedules, draw_unless_off
from lrexp.report.result import RangeTest, range_test
from lrexp.report.run import Run, load_run
from lrexp.report.run_options import run_options
from lrexp.report.show import shown_run
from lrexp.runs import reader
from lrexp.runs.looks import Until, goes_on, is_undecided, num_seeds
from lrexp.runs.lr_copy import LrCopy
from lrexp.runs.reader import Draw

if TYPE_CHECKING:
    import numpy as np

    from lrexp.config.load import Overrides
    from lrexp.engine.stop import Stop
    from lrexp.records import Sink
    from lrexp.runs.asked import Asked
    from lrexp.runs.choosing import RunOptions
    from lrexp.runs.dry_run import DryRun
    from lrexp.runs.executor import Executor
    from lrexp.runs.spec import Command, Source


DRAWN_FROM = ("schedule",)  # sections of a config; the data is checked where its size is needed


def plot(runs: Sequence[str | Path], *, out: str | Path | None = None) -> list[Path]:
    """Redraw the plots of one run, or overlay several; return the files.

    Raises:
        ConfigError: a path is not a run directory.
    """
    loaded = [load_run(path) for path in runs]
    if len(loaded) == 1:
        return draw_run(loaded[0], out=None if out is None else Path(out))
    return draw_overlay(loaded, Path(out) if out is not None else loaded[0].path.parent)


@dataclass(frozen=True)
class Traces:
    """LR traces (one value per step) by variant, and the picture of them."""

    lr: dict[str, np.ndarray]
    plot: str
    reactive: tuple[str, ...] = ()  # those that follow a loss


def schedule(
    config: str | Path | Mapping[str, Any],
    *,
    overrides: Overrides = (),
    trust: Sequence[str] = (),
    out: str | Path | None = None,
    csv: str | Path | None = None,
) -> Traces:
    """Draw the LR trace of every variant without training.

    A schedule that reacts to the loss is drawn as it would run if the loss never changed. Keys and
    types are checked in the whole config; whether names and arguments fit code, in the sections
    that are drawn from: the schedule, and the data where a duration is in epochs or tokens. The
    rest is for `validate` to check. `csv` names a file for the LRs themselves: a column `step`, and
    one per variant, empty after its end.

    Raises:
        ConfigError: the config is wrong, or `out` is no PNG file.
        UserCodeError: the user's own schedule or data raised.
    """
    from lrexp.config.load import changes_of, load_config  # here, since `plot` needs no config
    from lrexp.runs.lengths import plan_schedules, write_traces

    loaded = load_config(config, changes_of(overrides), trust=trust, checked=DRAWN_FROM)
    planned = plan_schedules(loaded)
    traces: dict[str, Any] = {}
    reactive: list[str] = []
    for variant, of_variant in planned.items():
        own = {trace_name(variant, column): lrs for column, lrs in of_variant.traces().items()}
        traces |= own
        reactive += list(own) if of_variant.is_reactive else []
    path = Path(out) if out is not None else Path(f"{loaded.experiment.name}-lr.png")
    if path.suffix != ".png":
        raise ConfigError.single("--out", "must end in .png", str(path), "Name a PNG file.")
    if csv is not None:
        write_traces(traces, Path(csv))
    draw_schedules(traces, path, title=loaded.experiment.name, reactive=reactive)
    return Traces(traces, str(path), tuple(reactive))


def compare(
    config: Source,
    *,
    model: Any = None,
    data: Any = None,
    loss: Any = None,
    metrics: Sequence[Any] | None = None,
    step: Any = None,
    eval_step: Any = None,
    optimizer: Any = None,
    seeds: int | None = None,
    select: Literal["final", "best"] | None = None,
    until_decided: bool = False,
    max_seeds: int | None = None,
    device: str | None = None,
    engine: str | None = None,
    jobs: int | None = None,
    executor: Executor | Mapping[str, Any] | str | None = None,
    overrides: Overrides = (),
    trust: Sequence[str] = (),
    out: str | Path | None = None,
    runs_dir: str | Path = "runs",
    draw: Draw | None = draw_unless_off,
    stop: Stop | None = None,
    sinks: Sequence[Sink] = (),
    log: Sequence[str | Mapping[str, Any]] | None = None,
    report: bool = True,
    console: Console | None = None,
    quiet: bool = False,
) -> Run:
    """Train every variant × seed of a config and return the finished run.

    Args:
        config: a YAML file, or a mapping with the same keys.
        model, data, loss: names, or Python objects that replace those sections: a function (or
            class) that returns a module, or a module from which every seed starts; `(train, val)`
            or `train` as a data function returns them; a function (output, target) -> scalar.
        metrics: replaces the config's `metrics`: names, or functions (output, target) -> number
            that are called with all of the validation split; `register_metric` gives one a
            direction.
        step: in place of a loss: a function (model, batch) -> loss, or a dict with `loss` and
            further numbers, which are measured at each evaluation; `eval_step`: that of
            evaluations, where it is another.
        optimizer: in place of `optimizer.name`: a class of one's own, or a function of (params) or
            (params, lr, ...) that gives an optimizer; a config in Python may hold it there, too.
        seeds, select, device, engine: replace `compare.seeds`, `compare.select`, `device` and
            `engine`.
        until_decided, max_seeds: go on with more seeds, up to so many, until every verdict is
            decided; a claim takes a smaller p for it (`compare.looks`).
        jobs: worker processes that train; 1 is this process, which also trains where a Python
            object cannot be sent to another one.
        executor: who starts worker processes, and where: a name, as `register_executor` gives it,
            a mapping with `name` and its options, or an object with `run(run_dir, groups, stop)`.
        overrides: {dotted key: value}, pairs of these, or texts `KEY=VALUE` as of `--set`.
        trust: packages that import paths in the config may reach.
        out: the run directory itself; else a new one inside `runs_dir`.
        draw: draws the run after its last trial, given as `lrexp.Run`; None draws nothing. By
            default lrexp's own pictures, unless the environment says `LREXP_PLOTS=0`.
        stop: is called at the end of every step (with worker processes, a few times a second) and
            ends the training there, with a checkpoint, when it returns something true: the
            `is_set` of a `threading.Event`, say. Ctrl-C, SIGTERM and SIGHUP do so, too.
        sinks: functions that get each record of the training as it comes; see `lrexp.records`. Of
            one trial they come in order, every step once. One that raises gets no more of them.
        log: trackers in place of the config's: `["tensorboard"]`, `[{"name": "wandb", "mode":
            "online"}]`; see `lrexp.register_tracker`.
        report: write report.html into the run, and keep it up to date while it goes on.
        console: where progress is shown; by default in a terminal or a notebook, which also get the
            table in the end, and nowhere else.
        quiet: shows neither.

    Raises:
        ConfigError: the config is wrong; nothing was written.
        UserCodeError: trials failed in user code, and the others are in the run directory; or
            `draw` or `stop` raised, and `resume` goes on.
        RunError: the disk or the device failed.
        InterruptedRunError: it was stopped; `resume` goes on with its `run`.

    Example:
        >>> run = lrexp.compare("configs/quickstart.yaml", seeds=5)      # doctest: +SKIP
        >>> run.summary["ranking"][0]["variant"]                         # doctest: +SKIP
        'standard'
    """
    shown = progress_console(console, quiet)
    options = run_options(shown, draw, stop, sinks, report, jobs=jobs, executor=executor)
    of_compare = {"compare.seeds": seeds, "compare.select": select}
    flags = {**of_compare, "device": device, "engine": engine, "log": log}
    sections = {"model": model, "data": data, "loss": loss, "step": step, "eval_step": eval_step}
    sections["optimizer"] = optimizer
    asked = _asked(config, overrides, sections, flags, trust, out, runs_dir, metrics)
    planned = asked.planned("compare", options, until=Until(until_decided, max_seeds))
    given = {key: value for key, value in sections.items() if not isinstance(value, str)}
    run = _decided(
        planned.train(), options, metrics=metrics, jobs=jobs, executor=executor, trust=trust,
        draw=draw, stop=stop, sinks=sinks, log=log, report=report, console=shown, **given,
    )  # fmt: skip
    show(shown_run(run), console, quiet)
    return run


def _decided(run: reader.Run, options: RunOptions, **given: Any) -> Run:
    """Return a comparison with more seeds, look by look, until every verdict is decided."""
    while (seeds := goes_on(run)) is not None:
        options.reporter.say(f"Undecided after {num_seeds(run)} seeds: training up to {seeds}.")
        more = resume(run.path, seeds=seeds, **given)
        assert isinstance(more, Run)
        run = more
    return Run.of(run)


def find_lr(
    config: Source,
    *,
    model: Any = None,
    data: Any = None,
    loss: Any = None,
    step: Any = None,
    eval_step: Any = None,
    optimizer: Any = None,
    seeds: int | None = None,
    budget: float | str | None = None,
    race: bool | None = None,
    device: str | None = None,
    engine: str | None = None,
    jobs: int | None = None,
    executor: Executor | Mapping[str, Any] | str | None = None,
    overrides: Overrides = (),
    trust: Sequence[str] = (),
    out: str | Path | None = None,
    runs_dir: str | Path = "runs",
    write: str | Path | None = None,
    force: bool = False,
    draw: Draw | None = draw_unless_off,
    stop: Stop | None = None,
    sinks: Sequence[Sink] = (),
    log: Sequence[str | Mapping[str, Any]] | None = None,
    report: bool = True,
    console: Console | None = None,
    quiet: bool = False,
) -> RangeTest:
    """Run LR range tests over the config's seeds and return what they suggest.

    The model, its buffers, the optimizer and every random generator of the caller stay as they
    are. Arguments are those of `compare`; `write` names a file for a copy of the config with the
    suggested LR in `optimizer.lr` (not written when there is no suggestion), and `force` lets it
    replace an existing one.

    The range test brackets the LR; what is left of `budget` goes to trainings of several LRs: time
    (`"60s"`, `"5min"`), whole trainings in steps (`"1x"`, or a number), a share of the time of one
    (`"10%"`), 0 for none. Default: 20 s, or 10 % of one training where that is longer. `race` is
    the same as a budget of 1.

    Raises:
        ConfigError, UserCodeError, RunError, InterruptedRunError: as `compare`.

    Example:
        >>> lrexp.find_lr("configs/quickstart.yaml").suggested_lr        # doctest: +SKIP
        0.14
    """
    copy = None if write is None else LrCopy(Path(write), force)
    again = "" if copy is None else copy.option
    shown = progress_console(console, quiet)
    options = run_options(
        shown, draw, stop, sinks, report, jobs=jobs, executor=executor, again=again
    )
    race = False if str(budget) in ("0", "0.0") else race  # whatever the config says
    of_test = {"find_lr.seeds": seeds, "find_lr.race": race, "find_lr.budget": budget}
    flags = {**of_test, "device": device, "engine": engine, "log": log}
    sections = {"model": model, "data": data, "loss": loss, "step": step, "eval_step": eval_step}
    sections["optimizer"] = optimizer
    asked = _asked(config, overrides, sections, flags, trust, out, runs_dir)
    planned = asked.planned("find-lr", options)
    found = range_test(planned.train())
    if copy is not None:
        copy.write(planned.config, found.suggested_lr, options.reporter)
    if found.run is not None:
        show(shown_run(found.run), console, quiet)
    return found


def dry_run(
    config: Source,
    *,
    command: Command = "compare",
    model: Any = None,
    data: Any = None,
    loss: Any = None,
    metrics: Sequence[Any] | None = None,
    step: Any = None,
    eval_step: Any = None,
    optimizer: Any = None,
    seeds: int | None = None,
    device: str | None = None,
    engine: str | None = None,
    jobs: int | None = None,
    executor: Executor | Mapping[str, Any] | str | None = None,
    overrides: Overrides = (),
    trust: Sequence[str] = (),
    console: Console | None = None,
    quiet: bool = False,
) -> DryRun:
    """Return what `compare` or `find_lr` would train, where and for how long; nothing is written.

    The model is made and the data are loaded. Where `engine: auto` has to measure, it measures a
    few steps on copies and keeps the figures, so that the run itself chooses the same.

    Args:
        config, ...: as of `compare`.
        command: `compare` or `find-lr`, of which the range tests alone are known before they ran.

    Raises:
        ConfigError, UserCodeError: as `compare`.

    Example:
        >>> print(lrexp.dry_run("configs/quickstart.yaml", seeds=3))     # doctest: +SKIP
        compare digits: 9 trials (3 variants × 3 seeds), 1,980 steps
        ...
    """
    from lrexp.runs.dry_run import look_ahead

    shown = progress_console(console, quiet)
    options = run_options(shown, None, None, (), jobs=jobs, executor=executor)
    section = "find_lr" if command == "find-lr" else command
    flags = {f"{section}.seeds": seeds, "device": device, "engine": engine}
    sections = {"model": model, "data": data, "loss": loss, "step": step, "eval_step": eval_step}
    sections["optimizer"] = optimizer
    asked = _asked(config, overrides, sections, flags, trust, None, "runs", metrics)
    return look_ahead(asked.planned(command, options))


def resume(
    run: str | Path,
    *,
    seeds: int | None = None,
    until_decided: bool = False,
    max_seeds: int | None = None,
    force: bool = False,
    model: Any = None,
    data: Any = None,
    loss: Any = None,
    metrics: Sequence[Any] | None = None,
    step: Any = None,
    eval_step: Any = None,
    optimizer: Any = None,
    jobs: int | None = None,
    executor: Executor | Mapping[str, Any] | str | None = None,
    trust: Sequence[str] = (),
    write: str | Path | None = None,
    draw: Draw | None = draw_unless_off,
    stop: Stop | None = None,
    sinks: Sequence[Sink] = (),
    log: Sequence[str | Mapping[str, Any]] | None = None,
    report: bool = True,
    console: Console | None = None,
    quiet: bool = False,
) -> Run | RangeTest:
    """Continue an interrupted run to the very result it would have had, or add seeds to one.

    Trials that are done stay as they are; those that failed, and those without a checkpoint,
    begin anew. A run that is complete is returned as it is, unless it is to get more seeds.

    Args:
        run: the run directory; it may have been moved.
        seeds: how many seeds a comparison, finished or not, shall have in the end: those that it
            lacks are trained, and ranked with the others.
        until_decided, max_seeds: as of `compare`; what the run has counts as the first look.
        force: go on although code, data, torch or the machine's arithmetic changed; let `write`
            replace a file.
        model, data, loss, step, eval_step, optimizer, metrics: the Python objects that the run was
            made with, if any.
        jobs: worker processes; by default as many as the run had.
        executor: as of `compare`; by default that of the config.
        trust: the packages that the run was made to trust; it is asked for again because a run
            directory may come from a stranger.
        write: as of `find_lr`.
        draw, stop, sinks, log: as of `compare`; the records begin where the training goes on.
        console: where progress is shown; by default in a terminal or a notebook, which also get the
            table in the end, and nowhere else.
        quiet: shows neither.

    Returns:
        What `compare` or `find_lr` returns.

    Raises:
        ConfigError: it cannot be resumed like this; the message says why, and how.
        UserCodeError, RunError, InterruptedRunError: as `compare`; a RunError also where another
            process writes the run.

    Example:
        >>> lrexp.resume("runs/20261121-210301-digits-lr-compare-3f9c")    # doctest: +SKIP
    """
    from lrexp.config.names import IN_PYTHON
    from lrexp.runs.builder import Objects
    from lrexp.runs.resume import read_spec
    from lrexp.runs.train import resume_run
    from lrexp.workloads.metrics import given_metrics

    path, copy = Path(run), None if write is None else LrCopy(Path(write), force)
    again = "" if copy is None else copy.option
    shown = progress_console(console, quiet)
    others = {"log": log, "jobs": jobs, "executor": executor, "force": force, "again": again}
    options = run_options(shown, draw, stop, sinks, report, **others)
    functions = None if metrics is None else given_metrics(metrics, IN_PYTHON)[1]
    found: reader.Run = load_run(path)
    objects = Objects(model, data, loss, step, eval_step, functions, optimizer=optimizer)
    if copy is not None and found.command != "find-lr":
        what = "is for range tests, and the run is a comparison"
        raise ConfigError.single("--write", what, str(path), "Leave it out.")
    loaded = None
    looks = Until(until_decided, max_seeds).looks(num_seeds(found))
    if looks and is_undecided(found):
        seeds = looks[1]
    if found.status["status"] == "complete" and not _lacks_seeds(found, seeds):
        options.reporter.say(f"{path} is complete: there is nothing to resume.")
        if copy is not None:
            loaded = read_spec(path, objects, trust, force=force)[0].config()
    else:
        loaded, found = resume_run(path, objects, trust, options, seeds=seeds, looks=looks)
    if found.command == "compare":
        decided = _decided(
            found, options, force=force, model=model, data=data, loss=loss, metrics=metrics,
            step=step, eval_step=eval_step, jobs=jobs, executor=executor, trust=trust, draw=draw,
            stop=stop, sinks=sinks, log=log, report=report, console=shown,
        )  # fmt: skip
        show(shown_run(decided), console, quiet)
        return decided
    test = range_test(found)
    if copy is not None and loaded is not None:
        copy.write(loaded, test.suggested_lr, options.reporter)
    show(shown_run(found), console, quiet)
    return test


def _lacks_seeds(run: reader.Run, seeds: int | None) -> bool:
    """Return whether a complete run is asked for other seeds than it has."""
    if seeds is None:
        return False
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ConfigError.single("seeds", "must be a whole number from 1", seeds, "Give e.g. 6.")
    return run.command != "compare" or seeds != num_seeds(run)


@dataclass(frozen=True)
class Resolved:
    """A config with every default filled in and every duration in steps."""

    tree: dict[str, Any]
    text: str


def validate(config: Source, *, overrides: Overrides = (), trust: Sequence[str] = ()) -> Resolved:
    """Check a config as far as that goes without training and return it fully resolved."""
    from lrexp.config.document import to_yaml
    from lrexp.config.load import changes_of, load_config
    from lrexp.runs.plan import make_plan
    from lrexp.runs.spec import resolved_config

    plan = make_plan(load_config(config, changes_of(overrides), trust=trust))
    tree = resolved_config(plan)
    return Resolved(tree, to_yaml(tree))


def _asked(*given: Any) -> Asked:
    from lrexp.runs.asked import Asked  # and torch with it

    return Asked(*given)
