"""Checkpoints on disk: one file per group of trials that are trained in one go.

A file holds an engine's state and, for each trial, how long its CSV files were at that moment and
which values it had: so rows past the checkpoint can be cut, and none is written twice. Tensors lie
in it as safetensors, all else as JSON in its header: reading it can run no code, whoever made it,
and what it unfolds to is bounded by its size. Checksums tell a byte that a disk has changed: no run
goes on to other numbers.

`Remaining` is what is left to do of a run. A trial with a result is done. Of the others, those in a
checkpoint go on from there, if their CSV files still hold what they held then; the rest begin anew,
which gives the same numbers.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrexp.engine.engines import ENGINES
from lrexp.errors import RunError
from lrexp.records import Group, TrialId
from lrexp.runs.files import disk_errors, find_json, remove_directory, trial_path, write_whole

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINTS = "checkpoints"
FORMAT = 2
_HEADER = "lrexp"  # the entry of the header with all that is no tensor
_CHECKSUM = "crc32"  # of that text, and in it of the tensors
_MEASURES = ("final", "best", "best_step", "best_epoch")
_SETTINGS = {*_MEASURES, "steps"}


@dataclass(frozen=True)
class Position:
    """How far one trial was."""

    sizes: Mapping[str, int]  # bytes of each of its CSV files, by name
    values: Mapping[str, Any] = field(default_factory=dict)  # final and best measures, its steps


@dataclass(frozen=True)
class SavedGroup:
    """The contents of a checkpoint file."""

    step: int  # updates done by each of its trials
    state: Mapping[str, Any]  # of the engine
    trials: Mapping[str, Position]  # by "variant/seed-n"


def checkpoint_path(run: Path, first: TrialId) -> Path:
    """Return the file of the group that begins with this trial."""
    return run / CHECKPOINTS / f"{first.variant}-seed-{first.seed}.safetensors"


def again_path(run: Path, trial: TrialId) -> Path:
    """Return the file that says why a trial began again, for whoever follows its files."""
    return checkpoint_path(run, trial).with_suffix(".again")


def save_checkpoint(path: Path, group: SavedGroup) -> None:
    """Write a checkpoint in place of the one before it, which stays until this one is whole."""
    from safetensors.torch import save

    trials = {
        name: {"sizes": dict(position.sizes), "values": dict(position.values)}
        for name, position in group.trials.items()
    }
    contents = {"format": FORMAT, "step": group.step, "state": dict(group.state), "trials": trials}
    tensors: dict[str, Tensor] = {}
    encoded = _encoded(contents, tensors)
    header = json.dumps([*encoded, [_CHECKSUM, _checksum(tensors)]])
    with disk_errors(path.parent):
        path.parent.mkdir(exist_ok=True)  # not its parents: a run that was deleted stays deleted
    checksum = str(zlib.crc32(header.encode()))
    write_whole(path, save(tensors, {_HEADER: header, _CHECKSUM: checksum}))


def load_checkpoint(path: Path) -> SavedGroup:
    """Read a checkpoint; a damaged one is a RunError, and its trials can begin anew without it."""
    with _readable(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        contents = _decoded(_header(file), tensors)
        check_payload(contents, path.stat().st_size)
        _require(contents[_CHECKSUM] == _checksum(tensors), "its tensors were changed")
        return _saved(contents, contents["state"])


def peek_checkpoint(path: Path) -> SavedGroup:
    """Read what a checkpoint says without its tensors; of the state, only the engine's name."""
    with _readable(path) as file:
        parts = dict(_header(file)[1:])
        state = dict(parts["state"][1:])
        contents = {name: _decoded(parts[name], {}) for name in ("step", "trials")}
        _check_progress(contents)
        return _saved(contents, {"engine": str(state.get("engine"))})


def _saved(contents: Mapping[str, Any], state: Mapping[str, Any]) -> SavedGroup:
    trials = {name: Position(p["sizes"], p["values"]) for name, p in contents["trials"].items()}
    return SavedGroup(contents["step"], state, trials)


@contextmanager
def _readable(path: Path) -> Iterator[Any]:
    """Open a checkpoint; whatever a damaged file breaks becomes a RunError with the remedy."""
    from safetensors import safe_open

    try:
        if not path.is_file() or path.is_symlink():
            raise ValueError("it is no file")
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise RunError(
            f"{path}: is no checkpoint that can be read safely ({why}). Delete it: its trials then "
            "begin anew, to the same results."
        ) from error


def _header(file: Any) -> Any:
    from lrexp.engine.state import MAX_NODES

    metadata = file.metadata() or {}
    text = metadata.get(_HEADER, "null")
    _require(metadata.get(_CHECKSUM) == str(zlib.crc32(text.encode())), "it was changed")
    _require(text.count("[") <= 2 * MAX_NODES, "it holds too many values outside of tensors")
    header = json.loads(text)
    if not isinstance(header, list) or ["format", FORMAT] not in header:
        raise ValueError(f"it has not the format {FORMAT}")
    return header


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    import torch

    checksum = 0
    for name, tensor in sorted(tensors.items()):
        described = f"{name} {tensor.dtype} {list(tensor.shape)}"
        checksum = zlib.crc32(described.encode(), checksum)
        values = tensor.reshape(-1).view(torch.uint8).numpy().data
        checksum = zlib.crc32(values, checksum)
    return checksum


def _encoded(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON: its kind first, `["tuple", ...]`; tensors are set aside."""
    import torch

    if isinstance(value, torch.Tensor):
        return _encoded_tensor(value, tensors)
    if isinstance(value, dict):
        return ["dict", *([k, _encoded(v, tensors)] for k, v in value.items())]
    if isinstance(value, list | tuple):
        name = "list" if isinstance(value, list) else "tuple"
        return [name, *(_encoded(item, tensors) for item in value)]
    return ["complex", value.real, value.imag] if isinstance(value, complex) else value


def _encoded_tensor(tensor: Tensor, tensors: dict[str, Tensor]) -> Any:
    import torch

    if tensor.layout == torch.sparse_coo:
        parts = [tensor._indices(), tensor._values()]
        coalesced = tensor.is_coalesced()
        return ["sparse", list(tensor.shape), coalesced, *(_encoded(p, tensors) for p in parts)]
    if tensor.layout != torch.strided:
        by_row = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
        outer = tensor.crow_indices() if by_row else tensor.ccol_indices()
        inner = tensor.col_indices() if by_row else tensor.row_indices()
        layout = str(tensor.layout).removeprefix("torch.")
        parts = [_encoded(part, tensors) for part in (outer, inner, tensor.values())]
        return ["compressed", layout, list(tensor.shape), *parts]
    if tensor.is_complex():
        return ["complex_tensor", _encoded(torch.view_as_real(tensor.resolve_conj()), tensors)]
    name = str(len(tensors))
    tensors[name] = tensor.detach().contiguous().clone()  # tied ones share memory, which it refuses
    return ["tensor", name]


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that `_encoded` encoded."""
    if not isinstance(value, list):
        if isinstance(value, dict):
            raise ValueError("it holds a mapping that has no kind")
        return value
    kind, *items = value
    if kind == "dict":
        return {key: _decoded(item, tensors) for key, item in items}
    if kind in ("list", "tuple"):
        found = [_decoded(item, tensors) for item in items]
        return found if kind == "list" else tuple(found)
    return complex(*items) if kind == "complex" else _decoded_tensor(kind, items, tensors)


def _decoded_tensor(kind: str, items: Sequence[Any], tensors: Mapping[str, Tensor]) -> Tensor:
    import torch

    if kind == "tensor":
        return tensors[items[0]]
    if kind == "complex_tensor":
        return torch.view_as_complex(_decoded(items[0], tensors))
    if kind == "sparse":
        shape, coalesced, *parts = items
        indices, values = (_decoded(part, tensors) for part in parts)
        return torch.sparse_coo_tensor(
            indices, values, shape, is_coalesced=coalesced, check_invariants=True
        )
    if kind != "compressed":
        raise ValueError(f"it holds a {kind!r}")
    name, shape, *parts = items
    known = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
    layout = {str(one): one for one in known}[f"torch.{name}"]
    outer, inner, values = (_decoded(part, tensors) for part in parts)
    return torch.sparse_compressed_tensor(
        outer, inner, values, shape, layout=layout, check_invariants=True
    )


def check_payload(payload: Any, num_bytes: int) -> None:
    """Refuse other parts than `save_checkpoint` writes, and what unfolds beyond the file."""
    from lrexp.engine.state import check_held

    check_held(payload, num_bytes)
    state = payload["state"]
    _require(isinstance(state, dict), "its state is no mapping")
    _require(isinstance(state.get("engine", ""), str), "its engine has no name")
    for own in (state, state.get("apart")):  # `apart`: of one trial of a stack that fell apart
        if isinstance(own, dict) and "generators" in own:
            _check_generators(own["generators"])
    _check_progress(payload)


def _check_progress(payload: Mapping[str, Any]) -> None:
    step, trials = payload["step"], payload["trials"]
    _require(_is_count(step), "its step is no number of steps")
    _require(isinstance(trials, dict), "its trials are no mapping")
    for name, position in trials.items():
        _require(isinstance(name, str) and isinstance(position, dict), "its trials have no names")
        _check_position(position)


def _check_position(position: Mapping[str, Any]) -> None:
    sizes, values = position["sizes"], position["values"]
    _require(isinstance(sizes, dict) and isinstance(values, dict), "a position is no mapping")
    for name, size in sizes.items():
        _require(isinstance(name, str) and _is_count(size), "its sizes are no numbers of bytes")
    _require(values.keys() <= _SETTINGS, "its values are not those of a trial")
    _require(_is_count(values.get("steps", 0)), "its steps are no number of steps")
    for measures in (values.get(name, {}) for name in _MEASURES):
        _require(isinstance(measures, dict), "its measures are no mapping")
        for name, value in measures.items():
            is_measure = isinstance(name, str) and type(value) in (int, float, type(None))
            _require(is_measure, "its measures are no numbers")


def _check_generators(states: Any) -> None:
    """Refuse states of random generators of another size: some libraries take them unchecked."""
    import torch

    words, bits = torch.int64, torch.uint8
    python, numpy = states["python"], states.get("numpy")
    sizes = [_is_vector(states["torch"], bits, torch.get_rng_state().numel())]
    sizes += [_are_words(python["words"][:-1], 624), _is_vector(python["words"], words, 625)]
    sizes += [0 <= int(python["words"][-1]) <= 624, type(python["gauss"]) in (float, type(None))]
    sizes += [type(python["version"]) is int]
    if numpy is not None:
        kind, key, place, has_gauss, gauss = numpy
        sizes += [kind == "MT19937", _are_words(key, 624), _is_count(place) and place <= 624]
        sizes += [has_gauss in (0, 1), type(gauss) is float]
    sizes += [_is_small(states[name]) for name in ("cuda", "mps") if name in states]
    _require(all(sizes), "its random generators have other states")


def _is_vector(value: Any, dtype: Any, size: int) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and (value.dtype, value.shape) == (dtype, (size,))


def _are_words(value: Any, size: int) -> bool:
    import torch

    known = _is_vector(value, torch.int64, size)
    return known and int(value.min()) >= 0 and int(value.max()) < 2**32


def _is_small(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and value.numel() < 10_000


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _require(holds: bool, else_what: str) -> None:
    if not holds:
        raise ValueError(else_what)


@dataclass(frozen=True)
class Remaining:
    """What is left to do of some groups.

    Checkpoints, and the trials that their files are named after, are by the first trial of the
    group that goes on from each.
    """

    groups: tuple[Group, ...]  # in order, without the trials that are done
    saved: Mapping[TrialId, SavedGroup] = field(default_factory=dict)
    outcomes: Mapping[TrialId, str] = field(default_factory=dict)  # of those that have a result
    files: Mapping[TrialId, TrialId] = field(default_factory=dict)

    @cached_property
    def trials(self) -> tuple[TrialId, ...]:
        """All trials that are not done."""
        return tuple(trial for group in self.groups for trial in group.trials)

    @cached_property
    def begun(self) -> dict[TrialId, int]:
        """The step at which each trial of a checkpoint goes on."""
        return {trial: saved.step for trial, saved in self._going_on()}

    @cached_property
    def positions(self) -> dict[TrialId, Position]:
        """How far the files of each trial of a checkpoint were."""
        return {trial: saved.trials[trial.name] for trial, saved in self._going_on()}

    def _going_on(self) -> Iterator[tuple[TrialId, SavedGroup]]:
        for group in self.groups:
            if (saved := self.saved.get(group.trials[0])) is not None:
                yield from ((trial, saved) for trial in group.trials)

    def __str__(self) -> str:
        done, going_on = len(self.outcomes), len(self.begun)
        begin = len(self.trials) - going_on
        parts = [
            (done, "trial is done", "trials are done"),
            (going_on, "goes on from a checkpoint", "go on from a checkpoint"),
            (begin, "begins", "begin"),
        ]
        return ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in parts if n)


def read_remaining(
    run: Path, groups: Iterable[Group], load: Callable[[Path], SavedGroup] = load_checkpoint
) -> Remaining:
    """Return what is left to do of groups; `peek_checkpoint` loads where no tensor is needed."""
    groups = list(groups)
    outcomes = read_outcomes(run, [trial for group in groups for trial in group.trials])
    saved: dict[TrialId, SavedGroup] = {}
    files: dict[TrialId, TrialId] = {}
    parts = []
    for group in groups:
        waiting = [trial for trial in group.trials if trial not in outcomes]
        for name in group.trials:  # a file of its own where the group fell apart
            path = checkpoint_path(run, name)
            if not path.is_file():
                continue
            found = load(path)
            here = tuple(trial for trial in waiting if _is_at(run, trial, found))
            if here:
                saved[here[0]], files[here[0]] = found, name
                engine = str(found.state.get("engine"))
                parts.append(Group(engine, here, _stack(group, engine, here, outcomes)))
                waiting = [trial for trial in waiting if trial not in here]
        if waiting:
            fresh = tuple(waiting)
            parts.append(Group(group.engine, fresh, _stack(group, group.engine, fresh, outcomes)))
    return Remaining(tuple(parts), saved, outcomes, files)


def _stack(
    group: Group, engine: str, left: Collection[TrialId], done: Collection[TrialId]
) -> tuple[TrialId, ...]:
    """Return `Group.stack` of what is left of a group: trials that are done keep their rows."""
    if engine != "vectorized" or not any(trial in done for trial in group.trials):
        return ()
    return tuple(trial for trial in group.trials if trial in left or trial in done)


def read_outcomes(run: Path, trials: Iterable[TrialId]) -> dict[TrialId, str]:
    """Return the outcomes of the trials that have a result: finished, diverged or failed."""
    found = {}
    for trial in trials:
        path = trial_path(run, trial.variant, trial.seed)
        if (result := find_json(path / "result.json")) is not None:
            found[trial] = str(result.get("outcome"))
    return found


def forget_failed(run: Path, trials: Iterable[TrialId]) -> None:
    """Remove what trials that failed have left: they begin anew when a run is resumed."""
    for trial, outcome in read_outcomes(run, trials).items():
        if outcome not in ("finished", "diverged"):
            remove_directory(trial_path(run, trial.variant, trial.seed))
            path = checkpoint_path(run, trial)
            if path.is_file() and peek_checkpoint(path).trials.keys() <= {trial.name}:
                remove_checkpoint(run, trial)  # others of its stack may go on from it


def remove_checkpoint(run: Path, first: TrialId) -> None:
    """Remove the checkpoint of the group that begins with a trial, if there is one."""
    path = checkpoint_path(run, first)
    with disk_errors(path):
        path.unlink(missing_ok=True)


def _is_at(run: Path, trial: TrialId, saved: SavedGroup) -> bool:
    """Return whether a checkpoint holds the trial, and the trial's files all they held then."""
    position = saved.trials.get(trial.name)
    if position is None or saved.state.get("engine") not in ENGINES:
        return False
    if not {"steps.csv"} <= set(position.sizes) <= {"steps.csv", "evals.csv"}:
        return False
    folder = trial_path(run, trial.variant, trial.seed)
    rows = {"steps.csv": int(position.values.get("steps", 0))}
    return all(_holds(folder / name, size, rows.get(name)) for name, size in position.sizes.items())


def _holds(path: Path, size: int, rows: int | None) -> bool:
    """Return whether a CSV file's first `size` bytes are whole lines: a header and so many rows."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size < size:
            return False
        with path.open("rb") as file:
            begin = file.read(size)
    except (OSError, ValueError, OverflowError, MemoryError):
        return False
    return begin.endswith(b"\n") and rows in (None, begin.count(b"\n") - 1)
