"""Workers: the same samples whatever their number, passes that overlap, exceptions as they were."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from workloads.random_datasets import (
    SAMPLES,
    Augmented,
    Raising,
    RaisingStream,
    Stream,
    UnpicklableError,
    shuffled_loader,
)

from lrexp.errors import ConfigError, user_error
from lrexp.workloads.batches import Batches
from lrexp.workloads.loading import data_from_objects

pytestmark = [
    # Python 3.12 and later warn when a process with threads forks, as torch's workers do.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
    # torch's advice about the number of workers, on a machine with one core
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
DATASET_FILE = str(Path(__file__).with_name("random_datasets.py"))


def batches_of(data: Any, workers: int = 0, batch_size: int = 4) -> Batches:
    return data_from_objects(data, batch_size=batch_size, workers=workers).train


def read(batches: Iterator[Any]) -> list[Any]:
    return [(inputs.tolist(), targets.tolist()) for inputs, targets in batches]


def augmentation(batches: Batches, seed: int, epoch: int, start: int = 0) -> dict[int, Any]:
    """Return what was drawn for each sample."""
    rows = [row for x, _ in read(batches.epoch(seed, epoch, start)) for row in x]
    return {int(row[0]): row[1:] for row in rows}


def test_augmentation_does_not_depend_on_the_number_of_workers() -> None:
    alone, shared = batches_of(Augmented()), batches_of(Augmented(), workers=2)
    for epoch in (0, 1):
        assert read(alone.epoch(3, epoch)) == read(shared.epoch(3, epoch))
    assert read(alone.in_order()) == read(shared.in_order())
    assert read(alone.epoch(3, 1, start=2)) == read(shared.epoch(3, 1, start=2))


def test_augmentation_differs_by_sample_epoch_and_seed() -> None:
    batches = batches_of(Augmented(), batch_size=1)
    drawn = [augmentation(batches, *which) for which in ((0, 0), (0, 1), (1, 0))]
    values = {tuple(numbers) for side in drawn for numbers in side.values()}
    assert len(values) == 3 * SAMPLES
    assert augmentation(batches, 0, 1) == drawn[1]


def test_passes_that_overlap_do_not_disturb_each_other() -> None:
    expected = batches_of(Augmented())
    batches = batches_of(Augmented(), workers=1)
    first, second = batches.epoch(0, 0), batches.epoch(1, 0)
    mixed = [batch for both in zip(first, second, strict=True) for batch in both]
    assert read(iter(mixed[::2])) == read(expected.epoch(0, 0))
    assert read(iter(mixed[1::2])) == read(expected.epoch(1, 0))


def test_a_pass_that_was_left_leaves_nothing_behind() -> None:
    batches = batches_of(Augmented(), workers=1)
    left = batches.epoch(0, 0)
    next(left)
    left.close()
    assert read(batches.epoch(0, 1)) == read(batches_of(Augmented()).epoch(0, 1))


def test_an_iterable_is_shared_out_among_workers() -> None:
    batches = batches_of(Stream(), workers=2)
    seen = sorted(int(row[0]) for x, _ in read(batches.in_order()) for row in x)
    assert seen == list(range(SAMPLES))
    assert read(batches.epoch(0, 1)) == read(batches.epoch(0, 1))
    assert read(batches_of(Stream(), workers=1).epoch(0, 1)) == read(
        batches_of(Stream()).epoch(0, 1)
    )


def test_a_users_loader_with_workers_is_repeatable_and_may_overlap() -> None:
    batches = batches_of(shuffled_loader(workers=1, persistent_workers=True))
    order = [y for _, y in read(batches.epoch(0, 0))]
    training = batches.epoch(0, 0)
    first = next(training)
    read(batches.in_order())
    assert [first[1].tolist(), *(y for _, y in read(training))] == order


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (Raising(ValueError("no pixel")), ValueError, "no pixel"),
        (Raising(KeyError("label")), KeyError, "'label'"),
        (Raising(FileNotFoundError(2, "gone", "a.png")), FileNotFoundError, "a.png"),
        (RaisingStream(), KeyError, "sample 6"),
    ],
    ids=["ValueError", "KeyError", "OSError", "iterable"],
)
def test_an_exception_arrives_as_itself_with_its_file_and_line(
    data: Any, kind: type[Exception], message: str, workers: int
) -> None:
    batches = batches_of(data, workers)
    with pytest.raises(kind) as caught:
        read(batches.epoch(0, 0))
    assert message in str(caught.value)
    assert "Traceback" not in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    where = re.findall(rf'File "({DATASET_FILE})", line (\d+), in (\w+)\n    +raise ', shown)[-1]
    assert "the data raised an exception: {}:{}: in {}: ".format(*where) in str(
        user_error(caught.value, "the data")
    )


def test_the_traceback_of_a_worker_is_the_cause_and_no_frame_is_made_up() -> None:
    with pytest.raises(KeyError) as caught:
        read(batches_of(Raising(KeyError("label")), workers=1).epoch(0, 0))
    here = traceback.extract_tb(caught.value.__traceback__)
    assert DATASET_FILE not in {frame.filename for frame in here}
    told = str(caught.value.__cause__)
    assert told.startswith("\nTraceback (most recent call last):\n")
    assert DATASET_FILE in told
    assert "KeyError: 'label'\n" in told


def test_an_exception_that_cannot_be_pickled_still_tells_its_kind() -> None:
    batches = batches_of(Raising(UnpicklableError("first", "second")), workers=1)
    with pytest.raises(RuntimeError, match="UnpicklableError: first second"):
        read(batches.epoch(0, 0))


def test_a_config_error_keeps_its_message_on_its_way_from_a_worker() -> None:
    error = ConfigError.single("data.args.size", "is odd", 3, "Make it even.")
    with pytest.raises(ConfigError, match=r"^data\.args\.size: is odd \(got 3\)\. Make it even\.$"):
        read(batches_of(Raising(error), workers=1).epoch(0, 0))


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_that_do_not_stack_are_told(workers: int) -> None:
    ragged = [(torch.zeros(1 + i // 4), 0) for i in range(8)]
    with pytest.raises(RuntimeError, match="equal size"):
        read(batches_of(ragged, workers).epoch(0, 0))


def test_nested_inputs_are_moved_and_cast() -> None:
    sample = {"image": torch.zeros(2, dtype=torch.float64), "id": 3}
    batches = batches_of([(sample, torch.tensor(1, dtype=torch.int32))] * 4)
    inputs, targets = next(batches.to("cpu", torch.float32).epoch(0, 0))
    assert inputs["image"].dtype == torch.float32
    assert inputs["id"].dtype == targets.dtype == torch.int64


@pytest.mark.cuda
@pytest.mark.parametrize("kind", ["tensors", "dataset", "iterable", "loader"])
def test_batches_arrive_on_the_device(kind: str) -> None:
    data = {
        "tensors": (torch.arange(23.0)[:, None], torch.arange(23) % 3),
        "dataset": Augmented(),
        "iterable": Stream(),
        "loader": DataLoader(Augmented(), batch_size=4, pin_memory=True),
    }[kind]
    batches = batches_of(data, workers=1)
    on_device = batches.to("cuda", torch.float32)
    for (x, y), (x_cpu, y_cpu) in zip(on_device.epoch(1, 1), batches.epoch(1, 1), strict=True):
        assert x.is_cuda
        assert x.cpu().equal(x_cpu)
        assert y.cpu().equal(y_cpu)
