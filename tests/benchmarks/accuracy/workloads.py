"""The workloads of the accuracy benchmark, in two halves: one to develop rules on, one to report.

`tuning` is what rules may be developed on. It grew: what was held out at first, and twice what was
made after that, showed something that led to a change, and so can no longer say how good that is.
`held-out` was made after the last change of a rule. Every kind of difficulty in it (see `kind`) is in `tuning` too, on other data, with another
network.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from accuracy import nets, sets
from lrexp.workloads.losses import LossFunction

VOCABULARY = len(sets.CHARACTERS) + 1


@dataclass(frozen=True, eq=False)  # one is equal to itself alone, and so can be a key
class Workload:
    """What is trained, and for how long.

    Args:
        kind: the difficulty that it stands for.
        steps: updates of a full training.
        shift: optimizer -> decades by which the grid of LRs lies higher than that optimizer's.
        find_lr: settings of the range test that are not the defaults.
        engine: which of lrexp's engines trains its grid fastest on a CPU.
        evals: evaluations of the validation data in a training of its truth.
        only: the one optimizer and schedule that it is trained with; None for all of them.
        version: raised when the definition changes, so that cached results are computed anew.
    """

    name: str
    half: str
    kind: str
    make_model: Callable[[], nn.Module]
    data: Callable[[], sets.Split]
    loss: LossFunction = functional.cross_entropy
    steps: int = 150
    batch_size: int = 32
    shift: dict[str, float] = field(default_factory=dict)
    find_lr: dict[str, float] = field(default_factory=dict)
    engine: str = "vectorized"
    evals: int = 1
    only: tuple[str, str] | None = None
    version: int = 1


def gaussian_nll(output: Tensor, target: Tensor) -> Tensor:
    """Return −log density, of outputs (mean, log sd): negative where the fit is close."""
    mean, log_sd = output[:, :1], output[:, 1:]
    return (0.5 * ((target - mean) * torch.exp(-log_sd)) ** 2 + log_sd + 0.919).mean()


def laplace_nll(output: Tensor, target: Tensor) -> Tensor:
    """Return −log density of a Laplace distribution, of outputs (median, log scale)."""
    middle, log_scale = output[:, :1], output[:, 1:]
    return ((target - middle).abs() * torch.exp(-log_scale) + log_scale + 0.693).mean()


TUNING = "tuning"
HELD_OUT = "held-out"

body_a = partial(nets.mlp, [64, 48, 32, 5])
body_b = partial(nets.mlp, [64, 64, 10], nn.GELU)
body_c = partial(nets.mlp, [64, 32, 32, 10], nn.Tanh)
body_d = partial(nets.mlp, [64, 48, 10], nn.SiLU)

ALL = [
    Workload("cancer MLP", TUNING, "tabular", partial(nets.mlp, [30, 32, 2]), sets.cancer),
    Workload(
        "wine dropout", TUNING, "tabular",
        partial(nets.mlp, [13, 48, 3], nn.GELU, 0.2), sets.wine, batch_size=16,
    ),
    Workload(
        "digits BN CNN", TUNING, "BatchNorm", partial(nets.norm_cnn, 1, 8, 10, [8, 16]),
        partial(sets.digits, flat=False), steps=100,
    ),
    Workload(
        "photos BN CNN", TUNING, "BatchNorm", partial(nets.norm_cnn, 3, 8, 2, [6, 12]),
        sets.photo_patches, steps=100,
    ),
    Workload(
        "digits deep tanh", TUNING, "deep, no normalisation",
        partial(nets.tanh_net, 64, 24, 10, 10), sets.digits, steps=200,
    ),
    Workload(
        "spirals deep ReLU", TUNING, "deep, no normalisation",
        partial(nets.relu_net, 2, 24, 8, 3), sets.spirals, steps=250,
    ),
    Workload(
        "text GPT", TUNING, "transformer", partial(nets.small_gpt, VOCABULARY, 12),
        partial(sets.next_character, 12), steps=120, batch_size=8,
    ),
    Workload(
        "digits ViT", TUNING, "transformer", partial(nets.PatchTransformer, 16, 10),
        partial(sets.digits, flat=False), steps=120, batch_size=8,
    ),
    Workload(
        "digits autoencoder", TUNING, "autoencoder", partial(nets.mlp, [64, 32, 8, 32, 64]),
        sets.digit_copies, functional.mse_loss,
    ),
    Workload(
        "photos denoiser", TUNING, "autoencoder", partial(nets.mlp, [64, 40, 64], nn.Tanh),
        sets.noisy_patches, functional.mse_loss,
    ),
    Workload(
        "digits fine-tuned", TUNING, "fine-tuning",
        partial(nets.fine_tuned, body_a, sets.low_digits, partial(nn.Linear, 32, 5)),
        sets.high_digits, steps=80,
    ),
    Workload(
        "turned fine-tuned", TUNING, "fine-tuning",
        partial(nets.fine_tuned, body_b, sets.upright_digits, None),
        sets.turned_digits, steps=100,
    ),
    Workload(
        "iris tiny noisy", TUNING, "tiny noisy", partial(nets.mlp, [4, 32, 3]),
        sets.tiny_iris, steps=100, batch_size=8,
    ),
    Workload(
        "diabetes tiny", TUNING, "tiny noisy", partial(nets.mlp, [10, 32, 1], nn.Tanh),
        partial(sets.diabetes, num_train=60), functional.mse_loss, steps=100, batch_size=8,
    ),
    Workload(
        "diabetes raw targets", TUNING, "badly scaled", partial(nets.mlp, [10, 32, 1]),
        partial(sets.diabetes, 1.0), functional.mse_loss, shift={"SGD": -1.5, "Adam": 1},
    ),
    Workload(
        "friedman ×1000", TUNING, "badly scaled", partial(nets.mlp, [10, 32, 32, 1]),
        partial(sets.friedman, 1e3), functional.mse_loss, shift={"SGD": -3.5, "Adam": 1},
    ),
    Workload(
        "sine Gaussian NLL", TUNING, "negative loss", partial(nets.mlp, [1, 24, 24, 2], nn.Tanh),
        sets.uneven_sine, gaussian_nll, steps=200,
    ),
    Workload(
        "friedman Laplace NLL", TUNING, "negative loss", partial(nets.mlp, [10, 32, 2]),
        sets.small_friedman, laplace_nll, steps=200,
    ),
    Workload(
        "linear exact", TUNING, "near-zero loss", partial(nn.Linear, 12, 1),
        sets.linear, functional.mse_loss, steps=200, shift={"Adam": 0.75},
    ),
    Workload(
        "small sine", TUNING, "near-zero loss", partial(nets.mlp, [1, 32, 32, 1], nn.Tanh),
        sets.small_sine, functional.mse_loss, steps=200,
    ),
    Workload(
        "digits recurrent", TUNING, "sequences", partial(nets.RowRecurrent, 24, 10),
        partial(sets.digits, flat=False), steps=120,
    ),
    Workload(
        "text which file", TUNING, "sequences", partial(nets.Bag, VOCABULARY, 12, 3),
        sets.which_file, steps=150,
    ),
    Workload(
        "tones", TUNING, "audio", partial(nets.mlp, [48, 40, 40, 2], nn.GELU), sets.tones,
        functional.mse_loss, steps=200, batch_size=64,
    ),
    Workload("moons wide", TUNING, "tabular", partial(nets.mlp, [2, 128, 2]), sets.moons),
    Workload(
        "digits residual", TUNING, "deep, LayerNorm", partial(nets.Residual, 64, 24, 5, 10),
        sets.digits, steps=120,
    ),
    Workload(
        "photos colours", TUNING, "convolutions, no normalisation", partial(nets.pixel_cnn, 8),
        sets.colours, functional.mse_loss, steps=100, batch_size=16,
    ),
    Workload(
        "typing GPT", TUNING, "transformer", partial(nets.small_gpt, VOCABULARY, 16),
        partial(sets.next_character, 16, typing), steps=150, batch_size=16,
    ),
    Workload(
        "digits binary autoencoder", TUNING, "autoencoder", partial(nets.mlp, [64, 20, 64]),
        sets.digit_copies, functional.binary_cross_entropy_with_logits,
    ),
    Workload(
        "ratings", TUNING, "embeddings", partial(nets.Factorised, 60, 40, 4), sets.ratings,
        functional.mse_loss, steps=250, shift={"Adam": 0.5},
    ),
    Workload(
        "few digits fine-tuned", TUNING, "fine-tuning",
        partial(nets.fine_tuned, body_a, sets.low_digits, partial(nn.Linear, 32, 5)),
        sets.few_high_digits, steps=80, batch_size=16,
    ),
    Workload(
        "cancer raw inputs", TUNING, "badly scaled", partial(nets.mlp, [30, 16, 2]),
        sets.raw_cancer, steps=200, shift={"SGD": -2.5, "Adam": -0.5},
    ),
    Workload(
        "digits mislabelled", TUNING, "noisy labels", partial(nets.mlp, [64, 48, 10], nn.ReLU, 0.1),
        sets.mislabelled_digits, steps=150, batch_size=16,
    ),
    Workload(
        "swiss roll Huber", TUNING, "regression", partial(nets.mlp, [3, 40, 40, 1], nn.Tanh),
        sets.swiss_roll, functional.smooth_l1_loss, steps=250,
    ),
    Workload("hastie SiLU", TUNING, "tabular", partial(nets.mlp, [10, 64, 2], nn.SiLU),
        sets.hastie, steps=200,
    ),
    Workload(
        "shells deep ReLU", TUNING, "deep, no normalisation",
        partial(nets.relu_net, 6, 32, 6, 4), sets.shells, steps=200,
    ),
    Workload(
        "inspect GPT", TUNING, "transformer", partial(nets.small_gpt, VOCABULARY, 14),
        partial(sets.next_character, 14, inspect), steps=140, batch_size=12,
    ),
    Workload(
        "colours autoencoder", TUNING, "autoencoder",
        partial(nets.mlp, [108, 40, 10, 40, 108], nn.SiLU), sets.colour_patches,
        functional.mse_loss,
    ),
    Workload(
        "spoilt fine-tuned", TUNING, "fine-tuning",
        partial(nets.fine_tuned, body_c, sets.clean_digits, partial(nn.Linear, 32, 10)),
        sets.spoilt_digits, steps=100,
    ),
    Workload(
        "wine tiny noisy", TUNING, "tiny noisy", partial(nets.mlp, [13, 32, 3], nn.Tanh),
        sets.tiny_noisy_wine, steps=100, batch_size=8,
    ),
    Workload(
        "circuits raw inputs", TUNING, "badly scaled", partial(nets.mlp, [4, 32, 1]),
        sets.raw_circuits, functional.mse_loss, steps=200, shift={"SGD": -3.5, "Adam": -0.5},
    ),
    Workload(
        "phases Gaussian NLL", TUNING, "negative loss", partial(nets.mlp, [4, 32, 32, 2]),
        sets.phases, gaussian_nll, steps=200,
    ),
    Workload(
        "small waves", TUNING, "near-zero loss", partial(nets.mlp, [2, 48, 1], nn.Tanh),
        sets.small_waves, functional.mse_loss, steps=200,
    ),
    Workload(
        "marked sums recurrent", TUNING, "sequences", partial(nets.RowRecurrent, 24, 1),
        sets.marked_sums, functional.mse_loss, steps=200,
    ),
    Workload(
        "text which module", TUNING, "embeddings", partial(nets.Bag, VOCABULARY, 16, 2),
        sets.which_module, steps=200,
    ),
    Workload(
        "vowels", TUNING, "audio", partial(nets.norm_mlp, [64, 32, 5]), sets.vowels, steps=120,
    ),
    Workload(
        "blobs MLP", HELD_OUT, "tabular", partial(nets.mlp, [12, 48, 8], nn.LeakyReLU),
        sets.blobs, steps=150,
    ),
    Workload(
        "parity BN MLP", HELD_OUT, "BatchNorm", partial(nets.norm_mlp, [64, 48, 2]), sets.parity,
        steps=120,
    ),
    Workload(
        "friedman deep tanh", HELD_OUT, "deep, no normalisation",
        partial(nets.tanh_net, 10, 20, 8, 1), sets.standard_friedman, functional.mse_loss,
        steps=250,
    ),
    Workload(
        "photos ViT", HELD_OUT, "transformer", partial(nets.PatchTransformer, 16, 2),
        sets.grey_photos, steps=150, batch_size=16,
    ),
    Workload(
        "spectra autoencoder", HELD_OUT, "autoencoder",
        partial(nets.mlp, [64, 24, 6, 24, 64], nn.Tanh), sets.spectra, functional.mse_loss,
        steps=150,
    ),
    Workload(
        "halves fine-tuned", HELD_OUT, "fine-tuning",
        partial(nets.fine_tuned, body_d, sets.clean_digits, partial(nn.Linear, 48, 2)),
        sets.low_or_high, steps=100,
    ),
    Workload(
        "cancer tiny noisy", HELD_OUT, "tiny noisy", partial(nets.mlp, [30, 24, 2]),
        sets.tiny_noisy_cancer, steps=100, batch_size=8,
    ),
    Workload(
        "wine raw inputs", HELD_OUT, "badly scaled", partial(nets.mlp, [13, 24, 3], nn.Tanh),
        sets.raw_wine, steps=200, shift={"SGD": -0.5},
    ),
    Workload(
        "diabetes Gaussian NLL", HELD_OUT, "negative loss",
        partial(nets.mlp, [10, 32, 2], nn.Tanh), sets.small_diabetes, gaussian_nll, steps=200,
    ),
    Workload(
        "small peak", HELD_OUT, "near-zero loss", partial(nets.mlp, [3, 40, 40, 1]),
        sets.small_peak, functional.mse_loss, steps=200,
    ),
    Workload(
        "photos recurrent", HELD_OUT, "sequences", partial(nets.RowRecurrent, 16, 2),
        sets.grey_photos, steps=200,
    ),
    Workload(
        "text which of four", HELD_OUT, "embeddings", partial(nets.Bag, VOCABULARY, 24, 4),
        sets.which_of_four, steps=250,
    ),
    Workload(
        "pitch", HELD_OUT, "audio", partial(nets.mlp, [64, 48, 1], nn.GELU), sets.pitches,
        functional.mse_loss, steps=150,
    ),
]  # fmt: skip
WORKLOADS = {work.name: work for work in ALL}


def chosen(half: str, names: list[str] | None = None) -> list[Workload]:
    """Return the workloads of a half, or of all for `all`; of these, those named."""
    return [w for w in ALL if half in (w.half, "all") and (names is None or w.name in names)]
