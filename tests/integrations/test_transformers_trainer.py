"""A Trainer of transformers: the curve is that of LRFinder, and the Trainer is as it was."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed, which Trainer needs")
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers

import lrexp  # noqa: E402
from lrexp.integrations.transformers import find_lr  # noqa: E402

RAMP = {"min_lr": 1e-6, "max_lr": 1.0, "steps": 30}


def make_model() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=2, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def rows(count: int = 512) -> list[dict[str, torch.Tensor]]:
    ids = torch.randint(0, 40, (count, 6), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": (row[0] > 20).long()} for row in ids]


def make(folder: Path, micro: int = 1, **others: Any) -> Any:
    args = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=8, gradient_accumulation_steps=micro,
        max_grad_norm=1e9, weight_decay=0.0, use_cpu=True, report_to=[], max_steps=40,
        disable_tqdm=True,
    )  # fmt: skip
    given = {"model": make_model(), "train_dataset": rows(), "eval_dataset": rows(64)} | others
    return transformers.Trainer(args=args, **given)


class InOrder(transformers.Trainer):
    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


@pytest.mark.parametrize("micro", [1, 2])
def test_the_curve_is_that_of_lr_finder(micro: int, tmp_path: Path) -> None:
    trainer = make(tmp_path, micro)
    trainer.__class__ = InOrder
    before = copy.deepcopy(trainer.model.state_dict()), torch.get_rng_state()
    found = find_lr(trainer, seeds=1, **RAMP)
    assert torch.equal(before[1], torch.get_rng_state())
    assert all(torch.equal(before[0][k], v) for k, v in trainer.model.state_dict().items())
    assert type(trainer) is InOrder
    assert trainer.optimizer is None
    optimizer = torch.optim.AdamW(trainer.model.parameters(), 0.1, weight_decay=0.0)
    finder = lrexp.LRFinder(trainer.model, optimizer, accumulate=micro)
    data = [transformers.default_data_collator(rows()[i : i + 8]) for i in range(0, 512, 8)]
    wanted = finder.run(data, seeds=1, **RAMP)
    (curve,), (expected,) = found.curves, wanted.curves
    count = min(len(curve.lr), len(expected.lr), 30 if micro == 1 else 25)  # before it explodes
    assert count > 20
    assert curve.lr[:count] == pytest.approx(expected.lr[:count])
    # of micro-batches, transformers adds the gradients of such a model up, which Adam hardly heeds
    assert curve.loss[:count] == pytest.approx(
        expected.loss[:count], rel=1e-3 if micro == 1 else 0.02
    )


@pytest.mark.long
def test_a_race_is_judged_by_the_evaluation_loss(tmp_path: Path) -> None:
    trainer = make(tmp_path, model=None, model_init=make_model)
    found = find_lr(trainer, race=True, budget=2, seeds=2, **RAMP)
    assert found.suggested_lr is not None
    assert str(found.note).startswith("Evaluation loss after short trainings")
    trainer.args.learning_rate = found.suggested_lr
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        ({"train_dataset": None}, {}, "has no train_dataset"),
        ({"eval_dataset": None}, {"race": True}, "has no eval_dataset, by which a race judges"),
    ],
)
def test_what_is_missing_is_told(
    given: dict[str, Any], options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(lrexp.ConfigError, match=words):
        find_lr(make(tmp_path, **given), **options, **RAMP)
