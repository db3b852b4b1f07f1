"""Labels as files give them, losses and dtypes: what torch makes of them written out by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import lrexp
from lrexp.workloads.batches import Facts
from lrexp.workloads.labels import Labels, facts_for, numbered
from lrexp.workloads.losses import fit_loss

G = torch.Generator().manual_seed(0)
X = torch.randn(48, 4, generator=G)
TWO = (X[:, 0] > 0).long()
THREE = TWO + (X[:, 1] > 0).long()
NUMBER = X.sum(1, keepdim=True)
ce, bce = functional.cross_entropy, functional.binary_cross_entropy_with_logits
OUT = {n: torch.randn(48, n, generator=G) for n in (1, 2, 3)}

# loss | outputs | labels | all of them known | the labels as torch's loss takes them
CONVERTED: list[tuple[Any, int, Tensor, bool, Tensor]] = [
    (ce, 3, THREE.float(), True, THREE),
    (ce, 3, THREE.float(), False, THREE),
    (ce, 3, THREE[:, None], False, THREE),
    (ce, 3, THREE[:, None].double(), False, THREE),
    (ce, 2, TWO.bool(), False, TWO),
    (ce, 2, 2 * TWO - 1, True, TWO),
    (ce, 2, (2 * TWO - 1).float(), True, TWO),
    (ce, 3, functional.one_hot(THREE), False, THREE),
    (ce, 3, functional.one_hot(THREE).bool(), False, THREE),
    (functional.nll_loss, 3, functional.one_hot(THREE).float(), False, THREE),
    (nn.CrossEntropyLoss(), 3, THREE.float(), False, THREE),
    (lambda o, t: 2 * ce(o, t), 3, THREE.float(), False, THREE),
    (bce, 1, TWO, False, TWO[:, None].float()),
    (bce, 1, TWO.bool(), False, TWO[:, None].float()),
    (bce, 1, TWO.float(), False, TWO[:, None].float()),
    (bce, 1, 2 * TWO - 1, True, TWO[:, None].float()),
    (bce, 3, functional.one_hot(THREE), False, functional.one_hot(THREE).float()),
    (functional.soft_margin_loss, 1, TWO.float(), True, 2 * TWO[:, None].float() - 1),
    (functional.soft_margin_loss, 1, TWO.bool(), False, 2 * TWO[:, None].float() - 1),
    (functional.mse_loss, 1, THREE[:, None], False, THREE[:, None].float()),
]  # fmt: skip


@pytest.mark.parametrize("case", CONVERTED, ids=range(len(CONVERTED)))
def test_labels_are_converted_where_their_meaning_is_certain(case: Any) -> None:
    loss, outputs, labels, is_known, meant = case
    fitted = fit_loss(loss, OUT[outputs], labels, known=labels if is_known else None)
    assert fitted(OUT[outputs], labels).item() == loss(OUT[outputs], meant).item()
    assert fitted.convert is not None
    assert torch.equal(fitted.convert(labels), meant)


UNTOUCHED: list[tuple[Any, int, Tensor]] = [
    (ce, 3, THREE),
    (ce, 3, torch.softmax(OUT[3], 1)),
    (ce, 3, torch.where(THREE == 0, -100, THREE)),
    (nn.CrossEntropyLoss(ignore_index=-1), 2, 2 * TWO - 1),
    (bce, 1, torch.rand(48, 1)),
    (functional.mse_loss, 1, NUMBER),
    (functional.soft_margin_loss, 1, (2 * TWO - 1)[:, None].float()),
]


@pytest.mark.parametrize("case", UNTOUCHED, ids=range(len(UNTOUCHED)))
def test_labels_that_fit_stay_as_they_are(case: Any) -> None:
    loss, outputs, labels = case
    assert fit_loss(loss, OUT[outputs], labels, known=labels).convert is None


def through_ce(output: Tensor, target: Tensor) -> Tensor:
    return ce(output, target)


def through_mse(output: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(output, target)


# loss | outputs | labels | all known | what the refusal says
REFUSED: list[tuple[Any, int, Tensor, bool, str]] = [
    (ce, 3, THREE + 1, True, "run from 1 to 3.*Subtract 1: y - 1"),
    (ce, 3, THREE + 1, False, "run from 1 to 3.*Subtract 1: y - 1"),
    (ce, 3, THREE + 0.5, True, "no whole numbers.*use mse_loss"),
    (ce, 2, 2 * TWO - 1, False, "labels are -1 and 1.*y > 0"),
    (ce, 3, THREE + 4, False, "run from 4 to 6.*7 outputs"),
    (ce, 3, THREE - 1, True, "run from -1 to 1"),
    (ce, 3, torch.ones(48, 3, dtype=torch.long), False, "several labels.*binary_cross_entropy"),
    (ce, 1, TWO, True, "one output per class.*always 0"),
    (ce, 1, TWO.float()[:, None], True, r"y\.long\(\)"),
    (through_ce, 1, TWO.float()[:, None], False, "one output per class"),
    (nn.CrossEntropyLoss(weight=torch.tensor([1, 2, 3])), 3, THREE, False, r"weight\.float\(\)"),
    (bce, 1, TWO + 1, True, "run from 1 to 2.*Subtract 1"),
    (bce, 1, THREE, True, "run from 0 to 2.*cross_entropy"),
    (bce, 1, 2 * TWO - 1, False, r"-1 and 1.*\(y \+ 1\) / 2"),
    (bce, 1, 3 * NUMBER, False, "from 0 to 1.*mse_loss"),
    (bce, 2, TWO, False, "2 per sample.*one output"),
    (functional.soft_margin_loss, 1, TWO.float()[:, None], False, r"2 \* y - 1"),
    (functional.mse_loss, 1, THREE, False, r"y\.float\(\)\[:, None\]"),
    (functional.mse_loss, 1, NUMBER[:, 0], False, r"y\[:, None\]"),
    (lambda o, t: ((o - t) ** 2).mean(), 1, NUMBER[:, 0], False, r"\(48, 1\) and \(48,\)"),
    (through_mse, 1, NUMBER[:, 0], False, r"\(48, 1\) and \(48,\)"),
    (lambda o, t: (o - t).abs().mean().sqrt(), 1, NUMBER[:, 0], False, r"\(48, 1\) and \(48,\)"),
]


@pytest.mark.parametrize("case", REFUSED, ids=range(len(REFUSED)))
def test_a_refusal_says_what_to_write(case: Any) -> None:
    loss, outputs, labels, is_known, message = case
    with pytest.raises(lrexp.LrexpError, match=message):
        fit_loss(loss, OUT[outputs], labels, known=labels if is_known else None)


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, t: ((o.squeeze(1) - t) ** 2).mean(),
        lambda o, t: ((o.flatten()[:, None] - t[None]) ** 2).mean(),  # of all pairs, on purpose
    ],
)
def test_a_loss_that_knows_its_shapes_is_taken(loss: Any) -> None:
    expected = loss(OUT[1], NUMBER[:, 0])
    assert fit_loss(loss, OUT[1], NUMBER[:, 0])(OUT[1], NUMBER[:, 0]) == expected


def test_a_class_that_later_batches_bring_is_not_cut() -> None:
    convert = Labels("cross_entropy", OUT[3], THREE.float()).conversion()
    assert convert is not None
    assert convert(torch.tensor([1.0, 2.5])).tolist() == [1, 3]  # 3 is out of range, and raises


@pytest.mark.parametrize(
    ("loss", "labels", "classes", "outputs"),
    [
        ("cross_entropy", THREE.float(), 3, 3),
        ("cross_entropy", functional.one_hot(THREE), 3, 3),
        ("cross_entropy", 2 * TWO - 1, 2, 2),
        ("cross_entropy", NUMBER, None, 1),
        ("mse_loss", THREE, None, 1),
        ("binary_cross_entropy_with_logits", TWO, None, 1),
        (None, THREE, 7, 7),
    ],
)
def test_how_many_outputs_a_loss_asks_for(
    loss: str | None, labels: Tensor, classes: int | None, outputs: int
) -> None:
    guessed = Facts(num_classes=None, out_features=1)
    if not labels.is_floating_point():
        guessed = Facts(num_classes=2 if labels is TWO else 7, out_features=7)
    facts = facts_for(guessed, loss, labels)
    assert (facts.num_classes, facts.out_features) == (classes, outputs)


def test_names_of_both_splits_are_numbered_together() -> None:
    (_, y), (_, other), third = numbered(
        ((X[:2], np.array(["cat", "ant"])), (X[:1], np.array(["bee"], object)), (X, NUMBER))
    )
    assert (y.tolist(), other.tolist()) == ([2, 0], [1])
    assert third[1] is NUMBER


CONFIG: dict[str, Any] = {
    "device": "cpu",
    "optimizer": {"name": "SGD", "lr": 0.1},
    "data": {"batch_size": 5},
    "train": {"duration": 4, "eval_every": 4},
    "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.02}}},
}
VAL = 37  # samples: no multiple of a batch
WEIGHT = torch.tensor([1.0, 2.0, 7.0])
IGNORED = torch.where(X[:VAL, 2] > 0, -100, THREE[:VAL])
IGNORED[5:10] = -100  # a whole batch


def smooth(output: Tensor, target: Tensor) -> Tensor:
    return 3 * ce(output, target, weight=WEIGHT, label_smoothing=0.1)


def summed(output: Tensor, target: Tensor) -> Tensor:
    return ((output - target) ** 2).sum()


# loss | target of the validation split | what the loss itself says of the whole split
WHOLE: dict[str, tuple[Any, Tensor, Any]] = {
    "ignored": (ce, IGNORED, ce),
    "ignored, a class of one's own": (nn.CrossEntropyLoss(ignore_index=1), THREE[:VAL], None),
    "weights": (nn.CrossEntropyLoss(weight=WEIGHT), IGNORED, None),
    "inside a function": (smooth, IGNORED, None),
    "a sum": (nn.MSELoss(reduction="sum"), NUMBER[:VAL], functional.mse_loss),
    "a sum of one's own": (summed, NUMBER[:VAL], functional.mse_loss),
    "a mean": (functional.mse_loss, NUMBER[:VAL], None),
}


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize("name", WHOLE)
def test_val_loss_is_what_the_loss_says_of_the_whole_split(
    name: str, engine: str, tmp_path: Path
) -> None:
    loss, target, of_all = WHOLE[name]
    outputs = 1 if target.is_floating_point() else 3
    model = nn.Linear(4, outputs)
    train = TensorDataset(X[:40], NUMBER[:40] if outputs == 1 else THREE[:40])
    val = DataLoader(list(zip(X[:VAL], target, strict=True)), 5)  # type: ignore[arg-type]
    given = {"model": model, "data": (DataLoader(train, 5), val), "loss": loss}
    config = CONFIG | {"engine": engine, "data": {}}
    run = lrexp.compare(config, **given, runs_dir=tmp_path)
    output = model(X[:VAL])
    expected = (of_all or loss)(output, target).item()
    for trial in run.trials:
        assert trial.evals["val_loss"][0] == pytest.approx(expected, rel=1e-5)
        if outputs == 3:
            ignored = 1 if isinstance(loss, nn.CrossEntropyLoss) and loss.weight is None else -100
            counts = target != ignored
            share = (output.argmax(1) == target)[counts].double().mean().item()
            assert trial.evals["val_accuracy"][0] == pytest.approx(share)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x), self.two(x)


def of_both(output: Any, target: dict[str, Tensor]) -> Tensor:
    one = functional.mse_loss(output[0], target["one"])
    return one + functional.mse_loss(output[1], target["two"])


def test_a_target_of_several_heads_counts_by_its_samples(tmp_path: Path) -> None:
    rows = [
        (x, {"one": y + 20 * (i == 36), "two": -y})
        for i, (x, y) in enumerate(zip(X, NUMBER, strict=True))
    ]
    model = Heads()
    given = {"model": model, "data": (rows[:32], rows[:VAL]), "loss": of_both}
    trial = lrexp.compare(CONFIG, **given, runs_dir=tmp_path).trials[0]
    target = {key: torch.stack([row[1][key] for row in rows[:VAL]]) for key in ("one", "two")}
    expected = of_both(model(X[:VAL]), target).item()
    assert trial.evals["val_loss"][0] == pytest.approx(expected, rel=1e-5)


def test_a_config_gives_a_loss_its_arguments(tmp_path: Path) -> None:
    config = CONFIG | {
        "model": "linear",
        "loss": {"name": "cross_entropy", "args": {"weight": [1, 2, 7]}},
        "compare": {"variants": {"plain": {}, "smooth": {"loss.args.label_smoothing": 0.1}}},
    }
    model = nn.Linear(4, 3)
    run = lrexp.compare(config, model=model, data=((X, THREE), (X, THREE)), runs_dir=tmp_path)
    values = {t.variant: t.evals["val_loss"][0] for t in run.trials}
    for variant, smoothing in (("plain", 0.0), ("smooth", 0.1)):
        expected = ce(model(X), THREE, weight=WEIGHT, label_smoothing=smoothing).item()
        assert values[variant] == pytest.approx(expected, rel=1e-5)
    again = lrexp.compare(
        run.path / "resolved.yaml", model=model, data=((X, THREE), (X, THREE)), runs_dir=tmp_path
    )
    for one, other in zip(run.trials, again.trials, strict=True):
        np.testing.assert_array_equal(one.steps["loss"], other.steps["loss"])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"name": "cross_entropy", "args": {"smoothing": 0.1}}, r"loss\.args\.smoothing.*label_smoothing"),
        ({"name": "cros_entropy"}, "Did you mean 'cross_entropy'"),
        ({"name": "cross_entropy", "label_smoothing": 0.1}, r"loss\.label_smoothing: is not a known key"),
        ({"name": "cross_entropy", "args": {"target": 1}}, r"loss\.args\.target"),
    ],
)  # fmt: skip
def test_arguments_that_a_loss_does_not_take(loss: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(lrexp.LrexpError, match=message):
        lrexp.compare(
            CONFIG | {"model": "linear", "data": "digits", "loss": loss}, runs_dir=tmp_path
        )


def finder(model: nn.Module, loss: Any) -> lrexp.LRFinder:
    return lrexp.LRFinder(model, torch.optim.SGD(model.parameters(), 0.1), loss)


def test_the_finder_has_the_same_checks_in_words_of_python() -> None:
    def loader(target: Tensor) -> Any:
        return DataLoader(TensorDataset(X, target), 8)

    given = {"steps": 12, "seeds": 1}
    frozen = nn.Linear(4, 1).requires_grad_(False)
    with pytest.raises(
        lrexp.LrexpError, match=r"^model: has no parameter that requires a gradient"
    ):
        finder(frozen, functional.mse_loss).run(loader(NUMBER), **given)  # type: ignore[arg-type]
    with pytest.raises(lrexp.LrexpError, match=r"^loss_fn: .*run from 1 to 3.*Subtract 1"):
        finder(nn.Linear(4, 3), ce).run(loader(THREE + 1), **given)  # type: ignore[arg-type]
    as_floats = finder(nn.Linear(4, 3), nn.CrossEntropyLoss())
    assert as_floats.run(loader(THREE.float()), **given).curves[0].num_finite > 5  # type: ignore[arg-type]


class Complex(nn.Module):
    """A complex weight first, an integer one, and a real one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, dtype=torch.complex64, generator=G))
        self.count = nn.Parameter(torch.tensor([3]), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        assert (self.weight.is_complex(), self.count.dtype) == (True, torch.int64)
        return (x.to(self.weight.dtype) @ self.weight).abs() + self.bias


def test_only_real_floating_tensors_are_cast(tmp_path: Path) -> None:
    signal = torch.complex(X, -X)
    for x in (X.double(), signal):
        model = Complex()
        given = {"model": model, "data": ((x, NUMBER), (x, NUMBER)), "loss": functional.mse_loss}
        run = lrexp.compare(CONFIG, **given, runs_dir=tmp_path)
        value = x if x.is_complex() else x.float()
        expected = functional.mse_loss(model(value), NUMBER).item()
        assert run.trials[0].evals["val_loss"][0] == pytest.approx(expected, rel=1e-5)
        loader = DataLoader(TensorDataset(x, NUMBER), 8)
        found = finder(model, functional.mse_loss).run(loader, steps=12, seeds=1)
        assert found.curves[0].num_finite > 5


def broken(x: Tensor, row: int) -> Tensor:
    x = copy.deepcopy(x)
    x[row, 0] = torch.nan
    return x


class Rows(torch.utils.data.Dataset[Any]):
    """In the order of a loader that does not shuffle; row 33 of 48 holds a nan."""

    def __len__(self) -> int:
        return 48

    def __getitem__(self, row: int) -> Any:
        return broken(X, 33)[row], NUMBER[row]


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_a_batch_that_gives_nan_with_any_weights_is_named(engine: str, tmp_path: Path) -> None:
    loader = DataLoader(Rows(), 5)
    config = CONFIG | {"engine": engine, "data": {}, "train": {"duration": 20, "eval_every": 9}}
    given = {"model": nn.Linear(4, 1), "data": loader, "loss": functional.mse_loss}
    config["compare"] = {**CONFIG["compare"], "metric": "train_loss"}
    run = lrexp.compare(config, **given, runs_dir=tmp_path)
    message = "Batch 6 of epoch 0 gives nan with any weights"
    assert message in json.loads((run.trials[0].path / "result.json").read_text())["cause"]
    sentence = run.summary["ranking"][0]["diagnosis"]["sentence"]
    assert message in sentence
    assert "LR" not in sentence
    found = finder(nn.Linear(4, 1), functional.mse_loss).run(loader, steps=20, seeds=1)
    assert message in str(found.reason)


def test_a_gradient_that_is_not_finite_with_any_weights_is_named(tmp_path: Path) -> None:
    def root(output: Tensor, target: Tensor) -> Tensor:
        return (output * target).pow(2).sum(1).sqrt().mean()  # a target of 0: 0 · inf

    target = NUMBER.clone()
    target[7] = 0
    loader = DataLoader(TensorDataset(X, target), 5, shuffle=False)
    config = CONFIG | {"data": {"in_memory": False}, "engine": "sequential"}
    config["compare"] = {**CONFIG["compare"], "metric": "train_loss"}
    run = lrexp.compare(config, model=nn.Linear(4, 1), data=loader, loss=root, runs_dir=tmp_path)
    assert "no finite gradient" in run.summary["ranking"][0]["diagnosis"]["sentence"]


def test_an_lr_that_is_too_high_is_blamed(tmp_path: Path) -> None:
    config = CONFIG | {"train": {"duration": 40, "eval_every": 40}, "engine": "sequential"}
    config["compare"] = {"variants": {"a": {"optimizer.lr": 1e9}}}
    given = {
        "model": nn.Linear(4, 1),
        "data": ((X, NUMBER), (X, NUMBER)),
        "loss": functional.mse_loss,
    }
    run = lrexp.compare(config, **given, runs_dir=tmp_path)
    assert "lower the LR" in run.summary["ranking"][0]["diagnosis"]["sentence"]
    assert "cause" not in json.loads((run.trials[0].path / "result.json").read_text())


class LogOfLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        nn.init.constant_(self.linear.bias, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(self.linear(x))


def test_a_range_test_that_nan_ends_does_not_ask_for_a_higher_lr() -> None:
    x = torch.rand(600, 4, generator=torch.Generator().manual_seed(0))
    data = (x, torch.log(0.1 + 0.3 * x[:, :1]))
    found = finder(LogOfLinear(), functional.mse_loss).run(data, seeds=2)
    said = f"{found.reason} {found.suggestion.note}"
    assert "the loss is not finite (" in said
    assert "max_lr" not in said
