"""Ray: two nodes on this machine, of which one is killed; actors that are killed; what is refused.

What the executor hands over needs no Ray to be tested: `tests/runs/test_handover.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import on_ray
import pytest
from described import Described
from stopping import contents as contents_of_run
from waiting import wait_for

import lrexp as library
from lrexp.errors import ConfigError, RunError
from lrexp.runs.executor import Executor, StopSignal

from .executor_suite import PACE, ExecutorConformance, contents, describe

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of files that it leaves open
CONFIG = {
    "model": {"name": "mlp", "args": {"hidden": [8], "dropout": 0.2}},
    "data": {"name": "digits", "batch_size": 256},
    "loss": "cross_entropy",
    "optimizer": {"name": "SGD", "lr": 0.1, "args": {"momentum": 0.9}},
    "train": {"duration": 12, "eval_every": 5},
    "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.01}}},
    "engine": "sequential",
}


# Ray takes the handler of SIGTERM of a process that asks it for anything, which spoils other tests.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def ray() -> Any:
    """Ray, as the executor imports it."""
    from lrexp.integrations.ray import RayExecutor

    try:
        RayExecutor.require()
    except ConfigError:
        pytest.skip("ray is not installed: pip install 'lrexp[ray]'")
    import ray

    return ray


@pytest.fixture(scope="module")
def cluster(ray: Any) -> Iterator[Any]:
    """A cluster of one node; a test adds those that it kills."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_raylet_start_wait_time_s", "120")  # of a machine that is busy
        patch.setenv("RAY_TMPDIR", "/tmp")  # where the names of sockets are short
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        patch.setenv(on_ray.ADDRESS, cluster.address)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


# what is wrong | the section `executor` | part of the message; None of the cases needs a cluster
REFUSED = [
    ({"num_cpu": 2}, "executor.num_cpu: is not a parameter of the executor ray (got 2). Did you"),
    ({"num_cpus": "two"}, "executor.num_cpus"),
    ({"num_cpus": -1}, "executor.num_cpus: must be 0 or more (got -1"),
    ({"num_gpus": 1.5}, "executor.num_gpus: must be a whole number, or a share below 1"),
    ({"slots": 0}, "executor.slots: must be 1 or more"),
    ({"num_gpus": 1}, "executor.num_gpus: is for nothing: device is cpu"),
    ({"address": "ray://head:10001"}, "executor.address: must be auto or host:port"),
    ({"address": "nowhere"}, "executor.address: must be auto or host:port"),
    ({"address": "127.0.0.1:9"}, "executor.address: cannot be joined: nobody answers there"),
    ({"address": "auto"}, "`ray start --head` starts a cluster"),
]


def _ray_runs() -> bool:
    """Return whether there is a Ray on this machine: without a note of one it looks for processes."""
    found = subprocess.run(["pgrep", "-f", "gcs_server"], check=False, capture_output=True)
    return found.returncode == 0


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_is_refused_with_the_remedy(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where no cluster is noted
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if options.get("address") == "auto" and _ray_runs():
        pytest.skip("a Ray runs on this machine, which auto joins")
    config = {**CONFIG, "device": "cpu", "executor": {"name": "ray", **options}}
    with pytest.raises(ConfigError) as caught:
        library.compare(config, out=tmp_path / "run")
    assert message in str(caught.value)


def test_a_missing_package_is_named_before_a_run_is_begun(
    lrexp: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    answer = lrexp("compare", "c.json", "--executor", "ray", "--out", "run")
    assert answer.code == 2
    assert "pip install 'lrexp[ray]'" in " ".join(answer.err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cpus": 99}, "executor.num_cpus: is more than any node of the cluster has"),
        (
            {"num_gpus": 4},
            "executor.num_gpus: is more than any node of the cluster has, which is 0",
        ),
        ({"memory": 1e15}, "executor.memory: is more than any node"),
        ({"address": "elsewhere:1"}, "is not the cluster that this program has joined"),
    ],
)
def test_what_the_cluster_does_not_have_is_named(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        library.compare(CONFIG, executor={"name": "ray", **options}, out=tmp_path / "run")
    assert message in str(caught.value)


@pytest.mark.usefixtures("cluster")
def test_a_worker_of_other_versions_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = library.__version__
    monkeypatch.setattr(library, "__version__", "99.0")
    with pytest.raises(RunError, match=f"has other versions: lrexp {here} there, 99.0 here"):
        library.compare(CONFIG, executor="ray", out=tmp_path / "run")
    assert not list(tmp_path.glob("run/trials/*/*"))


@pytest.mark.usefixtures("cluster")
def test_a_run_changes_executors_and_kinds_of_machine_are_told(
    lrexp: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    lrexp("compare", "c.json", "--jobs", 1, "--out", "here")
    done = tmp_path / "run/trials/a/seed-0/result.json"
    lrexp("compare", "c.json", "--jobs", 1, "--out", "run", stop=done.exists)
    was = done.read_text()
    result = json.loads(was)
    done.write_text(json.dumps({**result, "hardware": "m68k"}))
    answer = lrexp("resume", "run", "--executor", "ray")
    assert answer.code == 0, answer.err
    told = " ".join((answer.out + answer.err).split())
    assert "uses the cluster that this program has joined" in told
    assert f"seed 0 goes on on another kind of machine, {result['hardware']}: m68k" in told
    assert "trials of seed 0 were trained on several kinds of machine (m68k and" in told
    done.write_text(was)
    assert trials_of(tmp_path / "run") == trials_of(tmp_path / "here")


@pytest.mark.usefixtures("cluster")
@pytest.mark.long
def test_a_range_test_and_its_race(lrexp: Callable[..., Any], tmp_path: Path) -> None:
    config = {
        **CONFIG,
        "find_lr": {"budget": 0, "steps": 30, "seeds": 2},
        "executor": {"name": "ray"},
    }
    (tmp_path / "c.json").write_text(json.dumps(config))
    for name, words in {"here": ["--executor", "local"], "there": []}.items():
        answer = lrexp("find-lr", "c.json", "--jobs", 1, "--out", name, *words)
        assert answer.code == 0, answer.err
    assert trials_of(tmp_path / "there") == trials_of(tmp_path / "here")


def trials_of(run: Path) -> dict[str, Any]:
    """Return what must not depend on who trains."""
    found = contents_of_run(run)
    return {name: found[name] for name in found if name.startswith("trials")}


@pytest.mark.long
def test_an_actor_and_then_a_node_are_killed(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pace in PACE:
        monkeypatch.setattr(*pace)  # put back in the end: the module of the training changes it
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here = describe(tmp_path / "here")
    here.train_here()
    run = describe(tmp_path / "there", seconds=0.05)  # of b: the second slot is at it for 4 s
    (tmp_path / "there/middle").touch()
    node = cluster.add_node(num_cpus=1)
    saved = run.path / "checkpoints/b-seed-0.safetensors"

    def lose() -> None:
        wait_for(lambda: saved.exists() and not (tmp_path / "there/middle").exists())
        cluster.remove_node(node, allow_graceful=False)

    loser = threading.Thread(target=lose)
    loser.start()
    executor = on_ray.executor(2, run.spec, num_cpus=1.0)  # a slot for each node
    executor.run(run.path, run.groups, StopSignal())
    loser.join()
    executor.close()
    assert contents(run.path) == contents(here.path)
    endings = [how for deaths in executor.deaths.values() for how in deaths]
    assert len(endings) == 1  # the node's end counts for nobody: it had saved what it did
    assert endings[0].startswith("was killed, or crashed, on the node")
    assert not list(run.path.glob("checkpoints/*.safetensors"))


@pytest.mark.long
class TestRay(ExecutorConformance):
    factory = "on_ray:executor"

    @pytest.fixture(autouse=True)
    def _on_the_cluster(self, cluster: Any) -> None:
        """Join it."""

    def train(self, run: Described, stop: StopSignal | None = None, jobs: int = 2) -> Executor:
        """Train; actors outlast a stage, and are killed by a message."""
        executor = self.make(run, jobs)
        executor.run(run.path, run.groups, stop or StopSignal())
        executor.close()
        wait_for(lambda: not self.living(run))
        return executor
