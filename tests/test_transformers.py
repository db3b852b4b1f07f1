"""Models of Hugging Face's transformers, made from a config: their batches and losses as they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import lrexp
from lrexp.workloads.seeds import permutation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its imports
    transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore")  # of its models

IDS = torch.randint(0, 100, (96, 8), generator=torch.Generator().manual_seed(0))
LABELS = (IDS[:, 0] > 50).long()
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": LABELS}
CONFIG = {
    "optimizer": {"name": "AdamW", "lr": 0.003},
    "data": {"batch_size": 32},
    "train": {"duration": 3, "eval_every": 3},
    "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.001}}},
    "find_lr": {"budget": 0, "seeds": 1, "steps": 20},
}
SMALL = {
    "vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "max_position_embeddings": 16, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
MINE = f"""\
import torch
from transformers import BertConfig, BertForSequenceClassification
def net():
    return BertForSequenceClassification(BertConfig(**{SMALL}))
def data():
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 100, (96, 8), generator=g)
    rows = [{{"input_ids": i, "labels": int(i[0] > 50)}} for i in ids]
    return rows, rows
"""


def bert() -> Any:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL))


def test_a_comparison_is_the_loop_of_its_documentation(tmp_path: Path) -> None:
    made: list[Any] = []

    def make() -> Any:
        made.append(bert())
        return made[-1]

    run = lrexp.compare(CONFIG, model=make, data=(BATCH, BATCH), runs_dir=tmp_path)
    for trial, lr in zip(run.trials, (0.003, 0.001), strict=True):
        model = bert()
        model.load_state_dict(made[0].state_dict())
        optimizer = torch.optim.AdamW(model.parameters(), lr)
        losses = []
        for rows in permutation(0, 0, 96).split(32):
            loss = model(**{key: value[rows] for key, value in BATCH.items()}).loss
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        np.testing.assert_allclose(trial.steps["loss"], losses, rtol=1e-4)
        model.eval()
        with torch.no_grad():
            whole = model(**BATCH)
        assert trial.evals["val_loss"][-1] == pytest.approx(whole.loss.item(), rel=1e-4)
        right = (whole.logits.argmax(1) == LABELS).float().mean().item()
        assert trial.evals["val_accuracy"][-1] == pytest.approx(right)


def test_a_loader_of_a_plain_loop() -> None:
    model = bert()
    rows = [{"input_ids": ids, "labels": label} for ids, label in zip(IDS, LABELS, strict=True)]
    finder = lrexp.LRFinder(model, torch.optim.AdamW(model.parameters(), 1e-3))
    found = finder.run(DataLoader(rows, 32, shuffle=True), steps=20, seeds=1)
    assert len(found.curves[0].loss) >= 10


def test_a_file(tmp_path: Path, lrexp: Callable[..., Any]) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "bert.yaml").write_text(
        "model: mine:net\ndata: {name: 'mine:data', batch_size: 32}\n"
        "optimizer: {name: AdamW, lr: 0.003}\ntrain: {duration: 3}\n"
        "find_lr: {budget: 0, seeds: 1, steps: 20}\n"
    )
    answer = lrexp("compare", "bert.yaml", "--out", "run", "--trust", "transformers")
    assert answer.code == 0, answer.err
    assert "low" in answer.out
    found = lrexp("find-lr", "bert.yaml", "--out", "found")
    assert found.code in {0, 4}, found.err
