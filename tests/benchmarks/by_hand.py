"""What a user would write instead of `lrexp compare configs/quickstart.yaml`, as one script.

    python tests/benchmarks/by_hand.py usual|tuned VARIANTS FOLDER

`usual` has a DataLoader, a read-back every step and the optimizer's default kernel; `tuned` has
resident data by index, the fused optimizer and losses read back once a variant.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import csv
import math
import sys
from collections.abc import Iterator
from pathlib import Path

EPOCHS, BATCH, MOMENTUM, WARM_UP = 10, 64, 0.9, 0.05


def learning_rates(variants: int) -> list[float]:
    """Return LRs in equal ratios from 0.01 to 0.2."""
    return [0.01 * 20 ** (i / max(1, variants - 1)) for i in range(variants)]


def main() -> None:
    import torch

    kind, variants, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    train, val = load()
    torch.manual_seed(0)
    initial = make_model()
    curves = {}
    for i, lr in enumerate(learning_rates(variants)):
        model = make_model()
        model.load_state_dict(initial.state_dict())
        torch.manual_seed(1)
        out = folder / f"lr-{i}"
        out.mkdir()
        steps, evals = fit(model, lr, train, val, kind)
        write(out / "steps.csv", ("step", "epoch", "lr", "loss"), steps)
        write(out / "evals.csv", ("step", "epoch", "val_loss", "val_accuracy"), evals)
        curves[f"lr {lr:.3g}"] = (steps, evals)
    ranking = sorted((evals[-1][2], name) for name, (_, evals) in curves.items())
    rows = [(rank, name, loss) for rank, (loss, name) in enumerate(ranking, 1)]
    write(folder / "summary.csv", ("rank", "variant", "val_loss"), rows)
    for row in rows:
        print(*row)
    draw(curves, folder)


def load():
    """Return (inputs, classes) for training and for validation, 80 % and 20 %."""
    import torch
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float32)
    y = torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held_out = len(x) // 5
    val, train = order[:held_out], order[held_out:]
    return (x[train], y[train]), (x[val], y[val])


def make_model():
    from torch import nn

    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def lr_factor(step: int, total: int) -> float:
    """Return the factor of a cosine after a linear warm-up."""
    warm_up = round(WARM_UP * total)
    if step < warm_up:
        return step / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (total - warm_up)))


def fit(model, lr: float, train, val, kind: str):
    """Return rows (step, epoch, lr, loss) and rows (step, epoch, loss, accuracy) of validation."""
    import torch
    from torch.nn import functional

    tuned = kind == "tuned"
    options = {"fused": True} if tuned else {}
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM, **options)
    total = EPOCHS * (len(train[0]) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, total))
    epochs, lrs, losses = [], [], []
    evals = [(0, 0, *evaluate(model, val))]
    for epoch in range(EPOCHS):
        for x, y in (resident if tuned else loaded)(*train):
            lrs.append(optimizer.param_groups[0]["lr"])
            loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            epochs.append(epoch)
            losses.append(loss.detach() if tuned else loss.item())
        evals.append((len(losses), epoch + 1, *evaluate(model, val)))
    if tuned:
        losses = torch.stack(losses).tolist()
    return list(zip(range(total), epochs, lrs, losses, strict=True)), evals


def loaded(x, y) -> Iterator:
    from torch.utils.data import DataLoader, TensorDataset

    return iter(DataLoader(TensorDataset(x, y), BATCH, shuffle=True, drop_last=True))


def resident(x, y) -> Iterator:
    import torch

    order = torch.randperm(len(x))
    for first in range(0, len(x) - BATCH + 1, BATCH):
        rows = order[first : first + BATCH]
        yield x.index_select(0, rows), y.index_select(0, rows)


def evaluate(model, val) -> tuple[float, float]:
    import torch
    from torch.nn import functional

    model.eval()
    with torch.no_grad():
        output = model(val[0])
    model.train()
    accuracy = (output.argmax(1) == val[1]).float().mean()
    return functional.cross_entropy(output, val[1]).item(), accuracy.item()


def write(path: Path, head, rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def draw(curves, folder: Path) -> None:
    """Draw losses (training raw and smoothed, validation) and learning rates, 1600 × 900 pixels."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12.8, 7.2), layout="constrained")
    for i, (name, (steps, evals)) in enumerate(curves.items()):
        color = f"C{i % 10}"
        losses = [row[3] for row in steps]
        left.plot(losses, color=color, alpha=0.25, lw=0.7)
        left.plot(smoothed(losses), color=color, label=name)
        right.plot([row[0] for row in evals], [row[2] for row in evals], color=color, marker="o")
    for axes, title in ((left, "training loss"), (right, "validation loss")):
        axes.set(yscale="log", xlabel="step", title=title)
    figure.legend(loc="outside right upper")
    figure.savefig(folder / "loss.png", dpi=125)
    figure, axes = plt.subplots(figsize=(12.8, 7.2), layout="constrained")
    for name, (steps, _) in curves.items():
        axes.plot([row[2] for row in steps], label=name)
    axes.set(xlabel="step", ylabel="learning rate")
    figure.legend(loc="outside right upper")
    figure.savefig(folder / "lr.png", dpi=125)


def smoothed(losses: list[float], keep: float = 0.95) -> list[float]:
    average, out = 0.0, []
    for i, loss in enumerate(losses):
        average = keep * average + (1 - keep) * loss
        out.append(average / (1 - keep ** (i + 1)))
    return out


if __name__ == "__main__":
    main()
