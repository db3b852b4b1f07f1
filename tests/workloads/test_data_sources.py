"""What a user may give as data, what is refused, and the facts that are read off it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_flatten
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from workloads.random_datasets import Augmented, SizedStream, Stream, shuffled_loader

from lrexp.errors import ConfigError
from lrexp.workloads.batches import Facts, facts_of, size_of
from lrexp.workloads.loading import data_from_objects, load_data

X, Y = torch.arange(20.0).view(10, 2), torch.arange(10) % 3
PAIR = (X, Y)
ROWS = torch.arange(100.0)[:, None]
RESIDENT, STREAMED = "ResidentBatches", "StreamingBatches"
ITERABLE, LOADER = "IterableBatches", "LoaderBatches"


class Empty(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


# what is given | kind of the batches | training samples, validation samples (-1: no set)
ACCEPTED: list[tuple[str, Any, str, tuple[int | None, int | None]]] = [
    ("pair of tensors", PAIR, RESIDENT, (10, -1)),
    ("list of two tensors", [X, Y], RESIDENT, (10, -1)),
    ("two pairs", (PAIR, (X[:4], Y[:4])), RESIDENT, (10, 4)),
    ("train and no val", (PAIR, None), RESIDENT, (10, -1)),
    ("arrays", (X.numpy(), Y.numpy()), RESIDENT, (10, -1)),
    ("read-only, backward array", (np.flip(X.numpy()), Y.numpy()), RESIDENT, (10, -1)),
    ("tensor dataset", TensorDataset(X, Y), RESIDENT, (10, -1)),
    ("two tensor datasets", (TensorDataset(X, Y), TensorDataset(X, Y)), RESIDENT, (10, 10)),
    ("random split", tuple(random_split(TensorDataset(X, Y), [7, 3])), RESIDENT, (7, 3)),
    ("subset of a subset", Subset(Subset(TensorDataset(X, Y), range(8)), [7, 0]), RESIDENT, (2, -1)),
    ("map-style", Augmented(), STREAMED, (23, -1)),
    ("subset of a map-style one", Subset(Augmented(), range(9)), STREAMED, (9, -1)),
    ("list of samples", list(zip(X, Y, strict=True)), STREAMED, (10, -1)),
    ("two map-style", (Augmented(), Augmented()), STREAMED, (23, 23)),
    ("iterable", Stream(), ITERABLE, (None, -1)),
    ("iterable with length", (SizedStream(), PAIR), ITERABLE, (23, 10)),
    ("loader", shuffled_loader(2), LOADER, (23, -1)),
    ("loader and loader", (shuffled_loader(2), shuffled_loader(7)), LOADER, (23, 23)),
    ("loader of tensors", DataLoader(TensorDataset(X, Y), batch_size=2), RESIDENT, (10, -1)),
    ("loader of batches", DataLoader([(X[:2], Y[:2])] * 3, batch_size=None), LOADER, (6, -1)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "kind", "sizes"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED]
)
def test_accepted(given: Any, kind: str, sizes: tuple[int, int]) -> None:
    data = data_from_objects(given, batch_size=2)
    assert type(data.train).__name__ == kind
    assert (data.train.num_samples, data.val.num_samples if data.val else -1) == sizes
    inputs, targets = next(data.train.epoch(0, 0))
    assert len(inputs) == len(targets) == 2
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64


def test_arrays_are_read_right() -> None:
    given = np.flip(X.numpy(), axis=0)
    data = data_from_objects((given, Y.numpy().astype(np.int16)), batch_size=2)
    inputs, targets = next(data.train.in_order())
    assert inputs.equal(X.flip(0))
    assert targets.equal(Y)


@pytest.mark.parametrize(
    ("targets", "shape"),  # a column of numbers must not broadcast against outputs (samples, 1)
    [
        (np.zeros(10), (2, 1)),
        (np.zeros((10, 3)), (2, 3)),
        (np.zeros(10, dtype=np.int32), (2,)),
        (torch.zeros(10), (2,)),  # a tensor's shape was chosen for a loss
    ],
)
def test_shape_of_targets(targets: Any, shape: tuple[int, ...]) -> None:
    data = data_from_objects((X, targets), batch_size=2)
    assert next(data.train.epoch(0, 0))[1].shape == shape


def nan_at(row: int) -> torch.Tensor:
    values = X.clone()
    values[row, 1] = torch.nan
    return values


# what is given | options | key | words of the message
REFUSED: list[tuple[str, Any, dict[str, Any], str, str]] = [
    ("nothing", None, {}, "data.name", "must give (train, val) or train"),
    ("a number", 3, {}, "data.name", "got 'a int'"),
    ("three sides", (PAIR, PAIR, PAIR), {}, "data.name", "a tuple of 3"),
    ("a lone tensor", X, {}, "data.name", "a Tensor"),
    ("text inputs", (np.array(list("abcdefghij")), Y), {}, "data.name", "hold numbers"),
    ("a dict of nothing", {}, {}, "data.name", "a dict"),
    ("a dict of text", {"train": "x"}, {}, "data.name", "a str"),
    ("texts", [("a", "b")] * 9, {"in_memory": True}, "data.name", "str and str"),
    ("lengths differ", (X, Y[:9]), {}, "data.name", "(10, 2) and (9,)"),
    ("lengths of entries differ", ({"x": X, "t": X[:9]}, Y), {}, "data.name",
     "one row per sample in each entry (got '(10, 2) and (9, 2)"),
    ("no samples", (X[:0], Y[:0]), {}, "data.name", "at least one sample"),
    ("a nan", (nan_at(3), Y), {}, "data.name", "sample 3 of 10"),
    ("parts differ", (PAIR, (X[:, :1], Y)), {}, "data.name", "(2,) and (1,)"),
    ("an empty dataset", [], {}, "data.name", "an empty list"),
    ("an empty iterable", Empty(), {}, "data.name", "at least one sample"),
    ("an empty loader", DataLoader(TensorDataset(X, Y), 20, drop_last=True), {}, "data.name",
     "at least one batch"),
    ("a generator", (pair for pair in [PAIR]), {}, "data.name", "used up after one"),
    ("smaller than a batch", PAIR, {"batch_size": 11}, "data.batch_size", "(10) (got 11)"),
    ("the split is smaller", PAIR, {"batch_size": 9, "val_fraction": 0.2}, "data.batch_size",
     "(8) (got 9)"),
    ("batch size zero", PAIR, {"batch_size": 0}, "data.batch_size", "at least 1 (got 0)"),
    ("batch size true", PAIR, {"batch_size": True}, "data.batch_size", "got true"),
    ("not the loader's", shuffled_loader(4), {"batch_size": 8}, "data.batch_size", "(4) (got 8)"),
    ("fraction of one", PAIR, {"val_fraction": 1}, "data.val_fraction", "below 1 (got 1)"),
    ("fraction below zero", PAIR, {"val_fraction": -0.1}, "data.val_fraction", "at least 0"),
    ("no validation rows", PAIR, {"val_fraction": 0.01}, "data.val_fraction", "of 10 samples"),
    ("iterable split", Stream(), {"val_fraction": 0.2}, "data.val_fraction", "cannot be split"),
    ("loader split", shuffled_loader(2), {"val_fraction": 0.2}, "data.val_fraction", "DataLoader"),
    ("iterable kept", Stream(), {"in_memory": True}, "data.in_memory", "no length"),
    ("in_memory", PAIR, {"in_memory": "yes"}, "data.in_memory", "auto or true or false"),
    ("workers", PAIR, {"workers": -1}, "data.workers", "at least 0"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "options", "key", "words"), [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)  # fmt: skip
def test_refused(given: Any, options: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        data_from_objects(given, **{"batch_size": 2, **options})
    assert [problem.key for problem in caught.value.problems] == [key]
    assert words in str(caught.value)
    assert caught.value.problems[0].remedy.endswith((".", "]"))


# what is given | what is said | batch size, training samples, validation samples (-1: no set)
UNSAID: list[tuple[str, Any, dict[str, Any], tuple[int, int | None, int]]] = [
    ("tensors", (ROWS, ROWS), {}, (64, 80, 20)),
    ("list of samples", list(zip(ROWS, ROWS, strict=True)), {}, (64, 80, 20)),
    ("with validation", ((ROWS, ROWS), (ROWS[:10], ROWS[:10])), {}, (64, 100, 10)),
    ("only the size", (ROWS, ROWS), {"batch_size": 8}, (8, 80, 20)),
    ("only the fraction", (ROWS, ROWS), {"val_fraction": 0.1}, (64, 90, 10)),
    ("no validation", (ROWS, ROWS), {"val_fraction": 0}, (64, 100, -1)),
    ("loader", shuffled_loader(4), {}, (4, 23, -1)),
    ("its size said", shuffled_loader(4), {"batch_size": 4, "val_fraction": 0}, (4, 23, -1)),
    ("two loaders", (shuffled_loader(4), shuffled_loader(7)), {}, (4, 23, 23)),
    ("loader and tensors", (shuffled_loader(4), PAIR), {}, (4, 23, 10)),
    ("loader of batches", DataLoader([(X[:2], Y[:2])] * 3, batch_size=None), {}, (2, 6, -1)),
    ("iterable", Stream(), {}, (64, None, -1)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said", "expected"), [row[1:] for row in UNSAID], ids=[row[0] for row in UNSAID]
)
def test_what_is_not_said(given: Any, said: dict[str, Any], expected: tuple[int, ...]) -> None:
    made = load_data(lambda: given, {}, **said)
    objects = data_from_objects(given, **{"val_fraction": None, **said})
    for data in (made, objects):
        val = data.val.num_samples if data.val else -1
        assert (data.train.batch_size, data.train.num_samples, val) == expected


def test_wrong_options_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        data_from_objects(PAIR, batch_size=0, workers="two", in_memory=3)
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["data.batch_size", "data.workers", "data.in_memory"]


def test_an_iterable_that_fills_no_batch_is_told_when_it_is_read() -> None:
    data = data_from_objects(Stream(), batch_size=24)
    with pytest.raises(ConfigError, match=r"data\.batch_size: .* one pass .* \(got 24\)"):
        next(data.train.epoch(0, 0))


@pytest.mark.parametrize(
    ("batches", "sizes", "expected"),  # batch size, samples, batches in a pass
    [
        ([[1, 2], [3], [4, 5]], [2, 1, 2], (2, 5, 3)),  # a sampler of the user's own: all of them
        ([[1], [2, 3, 4]], [1, 3], (2, 4, 2)),
        (BatchSampler(range(5), 2, drop_last=False), [2, 2], (2, 5, 2)),
        (BatchSampler(range(5), 2, drop_last=True), [2, 2], (2, 4, 2)),
    ],
)
def test_batches_of_a_sampler(batches: Any, sizes: list[int], expected: tuple[int, ...]) -> None:
    data = data_from_objects(DataLoader(Augmented(), batch_sampler=batches)).train
    assert [len(y) for _, y in data.epoch(0, 0)] == sizes
    assert (data.batch_size, data.num_samples, data.batches_per_epoch) == expected
    assert sum(len(y) for _, y in data.in_order()) == expected[1]


NESTED = [  # data | the first two samples, as a batch
    (TensorDataset(X, X + 1, Y), (X[:2], X[:2] + 1, Y[:2])),
    (TensorDataset(X), (X[:2],)),
    ((X, X.numpy(), Y), (X[:2], X[:2], Y[:2])),
    (((X, {"z": X}), Y), ((X[:2], {"z": X[:2]}), Y[:2])),
    ({"x": X, "labels": Y.numpy().astype(np.int8)}, {"x": X[:2], "labels": Y[:2]}),
    ([(x, x, y) for x, y in zip(X, Y, strict=True)], (X[:2], X[:2], Y[:2])),
    ([{"x": x, "y": int(y)} for x, y in zip(X, Y, strict=True)], {"x": X[:2], "y": Y[:2]}),
    ([OrderedDict(x=x, y=y) for x, y in zip(X, Y, strict=True)], {"x": X[:2], "y": Y[:2]}),
    (list(X), X[:2]),
]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(("given", "expected"), NESTED, ids=range(len(NESTED)))
@pytest.mark.parametrize("has_val", [True, False])
def test_batches_of_any_form(given: Any, expected: Any, in_memory: bool, has_val: bool) -> None:
    made = {"train": given, "val": given} if has_val else given
    data = data_from_objects(made, batch_size=2, in_memory=in_memory)
    (found, form), (right, right_form) = (
        tree_flatten(next(data.train.in_order())),
        tree_flatten(expected),
    )
    assert form == right_form
    assert all(torch.equal(a[:2], b) for a, b in zip(found, right, strict=True))
    assert [t.dtype for t in found] == [t.dtype for t in right]
    assert sum(size_of(batch) for batch in data.train.epoch(0, 0)) == 10
    assert (data.val is not None) == has_val


def test_data_kept_in_memory_keep_their_precision() -> None:
    third = torch.full((1,), 1 / 3, dtype=torch.float64)
    data = data_from_objects([(third, 1 / 3)] * 4, batch_size=2, in_memory=True)
    inputs, targets = next(data.to("cpu", torch.float64).train.epoch(0, 0))
    assert inputs.tolist() == [[1 / 3], [1 / 3]]
    assert targets.tolist() == [1 / 3, 1 / 3]


def test_user_datasets_are_kept_in_memory_only_when_asked() -> None:
    kept = data_from_objects(Augmented(), batch_size=4, in_memory=True, val_fraction=0.2)
    assert type(kept.train).__name__ == type(kept.val).__name__ == RESIDENT
    streamed = data_from_objects(Augmented(), batch_size=4, val_fraction=0.2)
    for ours, theirs in ((kept.train, streamed.train), (kept.val, streamed.val)):
        whole = [torch.cat(parts) for parts in zip(*theirs.in_order(), strict=True)]
        for mine, other in zip(next(ours.in_order()), whole, strict=True):
            assert mine.equal(other)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("make", [lambda: PAIR, lambda: list(zip(X, Y, strict=True))])
def test_a_split_is_disjoint_complete_and_the_same_every_time(
    make: Callable[[], Any], fraction: float
) -> None:
    def rows(seed: int) -> list[list[float]]:
        torch.manual_seed(seed)
        data = data_from_objects(make(), batch_size=1, val_fraction=fraction)
        sides = (data.train, data.val)
        return [[x[0].item() for xs, _ in side.in_order() for x in xs] for side in sides]

    train, val = rows(0)
    assert sorted(train + val) == X[:, 0].tolist()
    assert len(val) == round(10 * fraction)
    assert rows(1) == [train, val]


@pytest.mark.parametrize(
    ("inputs", "targets", "expected"),
    [
        (X, X[:, :1], Facts(10, in_features=2, out_features=1)),
        (X, X[:, 0], Facts(10, in_features=2, out_features=1)),
        (X, Y, Facts(10, in_features=2, num_classes=3, out_features=3)),
        (
            torch.zeros(5, 3, 8, 8),
            torch.tensor([0, 1, 6, 1, 0]),
            Facts(5, 192, in_channels=3, image_size=8, num_classes=7, out_features=7),
        ),
        (torch.zeros(5, 1, 4, 6), torch.zeros(5, 2), Facts(5, 24, in_channels=1, out_features=2)),
        (Y.view(5, 2), Y.view(5, 2) + 1, Facts(5, vocab_size=4, seq_len=2)),
        (Y.view(5, 2), Y[:5], Facts(5, num_classes=3, out_features=3, vocab_size=3, seq_len=2)),
        (torch.zeros(4, 3), torch.zeros(4, dtype=torch.bool), Facts(4, in_features=3)),
    ],
    ids=["column", "vector", "classes", "images", "wide images", "text", "tagged text", "flags"],
)
def test_facts(inputs: torch.Tensor, targets: torch.Tensor, expected: Facts) -> None:
    assert data_from_objects((inputs, targets), batch_size=1).facts == expected


def test_facts_of_streamed_data() -> None:
    expected = Facts(23, in_features=4, num_classes=3, out_features=3)  # from dataset.classes
    assert data_from_objects(Augmented(), batch_size=2).facts == expected
    assert data_from_objects(Subset(Augmented(), range(23)), batch_size=2).facts == expected
    assert data_from_objects(shuffled_loader(2)).facts == expected
    assert data_from_objects(Stream(), batch_size=2).facts == Facts(in_features=4)
    assert data_from_objects([({"a": 1}, 0)] * 3, batch_size=2).facts == Facts(3)


def test_a_class_that_only_the_validation_set_has_counts() -> None:
    data = data_from_objects((PAIR, (X, Y + 1)), batch_size=2)
    assert data.facts.num_classes == 4
    assert facts_of(X, Y, num_samples=10).num_classes == 3


def test_a_users_function_gets_its_arguments_as_they_are() -> None:
    def make(path: str, rows: int = 10) -> Any:
        assert path == "some/file"
        return X[:rows], Y[:rows]

    data = load_data(make, {"path": "some/file", "rows": 6}, batch_size=2, val_fraction=0.5)
    assert (data.train.num_samples, data.val.num_samples) == (3, 3)


class Labelled(torch.utils.data.Dataset):
    """A map-style dataset of one's own that does not tell its classes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.full((3,), float(i)), i % 4


@pytest.mark.parametrize(("size", "expected"), [(64, 4), (5_000, 4), (5_001, None)])
def test_the_classes_of_a_small_dataset_of_ones_own_are_counted(
    size: int, expected: int | None
) -> None:
    data = data_from_objects(Labelled(size), batch_size=16, val_fraction=0.0)
    assert data.facts.num_classes is None  # nothing is read before a model asks
    assert data.counted_facts.num_classes == data.counted_facts.out_features == expected
