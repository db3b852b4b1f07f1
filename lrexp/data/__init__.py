"""Data of any kind as batches whose order is a pure function of (seed, epoch).

A source (built-in, torchvision, or the user's) is recognised, split into training and validation,
and batched: resident on the device where it fits, else read by torch's DataLoader. `Facts` tell
models how wide the data is and how many classes it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrexp.lazy import imported_from

if TYPE_CHECKING:
    from lrexp.data.batches import Batches, Data
    from lrexp.data.facts import Facts
    from lrexp.data.loading import data_from_objects, load_data
    from lrexp.data.randomness import random_state_kept
    from lrexp.data.registry import DATASETS
    from lrexp.data.resident import ResidentBatches
    from lrexp.data.seeds import derive_seed, permutation
    from lrexp.data.streaming import StreamingBatches
    from lrexp.data.vision import torchvision_dataset

__all__ = [
    "DATASETS",
    "Batches",
    "Data",
    "Facts",
    "ResidentBatches",
    "StreamingBatches",
    "data_from_objects",
    "derive_seed",
    "load_data",
    "permutation",
    "random_state_kept",
    "torchvision_dataset",
]

__getattr__ = imported_from(
    __name__,
    {
        "Batches": "lrexp.data.batches",
        "DATASETS": "lrexp.data.registry",
        "Data": "lrexp.data.batches",
        "Facts": "lrexp.data.facts",
        "ResidentBatches": "lrexp.data.resident",
        "StreamingBatches": "lrexp.data.streaming",
        "data_from_objects": "lrexp.data.loading",
        "derive_seed": "lrexp.data.seeds",
        "load_data": "lrexp.data.loading",
        "permutation": "lrexp.data.seeds",
        "random_state_kept": "lrexp.data.randomness",
        "torchvision_dataset": "lrexp.data.vision",
    },
)
