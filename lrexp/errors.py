"""Everything lrexp raises, and how a problem with a config is written.

A lower layer raises `ConfigError` with keys relative to itself (`warmup`); each layer above adds
what it knows: the path to that key (`schedule.warmup`), then the file and the line. The command
line prints the message and ends with `exit_code`; it never shows a traceback unless asked to.
"""

from __future__ import annotations

import difflib
import enum
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeAlias


class LrexpError(Exception):
    """Any error that lrexp raises on purpose.

    Its text may quote a file from a stranger: what a terminal would obey is shown as an escape.
    """

    exit_code = 3

    def __str__(self) -> str:
        return without_controls(super().__str__())


class RunError(LrexpError):
    """A run failed for a reason outside its config: the disk, the device, a damaged run."""


class InterruptedRunError(LrexpError):
    """A signal or a function of the caller's stopped a run; what was written so far is whole.

    `run` is its directory; None where nothing was written.
    """

    exit_code = 130

    def __init__(self, message: str = "", run: Path | None = None) -> None:
        super().__init__(message)
        self.run = run


class WorkerDiedError(RunError):
    """A worker process died, again and again, while it trained this trial."""


class UserCodeError(LrexpError):
    """The user's own model, data, loss or schedule raised; the message has its file and line.

    `kind` is the name of the exception's class, where there was one.
    """

    kind = ""


class FailedTrialsError(UserCodeError):
    """Some trials raised; `run` is the directory of the run, with the others in it."""

    def __init__(self, message: str, run: Path) -> None:
        super().__init__(message)
        self.run = run


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a config.

    Written as `PLACE: key: what is wrong (got ...). What to do.`

    Example:
        >>> print(Problem("lr", "must be positive", -1, "Give a positive number, e.g. 0.1."))
        lr: must be positive (got -1). Give a positive number, e.g. 0.1.
    """

    key: str  # dotted path; "" for the file as a whole
    what: str
    given: object  # the value as read; a string is shown in quotes
    remedy: str
    place: str = ""  # "experiment.yaml:12" or "--set optimizer.lr"

    def __str__(self) -> str:
        known = self.place.endswith((f" {self.key}", f"--{self.key}"))  # --set optimizer.lr
        parts = (self.place, "" if known else self.key)
        where = "".join(f"{without_controls(part, keep='')}: " for part in parts if part)
        given = "" if self.given is NOTHING else f" (got {_shown(self.given)})"
        return f"{where}{self.what}{given}. {self.remedy}".rstrip()


class _Nothing(enum.Enum):
    """Marks a problem where no value was given; an enum stays itself when it is pickled."""

    NOTHING = enum.auto()


NOTHING = _Nothing.NOTHING


class ConfigError(LrexpError, ValueError):
    """The command line, a config or an argument is wrong; holds every problem found.

    Example:
        >>> raise ConfigError.single("steps", "must be at least 2", 1, "Raise it.")
        Traceback (most recent call last):
        ...
        lrexp.errors.ConfigError: steps: must be at least 2 (got 1). Raise it.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]]]:
        """Pickle the problems, not the message made of them; worker processes raise these too."""
        return ConfigError, (self.problems,)

    @classmethod
    def single(cls, key: str, what: str, given: object, remedy: str) -> ConfigError:
        """Return an error that holds one problem."""
        return cls([Problem(key, what, given, remedy)])

    def under(self, prefix: str) -> ConfigError:
        """Return the same problems with `prefix.` before every key."""
        return ConfigError(
            [replace(p, key=".".join(filter(None, (prefix, p.key)))) for p in self.problems]
        )

    def placed(self, place_of: Callable[[str], str]) -> ConfigError:
        """Return the same problems, each with the place of its key where it had none."""
        return ConfigError([replace(p, place=p.place or place_of(p.key)) for p in self.problems])


def without_controls(text: str, keep: str = "\n\t") -> str:
    """Return the text with control and other invisible characters, but for `keep`, escaped.

    Example:
        >>> without_controls("\\x1b[2J")
        '\\\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `Did you mean 'x'?`, or the known names when none is close.

    Example:
        >>> did_you_mean("cosin", ["cosine", "linear"])
        "Did you mean 'cosine'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names)}."


def _shown(value: object) -> str:
    """Return the value as YAML writes it, on one line and without control characters.

    Of a long one both ends are shown: a path ends with the name of its file.
    """
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:38]}...{text[-39:]}"


Frame: TypeAlias = tuple[str, int, str]  # file, line, function


class LoaderProcessError(Exception):
    """Where another process raised: the `__cause__` of an exception that a data loader sent.

    Its text is the traceback; `frames` is the same for programs, outermost first.
    """

    def __init__(self, text: str, frames: Sequence[Frame]) -> None:
        super().__init__(text, frames)  # all arguments, so that it can be pickled
        self.text, self.frames = text, tuple(frames)

    @classmethod
    def of(cls, error: BaseException) -> LoaderProcessError:
        """Return the traceback of an exception."""
        return cls("".join(traceback.format_exception(error)), _frames(error))

    def __str__(self) -> str:
        """Return the traceback as Python prints it, apart from the line that it follows."""
        return f"\n{self.text}"


def _frames(error: BaseException) -> list[Frame]:
    """Return the frames of an exception, outermost first; those of a loader's process are last."""
    found = traceback.extract_tb(error.__traceback__)
    frames = [(frame.filename, frame.lineno or 1, frame.name) for frame in found]
    cause = error.__cause__
    return frames + list(cause.frames if isinstance(cause, LoaderProcessError) else ())


@contextmanager
def user_code(doing: str) -> Iterator[None]:
    """Turn an exception of the user's own code into a UserCodeError with its file and line."""
    try:
        yield
    except LrexpError:
        raise
    except Exception as error:
        raise user_error(error, doing) from error


def user_error(error: BaseException, doing: str) -> UserCodeError:
    """Return a UserCodeError that says where the user's own code raised.

    The place is the innermost frame outside lrexp and outside installed packages; when there is
    none (the exception came from a library), the innermost frame of all.
    """
    frames = _frames(error)
    places = [frame for frame in frames if not is_library(frame[0])] or frames
    where = "{}:{}: in {}: ".format(*places[-1]) if places else ""
    message = f"{where}{type(error).__name__}: {_text(error)}".rstrip(": ")
    message = "; ".join([message, *notes_of(error)])
    found = UserCodeError(f"{doing} raised an exception: {message}")
    found.kind = type(error).__name__
    return found


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, as PEP 678 says; Python 3.10 has no method for it."""
    with suppress(Exception):  # a class of the user's own may refuse attributes
        error.__notes__ = [*notes_of(error), note]  # type: ignore[attr-defined]


def notes_of(error: BaseException) -> list[str]:
    """Return the notes of an exception."""
    notes = getattr(error, "__notes__", ())
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a class of the user's own may raise there, too
        return "(no text)"


@cache
def is_library(filename: str) -> bool:
    """Return whether a file is of lrexp, of Python or of an installed package."""
    here = str(Path(__file__).parent)
    installed = ("site-packages", "dist-packages", sysconfig.get_path("stdlib"))
    return filename.startswith((here, "<")) or any(part in filename for part in installed)


def is_interruption(error: BaseException | None) -> bool:
    """Return whether it all began with Ctrl-C: an import that is cut short raises anything."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
