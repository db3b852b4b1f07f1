"""The executor of Slurm: over submitit's local executor, and over a real Slurm of one node.

`start_slurm.sh` beside this file starts one, where it may.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slurm_jobs
from described import Described
from starting import Starter
from waiting import wait_for

import lrexp as library
from lrexp.errors import ConfigError
from lrexp.records import Group, TrialId
from lrexp.runs.executor import JOBS, StopSignal
from lrexp.runs.lock import break_lease, claimant

from .executor_suite import PACE, STEPS, ExecutorConformance, contents, describe, results, rows

pytest.importorskip("submitit", reason="needs submitit: pip install 'lrexp[slurm]'")

from lrexp.integrations.sbatch import minutes
from lrexp.integrations.slurm import SlurmJobs, packed
from lrexp.integrations.slurm_job import Report


def has_slurm() -> bool:
    asked = ["sinfo", "--noheader", "--format=%T"]
    if shutil.which("sinfo") is None:
        return False
    return "idle" in subprocess.run(asked, capture_output=True, text=True, check=False).stdout


needs_slurm = pytest.mark.skipif(
    not has_slurm(), reason="no Slurm answers; tests/conformance/start_slurm.sh starts one as root"
)
CONFIG = {
    "model": {"name": "mlp", "args": {"hidden": [8]}},
    "data": {"name": "digits", "batch_size": 256},
    "loss": "cross_entropy",
    "optimizer": {"name": "SGD", "lr": 0.1},
    "train": {"duration": 6, "eval_every": 3},
    "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.01}}},
}


class AsTheyStart(ExecutorConformance):
    """Jobs start as they do: submitit starts them by other words than this package."""

    __test__ = False

    @pytest.fixture(autouse=True)
    def _quick(self) -> None:
        pass


@pytest.mark.long
class TestJobsOfThisMachine(AsTheyStart):
    __test__ = True
    factory = "slurm_jobs:local"

    def test_workers_that_lose_who_started_them_end(self) -> None:
        pytest.skip("they go on: see test_jobs_outlive_who_submitted_them")


@pytest.fixture(scope="module", autouse=True)
def _pace() -> Iterator[None]:
    """Put back what the module of the suite sets in this process."""
    yield
    for module, name, value in PACE:
        setattr(module, name, value)


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    run = describe(tmp_path_factory.mktemp("peace"))
    run.train_here()
    return contents(run.path)


def jobs_of(run: Described) -> dict[str, Any]:
    return json.loads((run.path / JOBS).read_text())["jobs"] if (run.path / JOBS).exists() else {}


def submitted(run: Described) -> int:
    """Return how many jobs were submitted so far."""
    return len({path.name for path in run.path.glob("slurm/*/*.json")})


@pytest.mark.long
def test_a_killed_worker_gets_one_more_job(tmp_path: Path, in_peace: dict[str, object]) -> None:
    run = describe(tmp_path)
    (tmp_path / "middle").touch()
    executor = slurm_jobs.local(3, run.spec)
    executor.run(run.path, run.groups, StopSignal())
    assert not (tmp_path / "middle").exists()
    assert contents(run.path) == in_peace
    assert [len(how) for how in executor.deaths.values()] == [1]
    assert submitted(run) == 4
    assert not [p for p in run.path.rglob("*") if p.is_symlink() or p.suffix in {".pkl", ".tmp"}]


@pytest.mark.parametrize(
    "local",
    [
        pytest.param(True, marks=pytest.mark.long, id="local"),
        pytest.param(False, marks=[needs_slurm, pytest.mark.long], id="slurm"),
    ],
)
def test_jobs_outlive_who_submitted_them(
    local: bool, tmp_path: Path, in_peace: dict[str, object]
) -> None:
    """A stop leaves them alone; the next command follows them, and submits none twice."""
    run, said = describe(tmp_path, seconds=0.02), []
    stop = StopSignal(lambda: rows(run.path) > 20)
    first = SlurmJobs(2, run.spec, local=local, slots=2)
    first.say = said.append
    first.run(run.path, run.groups, stop)
    assert results(run.path) < 3
    assert "on without this command" in said[-1]
    assert f"lrexp resume {run.path}" in said[-1]
    assert len(jobs_of(run)) == 2
    before = rows(run.path)
    wait_for(lambda: rows(run.path) > before)  # nobody looks after them
    second = SlurmJobs(2, run.spec, local=local, slots=2)
    second.run(run.path, run.groups, StopSignal())
    assert contents(run.path) == in_peace
    assert submitted(run) == 2
    assert not second.deaths
    assert not (run.path / JOBS).exists()
    trained = len((tmp_path / "trained").read_text())
    assert 3 * STEPS <= trained <= 3 * STEPS + 3


@pytest.mark.long
@needs_slurm
def test_a_job_that_slurm_stops_and_then_somebody_cancels(
    tmp_path: Path, in_peace: dict[str, object]
) -> None:
    """It goes back into the queue, which is no death; then it gets one more try."""
    run, group = describe(tmp_path, seconds=0.15), 1
    executor, name = SlurmJobs(1, run.spec), "trials/b/seed-0/steps.csv"
    thread = threading.Thread(
        target=executor.run, args=(run.path, run.groups[group : group + 1], StopSignal())
    )
    thread.start()
    wait_for((run.path / name).exists)
    (job,) = jobs_of(run)
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    wait_for(lambda: is_queued(job))
    begun = rows(run.path)
    assert 1 < begun <= STEPS
    time.sleep(5)  # longer than cred_expire: Slurm takes no job back while its credential lives
    subprocess.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], check=False)
    wait_for(lambda: rows(run.path) > begun)
    subprocess.run(["scancel", job], check=True)
    thread.join()
    assert contents(run.path)[name] == in_peace[name]
    assert executor.deaths == {TrialId("b", 0): ["was cancelled"]}
    assert submitted(run) == 2
    assert len((tmp_path / "trained").read_text()) <= STEPS + 6  # each from a checkpoint


def is_queued(job: str) -> bool:
    asked = ["squeue", "--noheader", "--array", "--format=%i|%T", f"--jobs={job}"]
    return "PENDING" in subprocess.run(asked, capture_output=True, text=True, check=False).stdout


@pytest.mark.long
@needs_slurm
class TestSlurm(AsTheyStart):
    __test__ = True
    factory = "slurm_jobs:real"

    def test_workers_that_lose_who_started_them_end(self) -> None:
        pytest.skip("they go on: see test_jobs_outlive_who_submitted_them")


@pytest.mark.long
@needs_slurm
def test_a_time_limit_pauses_and_requeues(tmp_path: Path, in_peace: dict[str, object]) -> None:
    """Slurm signals up to a minute early, and lets what it takes back wait for two minutes."""
    run = describe(tmp_path, seconds=0.4)
    executor = SlurmJobs(1, run.spec, time=1, grace=20)
    executor.run(run.path, run.groups[1:2], StopSignal())
    name = "trials/b/seed-0/steps.csv"
    assert contents(run.path)[name] == in_peace[name]
    assert not executor.deaths
    assert submitted(run) == 1
    assert len((tmp_path / "pids").read_text().split()) > 1


# options of the executor | part of the message
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"partitoin": "x"}, "executor.partitoin: is not a parameter of"),
    ({"partition": "a\nrm -rf ~"}, "executor.partition: must be one line of text"),
    ({"options": {"output": "/etc/x"}}, "executor.options.output: is no option of sbatch that"),
    ({"options": {"acount": "x"}}, "Did you mean 'account'?"),
    ({"options": {"comment": "x\nid"}}, "executor.options.comment: must be one line"),
    ({"time": "soon"}, "executor.time: is no time limit (got 'soon')"),
    ({"time": 0}, "executor.time: is no time limit (got 0)"),
    ({"memory": "much"}, "executor.memory: is no amount of memory (got 'much')"),
    ({"cpus": 0}, "executor.cpus"),
    ({"gpus": -1}, "executor.gpus"),
    ({"local": False}, "executor.name: finds no sbatch on PATH (got 'slurm'). Run it where jobs"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_what_cannot_work_is_refused_before_anything_is_written(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    executor = {"name": "slurm", "local": True, **options}
    with pytest.raises(ConfigError) as caught:
        library.compare({**CONFIG, "executor": executor}, out=tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_without_submitit_the_message_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"executor.name: needs submitit .*'lrexp\[slurm\]'"):
        library.compare(CONFIG, executor="slurm", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_sbatch_refuses_is_told_with_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words are those of the real one; see the next test."""
    for name, text in {
        "sbatch": "echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1",
        "srun": "", "scontrol": "", "squeue": "", "scancel": "",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    refuses_the_partition(tmp_path)


@needs_slurm
def test_what_the_real_sbatch_refuses(tmp_path: Path) -> None:
    refuses_the_partition(tmp_path)


def refuses_the_partition(folder: Path) -> None:
    executor = {"name": "slurm", "partition": "nope"}
    with pytest.raises(ConfigError) as caught:
        library.compare(CONFIG, executor=executor, out=folder / "run")
    told = "executor.partition: is refused by sbatch: invalid partition specified: nope"
    assert told in str(caught.value)
    assert json.loads((folder / "run/status.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("package", ["lrexp", "torch"])
def test_a_worker_of_another_version_refuses(
    package: str, tmp_path: Path, starter: Starter
) -> None:
    run = describe(tmp_path)
    path = run.path / "environment.json"
    said = json.loads(path.read_text())
    (said if package == "lrexp" else said["packages"])[package] = "0.0.7"
    path.write_text(json.dumps(said))
    words = ["-m", "lrexp", "worker", run.path, "a/seed-0"]
    process = starter.start(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    told, _ = process.communicate()
    assert process.returncode == 2
    assert f"{package} was 0.0.7 and is" in told
    assert "Install that version there" in told


def test_the_lease_of_a_job_on_a_lost_node_is_broken_and_no_other(tmp_path: Path) -> None:
    lease = tmp_path / "a-seed-0.lease"
    record = "filelock/2\npid=12\nhost=node-7\nmode=lease\ntoken={}\nduration=60.0\n\n"
    lease.write_text(record.format("0" * 32))
    assert claimant(lease) == 12
    for host, pid in [("node-8", 12), ("node-7", 13), ("", 0)]:
        break_lease(lease, host, pid)
        assert lease.exists()
    break_lease(lease, "node-7", 12)
    assert not lease.exists()


# contents of a job's file | what is read
REPORTS: list[tuple[Any, Report | None]] = [
    ({"host": "h", "pid": 3, "is_ready": True, "code": -9, "told": "", "was_paused": False, "idle": 0}, Report("h", 3, True, -9)),
    ({"host": "h"}, None),
    ({"host": 1, "pid": "3", "is_ready": 1, "code": None, "told": [], "was_paused": 0, "idle": 0}, None),
    ([], None),
]  # fmt: skip


@pytest.mark.parametrize(("written", "read"), REPORTS)
def test_a_report_of_a_strangers_run_is_checked(
    written: Any, read: Report | None, tmp_path: Path
) -> None:
    (tmp_path / "1.json").write_text(json.dumps(written))
    assert Report.read(tmp_path / "1.json") == read


TIMES = [(90, 90), ("1:30", 2), ("2:00:00", 120), ("1-12", 2160), ("1-12:30:00", 2190), ("x", 0)]


@pytest.mark.parametrize(("given", "expected"), TIMES)
def test_a_time_is_read_as_sbatch_reads_it(given: int | str, expected: int) -> None:
    assert minutes(given) == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [20]), (2, [11, 9]), (3, [9, 6, 5]), (9, [9, 6, 5])]
)
def test_groups_are_packed_by_their_steps(count: int, expected: list[int]) -> None:
    trials = [TrialId(name, 0) for name in "abc"]
    steps = dict(zip(trials, (5, 9, 6), strict=True))
    packs = packed([Group("sequential", (trial,)) for trial in trials], steps, count)
    sizes = [sum(steps[group.trials[0]] for group in pack) for pack in packs]
    assert sorted(sizes, reverse=True) == expected
