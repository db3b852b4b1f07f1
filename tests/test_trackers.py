"""Trackers get the numbers of the files, live and afterwards; one that fails harms nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import lrexp as library
from lrexp.runs.trackers import TRACKERS

CONFIG = """\
name: tracked
model: linear
data: {name: digits, batch_size: 64}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1}
train: {duration: 30, eval_every: 10}
compare: {seeds: 2, variants: {usual: {}, low: {optimizer.lr: 0.01}}}
find_lr: {steps: 20, seeds: 1}
"""
Points = dict[str, dict[str, list[tuple[int, float]]]]  # trial -> tag -> (step, value)


class Kept:
    """A tracker in memory: what it was told."""

    points: dict[str, Any]
    told: list[tuple[str, str, int]]

    def __init__(self, folder: Path, *, fails_at: int = -1) -> None:
        self.place, self._fails_at = str(folder), fails_at

    def begin(self, trial: Any, step: int) -> None:
        self.told.append(("begin", trial.id.name, step))
        for tag, points in self.points.setdefault(trial.id.name, {}).items():
            self.points[trial.id.name][tag] = [point for point in points if point[0] < step]

    def log(self, trial: Any, step: int, values: Mapping[str, float]) -> None:
        if step == self._fails_at:
            raise RuntimeError("no network")
        for tag, value in values.items():
            self.points[trial.id.name].setdefault(tag, []).append((step, value))

    def end(self, trial: Any, last: Mapping[str, float]) -> None:
        self.told.append(("end", trial.id.name, len(last)))
        self.points[trial.id.name]["settings"] = dict(trial.settings)

    def close(self) -> None:
        self.told.append(("close", "", 0))


@pytest.fixture
def kept() -> Iterator[type[Kept]]:
    library.register_tracker("kept")(Kept)
    Kept.points, Kept.told = {}, []
    yield Kept
    del TRACKERS["kept"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def of_files(run: Path) -> Points:
    """Return the points that the files of a run stand for, by the tags people expect."""
    found: Points = {}
    for trial in library.load_run(run).trials:
        steps, evals = trial.steps, trial.evals
        columns = {"train/loss": steps["loss"], "train/learning_rate": steps["lr"]}
        points = {t: [*zip(steps["step"], c, strict=True)] for t, c in columns.items()}
        for tag, name in (("eval/loss", "val_loss"), ("eval/accuracy", "val_accuracy")):
            if name in evals:
                points[tag] = [*zip(evals["step"], evals[name], strict=True)]
        found[f"{trial.variant}/seed-{trial.seed}"] = points
    return found


def assert_same(points: Points, run: Path, rel: float = 1e-6) -> None:
    expected = of_files(run)
    assert points.keys() == expected.keys()
    for trial, tags in expected.items():
        for tag, wanted in tags.items():
            assert [step for step, _ in points[trial][tag]] == [step for step, _ in wanted], tag
            values = [value for _, value in points[trial][tag]]
            assert values == pytest.approx([value for _, value in wanted], rel=rel), tag


@pytest.mark.parametrize(
    "options",
    [
        ("--engine", "sequential"),
        ("--engine", "vectorized"),
        pytest.param(("--jobs", "2"), marks=pytest.mark.long),
    ],
)
def test_a_tracker_gets_what_the_files_get(
    options: tuple[str, ...], config: Path, lrexp: Callable, tmp_path: Path, kept: type[Kept]
) -> None:
    answer = lrexp("compare", config, *options, "--log", "kept", "--out", "run")
    assert answer.code == 0, answer.err
    assert f"Logged: {Path('run/kept')}" in answer.err
    assert_same(kept.points, tmp_path / "run")
    settings = {name: points["settings"] for name, points in kept.points.items()}
    assert settings["low/seed-1"]["optimizer.lr"] == 0.01
    assert settings["usual/seed-1"]["optimizer.lr"] == 0.1
    assert settings["low/seed-1"]["seed"] == 1
    assert kept.told[-1][0] == "close"
    Kept.points = {}
    library.export_run(library.load_run(tmp_path / "run"), "kept")
    assert_same(kept.points, tmp_path / "run")
    assert {name: points["settings"] for name, points in kept.points.items()} == settings


def test_a_resumed_run_logs_no_step_twice(
    config: Path, lrexp: Callable, tmp_path: Path, kept: type[Kept]
) -> None:
    config.write_text(CONFIG + "log: [kept]\nengine: sequential\n")
    asked = iter(range(1000))
    answer = lrexp("compare", config, "--out", "run", stop=lambda: next(asked) >= 40)
    assert answer.code == 130
    assert lrexp("resume", "run").code == 0
    assert_same(kept.points, tmp_path / "run")


def test_one_that_fails_is_dropped_and_harms_nothing(
    config: Path, lrexp: Callable, tmp_path: Path, kept: type[Kept]
) -> None:
    config.write_text(CONFIG + "log: [{name: kept, fails_at: 5}]\n")
    with pytest.warns(RuntimeWarning, match="tracker kept gets no more"):
        answer = lrexp("compare", config, "--out", "run")
    assert answer.code == 0
    assert (
        answer.err.count("The sink tracker kept gets no more records: RuntimeError: no network")
        == 1
    )
    assert library.load_run(tmp_path / "run").status["status"] == "complete"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("[tensorbord]", "log.0: is not the name of a tracker (got 'tensorbord'). Did you mean"),
        ("[{name: kept, fails: 1}]", "log.0.fails: is not a parameter of the tracker kept"),
        ("[{project: x}]", "log[0].name: is required"),
        ("kept", "log: "),
    ],
)
def test_what_cannot_log_is_refused_before_anything_is_trained(
    log: str, words: str, config: Path, lrexp: Callable, tmp_path: Path, kept: type[Kept]
) -> None:
    config.write_text(CONFIG + f"log: {log}\n")
    answer = lrexp("compare", config, "--out", "run")
    assert answer.code == 2
    assert words in answer.err
    assert not (tmp_path / "run").exists()


def test_tensorboards_own_reader_finds_every_number(
    config: Path, lrexp: Callable, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="the extra lrexp[tensorboard] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config.write_text(CONFIG + "log: [tensorboard]\nengine: sequential\n")
    asked = iter(range(1000))
    assert lrexp("compare", config, "--out", "run", stop=lambda: next(asked) >= 40).code == 130
    assert lrexp("resume", "run").code == 0
    assert lrexp("export", "run", "--to", "tensorboard", "--out", "again").code == 0
    for folder in (tmp_path / "run/tensorboard", tmp_path / "again"):
        points: Points = {}
        for trial in of_files(tmp_path / "run"):
            events = EventAccumulator(str(folder / trial))
            events.Reload()
            scalars = set(events.Tags()["scalars"]) - {"hparam/metric"}
            points[trial] = {
                tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in scalars
            }
            assert len(events.PluginTagToContent("hparams")) == 3  # experiment, start and end
        assert_same(points, tmp_path / "run", rel=1e-5)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of SQLAlchemy
def test_mlflows_database_has_every_number(config: Path, lrexp: Callable, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="the extra lrexp[mlflow] is not installed")
    assert lrexp("compare", config, "--log", "mlflow", "--out", "run").code == 0
    base = sqlite3.connect(tmp_path / "run/mlflow/mlflow.db")
    rows = base.execute(
        "select r.name, m.key, m.step, m.value from metrics m join runs r using (run_uuid) "
        "order by m.step"
    )
    points: Points = {}
    for name, key, step, value in rows:
        points.setdefault(name, {}).setdefault(key, []).append((step, value))
    assert_same(points, tmp_path / "run")
    parents = base.execute(
        "select count(distinct value) from tags where key = 'mlflow.parentRunId'"
    )
    assert parents.fetchone() == (1,)
    base.close()
