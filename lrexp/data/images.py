"""Image datasets: scaling to [0, 1], one size for all, and whether they fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import default_collate

from lrexp.data.batches import as_pair
from lrexp.errors import ConfigError, LrexpError

_MOST_BYTES = 2 * 2**30  # of images, that are kept in memory without being asked to


@dataclass(frozen=True, eq=False)
class Images:
    """A training and a validation set of images, as map-style datasets."""

    train: Any
    val: Any | None
    is_plain: bool  # no transform of the user's, which may be random: may be read once and kept


@dataclass(frozen=True)
class ImageScaling:
    """An image to a float tensor (channels, height, width) in [0, 1].

    Args:
        size: of both sides, in pixels; None keeps the image's own.
    """

    size: int | None = None

    def __call__(self, image: Any) -> torch.Tensor:
        """Return the image as a tensor."""
        from torchvision.transforms import functional

        if self.size is not None:
            image = functional.resize(image, [self.size, self.size], antialias=True)
        tensor: torch.Tensor = image if torch.is_tensor(image) else functional.to_tensor(image)
        return tensor


def stack_images(samples: list[Any]) -> Any:
    """Return a batch of (image, class) samples.

    Raises:
        ConfigError: if the images differ in size.
    """
    require_one_size({tuple(image.shape) for image, _ in samples if torch.is_tensor(image)})
    return default_collate(samples)


def require_one_size(shapes: set[tuple[int, ...]]) -> None:
    """Raise ConfigError if there is more than one shape (channels, height, width)."""
    if len(shapes) > 1:
        found = " and ".join("×".join(map(str, shape)) for shape in sorted(shapes)[:2])
        raise ConfigError.single(
            "data.args.size",
            f"must be given: the images differ in size ({found})",
            None,
            "Set data.args.size to the number of pixels of a side, e.g. 32.",
        )


@contextmanager
def readable(dataset: Any) -> Iterator[None]:
    """Turn what is raised while samples are read into a ConfigError."""
    try:
        yield
    except LrexpError:
        raise
    except Exception as error:  # image decoding raises all sorts
        name, reason = type(dataset).__name__, " ".join(str(error).split())
        what = f"has a sample that cannot be read: {type(error).__name__}: {reason}"
        remedy = "Mend or remove the file, or correct data.args."
        raise ConfigError.single("data.name", what, name, remedy) from error


def require_classes(dataset: Any) -> None:
    """Raise ConfigError unless the samples are (image, class): a detection dataset has boxes."""
    with readable(dataset):
        image, label = as_pair(dataset[0])
    is_label = isinstance(label, int | float) or (torch.is_tensor(label) and label.ndim == 0)
    if not torch.is_tensor(image) or not is_label:
        raise ConfigError.single(
            "data.name",
            "must give pairs (image, class); its target is of another kind",
            f"{type(dataset).__name__} with {type(image).__name__} and {type(label).__name__}",
            "Choose a dataset for classification, or write a dataset of your own.",
        )


def fits_in_memory(*datasets: Any) -> bool:
    """Return whether all images of the datasets need no more than 2 GiB, judged by the first."""
    first, _ = as_pair(datasets[0][0])
    samples = sum(len(dataset) for dataset in datasets)
    return torch.is_tensor(first) and first.nbytes * samples <= _MOST_BYTES
