"""The verbs that train: plan, train or resume, store, and read back what is shown.

`drawing.py` has those that only read. The command line and the Python API call these same
functions. Each run is written to its directory first; summaries, tables and plots are made from the
files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lrexp.changes import Overrides, changes_of
from lrexp.config import Config, load_config, to_yaml
from lrexp.describe import resolved_config
from lrexp.engine import Pause, Stop
from lrexp.errors import ConfigError, LrexpError, user_error
from lrexp.evidence import too_few_seeds
from lrexp.execute import (
    Destination,
    choose_engine,
    recorded_run,
    resumed_run,
    take_up,
    train,
)
from lrexp.finish import LrCopy, finish_comparison, range_test
from lrexp.fit import read_order, require_plain_files
from lrexp.lr_finder import RangeTest
from lrexp.order import Source, make_order
from lrexp.plan import Objects, make_plan
from lrexp.racing import check_budget, finish_find_lr
from lrexp.report import Draw, draw_nothing, draw_unless_off
from lrexp.report.progress import waiting
from lrexp.store import Run, check_free, load_run, locked

QUIET = Console(stderr=True, quiet=True)


def compare(
    config: Source,
    *,
    model: Any = None,
    data: Any = None,
    loss: Any = None,
    seeds: int | None = None,
    device: str | None = None,
    engine: str | None = None,
    jobs: int | None = None,
    overrides: Overrides = (),
    trust: Sequence[str] = (),
    out: str | Path | None = None,
    runs_dir: str | Path = "runs",
    draw: Draw | None = draw_unless_off,
    stop: Stop | None = None,
    console: Console = QUIET,
) -> Run:
    """Train every variant × seed of a config and return the finished run.

    Args:
        config: a YAML file, or a mapping with the same keys.
        model, data, loss: names, or Python objects that replace those sections: a function (or
            class) that returns a module, or a module from which every seed starts; `(train, val)`
            or `train` as a data function returns them; a function (output, target) -> scalar.
        seeds, device, engine: replace `compare.seeds`, `device` and `engine`.
        jobs: worker processes that train; 1 is this process. With more, Python objects must be
            such that another process can import them.
        overrides: {dotted key: value}, pairs of these, or texts `KEY=VALUE` as of `--set`.
        trust: packages that import paths in the config may reach.
        out: the run directory itself; else a new one inside `runs_dir`.
        draw: draws the run after its last trial, given as `lrexp.Run`; None draws nothing. By
            default lrexp's own pictures, unless the environment says `LREXP_PLOTS=0`.
        stop: is called at the end of every step (with worker processes, a few times a second) and
            ends the training there, with a checkpoint, when it returns something true: the
            `is_set` of a `threading.Event`, say. Ctrl-C, SIGTERM and SIGHUP do so, too.
        console: where progress is shown; by default nowhere.

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
    destination = _destination(out, runs_dir)
    drawing, stop = _drawing(draw), _stopping(stop)
    objects, names = _objects(model, data, loss)
    flags = {"compare.seeds": seeds, "device": device, "engine": engine}
    changes = changes_of(overrides, names, flags)
    with waiting(console, "Loading data and model"):
        order = make_order("compare", config, changes, trust=trust, objects=objects)
        loaded = order.config()
        plan = order.plan(loaded)
    if few := too_few_seeds(loaded):
        console.print(few, style="yellow", highlight=False, soft_wrap=True)
    choice = choose_engine(order, plan, jobs, console)
    with recorded_run(order, plan, choice, destination) as writer:
        recorder = train(order, plan, choice, writer, console, pause=Pause(stop))
        finish_comparison(writer, recorder, loaded, console, draw=drawing)
    return load_run(writer.directory)


def find_lr(
    config: Source,
    *,
    model: Any = None,
    data: Any = None,
    loss: Any = None,
    seeds: int | None = None,
    race: bool | None = None,
    budget: float | None = None,
    device: str | None = None,
    engine: str | None = None,
    jobs: int | None = None,
    overrides: Overrides = (),
    trust: Sequence[str] = (),
    out: str | Path | None = None,
    runs_dir: str | Path = "runs",
    write: str | Path | None = None,
    force: bool = False,
    draw: Draw | None = draw_unless_off,
    stop: Stop | None = None,
    console: Console = QUIET,
) -> RangeTest:
    """Run LR range tests over the config's seeds and return what they suggest.

    The model, its buffers, the optimizer and every random generator of the caller stay as they
    are. Arguments are those of `compare`; `write` names a file for a copy of the config with the
    suggested LR in `optimizer.lr` (not written when there is no suggestion), and `force` lets it
    replace an existing one. `race` verifies the suggestion by short trainings around it, which
    together take `budget` full trainings.

    Raises:
        ConfigError, UserCodeError, RunError, InterruptedRunError: as `compare`.

    Example:
        >>> lrexp.find_lr("configs/quickstart.yaml").suggested_lr        # doctest: +SKIP
        0.14
    """
    destination = _destination(out, runs_dir)
    drawing, stop = _drawing(draw), _stopping(stop)
    objects, names = _objects(model, data, loss)
    flags = {
        "find_lr.seeds": seeds,
        "find_lr.race": race,
        "find_lr.budget": budget,
        "device": device,
        "engine": engine,
    }
    changes = changes_of(overrides, names, flags)
    with waiting(console, "Loading data and model"):
        order = make_order("find-lr", config, changes, trust=trust, objects=objects)
        loaded = order.config()
        plan = order.plan(loaded)
    check_budget(plan, budget)
    copy = None if write is None else LrCopy(Path(write), force)
    choice = choose_engine(order, plan, jobs, console)
    options = "" if copy is None else copy.option
    with recorded_run(order, plan, choice, destination, options=options) as writer:
        pause = Pause(stop)
        recorder = train(order, plan, choice, writer, console, pause=pause)
        finish_find_lr(order, plan, writer, recorder, console, jobs=jobs, pause=pause, draw=drawing)
    found = range_test(load_run(writer.directory))
    if copy is not None:
        copy.write(loaded, found.suggested_lr, console)
    return found


def resume(
    run: str | Path,
    *,
    force: bool = False,
    model: Any = None,
    data: Any = None,
    loss: Any = None,
    jobs: int | None = None,
    trust: Sequence[str] = (),
    write: str | Path | None = None,
    draw: Draw | None = draw_unless_off,
    stop: Stop | None = None,
    console: Console = QUIET,
) -> Run | RangeTest:
    """Continue an interrupted run to the very result it would have had.

    Trials that are done stay as they are; those that failed, and those without a checkpoint,
    begin anew. A run that is complete is returned as it is.

    Args:
        run: the run directory; it may have been moved.
        force: go on although code, data, torch or the machine's arithmetic changed; let `write`
            replace a file.
        model, data, loss: the Python objects that the run was made with, if it was.
        jobs: worker processes; by default as many as the run had.
        trust: the packages that the run was made to trust; it is asked for again because a run
            directory may come from a stranger.
        write: as of `find_lr`.
        draw, stop: as of `compare`.
        console: where progress is shown; by default nowhere.

    Returns:
        What `compare` or `find_lr` returns.

    Raises:
        ConfigError: it cannot be resumed like this; the message says why, and how.
        UserCodeError, RunError, InterruptedRunError: as `compare`; a RunError also where another
            process writes the run.

    Example:
        >>> lrexp.resume("runs/20261121-210301-digits-lr-compare-3f9c")    # doctest: +SKIP
    """
    path, copy = Path(run), None if write is None else LrCopy(Path(write), force)
    drawing, stop = _drawing(draw), _stopping(stop)
    found, objects = load_run(path), Objects(model=model, data=data, loss=loss)
    if copy is not None and found.command != "find-lr":
        what = "is for range tests, and the run is a comparison"
        raise ConfigError.single("--write", what, str(path), "Leave it out.")
    if found.status["status"] == "complete":
        console.print(f"{path} is complete: there is nothing to resume.", markup=False)
        loaded = None
        if copy is not None:
            loaded = read_order(path, objects, trust, force=force)[0].config()
    else:
        options = "" if copy is None else copy.option
        require_plain_files(path)
        with locked(path):
            loaded = _train_the_rest(
                path,
                objects,
                trust,
                jobs=jobs,
                force=force,
                stop=stop,
                draw=drawing,
                console=console,
                options=options,
            )
        found = load_run(path)
    if found.command == "compare":
        return found
    test = range_test(found)
    if copy is not None and loaded is not None:
        copy.write(loaded, test.suggested_lr, console)
    return test


def _train_the_rest(
    path: Path,
    objects: Objects,
    trust: Sequence[str],
    *,
    jobs: int | None,
    force: bool,
    stop: Stop | None,
    draw: Draw,
    console: Console,
    options: str,
) -> Config:
    """Go on with a run that this process has locked, and return its config."""
    with waiting(console, "Loading data and model"):
        order, forced = read_order(path, objects, trust, force=force)
        loaded = order.config()
        plan = order.plan(loaded)
        choice, left, changed = take_up(path, order, plan, jobs, force=force, console=console)
    console.print(f"Resuming {path}: {left}.", markup=False, highlight=False, soft_wrap=True)
    forced += changed
    for problem in forced:
        console.print(f"Forced: {problem}", markup=False, highlight=False, soft_wrap=True)
    with resumed_run(path, order, plan, left, forced, console=console, options=options) as writer:
        pause = Pause(stop)
        recorder = train(order, plan, choice, writer, console, pause=pause, left=left)
        if order.command == "compare":
            finish_comparison(writer, recorder, loaded, console, draw=draw)
        else:
            again = jobs or (choice.jobs if choice.jobs > 1 else None)
            finish_find_lr(
                order, plan, writer, recorder, console, jobs=again, pause=pause, draw=draw
            )
    return loaded


@dataclass(frozen=True)
class Resolved:
    """A config with every default filled in and every duration in steps."""

    tree: dict[str, Any]
    text: str


def validate(config: Source, *, overrides: Overrides = (), trust: Sequence[str] = ()) -> Resolved:
    """Check a config as far as that goes without training and return it fully resolved."""
    plan = make_plan(load_config(config, changes_of(overrides), trust=trust))
    tree = resolved_config(plan)
    return Resolved(tree, to_yaml(tree))


def _drawing(draw: Any) -> Draw:
    """Return what draws a run; what a function of the caller's raises says where.

    Raises:
        ConfigError: it is no function.
    """
    if draw is None:
        return draw_nothing
    if not callable(draw):
        what, remedy = "must be a function of the run", "Give one, or None for no pictures."
        raise ConfigError.single("draw", what, draw, remedy)
    if draw is draw_unless_off:
        return draw

    def drawn(run: Run) -> None:
        try:
            draw(run)
        except LrexpError:
            raise
        except Exception as error:
            raise user_error(error, "draw") from error

    return drawn


def _stopping(stop: Any) -> Stop | None:
    """Return what is asked whether to stop.

    Raises:
        ConfigError: it is no function.
    """
    if stop is not None and not callable(stop):
        what, remedy = "must be a function without arguments", "E.g. the is_set of an Event."
        raise ConfigError.single("stop", what, stop, remedy)
    asked: Stop | None = stop
    return asked


def _destination(out: str | Path | None, runs_dir: str | Path) -> Destination:
    check_free(None if out is None else Path(out))
    return Destination(None if out is None else Path(out), Path(runs_dir))


def _objects(model: Any, data: Any, loss: Any) -> tuple[Objects, dict[str, Any]]:
    """Return what was given as Python objects, and what was given as names, by its key."""
    given = {"model": model, "data": data, "loss": loss}
    names = {key: value for key, value in given.items() if isinstance(value, str)}
    return Objects(**{key: given[key] for key in given if key not in names}), names
