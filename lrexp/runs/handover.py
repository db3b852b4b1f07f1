"""Training where the run directory is not: a worker's copy of it, and what comes back.

A worker on another machine keeps a copy of what describes the run. For a group it is given the
checkpoint and the rows that it goes on from, trains as any worker does, and hands over what its
files have grown by. Who owns the run directory writes that in the order in which a run relies on
it: rows before the checkpoint that counts them, the result last.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrexp.errors import LrexpError, RunError
from lrexp.records import Group, Record, Started, Trial, TrialId
from lrexp.runs.checkpoint import again_path, checkpoint_path, peek_checkpoint, read_remaining
from lrexp.runs.files import (
    disk_errors,
    find_json,
    read_json,
    remove_directory,
    trial_path,
    write_whole,
)
from lrexp.runs.worker import (
    WorkerOptions,
    dying_with_loaders,
    one_by_one_path,
    parts,
    prepare,
    train_groups,
)

if TYPE_CHECKING:
    from lrexp.engine.stop import Pause
    from lrexp.runs.plan import Plan

RESULT = "result.json"
ROWS = ("steps.csv", "evals.csv")
CHECKPOINT, AGAIN, ALONE = "checkpoint", "again", "one-by-one"  # files beside the trial's folder
SPEC = ("order.json", "config.yaml", "resolved.yaml", "environment.json", "engine.json")
STATUS = "status.json"
_PREFIX = "lrexp-worker-"


@dataclass(frozen=True)
class Piece:
    """A file of a trial, or what it has grown by.

    Args:
        trial: whose it is; a checkpoint is that of its group's first trial.
        name: of the file.
        data: None where the file is to be removed.
        offset: where the data begins; None for a whole file.
    """

    trial: TrialId
    name: str
    data: bytes | None
    offset: int | None = None

    def path(self, run: Path) -> Path:
        """Return where it lies in a run directory."""
        return _path(run, self.trial, self.name)


def _path(run: Path, trial: TrialId, name: str) -> Path:
    beside = {CHECKPOINT: checkpoint_path, AGAIN: again_path}
    if name in beside:
        return beside[name](run, trial)
    if name == ALONE:
        return one_by_one_path(run, Group("", (trial,)))
    return trial_path(run, trial.variant, trial.seed) / name


def described_files(run: Path) -> dict[str, bytes]:
    """Return what a worker needs to plan a run, by path in the run directory."""
    names = [*SPEC, *map(str, dict(read_json(run / "order.json").get("modules") or {})), STATUS]
    found = {}
    for name in names:
        with disk_errors(run / name):
            found[name] = (run / name).read_bytes()
    return found


def given_pieces(run: Path, group: Group) -> list[Piece]:
    """Return what a group goes on from: its checkpoints, and the rows that these count."""
    left = read_remaining(run, parts(run, group), peek_checkpoint)
    pieces = []
    for trial in group.trials:
        names = [CHECKPOINT, ALONE, *([RESULT] if trial in left.outcomes else [])]
        paths = {name: _path(run, trial, name) for name in names}
        pieces += [Piece(trial, n, p.read_bytes()) for n, p in paths.items() if p.is_file()]
    for trial, position in left.positions.items():
        for name, size in position.sizes.items():
            with _path(run, trial, name).open("rb") as file:
                pieces.append(Piece(trial, name, file.read(size), 0))
    return pieces


def write_pieces(run: Path, pieces: Sequence[Piece]) -> None:
    """Write pieces, in their order; each is on the disk before the next one."""
    for piece in pieces:
        path = piece.path(run)
        with disk_errors(path):
            if piece.data is None:
                path.unlink(missing_ok=True)
            elif piece.offset is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, piece.data)
            else:
                _append(path, piece.offset, piece.data)


def _append(path: Path, offset: int, data: bytes) -> None:
    """Write rows; what a file held beyond is of a worker that is gone."""
    if offset == 0:
        if path.name == ROWS[0] and path.parent.exists():  # the trial begins anew
            remove_directory(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # another file: so who follows it sees that it begins
        path.touch()
    elif path.stat().st_size < offset:
        raise RunError(f"{path}: has lost rows that a worker goes on from. Resume the run.")
    with path.open("r+b") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class Outbox:
    """What the files of a group have grown by since they were asked last.

    It is asked between two records, so no file is half written. A trial that begins again has its
    rows handed over from the first.
    """

    def __init__(self, run: Path, group: Group, given: Sequence[Piece]) -> None:
        self._run, self._trials = run, group.trials
        self._rows = {(p.trial, p.name): len(p.data or b"") for p in given if p.offset is not None}
        whole = [p for p in given if p.offset is None]
        self._whole = {(p.trial, p.name): _state(p.path(run)) for p in whole}

    def note(self, record: Record) -> None:
        """Take in what a record says of the files."""
        if isinstance(record, Started) and record.again is not None:
            for name in ROWS:
                self._rows.pop((record.trial, name), None)

    def news(self) -> list[Piece]:
        """Return pieces in the order in which they are to be written."""
        over = {t for t in self._trials if _path(self._run, t, RESULT).exists()}
        saved = [piece for trial in self._trials for piece in self._changed(trial, CHECKPOINT)]
        # What a trial that begins again had saved goes before its rows; else it goes in the end.
        gone = [p for p in saved if p.data is None]
        return [
            *(p for p in gone if p.trial not in over),
            *(piece for trial in self._trials for piece in self._changed(trial, AGAIN)),
            *(piece for trial in self._trials for piece in self._grown(trial, trial in over)),
            *(p for p in saved if p.data is not None),
            *(piece for trial in self._trials for piece in self._changed(trial, RESULT)),
            *(p for p in gone if p.trial in over),
        ]

    def _changed(self, trial: TrialId, name: str) -> Iterator[Piece]:
        path, key = _path(self._run, trial, name), (trial, name)
        state = _state(path)
        if state != self._whole.get(key):
            self._whole[key] = state
            yield Piece(trial, name, path.read_bytes() if state else None)

    def _grown(self, trial: TrialId, is_over: bool) -> Iterator[Piece]:
        for name in ROWS:
            path, known = _path(self._run, trial, name), self._rows.get((trial, name), 0)
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(known)
                data = file.read()
            # The header may be written once more while there is no row; evaluations wait for steps.
            if not known and not is_over and name == ROWS[0] and data.count(b"\n") < 2:
                return
            if data:
                self._rows[trial, name] = known + len(data)
                yield Piece(trial, name, data, known)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class CopyWorker:
    """Trains groups in a copy of the run directory, in a temporary folder of this machine.

    `stop` may be called from another thread, and ends a training at a checkpoint.
    """

    def __init__(self) -> None:
        _sweep()
        self._copy = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._plan: Plan | None = None
        self._pause: Pause | None = None
        self._is_stopped = False

    def about(self, device: str) -> dict[str, str]:
        """Return the versions that numbers depend on, and on what kind of machine it trains."""
        import torch

        from lrexp.runs.spec import hardware, versions

        return {**versions(), "hardware": hardware(torch.device(device))}

    def load(self, files: Mapping[str, bytes], options: WorkerOptions) -> str | None:
        """Plan the run; return what went wrong."""
        try:
            for name, content in files.items():
                path = self._copy / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._plan, _, _ = prepare(self._copy, (), options)
        except BaseException as error:  # user code may raise anything
            is_known = isinstance(error, LrexpError)
            return str(error) if is_known else f"{type(error).__name__}: {error}"
        return None

    def train(
        self, group: Group, trials: Sequence[Trial], given: Sequence[Piece], seconds: float
    ) -> Iterator[list[Piece]]:
        """Train a group; yield what its files have grown by, every so many seconds."""
        from lrexp.engine.stop import Pause

        assert self._plan is not None
        for name in ("trials", "checkpoints"):
            shutil.rmtree(self._copy / name, ignore_errors=True)
        write_pieces(self._copy, given)
        outbox = Outbox(self._copy, group, given)
        self._pause = pause = Pause()
        pause.requested = self._is_stopped
        told = -seconds
        records = train_groups(self._copy, self._plan, trials, [group], pause)
        with closing(records), dying_with_loaders():
            for record in records:
                outbox.note(record)
                if time.monotonic() - told >= seconds and (news := outbox.news()):
                    yield news
                    told = time.monotonic()
        yield outbox.news()

    def stop(self) -> None:
        """Let the training end at a checkpoint, as soon as it can."""
        self._is_stopped = True
        if self._pause is not None:
            self._pause.requested = True

    def leave(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self._copy, ignore_errors=True)


def _sweep() -> None:
    """Remove the copies of workers of this machine that were killed."""
    from lrexp.runs.lock import Owner

    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        number = path.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError, ValueError):
            if replace(Owner.this(), pid=int(number), started=None).is_gone():
                shutil.rmtree(path, ignore_errors=True)


def differing(here: Mapping[str, str], there: Mapping[str, Any]) -> str | None:
    """Return how the versions of a worker differ from those of this process."""
    different = [name for name, version in here.items() if there.get(name) != version]
    if not different:
        return None
    return " and ".join(f"{name} {there.get(name)} there, {here[name]} here" for name in different)


def known_hardware(run: Path, groups: Sequence[Group]) -> dict[int, str]:
    """Return the kind of machine on which each seed has been trained before."""
    found = {}
    for trial in (trial for group in groups for trial in group.trials):
        path = _path(run, trial, RESULT)
        if (result := find_json(path)) is not None and isinstance(result.get("hardware"), str):
            found[trial.seed] = result["hardware"]
    return found
