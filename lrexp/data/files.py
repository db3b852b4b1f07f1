"""Reading a user's text file: what can be wrong with it, said in terms of the config."""

from __future__ import annotations

import stat
from pathlib import Path

from lrexp.errors import ConfigError

MAX_BYTES = 2**30  # takes some ten times as much memory as cells or tokens


def read_text(path: object) -> tuple[Path, str]:
    """Return the path and the content of a UTF-8 file, without a byte order mark.

    Raises:
        ConfigError: `data.args.path`, if there is no such file, or it is no ordinary one (reading
            a device or a pipe may never end), too large, empty or not UTF-8.
    """
    if not isinstance(path, str | Path) or not str(path).strip() or "\0" in str(path):
        raise _wrong("must be the path of a text file", path, "Give e.g. data/input.txt.")
    path = Path(path)
    try:
        _check_file(path)
        content = path.read_bytes()
    except FileNotFoundError:
        remedy = "Check the path; it is taken from the config's own directory."
        raise _wrong("there is no such file", str(path), remedy) from None
    except IsADirectoryError:
        raise _wrong("is a directory", str(path), "Give a file.") from None
    except OSError as error:
        remedy = "Check the file's permissions."
        raise _wrong(f"cannot be read: {error.strerror}", str(path), remedy) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"is not UTF-8 text: byte {content[error.start]:#04x} in line {line}"
        raise _wrong(what, str(path), "Save the file as UTF-8.") from None
    if not text.strip():
        raise _wrong("is empty", str(path), "Give a file with content.")
    return path, text


def _check_file(path: Path) -> None:
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError
    if not stat.S_ISREG(found.st_mode):
        raise _wrong("is no ordinary file", str(path), "Give a file.")
    if found.st_size > MAX_BYTES:
        what = f"is larger than {MAX_BYTES:,} bytes"
        raise _wrong(what, str(path), "Give a part of it, or load it in a function of your own.")


def _wrong(what: str, path: object, remedy: str) -> ConfigError:
    return ConfigError.single("data.args.path", what, path, remedy)
