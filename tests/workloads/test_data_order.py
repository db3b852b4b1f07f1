"""The order of batches: a function of (seed, epoch) and nothing else, for every kind of data."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
from workloads.random_datasets import SAMPLES, Augmented, SizedStream, Stream, shuffled_loader

from lrexp.workloads.batches import Batches
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.seeds import derive_seed, permutation
from lrexp.workloads.tensors import ResidentBatches

# name | what a user gives | samples in a pass, as far as it tells
KINDS: dict[str, tuple[Callable[[], Any], int | None]] = {
    "tensors": (lambda: (torch.arange(23.0)[:, None], torch.arange(23) % 3), SAMPLES),
    "dataset": (Augmented, SAMPLES),
    "list": (lambda: [(torch.tensor([float(i)]), i % 3) for i in range(23)], SAMPLES),
    "iterable": (Stream, None),
    "sized iterable": (SizedStream, SAMPLES),
    "loader": (shuffled_loader, SAMPLES),
    "loader with generator": (
        lambda: shuffled_loader(generator=torch.Generator().manual_seed(7)),
        SAMPLES,
    ),
    "loader of an iterable": (lambda: DataLoader(Stream(), batch_size=4), None),
    "loader with batch sampler": (
        lambda: DataLoader(Augmented(), batch_sampler=[[3, 1, 4, 2], [5, 9, 2, 6], [5, 3, 7, 8]]),
        12,
    ),
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


def batches_of(kind: str) -> Batches:
    return data_from_objects(KINDS[kind][0](), batch_size=4).train


def read(batches: Iterator[Any]) -> list[Any]:
    return [(inputs.tolist(), targets.tolist()) for inputs, targets in batches]


def numbers_drawn() -> list[Any]:
    return [torch.rand(2).tolist(), random.random(), np.random.rand()]  # noqa: NPY002


@pytest.mark.parametrize(
    ("roles", "expected"),  # printf 0/order/3 | sha256sum, 16 digits, the sign bit cleared
    [((0, "order", 3), 0x4B9958534E8D938F), ((12, "augment", 0, 7), 0x7324451769F690B0)],
)
def test_a_seed_is_the_start_of_sha256(roles: tuple[Any, ...], expected: int) -> None:
    assert derive_seed(*roles) == expected


@given(st.integers(0, 2**40), st.integers(0, 10**6), st.integers(1, 300))
def test_a_permutation_is_one_and_is_pure(seed: int, epoch: int, samples: int) -> None:
    order = permutation(seed, epoch, samples)
    torch.rand(3)
    assert sorted(order.tolist()) == list(range(samples))
    assert order.equal(permutation(seed, epoch, samples))


def test_neighbouring_seeds_and_epochs_share_no_order() -> None:
    orders = {tuple(permutation(s, e, 50).tolist()) for s in range(8) for e in range(8)}
    assert len(orders) == 64


@EACH_KIND
def test_sizes(kind: str) -> None:
    batches = batches_of(kind)
    samples = KINDS[kind][1]
    assert batches.num_samples == samples
    assert batches.batch_size == 4
    assert batches.batches_per_epoch == (None if samples is None else samples // 4)


@EACH_KIND
def test_every_training_batch_is_full_and_the_rest_is_left_out(kind: str) -> None:
    batches = batches_of(kind)
    seen = [len(targets) for _, targets in batches.epoch(0, 0)]
    assert seen == [4] * ((KINDS[kind][1] or SAMPLES) // 4)


@EACH_KIND
def test_an_epoch_depends_on_seed_and_epoch_alone(kind: str) -> None:
    first = read(batches_of(kind).epoch(1, 2))
    again = batches_of(kind)
    read(again.epoch(1, 0))
    numbers_drawn()
    assert read(again.epoch(1, 2)) == first
    is_fixed = kind == "loader with batch sampler"
    orders = [[y for _, y in read(again.epoch(s, e))] for s, e in ((1, 2), (1, 3), (2, 2))]
    if "iterable" not in kind and not is_fixed:
        assert orders[0] != orders[1]
        assert orders[0] != orders[2]


@EACH_KIND
@pytest.mark.parametrize("start", [0, 1, 2, 9])
def test_a_late_start_gives_the_tail(kind: str, start: int) -> None:
    batches = batches_of(kind)
    assert read(batches.epoch(3, 1, start)) == read(batches.epoch(3, 1))[start:]


@EACH_KIND
def test_evaluation_leaves_nothing_out_and_is_the_same_every_time(kind: str) -> None:
    batches = batches_of(kind)
    first = read(batches.in_order())
    read(batches.epoch(0, 0))
    assert read(batches.in_order()) == first
    assert sum(len(targets) for _, targets in first) == (KINDS[kind][1] or SAMPLES)
    if "loader" not in kind:
        order = [row[0] for inputs, _ in first for row in inputs]
        assert order == [float(i) for i in range(SAMPLES)]


@EACH_KIND
def test_the_callers_random_numbers_are_untouched(kind: str) -> None:
    def seeded() -> None:
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002

    seeded()
    expected = [numbers_drawn() for _ in range(4)]
    seeded()
    batches = batches_of(kind)
    drawn = [numbers_drawn()]
    training = batches.epoch(0, 0)
    next(training)
    drawn.append(numbers_drawn())
    read(batches.in_order())
    drawn.append(numbers_drawn())
    next(training)
    training.close()
    drawn.append(numbers_drawn())
    assert drawn == expected


@EACH_KIND
def test_what_the_caller_draws_does_not_change_the_batches(kind: str) -> None:
    undisturbed = read(batches_of(kind).epoch(4, 4))
    disturbed = []
    for inputs, targets in batches_of(kind).epoch(4, 4):
        numbers_drawn()
        disturbed.append((inputs.tolist(), targets.tolist()))
    assert disturbed == undisturbed


def test_the_generator_of_a_loader_stands_where_it_stood() -> None:
    generator = torch.Generator().manual_seed(7)
    loader = shuffled_loader(generator=generator)
    batches = data_from_objects(loader).train
    read(batches.epoch(0, 0))
    expected = torch.rand(2, generator=torch.Generator().manual_seed(7))
    assert torch.rand(2, generator=generator).equal(expected)


def test_resident_and_streamed_data_have_one_order() -> None:
    pair = (torch.arange(23.0)[:, None], torch.arange(23) % 3)
    resident = data_from_objects(pair, batch_size=4).train
    streamed = data_from_objects(pair, batch_size=4, in_memory=False).train
    assert type(resident) is not type(streamed)
    assert read(resident.epoch(6, 1)) == read(streamed.epoch(6, 1))


def test_the_order_is_that_of_the_permutation() -> None:
    x, y = torch.arange(23.0)[:, None], torch.arange(23)
    batches = data_from_objects(TensorDataset(x, y), batch_size=4).train
    order = permutation(2, 5, 23)[:20].view(5, 4)
    for rows, (inputs, targets) in zip(order, batches.epoch(2, 5), strict=True):
        assert inputs.equal(x[rows])
        assert targets.equal(rows)


@pytest.mark.parametrize(
    ("shape", "batch_size", "expected"),
    [((3000, 64), 64, [1024, 1024, 952]), ((90, 1, 90, 90), 8, [32, 32, 26]), ((5, 2), 2, [5])],
)
def test_resident_evaluation_goes_in_larger_chunks(
    shape: tuple[int, ...], batch_size: int, expected: list[int]
) -> None:
    batches = data_from_objects(
        (torch.zeros(shape), torch.zeros(shape[0], 1)), batch_size=batch_size
    )
    assert [len(x) for x, _ in batches.train.in_order()] == expected


def test_floating_tensors_take_the_dtype_and_keep_their_precision() -> None:
    third = torch.full((8, 1), 1 / 3, dtype=torch.float64)
    data = data_from_objects((third, third), batch_size=4)
    inputs, targets = next(data.train.epoch(0, 0))
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.float32)
    inputs, targets = next(data.to("cpu", torch.float64).train.epoch(0, 0))
    assert inputs.equal(third[:4])
    assert targets.equal(third[:4])


def test_a_forward_that_works_in_place_does_not_change_the_data() -> None:
    x, y = torch.ones(8, 2), torch.ones(8, 1)
    batches = data_from_objects((x, y), batch_size=4).train
    for pass_over in (batches.in_order, lambda: batches.epoch(0, 0)):
        for inputs, targets in pass_over():
            inputs.mul_(2)
            targets.mul_(2)
    assert all(
        (inputs == 1).all() and (targets == 1).all() for inputs, targets in batches.in_order()
    )
    assert (x == 1).all()


@pytest.mark.parametrize("kind", ["tensors", "dataset", "iterable", "loader"])
def test_every_kind_takes_the_dtype(kind: str) -> None:
    for inputs, targets in batches_of(kind).to("cpu", torch.float64).in_order():
        assert inputs.dtype == torch.float64
        assert targets.dtype == torch.int64
    for inputs, _ in batches_of(kind).in_order():
        assert inputs.dtype == torch.float32


def test_a_plain_loader_of_tensors_keeps_its_kind_of_order_and_its_samples() -> None:
    x, y = torch.arange(10.0).view(10, 1), torch.arange(10)
    kept = data_from_objects(DataLoader(TensorDataset(x, y), batch_size=3)).train
    assert isinstance(kept, ResidentBatches)
    assert [rows.tolist() for _, rows in kept.epoch(0, 0)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert kept.to("cpu", torch.float64).epoch(1, 5).__next__()[1].tolist() == [0, 1, 2]
    shuffled = data_from_objects(DataLoader(TensorDataset(x, y), batch_size=3, shuffle=True)).train
    assert isinstance(shuffled, ResidentBatches)
    orders = [torch.cat([rows for _, rows in shuffled.epoch(0, e)]).tolist() for e in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(int(v) for _, rows in shuffled.in_order() for v in rows) == list(range(10))


def double(samples: list[Any]) -> Any:
    return torch.stack([s[0] * 2 for s in samples]), torch.stack([s[1] for s in samples])


@pytest.mark.parametrize(
    "options",
    [
        {"collate_fn": double},
        {"sampler": [3, 1, 2, 0]},
        {"sampler": RandomSampler(range(10), replacement=True)},
        {"sampler": RandomSampler(range(10), num_samples=6)},
        {"generator": torch.Generator()},
        {"batch_sampler": [[0, 1], [2, 3]]},
    ],
)
def test_a_loader_with_something_of_its_own_is_used_as_it_is(options: dict[str, Any]) -> None:
    dataset = TensorDataset(torch.arange(10.0).view(10, 1), torch.arange(10))
    size = {} if "batch_sampler" in options else {"batch_size": 2}
    assert not isinstance(
        data_from_objects(DataLoader(dataset, **size, **options)).train, ResidentBatches
    )
    plain = DataLoader(dataset, batch_size=2)
    assert not isinstance(data_from_objects(plain, in_memory=False).train, ResidentBatches)
