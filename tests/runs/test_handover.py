"""What a worker elsewhere hands over gives the run directory that a worker here would have written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from described import Described, described, trial

import lrexp.engine.read_back
import lrexp.engine.stop
from lrexp.errors import RunError
from lrexp.records import Group
from lrexp.runs import handover
from lrexp.runs.handover import CopyWorker, Piece, differing, given_pieces, write_pieces
from lrexp.runs.worker import WorkerOptions

A, B = trial("a"), trial("b")
GROUPS = {
    "alone": [Group("sequential", (A,)), Group("sequential", (B,))],
    "stack": [Group("vectorized", (A, B))],
    "in-order": [Group("sequential", (A, B))],
}
CONFIG = {
    "model": {"name": "mlp", "args": {"hidden": [8], "dropout": 0.2}},
    "data": {"name": "digits", "batch_size": 256},
    "loss": "cross_entropy",
    "optimizer": {"name": "SGD", "lr": 0.1, "args": {"momentum": 0.9}},
    "train": {"duration": 20, "eval_every": 7},
    "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.01}}},
}


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a checkpoint come with about every step."""
    monkeypatch.setattr(lrexp.engine.stop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(lrexp.engine.stop, "MOST_SHARE", 1.0)
    monkeypatch.setattr(lrexp.engine.read_back, "CHUNK_SECONDS", 0.0)


@pytest.fixture
def worker() -> Iterator[CopyWorker]:
    worker = CopyWorker()
    yield worker
    worker.leave()
    assert not worker._copy.exists()


def contents(run: Path) -> dict[str, object]:
    """Return what the trials wrote, without times."""
    found: dict[str, object] = {}
    for path in sorted(run.glob("trials/*/*/*")):
        found[str(path.relative_to(run))] = path.read_bytes()
        if path.name == "result.json":
            result = json.loads(path.read_text())
            kept = {k: v for k, v in result.items() if not k.startswith(("seconds", "steps_"))}
            found[str(path.relative_to(run))] = kept
    return found


def load(worker: CopyWorker, run: Described) -> None:
    assert worker.load(handover.described_files(run.path), WorkerOptions()) is None


def news(worker: CopyWorker, run: Described, group: Group) -> Iterator[list[Piece]]:
    trials = [t for t in run.trials if t.id in group.trials]
    return worker.train(group, trials, given_pieces(run.path, group), 0.0)


@pytest.mark.parametrize(
    ("engine", "seed"),
    [  # one by default
        pytest.param(
            engine, seed, marks=() if (engine, seed) == ("in-order", 3) else pytest.mark.long
        )
        for engine in GROUPS
        for seed in range(20)
    ],
)
def test_a_driver_that_ends_between_any_two_pieces_goes_on_to_the_same_files(
    engine: str, seed: int, tmp_path: Path, worker: CopyWorker
) -> None:
    """`seed` pieces are written, then both sides are gone; the next try gets further."""
    here = described(tmp_path / "here", CONFIG, GROUPS[engine])
    here.train_here()
    run = described(tmp_path / "run", CONFIG, GROUPS[engine])
    load(worker, run)
    resumed = 0
    for group in run.groups:
        for tries in range(1, 1000):
            given = given_pieces(run.path, group)
            resumed += any(piece.name == "checkpoint" for piece in given)
            pieces = [piece for some in news(worker, run, group) for piece in some]
            allowed = seed + 11 * tries
            write_pieces(run.path, pieces[:allowed])
            if len(pieces) <= allowed:
                break
    assert resumed
    assert contents(run.path) == contents(here.path)


def test_a_stop_hands_a_checkpoint_over_that_a_worker_here_goes_on_from(
    tmp_path: Path, worker: CopyWorker
) -> None:
    here = described(tmp_path / "here", CONFIG)
    here.train_here()
    run = described(tmp_path / "run", CONFIG)
    load(worker, run)
    for number, some in enumerate(news(worker, run, run.groups[0])):
        write_pieces(run.path, some)
        if number == 5:
            worker.stop()
    assert (run.path / "checkpoints/a-seed-0.safetensors").exists()
    assert not (run.path / "trials/a/seed-0/result.json").exists()
    run.train_here()
    assert contents(run.path) == contents(here.path)
    assert list(news(worker, run, run.groups[1])) == [[]]  # one that was stopped begins nothing


def test_each_piece_comes_before_what_counts_on_it(tmp_path: Path, worker: CopyWorker) -> None:
    run = described(tmp_path / "run", CONFIG)
    load(worker, run)
    rank = {"steps.csv": 0, "evals.csv": 0, "checkpoint": 1, "result.json": 2}
    seen = set()
    for some in news(worker, run, run.groups[0]):
        names = [(p.name, p.data is None) for p in some]
        ranks = [rank[name] + 2 * is_removed for name, is_removed in names]
        assert ranks == sorted(ranks)
        seen |= set(names)
    assert seen >= {("steps.csv", False), ("checkpoint", False), ("result.json", False)}


def test_rows_that_are_lost_are_told(tmp_path: Path) -> None:
    write_pieces(tmp_path, [Piece(A, "steps.csv", b"step\n0\n", 0)])
    write_pieces(tmp_path, [Piece(A, "steps.csv", b"1\n", 7)])
    write_pieces(
        tmp_path, [Piece(A, "steps.csv", b"9\n", 5)]
    )  # of a worker that went on from there
    assert (tmp_path / "trials/a/seed-0/steps.csv").read_bytes() == b"step\n9\n"
    with pytest.raises(RunError, match="has lost rows"):
        write_pieces(tmp_path, [Piece(A, "steps.csv", b"1\n", 99)])


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ({"lrexp": "2", "torch": "3"}, None),
        ({"lrexp": "1", "torch": "3"}, "lrexp 1 there, 2 here"),
        ({"torch": "3"}, "lrexp None there, 2 here"),
        ({"lrexp": "1", "torch": "1"}, "lrexp 1 there, 2 here and torch 1 there, 3 here"),
    ],
)
def test_other_versions_are_named(there: dict[str, str], message: str | None) -> None:
    assert differing({"lrexp": "2", "torch": "3"}, there) == message
