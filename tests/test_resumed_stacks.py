"""A stack that is resumed has the rows that it began with, those of trials that are done, too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from lrexp.engine.stop import Pause
from lrexp.records import Group, TrialId
from lrexp.runs.checkpoint import SavedGroup
from lrexp.runs.spec import make_spec
from lrexp.runs.trials import group_tasks

CONFIG = """\
model: {name: mlp, args: {hidden: [9]}}
data: {name: digits, batch_size: 60, val_fraction: 0.2}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1}
train: {duration: 12st, eval_every: 4st}
engine: vectorized
compare: {variants: {a: {}, b: {optimizer.lr: 0.2}, wild: {optimizer.lr: 1e30}, c: {optimizer.lr: 0.3}}}
"""


def test_a_group_is_given_with_what_is_done_of_its_stack(tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text(CONFIG)
    spec = make_spec("compare", path)
    a, b, wild = (TrialId(name, 0) for name in ("a", "b", "wild"))
    pause, plan, state = Pause(), spec.plan(), {"engine": "vectorized"}
    trials = {trial.id: trial for trial in spec.first_trials(plan)}
    saved = {a: SavedGroup(4, state, {})}
    group = Group("vectorized", (a, b), stack=(a, wild, b))
    tasks = list(group_tasks(plan, group, trials, pause, saved))
    assert [(task.trial, task.is_over) for task in tasks] == [(a, False), (wild, True), (b, False)]
    assert all(task.pause is pause and task.state is state for task in tasks)
    alone = list(group_tasks(plan, Group("sequential", (b,)), trials, pause, {}))
    assert [(task.trial, task.is_over, task.state) for task in alone] == [(b, False, None)]


def test_a_stack_that_begins_anew_ends_with_the_same_files(lrexp: Callable, tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_text(CONFIG)
    assert lrexp("compare", "stack.yaml", "--out", "straight").code in (0, 4)
    shutil.copytree(tmp_path / "straight", tmp_path / "run")
    for name in ("a", "b", "c"):  # as after a kill before the first checkpoint
        (tmp_path / f"run/trials/{name}/seed-0/result.json").unlink()
    status = tmp_path / "run/status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"status": "interrupted"}))
    assert lrexp("resume", "run").code in (0, 4)
    for name in ("a", "b", "c", "wild"):
        for file in ("steps.csv", "evals.csv"):
            straight, again = (
                tmp_path / f"{run}/trials/{name}/seed-0/{file}" for run in ("straight", "run")
            )
            assert again.read_bytes() == straight.read_bytes()
