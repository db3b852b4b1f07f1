"""The data of the accuracy benchmark: what scikit-learn ships, what Python ships, made up.

Every function returns (train, val), both (inputs, targets), and draws with a generator of its own.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import random
import string
import textwrap
import typing
from functools import cache
from types import ModuleType
from typing import TypeAlias

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor

Pair: TypeAlias = tuple[Tensor, Tensor]
Split: TypeAlias = tuple[Pair, Pair]
CHARACTERS = string.ascii_lowercase + " \n_().,:='\"#"  # all others are one more


def split(inputs: Tensor, targets: Tensor, num_train: int, seed: int = 0) -> Split:
    """Return shuffled rows: the first `num_train`, and the others."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    inputs, targets = inputs[order], targets[order]
    return (inputs[:num_train], targets[:num_train]), (inputs[num_train:], targets[num_train:])


def standardised(values: np.ndarray) -> Tensor:
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    return torch.tensor(scaled, dtype=torch.float32)


def noisy(labels: Tensor, share: float, classes: int) -> Tensor:
    """Return labels of which a share is replaced by random ones."""
    draw = torch.Generator().manual_seed(7)
    wrong = torch.rand(len(labels), generator=draw) < share
    return torch.where(wrong, torch.randint(classes, labels.shape, generator=draw), labels)


def cancer() -> Split:
    raw = datasets.load_breast_cancer()
    return split(standardised(raw.data), torch.tensor(raw.target), 400)


def wine() -> Split:
    raw = datasets.load_wine()
    return split(standardised(raw.data), torch.tensor(raw.target), 120)


def tiny_iris() -> Split:
    raw = datasets.load_iris()
    return split(standardised(raw.data), noisy(torch.tensor(raw.target), 0.3, 3), 60)


def diabetes(scale: float | None = None, num_train: int = 340) -> Split:
    """Return the diabetes data; targets standardised, or as they are (25 to 346)."""
    raw = datasets.load_diabetes()
    targets = standardised(raw.target) if scale is None else torch.tensor(raw.target * scale)
    return split(standardised(raw.data), targets.float().unsqueeze(1), num_train)


@cache
def _digits() -> Pair:
    raw = datasets.load_digits()
    return torch.tensor(raw.images / 16, dtype=torch.float32), torch.tensor(raw.target)


def digits(*, flat: bool = True, num_train: int = 1300) -> Split:
    images, labels = _digits()
    return split(images.flatten(1) if flat else images.unsqueeze(1), labels, num_train)


def low_digits() -> Pair:
    images, labels = _digits()
    return images.flatten(1)[labels < 5], labels[labels < 5]


def high_digits() -> Split:
    images, labels = _digits()
    chosen = labels >= 5
    return split(images.flatten(1)[chosen], labels[chosen] - 5, 500)


def upright_digits() -> Pair:
    (images, labels), _ = digits(flat=False, num_train=900)
    return images.flatten(1), labels


def turned_digits() -> Split:
    """Return the other digits, turned by a right angle and with ink and paper exchanged."""
    _, (images, labels) = digits(flat=False, num_train=900)
    return split((1 - images.rot90(1, (2, 3))).flatten(1), labels, 600)


def digit_copies() -> Split:
    (train, _), (val, _) = digits()
    return (train, train), (val, val)


@cache
def _patches(side: int) -> Pair:
    """Return patches (n, 3, side, side) of two photos, and from which of them."""
    found = []
    for image in datasets.load_sample_images().images:
        pixels = torch.tensor(image[:400, :600] / 255, dtype=torch.float32).permute(2, 0, 1)
        tiles = pixels.unfold(1, side, 2 * side).unfold(2, side, 2 * side)
        found.append(tiles.permute(1, 2, 0, 3, 4).reshape(-1, 3, side, side))
    which = torch.repeat_interleave(torch.arange(2), torch.tensor([len(p) for p in found]))
    return torch.cat(found), which


def photo_patches() -> Split:
    patches, which = _patches(8)
    return split(patches, which, 1400)


def noisy_patches() -> Split:
    """Return grey patches with noise, and without it."""
    clean = _patches(8)[0].mean(dim=1).flatten(1)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    return split(clean + 0.1 * noise, clean, 1400)


def spirals() -> Split:
    draw = torch.Generator().manual_seed(5)
    radius, arm = torch.rand(1200, generator=draw), torch.arange(1200) % 3
    angle = 4 * radius + arm * 2.1 + 0.15 * torch.randn(1200, generator=draw)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1) * 2
    return split(points, arm, 900)


def linear(features: int = 12) -> Split:
    """Return targets that a linear model can reach exactly, from features of unequal size."""
    draw = torch.Generator().manual_seed(11)
    size = torch.logspace(0, -1, features)
    inputs = torch.randn(800, features, generator=draw) * size
    weights = torch.randn(features, 1, generator=draw)
    return split(inputs, inputs @ weights + 0.5, 600)


def small_sine() -> Split:
    """Return a curve of height 0.02: the loss begins near zero."""
    draw = torch.Generator().manual_seed(12)
    x = 2 * torch.rand(1000, 1, generator=draw) - 1
    return split(x, 0.02 * torch.sin(5 * x), 700)


def uneven_sine() -> Split:
    """Return a curve whose noise grows along it, small enough for densities above one."""
    draw = torch.Generator().manual_seed(13)
    x = 2 * torch.rand(1200, 1, generator=draw) - 1
    noise = torch.randn(1200, 1, generator=draw) * (0.02 + 0.1 * (x + 1))
    return split(x, torch.sin(3 * x) + noise, 900)


def friedman(scale: float = 1.0, noise: float = 1.0) -> Split:
    inputs, targets = datasets.make_friedman1(900, 10, noise=noise, random_state=2)
    return split(
        torch.tensor(inputs, dtype=torch.float32) * 2 - 1,
        torch.tensor(targets * scale, dtype=torch.float32).unsqueeze(1),
        700,
    )


def small_friedman() -> Split:
    (inputs, targets), (val_inputs, val_targets) = friedman(0.2, 0.3)
    return (inputs, targets - targets.mean()), (val_inputs, val_targets - targets.mean())


def codes(text: str) -> Tensor:
    """Return a code for every character."""
    index = {character: i for i, character in enumerate(CHARACTERS)}
    return torch.tensor([index.get(c, len(CHARACTERS)) for c in text.lower()])


def _windows(text: Tensor, length: int, number: int, seed: int) -> Tensor:
    starts = torch.randint(
        len(text) - length, (number, 1), generator=torch.Generator().manual_seed(seed)
    )
    return text[starts + torch.arange(length)]


def next_character(length: int, module: ModuleType = argparse) -> Split:
    """Return windows of a source file of Python's, and the same windows one character on."""
    text = codes(inspect.getsource(module))
    cut = len(text) * 9 // 10
    train = _windows(text[:cut], length + 1, 2000, 1)
    val = _windows(text[cut:], length + 1, 200, 2)
    return (train[:, :-1], train[:, 1:]), (val[:, :-1], val[:, 1:])


def which_file(length: int = 24) -> Split:
    """Return windows of three source files of Python's, and from which of them."""
    found = [
        _windows(codes(inspect.getsource(module)), length, 500, i)
        for i, module in enumerate((textwrap, typing, argparse))
    ]
    return split(torch.cat(found), torch.repeat_interleave(torch.arange(3), 500), 1200)


def tones(past: int = 48) -> Split:
    """Return windows of sounds with gliding pitch and ten overtones, and the next two samples."""
    draw = torch.Generator().manual_seed(14)
    time = torch.arange(1200) / 8000
    rows = []
    for _ in range(60):
        first, last, tilt = torch.rand(3, generator=draw).tolist()
        pitch = 100 + 150 * (first + (last - first) * time / time[-1])
        phase = 2 * torch.pi * torch.cumsum(pitch, 0) / 8000
        overtones = torch.arange(1, 11)[:, None]
        sound = (torch.sin(overtones * phase) * overtones ** -(0.5 + tilt)).sum(0)
        sound += 0.02 * torch.randn(len(time), generator=draw)
        rows.append(sound / sound.std())
    windows = torch.stack(rows).unfold(1, past + 2, 29)  # (sounds, windows, samples)
    train, val = windows[:45].flatten(0, 1), windows[45:].flatten(0, 1)
    return (train[:, :past], train[:, past:]), (val[:, :past], val[:, past:])


def moons() -> Split:
    points, which = datasets.make_moons(900, noise=0.25, random_state=3)
    return split(torch.tensor(points, dtype=torch.float32), torch.tensor(which), 600)


def swiss_roll() -> Split:
    """Return points of a rolled-up sheet, and where on it they lie."""
    points, place = datasets.make_swiss_roll(1000, noise=0.3, random_state=4)
    return split(standardised(points), standardised(place).unsqueeze(1), 700)


def colours() -> Split:
    """Return grey patches of photos, and what their three colours differ from the grey by."""
    patches, _ = _patches(8)
    grey = patches.mean(dim=1, keepdim=True)
    return split(grey, 4 * (patches - grey), 1200)


def ratings(users: int = 60, items: int = 40) -> Split:
    """Return pairs (user, item) and how well they match: an inner product and noise."""
    draw = torch.Generator().manual_seed(15)
    tastes, traits = torch.randn(users, 3, generator=draw), torch.randn(items, 3, generator=draw)
    pairs = torch.cartesian_prod(torch.arange(users), torch.arange(items))
    match = (tastes[pairs[:, 0]] * traits[pairs[:, 1]]).sum(1, keepdim=True)
    return split(pairs, match + 0.3 * torch.randn(len(pairs), 1, generator=draw), 1800)


def raw_cancer() -> Split:
    """Return the cancer data as they are: features of 0.01 beside features of 1000."""
    raw = datasets.load_breast_cancer()
    return split(torch.tensor(raw.data, dtype=torch.float32), torch.tensor(raw.target), 400)


def mislabelled_digits() -> Split:
    (images, labels), val = digits(num_train=600)
    return (images, noisy(labels, 0.4, 10)), val


def few_high_digits() -> Split:
    train, val = high_digits()
    return (train[0][:80], train[1][:80]), val


def hastie() -> Split:
    """Return ten normal features, and whether the sum of their squares is above its median."""
    inputs, which = datasets.make_hastie_10_2(1100, random_state=6)
    return split(torch.tensor(inputs, dtype=torch.float32), torch.tensor(which > 0).long(), 700)


def shells() -> Split:
    """Return points in six dimensions, and in which of four shells around 0 they lie."""
    points, shell = datasets.make_gaussian_quantiles(
        n_samples=1200, n_features=6, n_classes=4, random_state=7
    )
    return split(torch.tensor(points, dtype=torch.float32), torch.tensor(shell), 900)


def colour_patches() -> Split:
    """Return flattened colour patches of photos, twice: to be copied."""
    patches = _patches(6)[0].flatten(1)
    return split(patches, patches, 1500)


def clean_digits() -> Pair:
    (images, labels), _ = digits(num_train=800)
    return images, labels


def spoilt_digits() -> Split:
    """Return the other digits, noisy and mirrored."""
    _, (images, labels) = digits(flat=False, num_train=800)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(16))
    return split((images.flip(3) + 0.2 * noise).flatten(1), labels, 700)


def tiny_noisy_wine() -> Split:
    raw = datasets.load_wine()
    return split(standardised(raw.data), noisy(torch.tensor(raw.target), 0.25, 3), 50)


def raw_circuits() -> Split:
    """Return the impedance of circuits (Friedman's second), inputs from 1 to 1700 as they are."""
    inputs, targets = datasets.make_friedman2(900, noise=50.0, random_state=8)
    return split(torch.tensor(inputs, dtype=torch.float32), standardised(targets).unsqueeze(1), 650)


def phases() -> Split:
    """Return the phase of circuits (Friedman's third), inputs standardised."""
    inputs, targets = datasets.make_friedman3(1000, noise=0.05, random_state=9)
    return split(standardised(inputs), torch.tensor(targets).float().unsqueeze(1), 750)


def small_waves() -> Split:
    """Return a surface of height 0.01 over the plane."""
    draw = torch.Generator().manual_seed(17)
    x = 2 * torch.rand(1100, 2, generator=draw) - 1
    return split(x, 0.01 * (torch.sin(4 * x[:, :1]) * torch.cos(3 * x[:, 1:])), 800)


def marked_sums() -> Split:
    """Return 8 rows (1, 8, 8), a number and a mark in each, and the sum of those marked."""
    draw = torch.Generator().manual_seed(18)
    rows = torch.rand(1300, 1, 8, 8, generator=draw) - 0.5
    marks = (torch.rand(1300, 1, 8, generator=draw) < 0.5).float()
    rows[..., 1] = marks
    return split(rows, (rows[..., 0] * marks).sum(2), 1000)


def which_module(length: int = 32) -> Split:
    """Return windows of two source files of Python's, and from which of them."""
    found = [
        _windows(codes(inspect.getsource(module)), length, 700, 20 + i)
        for i, module in enumerate((ast, random))
    ]
    return split(torch.cat(found), torch.repeat_interleave(torch.arange(2), 700), 1100)


def _vowel_spectra(samples: int = 128) -> tuple[Tensor, Tensor, Tensor]:
    """Return spectra of sounds with two formants, which of five vowels they are, their pitch."""
    draw = torch.Generator().manual_seed(19)
    formants = torch.tensor([[300, 2300], [400, 2000], [700, 1200], [450, 800], [320, 700]])
    which = torch.arange(1000) % 5
    centre = formants[which] * (1 + 0.12 * torch.randn(1000, 2, generator=draw))
    pitch = 90 + 160 * torch.rand(1000, 1, 1, generator=draw)
    overtones = torch.arange(1, 25)[:, None] * pitch  # (sounds, overtones, 1), in Hz
    size = (1 / (1 + ((overtones - centre[:, None, :]) / 120) ** 2)).sum(2, keepdim=True)
    time = torch.arange(samples) / 8000
    sound = (size * torch.sin(2 * torch.pi * overtones * time)).sum(1)
    sound += 0.3 * torch.randn(1000, samples, generator=draw)
    spectrum = torch.log(torch.fft.rfft(sound).abs() + 1)[:, 1:]
    return spectrum - spectrum.mean(), which, pitch.flatten()


def vowels() -> Split:
    spectrum, which, _ = _vowel_spectra()
    return split(spectrum, which, 700)


def pitches() -> Split:
    spectrum, _, pitch = _vowel_spectra()
    return split(spectrum, standardised(pitch.numpy()).unsqueeze(1), 750, seed=1)


def spectra() -> Split:
    spectrum, _, _ = _vowel_spectra()
    return split(spectrum, spectrum, 750, seed=2)


def blobs() -> Split:
    points, which = datasets.make_blobs(1100, 12, centers=8, cluster_std=5.0, random_state=21)
    return split(standardised(points), torch.tensor(which), 800)


def parity() -> Split:
    """Return digits, and whether they are odd."""
    (images, labels), (val_images, val_labels) = digits(num_train=1000)
    return (images, labels % 2), (val_images, val_labels % 2)


def standard_friedman() -> Split:
    inputs, targets = datasets.make_friedman1(1000, 10, noise=0.5, random_state=22)
    return split(standardised(inputs), standardised(targets).unsqueeze(1), 750)


def grey_photos() -> Split:
    """Return grey patches (1, 8, 8) of two photos, and from which of them."""
    patches, which = _patches(8)
    return split(patches.mean(dim=1, keepdim=True) * 4 - 2, which, 1400, seed=3)


def low_or_high() -> Split:
    """Return turned digits, and whether they are 5 or more."""
    (images, labels), (val_images, val_labels) = turned_digits()
    return (images, (labels > 4).long()), (val_images, (val_labels > 4).long())


def tiny_noisy_cancer() -> Split:
    raw = datasets.load_breast_cancer()
    return split(standardised(raw.data), noisy(torch.tensor(raw.target), 0.3, 2), 60, seed=4)


def raw_wine() -> Split:
    """Return the wine data as they are: features of 0.1 beside features of 1600."""
    raw = datasets.load_wine()
    return split(torch.tensor(raw.data, dtype=torch.float32), torch.tensor(raw.target), 120)


def small_diabetes() -> Split:
    """Return the diabetes data with targets of a deviation of 0.1."""
    raw = datasets.load_diabetes()
    return split(standardised(raw.data), 0.1 * standardised(raw.target).unsqueeze(1), 320, seed=5)


def small_peak() -> Split:
    """Return a peak of height 0.02 in space."""
    x = 2 * torch.rand(1100, 3, generator=torch.Generator().manual_seed(23)) - 1
    return split(x, 0.02 * torch.exp(-4 * (x**2).sum(1, keepdim=True)), 800)


def which_of_four(length: int = 40) -> Split:
    """Return windows of four source files of Python's, and from which of them."""
    found = [
        _windows(codes(inspect.getsource(module)), length, 400, 30 + i)
        for i, module in enumerate((ast, random, textwrap, inspect))
    ]
    return split(torch.cat(found), torch.repeat_interleave(torch.arange(4), 400), 1300)
