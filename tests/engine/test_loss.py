"""Which losses fit which outputs, and how right answers are counted."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from lrexp.errors import ConfigError
from lrexp.workloads.answers import fit_answers
from lrexp.workloads.losses import fit_loss, loss_floor

FLOATS = torch.randn(8, 1)
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


@pytest.mark.parametrize(
    ("loss", "output", "target", "message"),
    [
        (functional.mse_loss, torch.randn(8), FLOATS, "shapes must be equal"),
        (torch.nn.MSELoss(), torch.randn(8), FLOATS, "shapes must be equal"),
        (torch.nn.SmoothL1Loss(), torch.randn(8), FLOATS, "shapes must be equal"),
        (torch.nn.BCEWithLogitsLoss(), torch.randn(8), FLOATS, "shapes must be equal"),
        (functional.mse_loss, torch.randn(8, 3), FLOATS, "one output per target|as many outputs"),
        (functional.l1_loss, torch.randn(8, 3), CLASSES, "use cross_entropy"),
        (functional.cross_entropy, torch.randn(8, 1), FLOATS[:, 0], "use mse_loss"),
        (functional.cross_entropy, torch.randn(8, 2), CLASSES, "cross_entropy does not fit"),
        (functional.cross_entropy, torch.randn(7, 3), CLASSES, "cross_entropy does not fit"),
        (lambda o, t: (o - t) ** 2, FLOATS, FLOATS, "must return one number"),
        (lambda o, t: 1.0, FLOATS, FLOATS, "must return one number"),
    ],
)
def test_a_loss_that_does_not_fit_is_explained(
    loss: object, output: torch.Tensor, target: torch.Tensor, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit_loss(loss, output, target)  # type: ignore[arg-type]


def test_token_logits_are_flattened_to_items() -> None:
    logits, tokens = torch.randn(4, 7, 11), torch.randint(0, 11, (4, 7))
    fitted = fit_loss(functional.cross_entropy, logits, tokens)
    expected = functional.cross_entropy(logits.transpose(1, 2), tokens)
    assert fitted(logits, tokens).item() == pytest.approx(expected.item(), rel=1e-6)
    answers = fit_answers(logits, tokens)
    assert answers is not None
    right, made = answers.count_correct(logits, tokens)
    assert (right.item(), made) == ((logits.argmax(-1) == tokens).sum().item(), 28)


def test_accuracy_is_counted_for_classes_only() -> None:
    answers = fit_answers(functional.one_hot(CLASSES).float(), CLASSES)
    assert answers is not None
    right, made = answers.count_correct(functional.one_hot(CLASSES).float(), CLASSES)
    assert (right.item(), made) == (8, 8)
    numbers = fit_answers(FLOATS, FLOATS)
    assert numbers is not None
    assert numbers.kind == "numbers"


@pytest.mark.parametrize(
    ("loss", "floor"),
    [
        (functional.cross_entropy, 0.0),
        (functional.mse_loss, 0.0),
        (functional.kl_div, None),
        (torch.nn.CrossEntropyLoss(), 0.0),
        (torch.nn.BCELoss(), 0.0),
        (torch.nn.KLDivLoss(), None),
        (functional.gaussian_nll_loss, None),
        (lambda o, t: o, None),
    ],
)
def test_the_floor_of_a_loss(loss: object, floor: float | None) -> None:
    assert loss_floor(loss) == floor  # type: ignore[arg-type]
