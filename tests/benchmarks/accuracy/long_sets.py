"""The data of the long half: pictures, weather, airports and text that installed packages carry.

    pip install vega_datasets mnist1d scikit-image

Every function returns (train, val), both (inputs, targets); nothing is downloaded.
"""

from __future__ import annotations

import asyncio
import inspect
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor

from accuracy.sets import CHARACTERS, Pair, Split, codes, split, standardised

VALIDATED = 400  # rows, so that evaluations stay cheap beside the training


@cache
def _signals() -> tuple[Pair, Pair]:
    """Return mnist1d's 4000 and 1000 signals (n, 40) with ten labels, as its authors make them."""
    from mnist1d.data import get_dataset_args, make_dataset

    made = make_dataset(get_dataset_args())
    found = [(torch.tensor(made[x]).float(), torch.tensor(made[y]).long())
             for x, y in (("x", "y"), ("x_test", "y_test"))]  # fmt: skip
    return found[0], found[1]


def signals(num_train: int = 4000) -> Split:
    (inputs, labels), (val, val_labels) = _signals()
    return (inputs[:num_train], labels[:num_train]), (val[:VALIDATED], val_labels[:VALIDATED])


def _tiles(picture: np.ndarray, side: int, apart: int) -> Tensor:
    """Return squares (n, side, side) of a grey picture, standardised over the picture."""
    pixels = standardised(picture.reshape(-1).astype(float)).view(picture.shape)
    return pixels.unfold(0, side, apart).unfold(1, side, apart).reshape(-1, side, side)


@cache
def _textures() -> Pair:
    from skimage import data

    found = [_tiles(picture, 8, 8) for picture in (data.brick(), data.grass(), data.gravel())]
    return torch.cat(found), torch.arange(3).repeat_interleave(len(found[0]))


def textures() -> Split:
    """Return squares (n, 1, 8, 8) of three surfaces, and of which of them."""
    tiles, which = _textures()
    train, (val, val_which) = split(tiles.unsqueeze(1), which, 8000)
    return train, (val[:VALIDATED], val_which[:VALIDATED])


def texture_copies() -> Split:
    (train, _), (val, _) = textures()
    return (train.flatten(1), train.flatten(1)), (val.flatten(1), val.flatten(1))


def views() -> Split:
    """Return two neighbouring squares (n, 2, 64) of pictures; the targets are not looked at."""
    from skimage import data

    found = [_tiles(picture, 16, 8) for picture in (data.moon(), data.coins(), data.page())]
    wide = torch.cat(found)
    pairs = torch.stack([wide[:, :8, :8].flatten(1), wide[:, 4:12, 4:12].flatten(1)], dim=1)
    train, (val, none) = split(pairs, torch.zeros(len(pairs)), 5000)
    return train, (val[:VALIDATED], none[:VALIDATED])


def picture() -> Split:
    """Return places (n, 2) in [-1, 1] of a photo, and how light it is there."""
    from skimage import data

    light = standardised(data.astronaut().mean(axis=2)[::4, ::4].reshape(-1))
    line = torch.linspace(-1, 1, 128)
    train, (val, targets) = split(torch.cartesian_prod(line, line), light.unsqueeze(1), 12000)
    return train, (val[:VALIDATED], targets[:VALIDATED])


def temperatures(past: int = 16) -> Split:
    """Return hours of Seattle's temperatures (n, past, 1) and that of three hours later."""
    from vega_datasets import data

    hours = standardised(data.seattle_temps()["temp"].to_numpy(dtype=float))
    windows = hours.unfold(0, past + 3, 1)
    inputs, targets = windows[:, :past, None], windows[:, -1:]
    return (inputs[:7000], targets[:7000]), (inputs[-VALIDATED:], targets[-VALIDATED:])


def weather() -> Split:
    """Return three days of Seattle's weather, and how warm the next one becomes: 1100 rows."""
    from vega_datasets import data

    columns = ["precipitation", "temp_max", "temp_min", "wind"]
    days = standardised(data.seattle_weather()[columns].to_numpy(dtype=float))
    windows = days.unfold(0, 3, 1).flatten(1)
    return split(windows[:-1], days[3:, 1:2], 1100)


def airports(states: int = 12) -> Split:
    """Return where an airport lies, and in which of the states with the most of them."""
    from vega_datasets import data

    table = data.airports()
    common = list(table["state"].value_counts().index[:states])
    table = table[table["state"].isin(common)]
    where = standardised(table[["latitude", "longitude"]].to_numpy(dtype=float))
    labels = torch.tensor([common.index(state) for state in table["state"]])
    return split(where, labels, len(labels) - VALIDATED)


def _windows(text: str, length: int, number: int) -> Split:
    """Return windows of a text and the same one character on; its last tenth is for validation."""
    letters, cut = codes(text), len(text) * 9 // 10
    draw, found = torch.Generator().manual_seed(1), []
    for part, rows in ((letters[:cut], number), (letters[cut:], 150)):
        starts = torch.randint(len(part) - length - 1, (rows, 1), generator=draw)
        windows = part[starts + torch.arange(length + 1)]
        found.append((windows[:, :-1], windows[:, 1:]))
    return found[0], found[1]


def code(length: int = 16) -> Split:
    """Return source of Python's asyncio: 200 kB."""
    folder = Path(inspect.getfile(asyncio)).parent
    files = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))]
    return _windows("\n".join(files), length, 20000)


def prose(length: int = 12) -> Split:
    """Return the descriptions of scikit-learn's data sets: English with tables."""
    folder = Path(datasets.__file__).parent / "descr"
    files = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.rst"))]
    return _windows("\n".join(files), length, 15000)


def shuffled_signals() -> Split:
    """Return signals with labels of other ones, for training and for validation."""
    (inputs, labels), val = signals()
    return (inputs, labels.roll(1)), (val[0], val[1].roll(1))


def nothing() -> Split:
    """Return signals of which nothing is asked: every target is 0."""
    (inputs, _), (val, _) = signals()
    return (inputs, torch.zeros(len(inputs), 1)), (val, torch.zeros(len(val), 1))


VOCABULARY = len(CHARACTERS) + 1
