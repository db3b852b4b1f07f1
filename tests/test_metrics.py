"""Metrics: scikit-learn's numbers at the same step, what ranks, what guessing gets."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn import metrics as sk
from torch import Tensor, nn
from torch.nn import functional

import lrexp
from lrexp.records import METRICS
from lrexp.report.ranking import ranking_table
from lrexp.runs.spec import make_spec, with_registered
from lrexp.workloads.answers import fit_answers, scorer
from lrexp.workloads.metrics import register_metric

ENGINES = ["sequential", "vectorized"]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LOGITS, CLASSES = drawn(0, 40, 3), torch.arange(40) % 3
ONE, YES = drawn(1, 40, 1), (torch.arange(40) % 3 == 0).float()[:, None]
SEVERAL, LABELS = drawn(2, 40, 4), (drawn(3, 40, 4) > 0).float()
NUMBERS, TRUE = drawn(4, 40, 1), drawn(5, 40, 1)
FORECASTS, TRUTH = drawn(6, 4, 5, 3), torch.arange(20).reshape(4, 5) % 3  # (batch, time, classes)
SHARES = LOGITS.double().softmax(1).numpy()


@pytest.mark.parametrize(
    ("name", "output", "target", "loss", "expected"),
    [
        ("accuracy", LOGITS, CLASSES, "cross_entropy", sk.accuracy_score(CLASSES, LOGITS.argmax(1))),
        ("f1_macro", LOGITS, CLASSES, None, sk.f1_score(CLASSES, LOGITS.argmax(1), average="macro")),
        ("roc_auc_ovr", LOGITS, CLASSES, None, sk.roc_auc_score(CLASSES, SHARES, multi_class="ovr")),
        ("neg_log_loss", LOGITS, CLASSES, None, -sk.log_loss(CLASSES, SHARES)),
        ("neg_log_loss", LOGITS.softmax(1), CLASSES, None, -sk.log_loss(CLASSES, SHARES)),
        ("roc_auc", LOGITS[:, :2], CLASSES % 2, None,
         sk.roc_auc_score(CLASSES % 2, LOGITS[:, 1] - LOGITS[:, 0])),
        ("accuracy", FORECASTS, TRUTH, "cross_entropy",
         sk.accuracy_score(TRUTH.flatten(), FORECASTS.argmax(-1).flatten())),
        ("roc_auc", ONE, YES, "binary_cross_entropy_with_logits", sk.roc_auc_score(YES, ONE)),
        ("f1", ONE, YES, "binary_cross_entropy_with_logits", sk.f1_score(YES, ONE > 0)),
        ("f1", ONE.sigmoid(), YES, "binary_cross_entropy", sk.f1_score(YES, ONE > 0)),
        ("f1", ONE, 2 * YES - 1, "soft_margin_loss", sk.f1_score(YES, ONE > 0)),
        ("neg_log_loss", ONE[:, 0], YES[:, 0].long(), None, -sk.log_loss(YES, ONE.double().sigmoid())),
        ("average_precision", ONE, YES[:, 0], None, sk.average_precision_score(YES, ONE)),
        ("f1_micro", SEVERAL, LABELS, "binary_cross_entropy_with_logits",
         sk.f1_score(LABELS, SEVERAL > 0, average="micro")),
        ("roc_auc", SEVERAL, LABELS, "binary_cross_entropy_with_logits",
         sk.roc_auc_score(LABELS, SEVERAL)),
        ("r2", NUMBERS, TRUE, "mse_loss", sk.r2_score(TRUE, NUMBERS)),
        ("neg_root_mean_squared_error", NUMBERS, TRUE[:, 0], "mse_loss",
         -sk.root_mean_squared_error(TRUE, NUMBERS)),
        ("neg_mean_absolute_error", SEVERAL, LOGITS.repeat(1, 2)[:, :4], "l1_loss",
         -sk.mean_absolute_error(LOGITS.repeat(1, 2)[:, :4], SEVERAL)),
        ("rmse", NUMBERS, TRUE[:, 0], "mse_loss", sk.root_mean_squared_error(TRUE, NUMBERS)),
        ("mae", NUMBERS, TRUE, "l1_loss", sk.mean_absolute_error(TRUE, NUMBERS)),
        ("mse", NUMBERS, TRUE, "mse_loss", sk.mean_squared_error(TRUE, NUMBERS)),
    ],
)  # fmt: skip
def test_a_scorer_gives_what_scikit_learn_gives(
    name: str, output: Tensor, target: Tensor, loss: str | None, expected: float
) -> None:
    answers = fit_answers(output, target, loss)
    assert answers is not None
    assert scorer(name, answers)(output, target) == pytest.approx(expected, abs=1e-6)


def test_targets_that_are_ignored_do_not_count() -> None:
    target = torch.where(torch.arange(40) < 10, -100, CLASSES)
    answers = fit_answers(LOGITS, target, "cross_entropy", ignored=-100)
    assert answers is not None
    expected = sk.accuracy_score(CLASSES[10:], LOGITS[10:].argmax(1))
    right, made = answers.count_correct(LOGITS, target)
    assert scorer("accuracy", answers)(LOGITS, target) == pytest.approx(expected)
    assert float(right / made) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("output", "target", "loss", "expected"),
    [
        (ONE, YES, "binary_cross_entropy_with_logits", ((ONE > 0) == YES.bool()).float().mean()),
        (ONE.sigmoid(), YES, "binary_cross_entropy", ((ONE > 0) == YES.bool()).float().mean()),
        (SEVERAL, LABELS, None, ((SEVERAL > 0) == LABELS.bool()).float().mean()),
    ],
)
def test_accuracy_of_a_yes_or_no_is_the_share_of_right_labels(
    output: Tensor, target: Tensor, loss: str | None, expected: Tensor
) -> None:
    answers = fit_answers(output, target, loss)
    assert answers is not None
    right, made = answers.count_correct(output, target)
    assert float(right / made) == pytest.approx(float(expected))


@pytest.mark.parametrize(("last", "bound"), [(nn.Identity(), 0.0), (nn.Sigmoid(), 0.5)])
def test_small_logits_of_a_loss_of_ones_own_are_no_probabilities(
    last: nn.Module, bound: float
) -> None:
    layer = nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight.mul_(0)
        layer.bias.fill_(0.1)
    answers = fit_answers(last(layer(drawn(9, 40, 4))).reshape(-1, 1), YES)
    assert answers is not None
    assert answers.decided(torch.tensor([bound - 0.1, bound + 0.1])).tolist() == [False, True]


def test_distances_are_no_answers() -> None:
    assert fit_answers(ONE, 2 * YES - 1, "hinge_embedding_loss") is None


def test_a_function_that_is_registered_goes_by_its_path_too(tmp_path: Path) -> None:
    (tmp_path / "costs.py").write_text(
        "import lrexp\n@lrexp.register_metric('cost', direction='max')\n"
        "def cost(output, target): return 2.0\ndef other(output, target): return 1.0\n"
    )
    given = config(tmp_path, loss="cross_entropy", model="linear", metrics=["costs:cost"])
    given |= {"compare": {"metric": "costs:cost"}, "data": "digits"}
    (tmp_path / "c.yaml").write_text(json.dumps(given))
    try:
        run = lrexp.compare(tmp_path / "c.yaml", out=tmp_path / "run", draw=None)
    finally:
        METRICS.pop("val_cost", None)
    assert run.summary["direction"] == "max"
    assert {entry["mean"] for entry in run.summary["ranking"]} == {2.0}


X, Y = drawn(7, 60, 4), torch.arange(60) % 3
X_VAL, Y_VAL = drawn(8, 31, 4), (torch.arange(31) // 2) % 3


def euros(output: Tensor, target: Tensor) -> Tensor:
    """Return a cost, of a class by its number."""
    assert len(output) == len(target) == 31  # the whole split
    return 10.0 * (output.argmax(1) - target).abs().float().mean()


def net() -> nn.Module:
    return nn.Linear(4, 3)


def config(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "device": "cpu",
        "data": {"batch_size": 60},
        "optimizer": {"name": "SGD", "lr": 0.5},
        "train": {"duration": "3st", "eval_every": "1st"},
        "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.1}}},
    } | changes


def compared(tmp_path: Path, engine: str = "sequential", **given: Any) -> lrexp.Run:
    settings = {name: given.pop(name) for name in ("compare", "schedule", "train") if name in given}
    objects = {"model": net, "data": ((X, Y), (X_VAL, Y_VAL)), "loss": functional.cross_entropy}
    return lrexp.compare(
        config(tmp_path, **settings), engine=engine, out=tmp_path / "run", draw=None,
        **{**objects, **given},
    )  # fmt: skip


def by_hand(lr: float, initial: nn.Module, steps: int) -> Tensor:
    """Return the outputs on the validation split after full-batch SGD."""
    optimizer = torch.optim.SGD(initial.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(initial(X), Y).backward()
        optimizer.step()
    return initial(X_VAL).detach()


@pytest.mark.parametrize("engine", ENGINES)
def test_columns_are_scikit_learns_numbers_at_the_same_step(tmp_path: Path, engine: str) -> None:
    start = net()
    names = ["accuracy", "f1_macro", "roc_auc_ovr", euros]
    run = compared(tmp_path, engine, model=start, metrics=names)
    for trial, lr in zip(run.trials, (0.5, 0.1), strict=True):
        for step in range(4):
            again = net()
            again.load_state_dict(start.state_dict())
            output = by_hand(lr, again, step)
            found = {name: column[step] for name, column in trial.evals.items()}
            shares = output.double().softmax(1).numpy()
            assert found["val_accuracy"] == pytest.approx(
                sk.accuracy_score(Y_VAL, output.argmax(1))
            )
            f1 = sk.f1_score(Y_VAL, output.argmax(1), average="macro")
            assert found["val_f1_macro"] == pytest.approx(f1, abs=1e-6)
            auc = sk.roc_auc_score(Y_VAL, shares, multi_class="ovr")
            assert found["val_roc_auc_ovr"] == pytest.approx(auc, abs=1e-6)
            assert found["val_euros"] == pytest.approx(float(euros(output, Y_VAL)), abs=1e-6)
    order = ["step", "epoch", "train_loss", "val_loss", "val_accuracy"]
    assert list(run.trials[0].evals)[:5] == order


def logged(model: nn.Module, batch: Any) -> dict[str, Any]:
    x, y = batch
    output = model(x)
    loss = functional.cross_entropy(output, y)
    return {"loss": loss, "largest": output.detach().max(), "size": float(len(x))}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_steps_numbers_are_means_over_samples(tmp_path: Path, engine: str) -> None:
    start = net()
    compare = {"metric": "largest", "direction": "max", "variants": {"a": {}, "b": {}}}
    data = {"batch_size": 20, "in_memory": False}
    run = lrexp.compare(
        config(tmp_path, data=data, compare=compare), model=start, step=logged, engine=engine,
        data=((X, Y), (X_VAL, Y_VAL)), out=tmp_path / "run", draw=None,
    )  # fmt: skip
    sizes = torch.tensor([20.0, 11.0])
    largest = torch.stack([start(x).max() for x in X_VAL.split(20)]).detach()
    evals = run.trials[0].evals
    assert evals["val_size"][0] == pytest.approx(float((sizes * sizes).sum() / 31))
    assert evals["val_largest"][0] == pytest.approx(float((largest * sizes).sum() / 31), rel=1e-6)
    assert run.summary is not None
    assert (run.summary["metric"], run.summary["direction"]) == ("val_largest", "max")


def test_what_ranks_is_the_last_or_the_best(tmp_path: Path) -> None:
    curves = {0.5: [9.0, 1.0, 8.0, 7.0], 0.1: [9.0, 5.0, 4.0, 3.0]}
    counts = {"calls": 0}

    def cost(output: Tensor, target: Tensor) -> float:
        counts["calls"] += 1
        lr = 0.5 if counts["calls"] <= 4 else 0.1
        return curves[lr][(counts["calls"] - 1) % 4]

    for select, order in (("final", ["b", "a"]), ("best", ["a", "b"])):
        counts["calls"] = 0
        compare = {"metric": "cost", "direction": "min", "select": select,
                   "variants": {"a": {}, "b": {"optimizer.lr": 0.1}}}  # fmt: skip
        run = compared(tmp_path / select, metrics=[cost], compare=compare)
        summary = run.summary
        assert summary is not None
        assert [row["variant"] for row in summary["ranking"]] == order
        assert summary["other_order"] == order[::-1]
        of_a = next(r for r in summary["ranking"] if r["variant"] == "a")["metrics"]["val_cost"]
        assert (of_a["final"]["mean"], of_a["best"]["mean"]) == (7.0, 1.0)
        assert (of_a["best_step"], of_a["best_epoch"]) == ([1.0], [1.0])
        result = run.trials[0].result or {}
        assert (result["final"]["val_cost"], result["best"]["val_cost"]) == (7.0, 1.0)
        with (run.path / "summary.csv").open(encoding="utf-8") as file:
            row = next(r for r in csv.DictReader(file) if r["variant"] == "a")
        found = [row[f"val_cost_{part}"] for part in ("final", "best", "best_step", "best_epoch")]
        assert found == ["7", "1", "1", "1"]
        text = shown(summary)
        other = "best" if select == "final" else "last"
        assert f"By the {other} evaluation of each seed the order would be" in text


def shown(summary: Any, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(ranking_table(summary))
    console.file.close()
    return console.export_text()


@pytest.mark.parametrize(
    ("compare", "metrics", "message"),
    [
        ({"metric": "euros"}, [euros], "compare.direction: is needed"),
        ({"metric": "euros", "direction": "up"}, [euros], "compare.direction: must be one of min"),
        ({"metric": "f1_macro", "direction": "min"}, [], "contradicts compare.metric"),
        ({"metric": "f1_makro"}, [], "compare.metric: .*Did you mean 'f1_macro'?"),
        ({}, ["f1"], r"metrics\[0\]: does not fit 3 classes: .*Use f1_macro."),
        ({}, ["os:getcwd"], r"metrics\[0\]: .*--trust"),
        ({}, [lambda output, target: 0.0], r"metrics\[0\]: must be a name"),
        ({}, ["f1_macro", "nosuch"], r"metrics\[1\]: is no metric"),
    ],
)
def test_what_cannot_be_measured_or_ranked_is_refused(
    tmp_path: Path, compare: dict[str, Any], metrics: list[Any], message: str
) -> None:
    compare = {"variants": {"a": {}}, **compare}
    with pytest.raises(lrexp.ConfigError, match=message):
        compared(tmp_path, compare=compare, metrics=metrics)
    assert not (tmp_path / "run").exists()


def test_a_metric_that_returns_no_number_fails_its_trial(tmp_path: Path) -> None:
    def pair(output: Tensor, target: Tensor) -> Any:
        return output, target

    with pytest.raises(lrexp.UserCodeError, match="the metric pair must return a number"):
        compared(tmp_path, metrics=[pair])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_training_that_diverges_has_no_number_and_no_exception(
    tmp_path: Path, engine: str
) -> None:
    compare = {"variants": {"a": {"optimizer.lr": 1e30}}, "metric": "f1_macro"}
    train = {"duration": "30st", "eval_every": "10st"}
    run = compared(tmp_path, engine, metrics=["roc_auc_ovr"], compare=compare, train=train)
    assert (run.trials[0].result or {})["outcome"] == "diverged"


def test_a_registered_metric_has_its_direction(tmp_path: Path) -> None:
    try:
        register_metric("euros", direction="min")(euros)
        run = compared(tmp_path, metrics=["euros"], compare={"metric": "val_euros"})
        assert run.summary is not None
        assert run.summary["direction"] == "min"
    finally:
        del METRICS["val_euros"]
    for name in ("accuracy", "two words", "a,b"):
        with pytest.raises(lrexp.ConfigError, match="name"):
            register_metric(name)


def test_a_schedule_follows_any_metric(tmp_path: Path) -> None:
    def still(output: Tensor, target: Tensor) -> float:
        return 1.0

    changes = {"a": {"schedule.monitor": "f1_macro", "optimizer.lr": 1e-9}, "b": {}}
    schedule = {"name": "plateau", "monitor": "val_still", "patience": 0, "mode": "max"}
    del changes["a"]["schedule.monitor"]
    run = compared(
        tmp_path, metrics=["f1_macro", still], schedule=schedule, compare={"variants": changes}
    )
    assert run.trials[1].steps["lr"].tolist() == [0.5, 0.5, 0.25]
    schedule = {"name": "ReduceLROnPlateau", "monitor": "val_f1_macro", "args": {"patience": 0}}
    run = compared(tmp_path / "2", schedule=schedule, compare={"variants": changes})
    f1 = run.trials[1].evals["val_f1_macro"][1:]
    expected, lr, best = [], 0.5, -math.inf
    for value in f1:  # mode: max, as the scorer has it
        expected.append(lr)
        if value > best + 1e-4 * abs(best) if math.isfinite(best) else True:
            best = value
        else:
            lr *= 0.1
    assert run.trials[1].steps["lr"].tolist() == pytest.approx(expected)


def test_guessing_stands_beside_the_metrics(tmp_path: Path) -> None:
    lr = {"optimizer.lr": 1e-9}
    compare = {"variants": {"still": lr}, "metric": "accuracy"}
    start = net()
    nn.init.zeros_(start.weight)
    start.bias.data = torch.tensor([0.0, 0.0, 1.0])  # always the last class
    run = compared(tmp_path, model=start, compare=compare, metrics=["f1_macro", euros])
    assert run.summary is not None
    found = run.summary["ranking"][0]["baseline"]
    counts = torch.bincount(Y_VAL) / 31
    assert found["val_accuracy"] == pytest.approx(float(counts.max()))
    assert found["val_loss"] == pytest.approx(float(-(counts * counts.log()).sum()), rel=1e-6)
    most = np.full(31, int(counts.argmax()))
    assert found["val_f1_macro"] == pytest.approx(sk.f1_score(Y_VAL, most, average="macro"))
    assert ["still", "val_accuracy"] in run.summary["not_better"]
    text = shown(run.summary)
    assert "guessing" in text
    assert "Not better than guessing the same each time in validation accuracy" in text


def test_guessing_a_number_is_the_mean(tmp_path: Path) -> None:
    data = ((X, X[:, :1]), (X_VAL, X_VAL[:, :1]))
    run = compared(
        tmp_path, model=lambda: nn.Linear(4, 1), data=data, loss=functional.mse_loss,
        metrics=["neg_root_mean_squared_error", "rmse", "r2"], compare={"metric": "rmse"},
    )  # fmt: skip
    assert run.summary is not None
    found = run.summary["ranking"][0]["baseline"]
    spread = float(X_VAL[:, 0].var(correction=0))
    assert found["val_loss"] == pytest.approx(spread, rel=1e-5)
    assert found["val_neg_root_mean_squared_error"] == pytest.approx(-math.sqrt(spread), rel=1e-5)
    assert found["val_rmse"] == pytest.approx(math.sqrt(spread), rel=1e-5)
    assert found["val_r2"] == pytest.approx(0.0, abs=1e-6)
    assert run.summary["direction"] == "min"
    assert "Validation RMSE, lower is better" in shown(run.summary)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("root_mean_squared_error", "rmse"),
        ("RMSE", "rmse"),
        ("mean_absolute_error", "mae"),
        ("mse_loss", "mse"),
        ("neg_root_mean_squared", "rmse"),
        ("f1_makro", "f1_macro"),
        ("val_los", "val_loss"),
    ],
)
def test_a_metric_that_is_none_is_told_which_was_meant(
    tmp_path: Path, name: str, meant: str
) -> None:
    with pytest.raises(lrexp.ConfigError, match=f"Did you mean '{meant}'"):
        compared(tmp_path, compare={"metric": name})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_resumed_run_has_the_same_numbers(tmp_path: Path, engine: str) -> None:
    def noisy(output: Tensor, target: Tensor) -> Tensor:
        return output.mean() + torch.rand(())

    train = {"duration": "8st", "eval_every": "2st"}
    given: dict[str, Any] = {"metrics": ["f1_macro", noisy], "train": train}
    whole = compared(tmp_path / "whole", engine, **given)
    calls = iter(range(100))
    with pytest.raises(lrexp.InterruptedRunError):
        compared(tmp_path, engine, stop=lambda: next(calls) >= 3, **given)
    lrexp.resume(
        tmp_path / "run", model=net, data=((X, Y), (X_VAL, Y_VAL)), metrics=[noisy],
        loss=functional.cross_entropy, draw=None,
    )  # fmt: skip
    for trial in whole.trials:
        own = tmp_path / "run" / trial.path.relative_to(whole.path)
        assert (own / "evals.csv").read_bytes() == (trial.path / "evals.csv").read_bytes()


def test_scikit_learn_is_imported_for_its_scorers_only() -> None:
    code = (
        "import sys, lrexp.workloads.metrics, lrexp.config.load, lrexp.report.ranking\n"
        "print([name for name in ('sklearn', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_a_registered_metric_that_a_config_names_travels() -> None:
    register_metric("travels")(euros)
    register_metric("stays")(euros)
    try:
        config = {
            "model": "linear",
            "data": "digits",
            "loss": "cross_entropy",
            "optimizer": {"name": "SGD", "lr": 0.1},
            "train": {"duration": "3st"},
            "metrics": ["travels", "f1_macro"],
        }
        spec = make_spec("compare", config)
        objects = with_registered(spec, spec.config()).objects
    finally:
        del METRICS["val_travels"], METRICS["val_stays"]
    assert (list(objects.registered), objects.sections) == (["val_travels"], frozenset())


@pytest.mark.long
def test_a_registered_metric_travels_to_worker_processes(tmp_path: Path) -> None:
    @lrexp.register_metric("travels", direction="min")
    def travels(output: Tensor, target: Tensor) -> Tensor:
        return (output.argmax(1) - target).abs().max()

    try:
        config = {
            "device": "cpu",
            "engine": "sequential",
            "model": {"name": "linear"},
            "data": {"name": "digits", "batch_size": 256},
            "loss": "cross_entropy",
            "optimizer": {"name": "SGD", "lr": 0.1},
            "train": {"duration": "3st"},
            "metrics": ["travels"],
            "compare": {"metric": "travels", "variants": {"a": {}, "b": {"optimizer.lr": 0.01}}},
        }
        runs = [
            lrexp.compare(config, out=tmp_path / str(jobs), jobs=jobs, draw=None) for jobs in (1, 2)
        ]
    finally:
        del METRICS["val_travels"]
    values = [{r["variant"]: r["values"] for r in run.summary["ranking"]} for run in runs]
    assert values[0] == values[1]


@pytest.mark.parametrize("budget", ["1x", "8x"])
def test_trainings_on_labels_of_no_use_say_that_guessing_is_as_good(
    budget: str, tmp_path: Path
) -> None:
    draws = torch.Generator().manual_seed(0)
    inputs, labels = (
        torch.randn(400, 20, generator=draws),
        torch.randint(0, 4, (400,), generator=draws),
    )
    config = {
        "device": "cpu",
        "model": {"name": "mlp", "args": {"hidden": [16]}},
        "loss": "cross_entropy",
        "optimizer": {"name": "Adam", "lr": 0.01},
        "train": {"duration": "40st"},
        "find_lr": {"steps": 40, "seeds": 1},
    }
    found = lrexp.find_lr(
        config, data=(inputs, labels), budget=budget, out=tmp_path / "r", draw=None
    )
    assert (found.suggested_lr is None) == (budget == "8x")  # after short ones it may be too soon
    assert "which guessing the same each time gets" in f"{found.note} {found.reason}"
