"""A paired control, where no fall shows: what makes one batch harder than another is taken off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lrexp
from lrexp.analysis.range_curve import Curve
from lrexp.analysis.signal import falls, is_buried, paired_control
from lrexp.analysis.suggest import suggest
from lrexp.errors import ConfigError
from lrexp.integrations.lr_finder import LRFinder
from lrexp.report.result import RangeTest

LR = np.logspace(-7, 1, 100)
SEEDS = [0, 10, 20, 30]  # of experiments, whose range tests take three each


def buried(fall: float, seeds: int = 3) -> tuple[list[Curve], list[np.ndarray]]:
    """Return curves that fall by little, and batches that differ by much."""
    x = np.log10(LR)
    learned = fall * np.interp(x, [-4, -2, -1, 0], [0.0, 1.0, 1.0, -3.0])
    curves, control = [], []
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        hard = 5.0 + draw.normal(0, 1.0, len(LR))
        curves.append(Curve(LR, hard - learned + draw.normal(0, 0.01, len(LR))))
        control.append(hard)
    return curves, control


def test_a_fall_that_is_buried_in_differences_of_batches_is_found() -> None:
    curves, control = buried(0.3)
    assert suggest(curves).suggested_lr is None
    found = suggest(curves, control=control)
    clear = suggest([Curve(c.lr, c.loss - u) for c, u in zip(curves, control, strict=True)])
    assert found.suggested_lr == pytest.approx(clear.suggested_lr, rel=0.02)
    assert 1e-3 < found.suggested_lr < 1e-1
    assert "taken off" in str(found.note)


def test_what_few_of_the_seeds_show_is_looked_at_again() -> None:
    curves, control = buried(0.7)
    assert suggest(curves).suggested_lr is not None  # all seeds together show it
    assert sum(suggest([curve]).suggested_lr is None for curve in curves) >= 2
    assert is_buried(curves)
    found = suggest(curves, control=control)
    assert "weak signal" in str(found.note)
    assert found.per_seed.count(None) == 0


def blown_up(fall: float) -> tuple[list[Curve], list[np.ndarray]]:
    """Return the same with an edge: above an LR of 0.3 the loss rises far over its noise."""
    curves, control = buried(fall)
    rise = 100 * np.maximum(np.log10(LR / 0.3), 0)
    return [Curve(c.lr, c.loss + rise) for c in curves], control


def test_the_edge_of_stability_counts_as_much_as_what_little_fell() -> None:
    curves, control = blown_up(0.3)
    found = suggest(curves, control=control)
    assert found.readings is not None
    assert found.edge == pytest.approx(0.3, rel=0.6)
    middle = sorted(found.readings.values())[1]
    assert found.suggested_lr == pytest.approx((middle * found.edge / 20) ** 0.5)
    clear = suggest([c.against(u) for c, u in zip(curves, control, strict=True)])
    assert clear.edge is None
    assert clear.suggested_lr == pytest.approx(middle, rel=0.02)


def test_what_a_paired_control_does_not_confirm_is_called_a_guess() -> None:
    curves, _ = buried(0.7)
    assert suggest(curves).note is None
    assert "a guess" in str(suggest(curves, control=[curve.loss for curve in curves]).note)


def test_what_is_drawn_is_what_was_read() -> None:
    curves, control = buried(0.3)
    shown = paired_control(curves, control)
    assert shown is not None
    found = RangeTest(suggest(curves, control=control), tuple(curves), shown=tuple(shown))
    raw = [line for line in found.plot().lines if len(line.get_ydata()) == 100]
    assert np.array_equal(raw[0].get_ydata(), shown[0].loss)


class Constant(nn.Module):
    """Logits that know nothing of the input, and begin at the shares of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(4))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.logits.expand(len(inputs), 4)


@pytest.mark.parametrize(
    ("optimizer", "engine", "seeds"),
    [
        ("SGD", "sequential", [10]),  # of all, those in which digits look most like a fall
        ("Adam", "vectorized", [10]),
        *(
            pytest.param(optimizer, engine, SEEDS, marks=pytest.mark.long)
            for optimizer in ("SGD", "Adam")
            for engine in ("sequential", "vectorized")
        ),
    ],
)
def test_the_last_digits_of_a_loss_are_no_fall(
    optimizer: str, engine: str, seeds: Sequence[int], tmp_path: Path
) -> None:
    # every batch has the loss log 4 at first, but for float32's rounding, which steps change
    train = torch.zeros(300, 1), torch.arange(300) % 4
    tree = {"optimizer": {"name": optimizer, "lr": 0.1}, "train": {"duration": "400st"}}
    for seed in seeds:
        config = {**tree, "seed": seed, "data": {"name": "given", "batch_size": 60}}
        found = lrexp.find_lr(
            config, model=Constant, data=(train, train), loss="cross_entropy",
            overrides={"engine": engine}, out=tmp_path / str(seed),
        )  # fmt: skip
        assert found.suggested_lr is None


def test_where_nothing_is_learned_there_is_still_no_suggestion() -> None:
    curves, control = buried(0.0)
    assert suggest(curves, control=control).suggested_lr is None


def test_where_the_fall_shows_the_paired_control_changes_nothing() -> None:
    curves, _ = buried(8.0)
    plain = suggest(curves)
    assert plain.suggested_lr is not None
    assert suggest(curves, control=[np.zeros(100)] * 3) == plain


def noise(kind: str, draw: np.random.Generator) -> np.ndarray:
    """Return differences whose mean is 0 or more at every LR, as of a model that cannot learn."""
    x = np.log10(LR)
    size = {
        "equal": np.ones(100),
        "grows": 10 ** np.clip(x, -7, 0),
        "begins": np.where(x > -3, 1.0, 1e-6),
        "heavy": np.ones(100),
    }[kind]
    luck = draw.standard_t(3, 100) if kind == "heavy" else draw.normal(0, 1, 100)
    return size * luck + np.where(x > 0, 5.0, 0.0)


@pytest.mark.parametrize("count", [100, pytest.param(400, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["equal", "grows", "begins", "heavy"])
def test_luck_is_hardly_ever_taken_for_a_fall(kind: str, count: int) -> None:
    taken = 0
    for number in range(count):
        draw = np.random.default_rng(number)
        differences = [noise(kind, draw) for _ in range(3)]
        curves = [Curve(LR, 5.0 + d) for d in differences]
        taken += falls(curves, [np.full(100, 5.0)] * 3)
    assert taken <= 0.02 * count


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_what_falls_by_little_but_surely_is_found(seeds: int) -> None:
    curves, control = buried(0.05, seeds)
    assert falls(curves, control)
    assert not falls(curves, [curve.loss - 1e-3 for curve in curves])  # it rose


def test_a_seed_that_stopped_or_rises_alone_decides_nothing() -> None:
    curves, control = buried(0.3)
    short = Curve(LR[:20], curves[0].loss[:20])
    assert falls([short, *curves[1:]], control)
    risen = Curve(LR, control[0] + 3.0)
    assert not falls([risen, Curve(LR, control[1] + 3.0), curves[2]], control)
    assert not falls([], [])


@pytest.mark.parametrize("bad", [np.ones(99), np.full(100, np.nan)])
def test_losses_that_do_not_fit_are_not_used(bad: np.ndarray) -> None:
    curves, control = buried(0.3)
    assert suggest(curves, control=[*control[:2], bad]) == suggest(curves)
    with pytest.raises(ConfigError, match="control"):
        curves[0].against(bad)


def with_entropies(output: Tensor, target: Tensor) -> Tensor:
    """Return a loss whose lowest value differs from sample to sample, as entropies do."""
    return nn.functional.mse_loss(output, target[:, :1]) + target[:, 1].mean()


def test_a_fall_that_only_begins_is_no_answer() -> None:
    curves, control = buried(0.3)
    cut = [Curve(c.lr[:45], c.loss[:45]) for c in curves]  # up to 4e-4
    found = suggest(cut, control=control)
    assert found.suggested_lr is None
    assert "raise find_lr.max_lr" in str(found.reason)


def test_lrfinder_looks_again() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 8, generator=draw)
    y = torch.cat([0.4 * x[:, :1], 10 * torch.rand(1000, 1, generator=draw)], dim=1)
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    before = model.weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = LRFinder(model, optimizer, with_entropies).run(loader)
    assert suggest(result.curves).suggested_lr is None
    assert result.suggested_lr is not None, result.reason
    assert 0.005 < result.suggested_lr < 0.5
    assert torch.equal(model.weight, before)
