"""CIFAR-10 written by the tests, and a machine without a network."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from torchvision import datasets
from workloads.sample_files import write_cifar10


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with our CIFAR-10, and torchvision expecting our checksums in place of theirs."""
    md5 = write_cifar10(tmp_path)
    cls = datasets.CIFAR10
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(cls, name, [[file, md5[file]] for file, _ in getattr(cls, name)])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5["batches.meta"]})
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
