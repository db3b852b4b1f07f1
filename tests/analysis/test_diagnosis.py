"""Diagnoses of curves with a known story, of a quadratic in closed form, and of real trainings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from lrexp.analysis.diagnosis import WORDS, Diagnosis, combine_diagnoses, diagnose, final_loss
from lrexp.errors import ConfigError

STEPS = np.arange(300)
NOISE = np.random.default_rng(0).normal(size=300)
FALLING = 0.2 + 2.1 * np.exp(-STEPS / 40) + 0.02 * NOISE
NAN, INF = math.nan, math.inf


def evals(val: list[float], train: list[float] | None = None) -> dict[str, list[float]]:
    columns = {"step": [10.0 * k for k in range(len(val))], "val_loss": val}
    return columns | ({"train_loss": train} if train else {})


@pytest.mark.parametrize(
    ("word", "losses", "options"),
    [
        ("diverged", [1.0, 2.0, NAN], {}),
        ("diverged", [1.0, INF], {}),
        ("diverged", [NAN, 1.0], {}),
        ("diverged", np.r_[FALLING[:100], np.full(101, 500.0)], {"outcome": "diverged", "stopped_at": 200}),
        ("diverged", 1.1**STEPS, {}),  # finished, at 1e12
        ("diverged", -1.0 - 1.1**STEPS * -1.0, {}),
        ("diverged", FALLING, {"evals": evals([2.3, 0.2, INF])}),
        ("unstable", np.r_[FALLING[:200], np.linspace(0.3, 1.5, 100)], {}),  # lost what it had gained
        ("unstable", np.linspace(1.0, 1.8, 300) + 0.02 * NOISE, {}),  # ended above its start
        ("unstable", FALLING + 30.0 * ((STEPS > 150) & (STEPS < 170)), {}),  # rose far on the way
        ("unstable", np.r_[2.3, 60.0, 400.0, 90.0, np.full(296, 2.31)] + 0.01 * NOISE, {}),  # died
        ("converging well", FALLING + 30.0 * (STEPS == 150), {}),  # a single batch is no instability
        ("converging well", FALLING + 8.0 * ((STEPS > 4) & (STEPS < 12)), {}),  # an early transient
        ("too slow", 2.3 + 0.05 * NOISE, {}),  # flat within its noise
        ("too slow", 2.3 - 0.001 * STEPS, {}),  # a straight line, most of the way ahead
        ("too slow", 2.3 - 0.001 * STEPS + 0.02 * NOISE, {"best_final": 0.2}),
        ("too slow", 1.0 - 1e-6 * STEPS, {}),  # a tiny rate and no noise
        ("too slow", -5.0 - 0.01 * STEPS, {"best_final": -80.0}),
        ("plateaued", 1.6 + 0.7 * np.exp(-STEPS / 15) + 0.02 * NOISE, {"best_final": 0.2}),
        ("plateaued", 1.6 + 0.7 * np.exp(-STEPS / 15) + 0.02 * NOISE, {}),  # two thirds left
        ("plateaued", -2.0 - 3.0 * (1 - np.exp(-STEPS / 15)), {"best_final": -20.0}),
        ("converging well", 1.6 + 0.7 * np.exp(-STEPS / 15) + 0.02 * NOISE, {"best_final": 1.59}),
        ("converging well", FALLING, {}),
        ("converging well", FALLING, {"best_final": 0.15}),
        ("converging well", np.exp(-STEPS / 30), {}),
        ("converging well", FALLING - 40.0, {"best_final": -39.9}),  # negative losses
        ("converging well", 1e-6 * FALLING, {}),
        ("converging well", 2.3 - 0.007 * STEPS, {"best_final": 0.2}),  # straight, and nearly there
        ("overfitting", FALLING, {"evals": evals([2.3, 1.0, 0.5, 0.6, 0.8, 0.9], [NAN, 1, 0.5, 0.3, 0.2, 0.1])}),
        ("converging well", FALLING, {"evals": evals([2.3, 1.0, 0.5, 0.51, 0.5, 0.52], [NAN, 1, 0.5, 0.3, 0.2, 0.1])}),
        ("converging well", FALLING, {"evals": evals([2.3, 1.0, 0.5, 0.9, 0.5, 0.5])}),  # one bad evaluation
        ("converging well", FALLING, {"evals": evals([2.3, 1.0, 0.5, 0.4], [NAN, 1, 0.5, 0.3])}),
        ("failed", FALLING[:7], {"outcome": "failed", "total_steps": 300}),
        ("too slow", [], {}),
    ],
)  # fmt: skip
def test_words(word: str, losses: object, options: dict) -> None:
    found = diagnose(losses, **options)  # type: ignore[arg-type]
    assert found.word == word, found.sentence
    assert found.sentence.endswith(".")


@pytest.mark.parametrize(
    ("losses", "options", "parts"),
    [
        ([1.0] * 12 + [NAN], {"total_steps": 230},
         ["Training loss became non-finite at step 12 of 230: lower the LR; 10× is a good first try."]),
        ([NAN], {}, ["before the first update", "check data"]),
        (np.full(120, 310.0), {"outcome": "diverged", "stopped_at": 119, "total_steps": 230},
         ["stopped at step 119 of 230", "lower the LR"]),
        (2.3 - 0.001 * STEPS, {"best_final": 0.2}, ["from 2.3 to 2.02", "14 % of the way", "raise the LR"]),
        (FALLING, {}, ["Training loss fell from 2.3 to 0.197", "levelled off"]),
        (FALLING[:80], {"best_final": 0.3}, ["still falling", "longer"]),
        (FALLING, {"evals": evals([2.3, 1.0, 0.5, 0.6, 0.8, 0.9])},
         ["lowest at step 20 (0.5)", "rose to 0.9", "weight decay"]),
        (FALLING + 30.0 * ((STEPS > 150) & (STEPS < 170)), {}, ["around step 1", "warmup"]),
    ],
)  # fmt: skip
def test_sentences_have_the_numbers_and_the_next_step(
    losses: object, options: dict, parts: list
) -> None:
    sentence = diagnose(losses, **options).sentence  # type: ignore[arg-type]
    for part in parts:
        assert part in sentence


def test_the_variants_of_a_seed_report_the_same_start() -> None:
    for rate in (0.3, 3.0, 300.0):
        sentence = diagnose(
            0.2 + 2.17 * np.exp(-STEPS / rate) + 0.002 * NOISE * (STEPS > 0)
        ).sentence
        assert "from 2.37 to" in sentence


@pytest.mark.parametrize("peak", [1, 2, 5])
def test_a_rise_at_the_start_names_the_step_of_the_highest_loss(peak: int) -> None:
    losses = np.full(300, 2.31) + 0.01 * NOISE
    losses[0], losses[peak], losses[peak + 1] = 2.3, 400.0, 90.0
    assert f"around step {peak} and" in diagnose(losses, best_final=0.1).sentence


@pytest.mark.parametrize(
    ("losses", "end"),
    [
        (0.5 + 0.5 * np.exp(-np.arange(20) / 3), "a longer training would gain."),
        (np.r_[0.5 + 0.5 * np.exp(-np.arange(10) / 2), np.full(15, 0.4)], "levelled off."),
        (0.1 + np.exp(-np.arange(60) / 4), "levelled off."),
    ],
)
def test_a_short_curve_that_still_falls_has_not_levelled_off(losses: np.ndarray, end: str) -> None:
    assert diagnose(losses, best_final=0.1 if losses[-1] < 0.2 else 0.4).sentence.endswith(end)


@pytest.mark.parametrize("evaluated", [[1.05, 1.1, 1.2, 1.13], []])
@pytest.mark.parametrize(("best", "word"), [(0.69, "unstable"), (-30.0, "too slow")])
def test_an_end_above_the_start_is_unstable_beside_what_others_made(
    evaluated: list[float], best: float, word: str
) -> None:
    scatter = 0.15 if evaluated else 0.03  # without evaluations, noise may not hide it
    losses = 1.14 + scatter * NOISE
    losses[0] = 1.06
    found = diagnose(losses, evals(evaluated), best_final=best)
    assert found.word == word, found.sentence
    assert ("lower the LR" in found.sentence) == (word == "unstable")


# --- a quadratic with curvatures 1 … L: gradient descent from w = 1, critical LR 2/L

CURVATURES = np.geomspace(1.0, 100.0, 8)


def descent(lr_times_largest: float, steps: int = 200, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    lr, w, losses = lr_times_largest / 100.0, np.ones_like(CURVATURES), []
    for _ in range(steps):
        losses.append(0.5 * float(CURVATURES @ w**2) + noise * abs(rng.normal()))
        w = w - lr * (CURVATURES * w + noise * rng.normal(size=8))
    return np.array(losses)


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (0.0001, {"too slow"}),
        (0.001, {"too slow"}),
        (1.0, {"converging well"}),
        (1.5, {"converging well"}),
        (1.99, {"unstable", "converging well"}),  # swings in w, but ½λw² falls all the same
        (2.1, {"diverged"}),
        (4.0, {"diverged"}),
    ],
)
def test_a_quadratic(rate: float, words: set[str], noise: float) -> None:
    found = diagnose(descent(rate, noise=noise), best_final=final_loss(descent(1.0, noise=noise)))
    assert found.word in words, found.sentence


# --- a real net


def digits_run(lr: float, steps: int = 200) -> tuple[list[float], dict[str, list[float]]]:
    data = load_digits()
    x = torch.tensor(data.data / 16, dtype=torch.float32)
    y = torch.tensor(data.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    losses: list[float] = []
    table: dict[str, list[float]] = {"step": [], "train_loss": [], "val_loss": []}
    for step in range(steps + 1):
        if step % 20 == 0:
            with torch.no_grad():
                table["val_loss"].append(cross_entropy(model(x[1400:]), y[1400:]).item())
            table["step"].append(step)
            table["train_loss"].append(float(np.mean(losses[-20:])) if losses else NAN)
        batch = torch.randint(1400, (64,))
        loss = cross_entropy(model(x[batch]), y[batch])
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[:steps], table


@pytest.mark.parametrize(
    ("lr", "words"),
    [
        (1e-5, {"too slow"}),
        (1e-3, {"too slow"}),
        (1e-1, {"converging well"}),
        (3e-1, {"converging well"}),
        (3.0, {"unstable", "diverged"}),
        (1e5, {"unstable", "diverged"}),
    ],
)
@pytest.mark.parametrize("with_evals", [False, True])
def test_a_net_on_digits(lr: float, words: set[str], with_evals: bool) -> None:
    losses, table = digits_run(lr)
    best_losses, best_table = digits_run(1e-1)
    found = diagnose(
        losses,
        table if with_evals else None,
        best_final=final_loss(best_losses, best_table if with_evals else None),
    )
    assert found.word in words, found.sentence
    alone = diagnose(losses, table if with_evals else None)
    assert alone.word in words, alone.sentence


# --- invariants and aggregation


@given(
    losses=st.lists(st.floats(-1e6, 1e6) | st.sampled_from([NAN, INF, 1e300]), max_size=40),
    best=st.none() | st.floats(-1e6, 1e6),
    val=st.lists(st.floats(-1e6, 1e6) | st.just(NAN), max_size=6),
)
def test_every_curve_has_a_diagnosis(
    losses: list[float], best: float | None, val: list[float]
) -> None:
    found = diagnose(losses, evals(val), best_final=best)
    assert found.word in WORDS
    assert found == diagnose(losses, evals(val), best_final=best)
    if not np.isfinite(losses).all():
        assert found.word == "diverged"


@given(scale=st.floats(1e-6, 1e6), lr=st.sampled_from([0.001, 0.05, 1.0, 2.1]))
def test_the_unit_of_the_loss_does_not_matter(scale: float, lr: float) -> None:
    losses = descent(lr, 100, noise=0.01)
    assert diagnose(scale * losses).word == diagnose(losses).word


@pytest.mark.parametrize(
    ("words", "expected", "start"),
    [
        (["too slow"], "too slow", "too slow it was."),
        (["too slow"] * 3, "too slow", "too slow it was."),
        (["converging well", "diverged", "converging well"], "diverged", "In 1 of 3 seeds: diverged it was. The other 2: converging well."),
        (["plateaued", "too slow", "plateaued"], "plateaued", "In 2 of 3 seeds: plateaued it was. The other: too slow."),
        (["converging well", "unstable"], "unstable", "In 1 of 2 seeds: unstable it was. The other: converging well."),
        (["failed", "converging well", "converging well"], "converging well", "In 2 of 3 seeds: converging well it was. The other: failed."),
        (["too slow", "unstable", "converging well", "too slow"], "too slow", "In 2 of 4 seeds: too slow it was. The others: 1 unstable, 1 converging well."),
    ],
)  # fmt: skip
def test_several_seeds(words: list[str], expected: str, start: str) -> None:
    found = combine_diagnoses([Diagnosis(word, f"{word} it was.") for word in words])
    assert found.word == expected
    assert found.sentence.startswith(start)


def test_no_seeds() -> None:
    with pytest.raises(ConfigError, match="found"):
        combine_diagnoses([])


@pytest.mark.parametrize(
    ("losses", "table", "expected"),
    [
        ([3.0, 1.0], None, 1.0),
        (np.linspace(2, 1, 20), None, np.linspace(2, 1, 20)[-2:].mean()),
        ([3.0, 1.0], evals([3.0, 0.5]), 0.5),
        ([3.0, 1.0], evals([NAN, NAN], [NAN, 0.7]), 0.7),
        ([3.0, NAN], None, None),
        ([3.0, 1.0], evals([3.0, INF]), None),
        ([], None, None),
    ],
)
def test_final_loss(losses: object, table: dict | None, expected: float | None) -> None:
    assert final_loss(losses, table) == (expected if expected is None else pytest.approx(expected))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("val", "says"),
    [  # the losses fall from 0 to -4.7; a loss below zero is nothing special
        ([0.0, -4.4, -4.7, -4.84, -4.06], "but val_loss rose in the end (-4.84 to -4.06)"),
        ([0.0, -4.4, -4.7, -4.84, -4.80], "a longer training would gain"),
        ([5.0, 0.6, 0.3, 0.16, 0.94], "but val_loss rose in the end (0.16 to 0.94)"),
        ([0.0, -1.0, -2.0, -3.0, -4.0], "a longer training would gain"),
    ],
)
def test_a_longer_training_is_not_advised_where_val_loss_rose(val: list[float], says: str) -> None:
    losses = np.concatenate([np.linspace(0, -3, 50), np.linspace(-3, -4.7, 150)])
    found = diagnose(losses, {"step": np.arange(0, 201, 50), "val_loss": val})
    assert found.word == "converging well"
    assert says in found.sentence


@pytest.mark.parametrize(
    ("val", "best", "sentence"),
    [  # of few batches the first was by far the easiest; evaluations fell from start to end
        ([1.35, 1.29, 1.23, 1.17], 0.04, "fell all along, but only from 1.38 to 1.2"),
        ([1.35, 1.0, 0.8, 0.4], 0.04, "fell all along, but only from 1.38 to 1.2"),
        ([1.35, 1.5, 1.6, 1.7], 0.04, "ended above its start (0.45 to 1.2)"),
    ],
)
def test_an_easy_first_batch_is_no_start(val: list[float], best: float, sentence: str) -> None:
    losses = [0.45, 1.3, 2.4, 1.35, 1.75, 1.75, 0.8, 1.4, 1.0, 1.3, 1.2, 1.2]
    found = diagnose(losses, {"val_loss": val, "step": [0, 4, 8, 12]}, best_final=best)
    assert sentence in found.sentence
