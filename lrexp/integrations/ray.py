"""The executor `ray`: groups of trials in actors of a Ray cluster, on nodes that share no disk.

An actor is a slot: it trains one group at a time, in its own copy of the run directory, and hands
over what its files have grown by (`runs/handover.py`). This process alone writes the run, and holds
the lease of each group that is out. Ray retries nothing by itself: a group whose actor is lost goes
on elsewhere from the checkpoint that came back last.

All trials of a seed go to one kind of machine as long as there is one, so that a difference between
them is not the machines'.
"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lrexp.errors import ConfigError, RunError
from lrexp.integrations.ray_cluster import Cluster, room
from lrexp.records import Group, Trial, TrialId
from lrexp.runs.executor import (
    ATTEMPTS,
    LOOK_SECONDS,
    POLL_SECONDS,
    StopSignal,
    note_death,
    pickled_objects,
    register_executor,
    undone,
)
from lrexp.runs.files import read_json
from lrexp.runs.handover import (
    CHECKPOINT,
    CopyWorker,
    Piece,
    described_files,
    differing,
    given_pieces,
    known_hardware,
    write_pieces,
)
from lrexp.runs.lock import claimed, still_ours
from lrexp.runs.spec import RunSpec, versions
from lrexp.runs.stages import read_stages
from lrexp.runs.worker import OBJECTS, WorkerOptions, lease_path

SYNC_SECONDS = 2.0  # between two times that a worker hands over what it wrote
NODE_SECONDS = 3.0  # for a node to take a connection
PLACE_SECONDS = 60.0  # for an actor to find a node and plan the run
LEAVE_SECONDS = 5.0  # for the actors to remove their copies
_ENVIRONMENT = {  # read when ray is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # it would send the working directory along
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # an actor without a GPU is told its device
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*worker died or was killed.*",  # which is told in our words
}


@register_executor("ray")
class RayExecutor:
    """Actors of a Ray cluster, each with `num_cpus`, `num_gpus` and `memory` of its node.

    Args:
        jobs, devices: are not used: slots are of the cluster, and Ray shows an actor its GPUs.
        spec: of the run.
        address: of the cluster, `host:port`; `auto` is one that runs on this machine, null starts
            one here for this run.
        num_cpus: of a slot, and threads of torch.
        num_gpus: of a slot; several share a GPU at 0.5.
        memory: of a slot, in bytes, kept free on its node.
        slots: groups that train at a time; null is as many as there is room for.
        force: as of `lrexp resume`.
    """

    def __init__(
        self,
        jobs: int,
        spec: RunSpec,
        *,
        address: str | None = None,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        memory: float | None = None,
        slots: int | None = None,
        devices: Sequence[str] | None = None,
        force: bool = False,
    ) -> None:
        self.require()
        _check_amounts(num_cpus, num_gpus, memory, slots)
        self._spec, self._address, self._slots, self._force = spec, address, slots, force
        self._needs = {"CPU": num_cpus, "GPU": num_gpus, "memory": memory or 0.0}
        self._cluster: Cluster | None = None
        self._files: Any = None  # what describes the run, in Ray's object store
        self._options = WorkerOptions()
        self._actors: list[_Slot] = []
        self._limit, self._starts = 0, ATTEMPTS  # as of `LocalProcesses`
        self._kinds: dict[int, str] = {}  # of machine, by seed
        self.deaths: dict[TrialId, list[str]] = {}
        self.say: Callable[[str], None] = lambda text: None

    @staticmethod
    def require(options: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Raise where Ray is missing."""
        os.environ |= {name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()}
        try:
            import ray  # noqa: F401
        except ImportError as error:
            what = f"needs the package ray, which cannot be imported ({error})"
            remedy = "Install it: pip install 'lrexp[ray]'."
            raise ConfigError.single("executor", what, "ray", remedy) from error

    def run(self, run: Path, groups: Sequence[Group], stop: StopSignal) -> None:
        """Train groups; see `Executor`."""
        waiting = undone(run, groups)
        if not waiting or stop.at_once or stop.ask():
            return
        self._begin(run)
        self._kinds |= known_hardware(run, groups)
        trials = {t.id: t for record in read_stages(run) for t in record.stage.trials}
        work = _Work(run.absolute(), trials, waiting)
        try:
            while (work.waiting or any(slot.group for slot in self._actors)) and not stop.at_once:
                if not work.is_stopping and stop.ask():
                    self._stop(work)
                self._start_missing(work)
                self._assign(work)
                for slot in self._heard():
                    self._hear(slot, work)
        finally:
            self._end(slot for slot in self._actors if slot.group or work.is_stopping)

    def close(self) -> None:
        """End the actors, and leave the cluster if this joined it."""
        self._end(list(self._actors))
        if self._cluster is not None:
            self._cluster.leave()
        self._cluster = self._files = None

    def _begin(self, run: Path) -> None:
        """Join the cluster and put there what describes the run, unless that is done."""
        import ray

        if self._cluster is None:
            device = _device(run, self._spec, self._needs["GPU"])
            objects = pickled_objects(self._spec)
            self._cluster = Cluster.joined(self._address)
            self.say(f"Ray: {self._cluster.words}.")
            self._limit = self._slots or room(self._needs)
            files = described_files(run) | ({} if objects is None else {OBJECTS: objects})
            self._files = ray.put(files)
            self._options = WorkerOptions(
                device=device,
                threads=max(1, int(self._needs["CPU"])),
                trust=self._spec.trust,
                force=self._force,
                objects=None if objects is None else hashlib.sha256(objects).hexdigest(),
            )

    def _start_missing(self, work: _Work) -> None:
        """Start actors while there are more groups than slots."""
        import ray

        busy = sum(slot.group is not None for slot in self._actors)
        wanted = min(self._limit, busy + len(work.waiting))
        for _ in range(wanted - len(self._actors)):
            resources = {f"num_{name.lower()}s": self._needs[name] for name in ("CPU", "GPU")}
            if self._needs["memory"]:
                resources["memory"] = int(self._needs["memory"])
            # Two calls at a time: one trains, one may stop it.
            retries = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 2}
            actor = ray.remote(**resources, **retries)(RayWorker).remote()
            slot = _Slot(actor, actor.about.remote(self._options.device))
            slot.loading = actor.load.remote(self._files, self._options)
            self._actors.append(slot)

    def _assign(self, work: _Work) -> None:
        """Give every free slot a group that it may train."""
        for slot in self._actors:
            while slot.pending is None and (group := self._next(slot, work)) is not None:
                lease = slot.lease.enter_context(claimed(lease_path(work.run, group)))
                if lease is None:  # another process trains it
                    slot.lease.close()
                    work.later(group)
                    continue
                if not undone(work.run, [group]):
                    slot.lease.close()
                    continue
                slot.begin(group, work, still_ours(work.run, lease))
                self._kinds |= {t.seed: slot.kind for t in group.trials}

    def _next(self, slot: _Slot, work: _Work) -> Group | None:
        """Take the first group whose seeds belong to the slot's kind of machine, or to no other."""
        is_settled = not any(other.is_coming() for other in self._actors)
        alive = {other.kind for other in self._actors}
        for group in work.ready():
            kinds = {self._kinds[t.seed] for t in group.trials if t.seed in self._kinds}
            others = kinds - {slot.kind}
            if others and not (is_settled and not others & alive):
                continue
            if others:
                seeds = ", ".join(map(str, sorted({t.seed for t in group.trials})))
                self.say(
                    f"Note: seed {seeds} goes on on another kind of machine, {slot.kind}: "
                    f"{' and '.join(sorted(others))}, where it began, is gone."
                )
            work.waiting.remove(group)
            return group
        return None

    def _heard(self) -> list[_Slot]:
        """Return the slots that have something to tell."""
        import ray

        asked = [slot for slot in self._actors if slot.pending is not None]
        if not asked:
            time.sleep(POLL_SECONDS)
            return []
        pending = [slot.pending for slot in asked]
        ready, _ = ray.wait(pending, num_returns=1, timeout=POLL_SECONDS, fetch_local=False)
        return [slot for slot in asked if any(slot.pending is one for one in ready)]

    def _hear(self, slot: _Slot, work: _Work) -> None:
        """Take in what a slot tells."""
        import ray

        try:
            if slot.group is not None:
                self._take(slot, work)
            elif slot.kind:
                told, slot.loading, slot.pending = ray.get(slot.loading), None, None
                if told is not None:
                    raise RunError(f"{told}\nThat was said by a worker on {slot.host}.")
            else:
                _meet(slot, ray.get(slot.pending))
        except ray.exceptions.RayTaskError as error:
            raise RunError(
                f"A Ray worker failed: {error.cause!r}. Every node needs the same lrexp, torch and "
                "Python as this machine."
            ) from error
        except ray.exceptions.RayError as error:
            self._lost(slot, work, error)

    def _take(self, slot: _Slot, work: _Work) -> None:
        """Write what a worker has handed over; free its slot when that was the last."""
        import ray

        try:
            news: list[Piece] = ray.get(next(slot.pending))
        except StopIteration:
            slot.end()
            return
        slot.require_ours()
        write_pieces(work.run, news)
        slot.has_saved |= any(piece.name == CHECKPOINT for piece in news)

    def _lost(self, slot: _Slot, work: _Work, error: Exception) -> None:
        """Let a group whose actor is gone go on elsewhere, and count that it died."""
        self._actors.remove(slot)
        how, is_of_node = _ending(error, slot)
        group = slot.group
        if group is None:
            if not slot.kind or slot.loading is not None:
                self._go_on_with_fewer(f"{how}: {' '.join(str(error).split())[:300]}")
            return
        # A node that is taken away is no fault of what it trained, unless that got nowhere twice.
        if not (getattr(error, "preempted", False) or (is_of_node and slot.has_saved)):
            note_death(work.run, group, how, self.deaths)
        slot.end()
        if undone(work.run, [group]) and not work.is_stopping:
            work.waiting.insert(0, group)

    def _go_on_with_fewer(self, how: str) -> None:
        """Train in the slots that there are: one more could not start."""
        if self._limit > 1:
            self._limit -= 1
            return
        self._starts -= 1
        if self._starts == 0:
            raise RunError(f"No Ray worker can be started. The last one {how}.")

    def _stop(self, work: _Work) -> None:
        """Let every group end at a checkpoint, and begin no other."""
        work.is_stopping = True
        work.waiting.clear()
        for slot in self._actors:
            if slot.group is not None:
                slot.actor.stop.remote()

    def _end(self, slots: Iterable[_Slot]) -> None:
        """Kill actors; those that train nothing remove their copies before."""
        import ray

        ending = list(slots)
        with suppress(Exception):  # they may be gone, and so may the cluster
            leaving = [slot.actor.leave.remote() for slot in ending if slot.kind]
            ray.wait(leaving, num_returns=len(leaving), timeout=LEAVE_SECONDS)
        for slot in ending:
            with suppress(Exception):
                ray.kill(slot.actor, no_restart=True)
            slot.end()
        self._actors = [slot for slot in self._actors if slot not in ending]


class RayWorker(CopyWorker):
    """The actor."""

    def about(self, device: str) -> dict[str, str]:
        """Return versions, kind of machine, and its node."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return super().about(device) | {"node": node, "host": platform.node()}


@dataclass(eq=False)
class _Work:
    """What is left to do of a call of `run`."""

    run: Path
    trials: Mapping[TrialId, Trial]
    waiting: list[Group]
    is_stopping: bool = False
    _not_before: dict[Group, float] = field(default_factory=dict)

    def later(self, group: Group) -> None:
        """Put a group back that another process trains; look at it again in a while."""
        self._not_before[group] = time.monotonic() + LOOK_SECONDS
        self.waiting.append(group)

    def ready(self) -> Iterator[Group]:
        """Yield the groups that may be begun now."""
        now = time.monotonic()
        yield from (g for g in self.waiting if self._not_before.get(g, now) <= now)


@dataclass(eq=False)
class _Slot:
    """An actor, and what it is at."""

    actor: Any
    pending: Any  # an ObjectRef, or the generator of a training; None where it waits for a group
    loading: Any = None  # until it has planned the run
    kind: str = ""  # of machine, once it is known, as the node is
    node: str = ""
    host: str = ""
    group: Group | None = None
    has_saved: bool = False  # since the group began there
    lease: ExitStack = field(default_factory=ExitStack)
    require_ours: Callable[[], None] = lambda: None
    since: float = field(default_factory=time.monotonic)

    def is_coming(self) -> bool:
        """Return whether it may be of any kind yet; one that waits for long may wait forever."""
        return self.loading is not None and time.monotonic() - self.since < PLACE_SECONDS

    def begin(self, group: Group, work: _Work, require_ours: Callable[[], None]) -> None:
        """Give it a group whose lease it holds."""
        trials = [work.trials[trial] for trial in group.trials]
        given = given_pieces(work.run, group)
        train = self.actor.train.options(num_returns="streaming")
        self.pending = train.remote(group, trials, given, SYNC_SECONDS)
        self.group, self.require_ours, self.has_saved = group, require_ours, False

    def end(self) -> None:
        """Let go of its group."""
        self.lease.close()
        self.group = self.pending = None


def _meet(slot: _Slot, about: Mapping[str, str]) -> None:
    """Take in what a worker says of itself."""
    if (what := differing(versions(), about)) is not None:
        raise RunError(
            f"The Ray worker on {about['host']} has other versions: {what}. It trains nothing, for "
            "numbers may differ. Install the same ones on every node."
        )
    slot.kind, slot.node, slot.host = about["hardware"], about["node"], about["host"]
    slot.pending = slot.loading


def _device(run: Path, spec: RunSpec, num_gpus: float) -> str:
    """Return the device that workers train on; Ray shows them the GPUs that they have."""
    here = str(read_json(run / "environment.json").get("device"))
    asked = str(spec.config(()).experiment.device)
    if num_gpus and asked == "cpu":
        what, remedy = "is for nothing: device is cpu", "Leave it out, or set device: auto."
        raise ConfigError.single("executor.num_gpus", what, num_gpus, remedy)
    if not num_gpus and here.startswith("cuda"):
        what, remedy = f"gives workers no GPU, and device is {here}", "Set it to 1, or device: cpu."
        raise ConfigError.single("executor.num_gpus", what, num_gpus, remedy)
    return "cuda" if num_gpus else here


def _check_amounts(
    num_cpus: float, num_gpus: float, memory: float | None, slots: int | None
) -> None:
    """Refuse amounts that Ray would refuse in words of its own, or never find."""
    for name, amount in (("num_cpus", num_cpus), ("num_gpus", num_gpus), ("memory", memory or 0)):
        if not 0 <= amount < float("inf"):
            raise ConfigError.single(f"executor.{name}", "must be 0 or more", amount, "")
    if num_gpus > 1 and num_gpus != int(num_gpus):
        what = "must be a whole number, or a share below 1"
        raise ConfigError.single("executor.num_gpus", what, num_gpus, "Several GPUs are whole.")
    if slots is not None and slots < 1:
        raise ConfigError.single("executor.slots", "must be 1 or more", slots, "null: all room.")


def _is_gone(node: str) -> bool:
    """Return whether a node is lost: Ray learns so seconds later than of its actors' end."""
    import ray

    known = next((found for found in ray.nodes() if found["NodeID"] == node), None)
    if known is None or not known["Alive"]:
        return True
    try:
        place = known["NodeManagerAddress"], known["NodeManagerPort"]
        socket.create_connection(place, NODE_SECONDS).close()
    except OSError:
        return True
    return False


def _ending(error: Exception, slot: _Slot) -> tuple[str, bool]:
    """Return how an actor ended, and whether its node did."""
    if slot.node and _is_gone(slot.node):
        return f"was lost with its node, {slot.host}", True
    if "low on memory" in str(error):  # of Ray's watch, which kills the last one to come
        return f"was killed, for its node, {slot.host}, was low on memory", False
    return f"was killed, or crashed, on the node {slot.host or 'it was to start on'}", False
