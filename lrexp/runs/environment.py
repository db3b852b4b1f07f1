"""What a run says of its surroundings before training: versions, device, threads, git, data."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from lrexp.config.document import to_yaml
from lrexp.config.resolved import resolved_tree
from lrexp.engine.choice import Choice
from lrexp.engine.rng import preserved_rng
from lrexp.records import Group, Trial
from lrexp.runs.files import disk_errors, read_json, write_json, write_whole
from lrexp.runs.plan import Plan
from lrexp.runs.resume import Origin
from lrexp.runs.spec import RunSpec
from lrexp.runs.writer import RunWriter
from lrexp.workloads.loading import fingerprint

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "matplotlib", "pydantic", "pyyaml")


def describe_environment(device: Any) -> dict[str, Any]:
    """Return the contents of environment.json; `device` is a torch.device."""
    import torch

    import lrexp

    return {
        "lrexp": lrexp.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "default_dtype": str(torch.get_default_dtype()),
        "cpu_count": os.cpu_count(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "git": _git(),
        "command_line": sys.argv,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git() -> dict[str, Any] | None:
    """Return commit and dirty flag of the working directory, or None outside a checkout."""
    try:
        commit = _run_git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_run_git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _run_git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()


def describe_run(folder: Path, spec: RunSpec, plan: Plan, choice: Choice) -> None:
    """Write all that describes a run into its folder, but how it goes."""
    modules = plan.config.own_files()
    write_whole(folder / "config.yaml", plan.config.document.text)
    write_whole(folder / "resolved.yaml", resolved_text(plan, choice.groups))
    write_json(folder / "environment.json", surroundings(plan))
    for name, source in modules.items():
        with disk_errors(folder / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, source)
    origin = Origin.of(spec, folder, modules)
    write_json(folder / "order.json", spec.to_plain() | origin.to_plain())


def describe_again(writer: RunWriter, spec: RunSpec, plan: Plan, choice: Choice) -> None:
    """Write anew what a run says of places, where it goes on in another one than before."""
    origin = Origin.from_plain(read_json(writer.directory / "order.json"))
    if origin.folder == spec.directory:
        return
    writer.text("resolved.yaml", resolved_text(plan, choice.groups))
    origin = origin.moved(spec.directory, writer.directory)
    writer.json("order.json", spec.to_plain() | origin.to_plain())


def run_facts(spec: RunSpec, plan: Plan, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return what status.json says of the run from its start to its end."""
    return {
        "command": spec.command,
        "name": plan.config.experiment.name,
        "variants": list(dict.fromkeys(trial.id.variant for trial in trials)),
        "seeds": list(dict.fromkeys(trial.id.seed for trial in trials)),
        "num_trials": len(trials),
        "total_steps": {trial.id.variant: trial.total_steps for trial in trials},
    }


def surroundings(plan: Plan) -> dict[str, Any]:
    """Return the contents of environment.json: what numbers depend on besides the config."""
    known: dict[int, dict[str, Any] | None] = {}
    prints = {}
    with preserved_rng(plan.device):
        for name, variant in plan.variants.items():
            if id(variant.data) not in known:
                known[id(variant.data)] = fingerprint(variant.data)
            prints[name] = known[id(variant.data)]
    return describe_environment(plan.device) | {"data": prints}


def resolved_text(plan: Plan, groups: Iterable[Group]) -> str:
    """Return the contents of resolved.yaml, with the engine that repeats the run.

    Engines differ in rounding, and an unstable training makes much of that.
    """
    engines = {group.engine for group in groups}
    engine = {"engine": engines.pop()} if len(engines) == 1 else {}
    return to_yaml(resolved_config(plan) | engine)


def resolved_config(plan: Plan) -> dict[str, Any]:
    """Return the config with every default filled in and every duration in steps."""
    clocks = {name: variant.clock for name, variant in plan.variants.items()}
    return resolved_tree(plan.config, clocks)
