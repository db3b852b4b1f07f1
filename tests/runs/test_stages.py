"""engine.json: which stages have begun, and what each of their trials is for; and older runs."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stopping import copy_of

import lrexp
from lrexp.engine.choice import Choice
from lrexp.errors import RunError
from lrexp.records import Group, Trial, TrialId
from lrexp.report.plots import draw_run
from lrexp.runs.listing import list_runs
from lrexp.runs.reader import load_run, raced_of
from lrexp.runs.stages import Stage, StageRecord, read_stages, require_same, write_stages

TEST, CONTROL = TrialId("range_test", 0), TrialId("untrained", 0)
RACERS = TrialId("race-40-lr-0.0316", 0), TrialId("race-40-lr-0.1", 0)
STAGES = [
    StageRecord(
        Stage("range_test", (Trial(TEST, "range_test", 30),)),
        Choice((Group("sequential", (TEST,)),), 1, ("as asked for",), {"seconds": 0.5}),
    ),
    StageRecord(
        Stage("paired_control", (Trial(CONTROL, "paired_control", 30),)),
        Choice((Group("sequential", (CONTROL,)),)),
    ),
    StageRecord(
        Stage("race", tuple(Trial(t, "race", 40, lr) for t, lr in zip(RACERS, (0.0316, 0.1), strict=True))),
        Choice((Group("vectorized", RACERS),), 3),
    ),
]  # fmt: skip


def make_run(path: Path, command: str = "find-lr") -> Path:
    path.mkdir()
    (path / "status.json").write_text(json.dumps({"status": "complete", "command": command}))
    return path


def make_trials(run: Path, *names: str) -> None:
    for name in names:
        (run / "trials" / name).mkdir(parents=True)
        (run / "trials" / name / "steps.csv").write_text("step,epoch,lr,loss\n0,0,0.1,2.5\n")


def test_stages_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_stages(tmp_path, STAGES)
    assert read_stages(tmp_path) == STAGES


def test_what_a_trial_is_for_is_read_and_not_guessed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    odd = TrialId("untrained", 7)  # by its name it would be a second look
    record = StageRecord(Stage("race", (Trial(odd, "race", 8, 0.25),)), Choice((Group("x", ()),)))
    write_stages(run, [*STAGES, record])
    make_trials(run, *(t.id.name for r in (*STAGES, record) for t in r.stage.trials))
    found = {
        f"{t.variant}/seed-{t.seed}": (t.kind, t.total_steps, t.lr) for t in load_run(run).trials
    }
    assert found == {
        "range_test/seed-0": ("range_test", 30, None),
        "untrained/seed-0": ("paired_control", 30, None),
        "race-40-lr-0.0316/seed-0": ("race", 40, 0.0316),
        "race-40-lr-0.1/seed-0": ("race", 40, 0.1),
        "untrained/seed-7": ("race", 8, 0.25),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("command", "variant", "facts"),
    [
        ("find-lr", "range_test", ("range_test", None, None)),
        ("find-lr", "untrained", ("paired_control", None, None)),
        ("find-lr", "race-40-lr-0.0316", ("race", 40, 0.0316)),
        ("find-lr", "race-040-lr-0.0316", ("compare", None, None)),  # no run writes that
        ("compare", "range_test", ("compare", None, None)),
        ("compare", "race-40-lr-0.0316", ("compare", None, None)),
        ("compare", "high", ("compare", None, None)),
    ],
)
@pytest.mark.parametrize("engine", [None, {"units": [], "jobs": 1}, {"stages": []}])
def test_in_older_runs_the_name_says_what_a_trial_is_for(
    tmp_path: Path, command: str, variant: str, facts: object, engine: object
) -> None:
    run = make_run(tmp_path / "run", command)
    if engine is not None:
        (run / "engine.json").write_text(json.dumps(engine))
    make_trials(run, f"{variant}/seed-0")
    (trial,) = load_run(run).trials
    assert (trial.kind, trial.total_steps, trial.lr) == facts


def stage(**changes: Any) -> dict[str, Any]:
    """Return a stage of a race as JSON, changed."""
    trial = {"name": "race-40-lr-0.1/seed-0", "total_steps": 40, "lr": 0.1}
    trial |= {key: value for key, value in changes.items() if key in trial}
    units = [{"engine": changes.pop("engine", "sequential"), "trials": [trial["name"]]}]
    whole = {"kind": "race", "trials": [trial], "units": units, "jobs": 1}
    return whole | {key: value for key, value in changes.items() if key not in trial}


OUTSIDE = ["../../x/seed-0", "../x/seed-0", "/etc/seed-0", "a/../../x/seed-0", "a\\..\\x/seed-0",
           "/seed-0", "./seed-0", "../seed-0", "a\0/seed-0", "a/b/seed-0"]  # fmt: skip
DAMAGED: list[tuple[Any, str]] = [
    *(({"stages": [stage(name=name)]}, "the variant") for name in OUTSIDE),
    ({"stages": [stage(kind="os.system")]}, "there is no kind 'os.system'"),
    ({"stages": [stage(kind=["race"])]}, "there is no kind"),
    ({"stages": [stage(lr=None)]}, "is damaged"),
    ({"stages": [stage(lr=0)]}, "no length or no LR"),
    ({"stages": [stage(lr=-1.0)]}, "no length or no LR"),
    ({"stages": [stage(lr="nan")]}, "no length or no LR"),
    ({"stages": [stage(total_steps=0)]}, "no length or no LR"),
    ({"stages": [stage(total_steps=None)]}, "is damaged"),
    ({"stages": [stage(name="race-40-lr-0.1")]}, "is damaged"),
    ({"stages": [stage(name="race-40-lr-0.1/seed-x")]}, "is damaged"),
    ({"stages": [stage(trials=[])]}, "its groups are not of its trials"),
    ({"stages": [stage(units=[])]}, "its groups are not of its trials"),
    ({"stages": [stage(engine="magic")]}, "an engine that does not exist"),
    ({"stages": [stage(jobs=0)]}, "no processes"),
    ({"stages": [stage(jobs=None)]}, "is damaged"),
    ({"stages": [stage(units=None)]}, "is damaged"),
    ({"stages": [stage(trials=5)]}, "is damaged"),
    ({"stages": ["race"]}, "is damaged"),
    ({"stages": 5}, "is damaged"),
    ({"stages": None}, "is damaged"),
    ({}, "is damaged"),
    ([], "is damaged"),
]


@pytest.mark.parametrize(("engine", "what"), DAMAGED)
def test_a_damaged_engine_json_is_an_error(tmp_path: Path, engine: Any, what: str) -> None:
    (tmp_path / "engine.json").write_text(json.dumps(engine))
    with pytest.raises(RunError, match=r"engine\.json: is damaged.*") as caught:
        read_stages(tmp_path)
    assert what in str(caught.value)


@pytest.mark.parametrize("engine", [row[0] for row in DAMAGED])
def test_who_reads_a_run_stumbles_over_no_engine_json(tmp_path: Path, engine: Any) -> None:
    run = make_run(tmp_path / "run")
    (run / "engine.json").write_text(json.dumps(engine))
    make_trials(run, "race-40-lr-0.1/seed-0")
    (run / "trials/race-40-lr-0.1/seed-0/result.json").write_text('{"outcome": "finished"}')
    with suppress(RunError):  # nothing else is raised
        found = load_run(run).trials
        assert [trial.path for trial in found] == [run / "trials/race-40-lr-0.1/seed-0"]
        assert len(raced_of(found)) == (found[0].kind == "race")


def test_the_stage_of_a_run_is_the_one_its_results_ask_for(tmp_path: Path) -> None:
    race = STAGES[2]
    require_same(race, Stage("race", race.stage.trials, "with another note"), tmp_path)
    longer = tuple(Trial(t.id, "race", 80, t.lr) for t in race.stage.trials)
    others = [STAGES[0].stage, Stage("race", longer), Stage("race", race.stage.trials[:1])]
    for other in others:
        with pytest.raises(RunError, match=r"engine\.json: does not fit the results"):
            require_same(race, other, tmp_path)


CONFIG = {
    "name": "race",
    "model": {"name": "mlp", "args": {"hidden": [8]}},
    "data": {"name": "digits", "batch_size": 64},
    "loss": "cross_entropy",
    "engine": "sequential",
    "optimizer": {"name": "SGD", "lr": 0.1},
    "train": {"duration": 40},
    "find_lr": {"steps": 30, "seeds": 2, "race": True},
}
HORIZONS = [10]  # a quarter of a whole training; a quarter of that would have no steps to speak of


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with range tests, a second look at them and a race."""
    folder = tmp_path_factory.mktemp("raced")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LREXP_PLOTS", "0")
        lrexp.find_lr(CONFIG, out=folder / "run")
    return folder / "run"


def as_of_old(run: Path) -> Path:
    """Make a run one of an older lrexp: no stages, and no kinds."""
    first, *_ = json.loads((run / "engine.json").read_text())["stages"]
    plain = {key: first[key] for key in ("units", "jobs", "reasons", "figures")}
    (run / "engine.json").write_text(json.dumps(plain))
    for path in run.glob("trials/*/*/result.json"):
        result = json.loads(path.read_text())
        del result["kind"]
        path.write_text(json.dumps(result))
    return run


def facts(run: Path) -> list[tuple[object, ...]]:
    trials = load_run(run).trials
    return [
        (t.variant, t.seed, t.kind, t.lr, t.total_steps if t.kind == "race" else 0) for t in trials
    ]


def test_an_older_run_is_listed_loaded_and_drawn_as_it_is(raced: Path, tmp_path: Path) -> None:
    new, old = (copy_of(raced, tmp_path / name / "run") for name in ("new", "old"))
    as_of_old(old)
    assert {kind for _, _, kind, *_ in facts(new)} == {"range_test", "paired_control", "race"}
    assert facts(old) == facts(new)
    entries = [entry for run in (new, old) for entry in list_runs(run.parent)]
    assert entries[0] == replace(entries[1], path=new)
    assert entries[0].suggested_lr is not None
    pictures = [{p.name: p.read_bytes() for p in draw_run(load_run(run))} for run in (new, old)]
    assert set(pictures[0]) >= {"range_test.png", "race.png"}
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("is_old", [False, True])
def test_the_rungs_of_a_race_are_known_from_its_trials(
    raced: Path, tmp_path: Path, is_old: bool
) -> None:
    run = copy_of(raced, tmp_path / "run")
    rungs = raced_of(load_run(as_of_old(run) if is_old else run).trials)
    summary = json.loads((run / "summary.json").read_text())
    assert [raced.rung.horizon for raced in rungs] == HORIZONS
    lrs = sorted(t.lr or 0 for t in load_run(run).trials if t.kind == "race")
    assert sorted(lr for raced in rungs for lr in raced.rung.lrs) == lrs
    assert summary["race"]["rungs"]


def test_an_older_run_cannot_go_on_and_is_not_touched(raced: Path, tmp_path: Path) -> None:
    run = as_of_old(copy_of(raced, tmp_path / "run"))
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"status": "interrupted"}))
    shutil.rmtree(next(run.glob("trials/race-*")))
    before = sorted(run.rglob("*"))
    with pytest.raises(RunError, match=r"written by an older lrexp: .*Run the config anew"):
        lrexp.resume(run)
    assert sorted(run.rglob("*")) == before


def _with_failed_trial(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "result.json").write_text('{"outcome": "failed"}')  # such a trial begins anew
    return path


@pytest.mark.parametrize("kind", ["compare", "paired_control", "race"])
def test_a_name_that_leads_out_of_the_run_costs_no_other_run_a_trial(
    raced: Path, tmp_path: Path, kind: str
) -> None:
    run = copy_of(raced, tmp_path / "run")
    victim = _with_failed_trial(tmp_path / "other/trials/high/seed-0")
    engine = json.loads((run / "engine.json").read_text())
    engine["stages"] += [stage(kind=kind, name="../../other/trials/high/seed-0")]
    (run / "engine.json").write_text(json.dumps(engine))
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"status": "interrupted"}))
    with pytest.raises(RunError, match=r"engine\.json: is damaged"):
        lrexp.resume(run)
    assert (victim / "result.json").exists()
