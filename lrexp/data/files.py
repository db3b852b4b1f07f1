"""Reading a user's text file: what can be wrong with it, said in terms of the config."""

from __future__ import annotations

from pathlib import Path

from lrexp.errors import ConfigError


def read_text(path: object) -> tuple[Path, str]:
    """Return the path and the content of a UTF-8 file, without a byte order mark.

    Raises:
        ConfigError: `data.args.path`, if there is no such file, or it is empty or not UTF-8.
    """
    if not isinstance(path, str | Path) or not str(path).strip() or "\0" in str(path):
        raise _wrong("must be the path of a text file", path, "Give e.g. data/input.txt.")
    path = Path(path)
    try:
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


def _wrong(what: str, path: object, remedy: str) -> ConfigError:
    return ConfigError.single("data.args.path", what, path, remedy)
