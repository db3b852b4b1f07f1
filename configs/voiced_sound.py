"""Generated voiced sounds, and a small network that predicts their next samples.

A voice is a train of pulses (the glottis; pitch with vibrato and jitter) through three resonances
(the formants of a vowel that glides to another one), with a little breath noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SAMPLE_RATE = 8000  # Hz
VOWELS = torch.tensor(  # Hz, the first three formants of a, e, i, o, u
    [[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240]]
)
BANDWIDTHS = (80.0, 100.0, 140.0)  # Hz


def data(
    utterances: int = 120,
    seconds: float = 0.25,
    past: int = 64,
    ahead: int = 4,
    samples: int = 8000,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return (train, val): windows of `past` samples, and the `ahead` samples after each.

    The voices of the validation windows are others than those of the training windows.
    """
    generator = torch.Generator().manual_seed(7)
    voices = [_voice(int(seconds * SAMPLE_RATE), generator) for _ in range(utterances)]
    held_out = utterances // 4
    train = _windows(voices[held_out:], past, ahead, samples, generator)
    return train, _windows(voices[:held_out], past, ahead, samples // 4, generator)


def predictor(past: int = 64, ahead: int = 4, width: int = 48) -> nn.Module:
    """Return a network from the last `past` samples to the next `ahead`."""
    return nn.Sequential(
        nn.Linear(past, width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, ahead),
    )


def _voice(length: int, generator: torch.Generator) -> Tensor:
    """Return one utterance of unit variance."""
    pitch = 90 + 130 * torch.rand((), generator=generator).item()
    first, last = VOWELS[torch.randint(len(VOWELS), (2,), generator=generator)]
    glide = torch.linspace(0, 1, length)[:, None]
    formants = ((1 - glide) * first + glide * last).tolist()  # Hz, for every sample
    source = _pulses(length, pitch, generator) + 0.02 * torch.randn(length, generator=generator)
    sound = source.tolist()
    for number, bandwidth in enumerate(BANDWIDTHS):
        sound = _resonance(sound, [row[number] for row in formants], bandwidth)
    voice = torch.tensor(sound)
    return (voice - voice.mean()) / voice.std()


def _pulses(length: int, pitch: float, generator: torch.Generator) -> Tensor:
    time = torch.arange(length) / SAMPLE_RATE
    jitter = 0.01 * torch.randn(length, generator=generator).cumsum(0) / math.sqrt(SAMPLE_RATE)
    rate = pitch * (1 + 0.03 * torch.sin(2 * math.pi * 5 * time) + jitter)
    phase = (rate / SAMPLE_RATE).cumsum(0)
    return torch.diff(phase.floor(), prepend=torch.zeros(1))  # 1 where a period begins


def _resonance(sound: list[float], frequencies: list[float], bandwidth: float) -> list[float]:
    """Return the sound after a two-pole filter whose frequency changes with every sample."""
    radius = math.exp(-math.pi * bandwidth / SAMPLE_RATE)
    out, before, earlier = [], 0.0, 0.0
    for value, frequency in zip(sound, frequencies, strict=True):
        angle = 2 * math.pi * frequency / SAMPLE_RATE
        now = value + 2 * radius * math.cos(angle) * before - radius**2 * earlier
        out.append(now)
        before, earlier = now, before
    return out


def _windows(
    voices: list[Tensor], past: int, ahead: int, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return `count` windows of random places, (count, past) and (count, ahead)."""
    windows = torch.cat([voice.unfold(0, past + ahead, 1) for voice in voices])
    chosen = windows[torch.randperm(len(windows), generator=generator)[:count]]
    return chosen[:, :past].contiguous(), chosen[:, past:].contiguous()
