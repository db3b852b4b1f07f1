"""What a run says of itself before training: order.json, resolved.yaml and environment.json.

order.json says what a command was asked to do, complete enough to be done elsewhere: whoever has
the run directory makes the same plan from it as the process that wrote it. The config travels as
its text: the file may have been edited meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lrexp.config.checks import CHECKED, TRAINED
from lrexp.config.config import Config, resolved_tree
from lrexp.config.document import document_from_dict, document_from_text, read_document, to_yaml
from lrexp.config.load import load_config
from lrexp.config.reader import read_yaml
from lrexp.engine.choice import Choice
from lrexp.engine.rng import preserved_rng
from lrexp.errors import ConfigError
from lrexp.records import METRICS, Group, Trial, TrialId, column_of
from lrexp.runs.builder import Objects
from lrexp.runs.files import disk_errors, read_json, write_json, write_whole
from lrexp.runs.plan import Plan, make_plan, plan_one
from lrexp.runs.reader import RANGE_TEST
from lrexp.workloads.loading import fingerprint, start_of_zero
from lrexp.workloads.optimizers import check_own

Source: TypeAlias = str | Path | Mapping[str, Any]
Change: TypeAlias = tuple[str, Any] | tuple[str, Any, str]
SEEDS, LOOKS = "compare.seeds", "compare.looks"
Command: TypeAlias = Literal["compare", "find-lr"]


@dataclass(frozen=True)
class RunSpec:
    """Which config, changed how, for which command.

    Example:
        >>> spec = make_spec("compare", "configs/quickstart.yaml")
        >>> plan = spec.plan()
        >>> spec.first_trials(plan)[0].total_steps
        220
    """

    command: Command
    text: str  # the config as it was given, YAML
    name: str | None  # of the file, as messages call it; None for a config made in Python
    directory: str  # where relative paths and import paths start
    changes: tuple[Change, ...] = ()  # in order; see `load_config`
    trust: tuple[str, ...] = ()  # packages that import paths may reach
    objects: Objects = field(default_factory=Objects)  # the only part that is not plain data

    def config(self, checked: Collection[str] = CHECKED) -> Config:
        """Return the config, with these sections checked against code; see `load_config`."""
        document = document_from_text(self.text, self.name, Path(self.directory))
        given = self.objects.sections
        return load_config(document, self.changes, trust=self.trust, given=given, checked=checked)

    def plan(self, config: Config | None = None) -> Plan:
        """Return the plan of the config, which is loaded unless it is given; see `make_plan`.

        A worker needs no rule for range tests, and may not know one that its caller registered.
        """
        config = config or self.config(TRAINED)
        if self.command == "find-lr":
            return plan_one(config, self.objects, RANGE_TEST)
        return make_plan(config, self.objects)

    def first_trials(self, plan: Plan) -> tuple[Trial, ...]:
        """Return the trials that it begins with, seed by seed: initial weights are shared.

        Those of a race are not among them: which there are, the results decide.
        """
        experiment = plan.config.experiment
        is_test = self.command == "find-lr"
        count = experiment.find_lr.seeds if is_test else experiment.compare.seeds
        return tuple(
            Trial(
                TrialId(name, seed),
                "range_test" if is_test else "compare",
                experiment.find_lr.steps if is_test else variant.total_steps,
            )
            for seed in range(experiment.seed, experiment.seed + count)
            for name, variant in plan.variants.items()
        )

    def to_plain(self) -> dict[str, Any]:
        """Return the spec as JSON has it: values as YAML, Python objects as their sections."""
        return {
            "command": self.command,
            "name": self.name,
            "directory": self.directory,
            "changes": [[key, _yaml(value), *label] for key, value, *label in self.changes],
            "trust": list(self.trust),
            "objects": sorted(self.objects.sections),
            "text": self.text,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], objects: Objects | None = None) -> RunSpec:
        """Return the spec that `to_plain` wrote, with the objects that it cannot hold."""
        if plain["command"] not in ("compare", "find-lr"):
            raise ValueError(f"there is no command {plain['command']!r}")
        name = plain["name"]
        return cls(
            command=plain["command"],
            text=str(plain["text"]),
            name=None if name is None else str(name),
            directory=str(plain["directory"]),
            changes=tuple(_change(*change) for change in plain["changes"]),
            trust=tuple(str(prefix) for prefix in plain["trust"]),
            objects=objects or Objects(),
        )


def make_spec(
    command: Command,
    source: Source,
    changes: Sequence[Change] = (),
    *,
    trust: Sequence[str] = (),
    objects: Objects | None = None,
) -> RunSpec:
    """Return the spec of a command; the config's file is read here and never again."""
    name = None
    if isinstance(source, Mapping):
        document = document_from_dict(source)
    else:
        document = read_document(source)
        name = document.name
    return RunSpec(
        command=command,
        text=document.text,
        name=name,
        directory=str(document.directory),
        changes=tuple(changes),
        trust=tuple(trust),
        objects=objects or Objects(),
    )


def without_optimizer(
    config: Source, sections: Mapping[str, Any]
) -> tuple[Source, Mapping[str, Any]]:
    """Return a config without the class in `optimizer.name`, and that among the Python objects.

    Raises:
        ConfigError: what was given makes no optimizer.
    """
    section = config.get("optimizer") if isinstance(config, Mapping) else None
    name = section.get("name") if isinstance(section, Mapping) else None
    given = sections["optimizer"]
    if isinstance(config, Mapping) and isinstance(section, Mapping) and callable(name):
        rest = {key: value for key, value in section.items() if key != "name"}
        config, given = {**config, "optimizer": rest}, given or name
    if given is not None and not isinstance(given, str):
        check_own(given)
    return config, {**sections, "optimizer": given}


def _yaml(value: Any) -> str:
    """Return a value of a change as YAML, which unlike JSON has every number."""
    return to_yaml(document_from_dict({"value": value}).data)


def _change(key: str, value: str, *label: str) -> Change:
    read, _ = read_yaml(value, key)
    if not isinstance(read, dict):
        raise TypeError(f"the value of {key!r} cannot be read")
    change = (key, read["value"])
    return (*change, label[0]) if label else change


@dataclass(frozen=True)
class Origin:
    """Where a run came from, and the modules that it began with."""

    folder: str  # of its config, as it was
    from_run: str | None  # the same, relative to the run; None between two drives of Windows
    modules: Mapping[str, str]  # path inside a folder -> digest

    @classmethod
    def of(cls, spec: RunSpec, run: Path, modules: Mapping[str, bytes]) -> Origin:
        """Return the origin of a run that begins."""
        digests = {name: digest(content) for name, content in modules.items()}
        return cls(spec.directory, _relative(spec.directory, run), digests)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Origin:
        """Return the origin that order.json holds; KeyError and such where it is damaged."""
        modules = {str(name): str(value) for name, value in dict(plain["modules"]).items()}
        from_run = plain["from_run"]
        return cls(str(plain["directory"]), None if from_run is None else str(from_run), modules)

    def to_plain(self) -> dict[str, Any]:
        """Return what order.json holds of it."""
        modules = dict(self.modules)
        return {"directory": self.folder, "from_run": self.from_run, "modules": modules}

    def moved(self, folder: str, run: Path) -> Origin:
        """Return the origin of a run that goes on in another folder."""
        return replace(self, folder=folder, from_run=_relative(folder, run))


def digest(content: bytes) -> str:
    """Return a hash of a module's text; ends of lines are up to the system."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def _relative(folder: str, run: Path) -> str | None:
    try:
        return os.path.relpath(folder, run.absolute())
    except ValueError:  # on another drive
        return None


PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "matplotlib", "pydantic", "pyyaml")


def describe_environment(device: Any) -> dict[str, Any]:
    """Return the contents of environment.json; `device` is a torch.device."""
    import torch

    import lrexp

    return {
        "lrexp": lrexp.__version__,
        "python": platform.python_version(),
        "hardware": hardware(device),
        "platform": platform.platform(),
        "packages": {name: installed(name) for name in PACKAGES},
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


def versions() -> dict[str, str]:
    """Return the versions that a worker must have as well: of what it is sent, and of numbers."""
    import torch

    import lrexp

    return {"lrexp": lrexp.__version__, "torch": torch.__version__, "Python": _python()}


def _python() -> str:
    """Return the version of Python without its patch, which changes no format."""
    return ".".join(platform.python_version_tuple()[:2])


def hardware(device: Any) -> str:
    """Return the kind of machine that bits depend on: of a CPU, the instructions torch uses.

    AVX2 and AVX-512 give other last bits (github.com/pytorch/pytorch/issues/155423).
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


@cache  # 2 ms each, of every run
def installed(package: str) -> str | None:
    """Return the version of a package that is installed, None where it is not."""
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


def describe_again(run: Path, spec: RunSpec, plan: Plan, choice: Choice) -> None:
    """Write anew what a run says of itself, where it goes on in another place or with more seeds.

    order.json comes first: a run that was asked for more seeds gets them, whatever ends this here.
    """
    origin = Origin.from_plain(read_json(run / "order.json"))
    if origin.folder != spec.directory:
        origin = origin.moved(spec.directory, run)
    write_json(run / "order.json", spec.to_plain() | origin.to_plain())
    write_whole(run / "resolved.yaml", resolved_text(plan, choice.groups))


def with_registered(spec: RunSpec, config: Config) -> RunSpec:
    """Return the spec with the metrics that its config names and `register_metric` made known."""
    experiment = config.experiment
    columns = {column_of(name) for name in (*experiment.metrics, experiment.compare.metric or "")}
    found = {c: METRICS[c] for c in columns if c in METRICS and METRICS[c].function is not None}
    return replace(spec, objects=replace(spec.objects, registered=found))


def with_looks(spec: RunSpec, looks: Sequence[int]) -> RunSpec:
    """Return the spec of a comparison that goes on until it is decided."""
    others = [change for change in spec.changes if change[0] != LOOKS]
    return replace(spec, changes=(*others, (LOOKS, list(looks), "--until-decided")))


def with_seeds(spec: RunSpec, plan: Plan, seeds: int) -> RunSpec:
    """Return the spec of a comparison with more seeds.

    Raises:
        ConfigError: it is a range test, or has as many seeds already.
    """
    if spec.command != "compare":
        what, remedy = "is for comparisons, and the run is a range test", "Run its config anew."
        raise ConfigError.single("--seeds", what, seeds, remedy)
    has = plan.config.experiment.compare.seeds
    if seeds < has:
        what, remedy = f"must be more than the run has, which is {has}", "Trials stay as they are."
        raise ConfigError.single("--seeds", what, seeds, remedy)
    others = [change for change in spec.changes if change[0] != SEEDS]
    return replace(spec, changes=(*others, (SEEDS, seeds, "--seeds")))


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


_UNSCALED = 1e4  # a start loss from which on a note is due
_MOST_LINES, _WIDEST = 16, 40  # columns that are told, and letters of a name


def surroundings(plan: Plan) -> dict[str, Any]:
    """Return the contents of environment.json: what numbers depend on besides the config."""
    known: dict[int, dict[str, Any] | None] = {}
    prints = {}
    with preserved_rng(plan.device):
        for name, variant in plan.variants.items():
            if id(variant.data) not in known:
                known[id(variant.data)] = fingerprint(variant.data)
            prints[name] = known[id(variant.data)]
    done = {name: v.data.done for name, v in plan.variants.items() if v.data.done is not None}
    made = {"columns": done} if done else {}
    return describe_environment(plan.device) | {"data": prints} | made


def column_lines(plan: Plan) -> list[str]:
    """Return what was made of files and their columns, once for variants that share them."""
    lines: dict[str, None] = {}
    for variant in plan.variants.values():
        done = list((variant.data.done or {}).items())
        lines |= dict.fromkeys(f"{name[:_WIDEST]}: {words}" for name, words in done[:_MOST_LINES])
        if len(done) > _MOST_LINES:
            lines[f"... and {len(done) - _MOST_LINES:,} more: see environment.json"] = None
        if (start := start_of_zero(variant.data)) > _UNSCALED:
            is_csv = variant.data.done is not None
            remedy = "set data.args.target_transform" if is_csv else "(y - y.mean()) / y.std()"
            lines[
                f"Note: the target is not scaled: its mean square, the loss of a model that "
                f"answers 0, is {start:.3g}. Standardise it: {remedy}."
            ] = None
    return list(lines)


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
