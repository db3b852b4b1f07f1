"""Creating and writing a run: `RunWriter` for the top-level files, `TrialWriter` for one trial's.

Every trial directory has one writer. Metrics are appended and flushed at once, so that the files
can be read while the run goes on; whole files are replaced.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import IO, Any

from lrexp.errors import ConfigError, RunError
from lrexp.runs.files import disk_errors, remove_directory, sync_directory, write_json, write_whole
from lrexp.runs.lock import Owner

MAX_NAME = 60
NEW = ".new-run"  # at the end of the name of a run that is being described
_RENAMES = 3  # tries, where several processes want one name
_LEFT_SECONDS = 86_400.0  # after which nobody describes it any more


def create_run(
    name: str,
    command: str,
    describe: Callable[[Path], None],
    *,
    out: Path | None = None,
    runs_dir: Path = Path("runs"),
) -> Path:
    """Create and return a new run directory: `out` itself, or a new one inside `runs_dir`.

    It is described (`describe` writes into the folder that it is given) under a temporary name and
    then renamed: whatever ends this process, the directory is whole or not there. A new name is
    `20261121-210301-digits-lr-compare-3f9c`: local time, experiment, command, four random digits.
    """
    check_free(out)
    folder = runs_dir if out is None else out.absolute().parent
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        if out is not None and out.is_dir() and not os.access(folder, os.W_OK):
            new = Path(tempfile.mkdtemp(suffix=NEW))  # a mount in a container, say
        else:
            new = folder / f".{slug(name)}.{os.getpid()}.{secrets.token_hex(4)}{NEW}"
            new.mkdir()
    try:
        describe(new)
        with disk_errors(folder):
            if out is not None:
                _put_in_place(new, out)
                return out
            return _named(new, runs_dir, f"{slug(name)}-{command}")
    finally:
        if new.is_dir():
            with suppress(RunError):
                remove_directory(new)


def _named(new: Path, runs_dir: Path, what: str) -> Path:
    """Give a run a name that no other has: a rename fails where one lies already."""
    while True:
        now = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        path = runs_dir / f"{now}-{what}-{secrets.token_hex(2)}"
        if path.exists():
            continue
        try:
            new.rename(path)
        except OSError:
            if path.exists():  # by now
                continue
            raise
        sync_directory(runs_dir)
        return path


def _put_in_place(new: Path, out: Path) -> None:
    """Rename a run to `out`, an empty folder or none, unless another process was quicker."""
    for _ in range(_RENAMES):  # another process may take the folder away to put its own there
        check_free(out)
        if _is_renamed(new, out):
            break
    else:
        check_free(out)
        parts = sorted(new.iterdir(), key=lambda part: part.name == "status.json")
        for part in parts:  # with status.json, the last one, it is a run
            shutil.move(part, out / part.name)
    sync_directory(out.parent)


def _is_renamed(new: Path, out: Path) -> bool:
    """Rename a run, if a mount, a link or the working directory need not stay what it is."""
    try:
        if out.is_dir() and out.samefile(Path.cwd()):  # who is in there would be nowhere
            return False
        if out.is_dir():
            new.chmod(out.stat().st_mode & 0o7777)  # its rights stay
        with suppress(OSError):  # Windows renames to no folder that exists
            out.rmdir()
        new.rename(out)
    except OSError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed while they described a run have left."""
    for path in folder.glob(f".*{NEW}"):
        with suppress(OSError, RunError):  # another process may sweep, or give one its name
            if not path.is_symlink() and time.time() - path.stat().st_mtime > _LEFT_SECONDS:
                remove_directory(path)


def check_free(out: Path | None) -> None:
    """Raise ConfigError if `out` is taken: asked before anything that takes time."""
    if out is not None and _is_taken(out):
        is_run = (out / "order.json").is_file()
        remedy = f"Give a new folder{f', or `lrexp resume {out}`' if is_run else ''}."
        raise ConfigError.single("--out", "exists and is not an empty folder", str(out), remedy)


def _is_taken(out: Path) -> bool:
    try:
        return out.exists() and (not out.is_dir() or any(out.iterdir()))
    except FileNotFoundError:  # another process took the empty folder away just now
        return False


def slug(name: str) -> str:
    """Return the name as a part of a folder name.

    Example:
        >>> slug("Digits: LR / momentum")
        'digits-lr-momentum'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_NAME] or "run"


MAX_RESUMED = 100  # in status.json, the last ones
STEPS_HEADER = ("step", "epoch", "lr", "loss")
NOTE_SECONDS = 1.0  # between two writes of status.json that only count
TRIAL_FILES = ("steps.csv", "evals.csv", "result.json")
MAX_HEADER = 10_000  # characters


class TrialWriter:
    """Appends the curves of one trial and writes its result; `close` it in the end.

    Args:
        loss_digits: significant digits of a loss: 9 give a float32 back exactly, 17 a float64.
        sizes: of its files at a checkpoint, to go on from there: what they hold beyond is cut off,
            and a file that is not among them is removed. None begins a new directory.
    """

    def __init__(
        self, directory: Path, *, loss_digits: int = 9, sizes: Mapping[str, int] | None = None
    ) -> None:
        self.directory = directory
        self._loss_digits = loss_digits
        self._files: dict[str, IO[str]] = {}
        self._synced: dict[str, int] = {}  # sizes that are on the disk
        self._eval_columns: tuple[str, ...] = ()
        if sizes is not None:
            self._go_on(sizes)
            return
        with disk_errors(directory):
            directory.mkdir(parents=True)
        try:
            self._append("steps.csv", ",".join(STEPS_HEADER) + "\n")
        except RunError:
            self.close()
            raise

    def steps(
        self,
        first: int,
        epoch: Sequence[int],
        lr: Sequence[float],
        loss: Sequence[float],
        more: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Append one row per update: the LR used for it, the batch loss before it, and more."""
        digits = self._loss_digits
        rows = zip(range(first, first + len(loss)), epoch, lr, loss, strict=True)
        lines = [f"{s},{e},{r!r},{x:.{digits}g}" for s, e, r, x in rows]
        if more:
            if first == 0:  # the file holds a header alone, without them
                self._files["steps.csv"].truncate(0)
                self._append("steps.csv", ",".join((*STEPS_HEADER, *more)) + "\n")
            added = zip(*more.values(), strict=True)
            lines = [
                ",".join((line, *map(repr, values)))
                for line, values in zip(lines, added, strict=True)
            ]
        self._append("steps.csv", "".join(f"{line}\n" for line in lines))

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Append one row of measures taken after `step` updates."""
        if not self._eval_columns:
            self._eval_columns = tuple(values)
            self._append("evals.csv", ",".join(("step", "epoch", *values)) + "\n")
        cells = ",".join(f"{values[name]:.12g}" for name in self._eval_columns)
        self._append("evals.csv", f"{step},{epoch:.6g},{cells}\n")

    def result(self, result: Mapping[str, Any]) -> None:
        """Write result.json; the trial is over."""
        self.sync()  # a result beside half of its curve would never be mended
        write_json(self.directory / "result.json", result)

    def sync(self) -> dict[str, int]:
        """Flush all rows to the disk, and return the size of each file."""
        for name, file in self._files.items():
            with disk_errors(self.directory / name):
                file.flush()
                size = os.fstat(file.fileno()).st_size
                if size != self._synced.get(name):  # a flush that waits for others takes long
                    os.fsync(file.fileno())
                self._synced[name] = size
        return dict(self._synced)

    def close(self) -> None:
        """Close the files; the directory stays readable either way."""
        for file in self._files.values():
            with suppress(OSError):  # every row was flushed, or its failure was reported then
                file.close()
        self._files = {}

    def _go_on(self, sizes: Mapping[str, int]) -> None:
        for name in TRIAL_FILES:
            path = self.directory / name
            with disk_errors(path):
                if name not in sizes:
                    path.unlink(missing_ok=True)
                    continue
                os.truncate(path, sizes[name])
                self._files[name] = path.open("a", encoding="utf-8", newline="\n")
                if name == "evals.csv":
                    with path.open(encoding="utf-8") as file:
                        header = file.readline(MAX_HEADER).strip()
                    self._eval_columns = tuple(header.split(",")[2:])

    def _append(self, name: str, text: str) -> None:
        path = self.directory / name
        with disk_errors(path):
            if name not in self._files:
                self._files[name] = path.open("a", encoding="utf-8", newline="\n")
            self._files[name].write(text)
            self._files[name].flush()


class RunWriter:
    """Writes the top-level files of one run directory.

    Args:
        earlier: status.json of a run that goes on: its start and its time count on.
        require_ours: raises where the run has become another process's.
    """

    def __init__(
        self,
        directory: Path,
        status: Mapping[str, Any],
        earlier: Mapping[str, Any] | None = None,
        *,
        require_ours: Callable[[], None] = lambda: None,
    ) -> None:
        self.directory = directory
        self._home = directory.absolute()  # user code may change the working directory
        self.require_ours = require_ours
        known = {key: value for key, value in (earlier or {}).items() if key != "error"}
        before = known.get("seconds")
        self._begun = time.time() - (before if isinstance(before, int | float) else 0.0)
        begun = {"status": "running", "started": _timestamp()}
        owner = Owner.this().to_plain()
        self._status = {**begun, **known, **status, "status": "running", **owner}
        self.update_status()

    @property
    def seconds(self) -> float:
        """How long the run has gone on, without the pauses in which it was interrupted."""
        return time.time() - self._begun

    def text(self, name: str, text: str | bytes) -> None:
        """Write a text file such as resolved.yaml."""
        path = self._home / name
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)

    def json(self, name: str, value: Any) -> None:
        """Write a JSON file such as environment.json."""
        write_json(self._home / name, value)

    def note_counts(self, counts: Mapping[str, int]) -> None:
        """Note how many trials have which outcome; written at most once a second."""
        self._status["counts"] = dict(counts)
        if time.monotonic() - self._written > NOTE_SECONDS:  # all trials of a stack end together
            self.update_status()

    def update_status(self, status: str | None = None, **changes: Any) -> None:
        """Change status.json; `status` is running, complete, failed or interrupted."""
        self.require_ours()
        self._written = time.monotonic()
        self._status |= changes
        if status is not None:
            self._status["status"] = status
        self._status["updated"] = _timestamp()
        self._status["seconds"] = round(time.time() - self._begun, 3)
        write_json(self._home / "status.json", self._status)

    def summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, and for a ranking summary.csv with one row per variant."""
        self.require_ours()
        write_json(self._home / "summary.json", summary)
        ranking = summary.get("ranking")
        if ranking:
            self.text("summary.csv", _ranking_csv(summary))


def resumed(earlier: Mapping[str, Any], forced: Sequence[object]) -> list[Any]:
    """Return what status.json says of when a run was resumed, and what did not fit each time."""
    before = earlier.get("resumed")
    now = {
        "at": _timestamp(),
        **({"forced": [str(problem) for problem in forced]} if forced else {}),
    }
    return [*(before if isinstance(before, list) else []), now][-MAX_RESUMED:]


def _ranking_csv(summary: Mapping[str, Any]) -> str:
    """Return a row per variant: its values, and its comparison with the reference if it has one."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head = ["rank", "variant", "metric", "mean", "sd", *(f"seed-{s}" for s in summary["seeds"])]
    measured = [f"{m}_{part}" for m in summary.get("metrics") or () for part in _MEASURED]
    outcomes_head = ["finished", "diverged", "failed", "diagnosis"]
    writer.writerow([*head, *outcomes_head, *_COMPARED, *measured])
    compared = {c["variant"]: c for c in summary.get("comparisons") or ()}
    for row in summary["ranking"]:
        outcomes = [row["outcomes"].get(kind, 0) for kind in ("finished", "diverged", "failed")]
        numbers = [_cell(value) for value in (row["mean"], row["sd"], *row["values"])]
        first = [row["rank"], row["variant"], summary["metric"]]
        comparison = _compared_cells(compared.get(row["variant"]))
        measures = [c for m in summary.get("metrics") or () for c in _measured(row["metrics"][m])]
        word = row["diagnosis"]["word"]
        writer.writerow([*first, *numbers, *outcomes, word, *comparison, *measures])
    return buffer.getvalue()


_MEASURED = ("final", "best", "best_step", "best_epoch")  # means over the seeds; medians of when


def _measured(metric: Mapping[str, Any]) -> list[str]:
    whens = [[x for x in metric[key] if x is not None] for key in _MEASURED[2:]]
    medians = [median(when) if when else None for when in whens]
    return [_cell(value) for value in (metric["final"]["mean"], metric["best"]["mean"], *medians)]


_COMPARED = ("reference", "delta", "delta_low", "delta_high", "p_holm", "pairs", "wins", "verdict")


def _compared_cells(comparison: Mapping[str, Any] | None) -> list[Any]:
    if comparison is None:
        return [""] * len(_COMPARED)
    low, high = comparison["interval"] or (None, None)
    numbers = [_cell(value) for value in (comparison["mean"], low, high, comparison["p_holm"])]
    rest = [comparison[key] for key in ("n", "wins", "verdict")]
    return [comparison["reference"], *numbers, *rest]


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.12g}"


def _timestamp() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
