"""What a run trains, stage after stage: each follows from the results before it.

A comparison has one stage. `find-lr` has the range tests; where they show no fall and one may be
buried in noise, their batches once more without learning; and trainings of several LRs, as many as
the budget allows. A run that is resumed goes through the same stages, those that are done without
training. engine.json holds them as they begin, with the engine that was found for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lrexp.analysis.race import Raced, RaceStart, Rung, race_start
from lrexp.analysis.range_curve import Curve
from lrexp.analysis.search import Search, next_rung
from lrexp.analysis.signal import is_buried, paired_control
from lrexp.analysis.suggest import Suggestion, suggest
from lrexp.config.fields import why_unsafe
from lrexp.engine.choice import Choice
from lrexp.engine.engines import ENGINES
from lrexp.errors import RunError
from lrexp.records import Group, Kind, Trial, TrialId
from lrexp.runs.files import read_json, write_json
from lrexp.runs.plan import Plan
from lrexp.runs.reader import (
    CONTROL,
    RANGE_TEST,
    Run,
    cause_of,
    control_losses,
    curves_of,
    finished_tests,
    load_run,
    others_train,
    planned_trials,
    raced_of,
)
from lrexp.runs.searches import Means, means_of, search_of
from lrexp.runs.spec import RunSpec

ENGINE = "engine.json"


@dataclass(frozen=True)
class Stage:
    """Trials that are trained before it is known what comes next; a sentence for its begin."""

    kind: Kind
    trials: tuple[Trial, ...]
    note: str = ""


@dataclass(frozen=True)
class RangeTests:
    """The range tests of a run whose trials have ended, and what they say; read once."""

    run: Run
    rule: str
    mean_frac: float  # mean LR of the config's schedule, as a share of its peak

    @cached_property
    def curves(self) -> list[Curve]:
        """Loss over LR, of each seed."""
        return curves_of(finished_tests(self.run))

    @cached_property
    def suggestion(self) -> Suggestion:
        """What they suggest for the schedule of the config."""
        tests = finished_tests(self.run)
        causes = [cause for cause in map(cause_of, tests) if cause]
        control = control_losses(self.run, tests)
        is_of_part = others_train(self.run)
        return suggest(
            self.curves, self.rule, self.mean_frac, control, causes, others_train=is_of_part
        )

    @property
    def read(self) -> list[Curve]:
        """The curves of a test of one part: what it does beside the others; else those measured."""
        if not others_train(self.run):
            return self.curves
        control = control_losses(self.run, finished_tests(self.run))
        return paired_control(self.curves, control, others_train=True) or self.curves

    @property
    def seeds(self) -> list[int]:
        """Their seeds."""
        return [test.seed for test in finished_tests(self.run)]

    @property
    def steps(self) -> int:
        """How many steps they made, with those of a paired control."""
        tests = [*finished_tests(self.run), *self.run.variants.get(CONTROL, ())]
        return sum(len(test.steps["loss"]) for test in tests)


@dataclass
class Findings:
    """What the stages have found out so far; `stages` fills it in."""

    tests: RangeTests | None = None
    start: RaceStart | None = None
    means: Means | None = None
    search: Search | None = None
    raced: list[Raced] = field(default_factory=list)


def stages(
    spec: RunSpec,
    plan: Plan,
    run: Path,
    findings: Findings,
    elapsed: Callable[[], float] = lambda: 0.0,
) -> Iterator[Stage]:
    """Yield what is to be trained, in order; each stage is asked for when the one before is done.

    Results are read from the directory `run`, and what they say is put into `findings`. What a
    budget of time buys is decided once, given the seconds that have `elapsed`, and read back later.
    """
    first = spec.first_trials(plan)
    yield Stage(first[0].kind, first)
    if spec.command == "compare":
        return
    settings = plan.config.experiment.find_lr
    loaded = load_run(run)
    is_of_part = others_train(loaded)
    if is_of_part or is_buried(curves_of(finished_tests(loaded))):
        text = "No fall shows: the same batches once more, without learning."
        if is_of_part:
            text = "The same batches once more, while the other parts train without this one."
        yield Stage("paired_control", tuple(map(_control, first)), text)
        loaded = load_run(run)
    tests = RangeTests(loaded, settings.rule, plan.variants[RANGE_TEST].mean_frac)
    findings.tests = tests
    if not plan.variants[RANGE_TEST].is_searched:
        return
    findings.start = race_start(tests.read, tests.suggestion, others_train=is_of_part)
    if findings.start is None:
        return
    findings.means = means_of(plan, run, elapsed)
    findings.search = search = search_of(plan, findings.start, findings.means)
    asked: list[Rung] = []
    while (rung := next_rung(search, asked, findings.raced)) is not None:
        asked.append(rung)
        yield Stage("race", trials_of(rung), _of_rung(rung, search.total_steps))
        known = {TrialId(*trial) for rung in asked for trial in rung.trials}
        trials = [t for t in load_run(run).trials if TrialId(t.variant, t.seed) in known]
        findings.raced = raced_of(trials)


def trials_of(rung: Rung) -> tuple[Trial, ...]:
    """Return the trials of some LRs."""
    lrs = rung.lrs * len(rung.seeds)
    named = zip(lrs, rung.trials, strict=True)
    return tuple(Trial(TrialId(name, s), "race", rung.horizon, lr) for lr, (name, s) in named)


def _of_rung(rung: Rung, total_steps: int) -> str:
    lrs = ", ".join(f"{lr:.3g}" for lr in rung.lrs)
    length = f"{rung.horizon:,} of {total_steps:,}"
    if rung.horizon == total_steps:
        length = f"all {total_steps:,}"
    seeds = f", seed {rung.seeds[0]}" if rung.seeds[0] else ""
    return f"Training LR {lrs}{seeds}: {length} steps each."


def _control(test: Trial) -> Trial:
    return replace(test, id=replace(test.id, variant=CONTROL), kind="paired_control")


@dataclass(frozen=True)
class StageRecord:
    """A stage that has begun, and which engine trains which of its trials."""

    stage: Stage
    choice: Choice


def write_stages(run: Path, records: Sequence[StageRecord]) -> None:
    """Write engine.json."""
    write_json(run / ENGINE, {"stages": [_plain(record) for record in records]})


def read_stages(run: Path) -> list[StageRecord]:
    """Return the stages that have begun; RunError where engine.json is damaged or too old."""
    path = run / ENGINE
    plain = read_json(path)
    if "units" in plain and "stages" not in plain:
        what = "was written by an older lrexp: its run can be shown, but not go on"
        raise RunError(f"{path}: {what}. Run the config anew.")
    try:
        return [_record(stage) for stage in plain["stages"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: is damaged: {error}. Run the config anew.") from error


def _plain(record: StageRecord) -> dict[str, Any]:
    trials = [
        {"name": t.id.name, "total_steps": t.total_steps, **({} if t.lr is None else {"lr": t.lr})}
        for t in record.stage.trials
    ]
    return {"kind": record.stage.kind, "trials": trials, **record.choice.to_plain()}


def _record(plain: Mapping[str, Any]) -> StageRecord:
    trials = tuple(planned_trials(plain))
    for trial in trials:
        if (why := why_unsafe(trial.id.variant)) is not None:  # it becomes a folder of the run
            raise ValueError(f"the variant {trial.id.variant!r} {why}")
    choice = _choice(plain)
    named = [trial for group in choice.groups for trial in group.trials]
    if sorted(named) != sorted(trial.id for trial in trials):
        raise ValueError("its groups are not of its trials")
    return StageRecord(Stage(plain["kind"], trials), choice)


def _choice(plain: Mapping[str, Any]) -> Choice:
    groups = tuple(
        Group(str(group["engine"]), tuple(TrialId.of(str(name)) for name in group["trials"]))
        for group in plain["units"]
    )
    if any(group.engine not in ENGINES for group in groups):
        raise ValueError("it names an engine that does not exist")
    if int(plain["jobs"]) < 1:
        raise ValueError("it names no processes")
    reasons = tuple(str(reason) for reason in plain.get("reasons", ()))
    return Choice(groups, int(plain["jobs"]), reasons, dict(plain.get("figures", {})))


def require_same(record: StageRecord, stage: Stage, run: Path) -> None:
    """Refuse to go on with a stage that is not the one which the results ask for."""
    if (record.stage.kind, record.stage.trials) != (stage.kind, stage.trials):
        raise RunError(
            f"{run / ENGINE}: does not fit the results of the trials: they were changed, or the "
            "run was begun by another version of lrexp. Run the config anew."
        )
