"""The Ray cluster that an executor trains on: which one it is, and what it has room for."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lrexp.errors import ConfigError

_LONGEST = 40  # letters of a temporary folder in which Ray's sockets have a name


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is part of."""

    words: str  # which one it is
    is_ours: bool  # it is left when the run ends

    @classmethod
    def joined(cls, address: str | None) -> Cluster:
        """Join a cluster, or start one here; one that the program has joined is taken."""
        import ray

        if ray.is_initialized():
            found = ray.get_runtime_context().gcs_address
            if address not in (None, "auto", found):
                what = f"is not the cluster that this program has joined, {found}"
                raise ConfigError.single("executor.address", what, address, "Leave it out.")
            return cls(f"uses the cluster that this program has joined, {found}: {_size()}", False)
        _check_address(address)
        if address is None and sys.platform != "win32" and len(tempfile.gettempdir()) > _LONGEST:
            os.environ.setdefault("RAY_TMPDIR", "/tmp")
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                configure_logging=False,
                **({"include_dashboard": False} if address is None else {}),
            )
        except Exception as error:  # Ray raises what it likes
            what = f"cannot be joined ({type(error).__name__}: {str(error).strip()})"
            remedy = (
                "`ray start --head` starts a cluster, with the same Python and Ray as here; "
                "without address one is started on this machine for the run."
            )
            raise ConfigError.single("executor.address", what, address, remedy) from error
        found = ray.get_runtime_context().gcs_address
        where = "started on this machine for this run" if address is None else f"joined {found}"
        return cls(f"{where}: {_size()}", True)

    def leave(self) -> None:
        """Leave it; what was started ends."""
        import ray

        if self.is_ours:
            ray.shutdown()


def _check_address(address: str | None) -> None:
    """Refuse what Ray would wait for in vain, for minutes."""
    if address in (None, "auto"):
        return
    host, _, port = str(address).rpartition(":")
    why, remedy = "", "Run lrexp on a node of the cluster, with address: auto."
    if "://" in host or not host or not port.isdecimal():  # Ray's client cannot train
        why = "must be auto or host:port"
    else:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            why = f"cannot be joined: nobody answers there ({error})"
    if why:
        raise ConfigError.single("executor.address", why, address, remedy)


def alive_nodes() -> list[dict[str, Any]]:
    """Return what Ray says of the nodes that live."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _size() -> str:
    nodes = [node["Resources"] for node in alive_nodes()]
    total = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    return f"{count}, {total['CPU']:g} CPUs, {total['GPU']:g} GPUs"


def room(needs: Mapping[str, float]) -> int:
    """Return how many slots the nodes have room for; none is a ConfigError."""
    nodes = [node["Resources"] for node in alive_nodes()]
    asked = {name: amount for name, amount in needs.items() if amount}
    for name, amount in asked.items():
        most = max((node.get(name, 0) for node in nodes), default=0)
        if most < amount:
            key = name if name == "memory" else f"num_{name.lower()}s"
            what = f"is more than any node of the cluster has, which is {most:g} at most"
            remedy = "Ask for less, or give slots if the cluster grows by itself."
            raise ConfigError.single(f"executor.{key}", what, amount, remedy)
    rooms = [min((int(n.get(k, 0) / v + 1e-9) for k, v in asked.items()), default=1) for n in nodes]
    if sum(rooms) == 0:
        what = "is more than any node of the cluster has at once"
        raise ConfigError.single("executor", what, asked, "Ask for less.")
    return sum(rooms)
