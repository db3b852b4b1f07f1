"""Which sample an exception is about: its path where the dataset tells one, else its index.

The name is a note of the exception, as PEP 678 has them, so that the exception stays what it is:
tracebacks show it, and so do the messages that are made of it.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from lrexp.errors import LrexpError, add_note

# Where datasets keep their files, torchvision's among them: paths, or tuples that begin with one.
_LISTS = (
    *("samples", "imgs", "_samples", "_image_files", "_images", "images", "image_files"),
    *("image_paths", "paths", "files", "filenames", "file_names"),
)
_MOST_NAMED = 8  # of the samples of a batch
_DEEPEST = 8  # of datasets inside datasets


def read_sample(dataset: Any, index: int) -> Any:
    """Return `dataset[index]`; what that raises names the sample.

    Example:
        >>> read_sample([1, 2], 1)
        2
    """
    try:
        return dataset[index]
    except Exception as error:  # a context manager would cost as much as reading a tensor
        if not isinstance(error, LrexpError):
            add_note(error, sample_name(dataset, index))
        raise


def sample_name(dataset: Any, index: int) -> str:
    """Return the index of a sample in the dataset that reads it, and its path where that is known.

    Example:
        >>> sample_name(Subset([1, 2, 3], [2, 0]), 0)
        'sample 2 of list'
    """
    inner, place = _inmost(dataset, index)
    path = _path(inner, place)
    return f"sample {place} of {type(inner).__name__}" + (f", {path}" if path else "")


def samples_name(dataset: Any, indices: Sequence[int]) -> str:
    """Return a name of several samples, where it is not known which of them is wrong."""
    places = [_inmost(dataset, index) for index in indices[:_MOST_NAMED]]
    shown = ", ".join(str(place) for _, place in places)
    more = f" and {len(indices) - _MOST_NAMED} more" if len(indices) > _MOST_NAMED else ""
    return f"samples {shown}{more} of {type(places[0][0]).__name__}"


def numbered_samples(samples: Iterator[Any], of: str) -> Iterator[Any]:
    """Yield the samples of one pass over an iterable; what it raises has the number, from 0."""
    for number in count():
        try:
            sample = next(samples)
        except StopIteration:
            return
        except Exception as error:
            if not isinstance(error, LrexpError):
                add_note(error, f"sample {number} of {of}")
            raise
        yield sample


def name_asked(dataset: Any, traceback: TracebackType | None) -> str | None:
    """Return the name of the sample whose `__getitem__` raised, of a dataset or of one inside it.

    A DataLoader of the user's own reads its samples itself: only the frames of the exception tell.
    None where another process raised, or no sample was asked for by its index.
    """
    inside = _all_inside(dataset)
    found = None
    while traceback is not None:
        code, values = traceback.tb_frame.f_code, traceback.tb_frame.f_locals
        if code.co_name == "__getitem__" and code.co_argcount == 2:
            owner, index = (values.get(name) for name in code.co_varnames[:2])
            if isinstance(index, int) and any(owner is one for one in inside):
                found = sample_name(owner, index)
        traceback = traceback.tb_next
    return found


def _all_inside(dataset: Any, depth: int = 0) -> list[Any]:
    """Return a dataset and all that its Subsets and ConcatDatasets read."""
    if depth == _DEEPEST:
        return [dataset]
    parts: Sequence[Any] = ()
    if isinstance(dataset, Subset):
        parts = [dataset.dataset]
    elif isinstance(dataset, ConcatDataset):
        parts = dataset.datasets
    return [dataset, *(one for part in parts for one in _all_inside(part, depth + 1))]


def _inmost(dataset: Any, index: int) -> tuple[Any, int]:
    """Return the dataset that a Subset or ConcatDataset reads a sample of, and its index there."""
    place = index
    with suppress(Exception):  # of indices or sizes of the user's own
        for _ in range(_DEEPEST):
            if isinstance(dataset, Subset):
                dataset, place = dataset.dataset, int(dataset.indices[place])
            elif isinstance(dataset, ConcatDataset):
                number = bisect_right(dataset.cumulative_sizes, place)
                before = dataset.cumulative_sizes[number - 1] if number else 0
                dataset, place = dataset.datasets[number], place - before
    return dataset, place


def _path(dataset: Any, index: int) -> str | None:
    """Return the file of a sample, where the dataset has a list of as many files as samples."""
    with suppress(Exception):  # whatever attributes of the user's own do
        for name in _LISTS:
            entries = getattr(dataset, name, None)
            if not isinstance(entries, list | tuple) or len(entries) != len(dataset):
                continue
            entry = entries[index]
            first = entry[0] if isinstance(entry, list | tuple) else entry
            if not isinstance(first, str | Path):
                continue
            # only what is there: the text of a sample is no path
            for path in (Path(first), Path(str(getattr(dataset, "root", ""))) / first):
                if os.path.lexists(path):
                    return str(path)
    return None
