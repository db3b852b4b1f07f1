"""Text at character level: windows of characters, and for each the character that comes next.

The windows do not overlap, so that one epoch reads every character once and a duration in tokens
means what it says. The validation part is the end of the text.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lrexp.errors import ConfigError
from lrexp.schedules.signatures import Count, checked
from lrexp.workloads.splits import KEY, Split, no_columns, num_val_of
from lrexp.workloads.table import Parts

if TYPE_CHECKING:
    import torch


MAX_BYTES = 2**30  # takes some ten times as much memory as cells or tokens


def read_text(path: object) -> tuple[Path, str]:
    """Return the path and the content of a UTF-8 file, without a byte order mark.

    Raises:
        ConfigError: `data.args.path`, as `read_bytes`, or if it is empty or not UTF-8.
    """
    path, content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"is not UTF-8 text: byte {content[error.start]:#04x} in line {line}"
        raise _wrong(what, str(path), "Save the file as UTF-8.") from None
    return path, require_content(path, text)


def read_bytes(path: object) -> tuple[Path, bytes]:
    """Return the path and the bytes of a file.

    Raises:
        ConfigError: `data.args.path`, if there is no such file, or it is no ordinary one (reading
            a device or a pipe may never end) or too large.
    """
    if not isinstance(path, str | Path) or not str(path).strip() or "\0" in str(path):
        raise _wrong("must be the path of a text file", path, "Give e.g. data/input.txt.")
    path = Path(path)
    try:
        _check_file(path)
        return path, path.read_bytes()
    except FileNotFoundError:
        remedy = "Check the path; it is taken from the config's own directory."
        raise _wrong("there is no such file", str(path), remedy) from None
    except IsADirectoryError:
        raise _wrong("is a directory", str(path), "Give a file.") from None
    except OSError as error:
        remedy = "Check the file's permissions."
        raise _wrong(f"cannot be read: {error.strerror}", str(path), remedy) from None


def require_content(path: Path, text: str) -> str:
    """Return the text of a file, which must hold some."""
    if not text.strip():
        raise _wrong("is empty", str(path), "Give a file with content.")
    return text


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


def text(path: str, seq_len: Count = 64) -> TextWindows:
    """Return a UTF-8 file as windows of `seq_len` characters.

    Characters are numbered in the order of their code points, over the whole file.

    Args:
        path: the file.
        seq_len: characters per sample, at least 1.

    Raises:
        ConfigError: if the file cannot be read or the text is too short for one window.

    Example:
        >>> text("input.txt", seq_len=128)  # doctest: +SKIP

    Source:
        nanoGPT, data/shakespeare_char (its windows start anywhere instead).
    """
    import numpy as np
    import torch

    content = _content(path, seq_len)
    points = np.frombuffer(content.encode("utf-32-le"), dtype="<u4")
    characters, tokens = np.unique(points, return_inverse=True)
    return TextWindows(torch.from_numpy(tokens.astype(np.int64)), seq_len, len(characters))


def text_windows(path: str, seq_len: Count = 64) -> Windows:
    """Return how long the text is; the arguments are those of `text`."""
    return Windows(len(_content(path, seq_len)), seq_len)


@dataclass(frozen=True)
class Windows:
    """How long a text is, and its windows: what is told of it before they are cut.

    Example:
        >>> Windows(count=100, seq_len=9).num_train(0.2)  # of 80 characters, 79 have a next one
        8
    """

    count: int  # characters
    seq_len: int

    def num_train(self, val_fraction: float, split: Split | None = None) -> int:
        """Return the windows that a split leaves for training.

        Raises:
            ConfigError: one of the two parts has not the characters for one window.
        """
        _require_last(split)
        num_val = num_val_of(self.count, val_fraction, "characters")
        num_windows = self.of_part(self.count - num_val, "training")
        if num_val:
            self.of_part(num_val, "validation")
        return num_windows

    def of_part(self, characters: int, part: str) -> int:
        """Return the windows of a part of so many characters, at least 1."""
        count = (characters - 1) // self.seq_len  # the last target needs one character more
        if count < 1:
            raise ConfigError.single(
                "data.args.seq_len",
                f"must be shorter than the {part} part of the text ({characters} characters)",
                self.seq_len,
                "Lower it, or give a longer text.",
            )
        return count


@dataclass(frozen=True, eq=False)
class TextWindows:
    """A text as numbers, and the length of the windows to cut it into.

    Example:
        >>> import torch
        >>> parts = TextWindows(torch.tensor([0, 1, 2, 0, 1]), seq_len=2, vocab_size=3).split(0)
        >>> [side.tolist() for side in parts.train]
        [[[0, 1], [2, 0]], [[1, 2], [0, 1]]]
    """

    tokens: torch.Tensor  # (characters,) int64
    seq_len: int
    vocab_size: int

    def split(self, val_fraction: float, split: Split | None = None) -> Parts:
        """Return windows of the first part of the text, and of its last `val_fraction`."""
        _require_last(split)
        num_val = num_val_of(len(self.tokens), val_fraction, "characters")
        num_train = len(self.tokens) - num_val
        train = self._windows(self.tokens[:num_train], "training")
        val = self._windows(self.tokens[num_train:], "validation") if num_val else None
        return Parts(train, val, vocab_size=self.vocab_size)

    def _windows(self, tokens: torch.Tensor, part: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and next characters, both (windows, seq_len)."""
        count = Windows(len(self.tokens), self.seq_len).of_part(len(tokens), part)
        used = count * self.seq_len
        inputs, targets = tokens[:used], tokens[1 : used + 1]
        return inputs.view(count, self.seq_len), targets.reshape(count, self.seq_len)


def _require_last(split: Split | None) -> None:
    if split is None or split.kind == "last":
        return
    if split.by_column:
        raise no_columns(split, "a text")
    what = "must be last: windows of a text follow each other"
    raise ConfigError.single(KEY, what, split.kind, "Leave it out.")


@checked("data.args")
def _content(path: object, seq_len: Count) -> str:
    return read_text(path)[1]
