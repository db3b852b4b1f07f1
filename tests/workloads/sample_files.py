"""Writers of the file formats that the tests read back through torchvision's own code."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lrexp.workloads.batches import Data
from lrexp.workloads.loading import load_data
from lrexp.workloads.torchvision_data import torchvision_dataset


def write_mnist(root: Path, name: str = "MNIST", train: int = 40, test: int = 12) -> np.ndarray:
    """Write raw idx files as yann.lecun.com describes them; return the training images."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    sides = {}
    for prefix, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        # magic number: two zero bytes, 0x08 for unsigned byte, the number of dimensions
        header = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">BBBBI", 0, 0, 8, 1, count)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
        sides[prefix] = images
    return sides["train"]


class _OldArray:
    """Pickles an array as Python 2 did: its dtype with 0 and 1 where numpy now wants booleans."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __reduce__(self) -> Any:
        return np.frombuffer, (self.array.tobytes(), _OldType())


class _OldType:
    def __reduce__(self) -> Any:
        return np.dtype, ("u1", 0, 1)


def write_cifar10(root: Path, per_batch: int = 6) -> dict[str, str]:
    """Write the batches of cs.toronto.edu/~kriz/cifar.html; return the md5 of each file."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels = rng.integers(0, 256, per_batch * 3072, dtype=np.uint8)
        labels = [i % 10 for i in range(per_batch)]
        batch = {"data": _OldArray(pixels), "labels": labels}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {"label_names": [f"class {i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return {f.name: hashlib.md5(f.read_bytes()).hexdigest() for f in folder.iterdir()}


def write_images(root: Path, sizes: list[tuple[int, int]], per_class: int = 4) -> None:
    """Write `cat/` and `dog/` with PNG files; cats are red and dogs are blue."""
    for name, colour in (("cat", (255, 0, 0)), ("dog", (0, 0, 255))):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            size = sizes[number % len(sizes)]
            Image.new("RGB", size, colour).save(folder / f"{number}.png")


def load(name: str, folder: Path, **args: Any) -> Data:
    """Load a torchvision dataset by name; the arguments of load_data may be among `args`."""
    options = {"batch_size": 4, "val_fraction": 0.25, "directory": folder}
    options |= {key: args.pop(key) for key in ("in_memory", "workers", "batch_size") if key in args}
    return load_data(torchvision_dataset(name), args, **options)
