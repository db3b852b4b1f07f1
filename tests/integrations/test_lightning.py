"""Lightning: the curve is that of LRFinder, the module is as it was, the callback sets the LR."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pl = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: workers, CPU, ...

import lrexp  # noqa: E402
from lrexp.integrations.lightning import LRFinder, find_lr  # noqa: E402

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
CPU = {"accelerator": "cpu"}
RAMP = {"min_lr": 1e-5, "max_lr": 10.0, "steps": 40}


class Net(pl.LightningModule):
    def __init__(self, optimizers: int = 1, by_hand: bool = False) -> None:
        super().__init__()
        self.lr, self.count, self.automatic_optimization = 0.5, optimizers, not by_hand
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

    def training_step(self, batch: Any, number: int) -> Any:
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        groups = [
            {"params": self.net[0].parameters()},
            {"params": self.net[2].parameters(), "lr": 2 * self.lr},
        ]
        if self.count > 1:
            return [torch.optim.SGD(group["params"], self.lr) for group in groups]
        optimizer = torch.optim.SGD(groups, self.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


@pytest.fixture(scope="module")
def loader() -> DataLoader:
    x = torch.randn(1280, 8, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=16)


@pytest.mark.parametrize("micro", [1, 2])
def test_the_curve_is_that_of_lr_finder(micro: int, loader: DataLoader) -> None:
    module = Net()
    before = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    clip = {"accumulate_grad_batches": micro, "gradient_clip_val": 1.0}
    found = find_lr(module, loader, trainer_kwargs=CPU | clip, seeds=1, **RAMP)
    assert torch.equal(before[1], torch.get_rng_state())
    (optimizer,), _ = module.configure_optimizers()
    finder = lrexp.LRFinder(module.net, optimizer, nn.MSELoss(), accumulate=micro, grad_clip=1.0)
    wanted = finder.run(list(loader), seeds=1, **RAMP)
    (curve,), (expected,) = found.curves, wanted.curves
    assert curve.lr == pytest.approx(expected.lr)
    assert curve.loss == pytest.approx(expected.loss, rel=1e-4)
    assert found.suggested_lr == pytest.approx(wanted.suggested_lr, rel=1e-3)
    assert all(torch.equal(before[0][name], v) for name, v in module.state_dict().items())
    assert module._trainer is None


def test_the_callback_trains_with_what_it_found(loader: DataLoader) -> None:
    module, finder = Net(), LRFinder(seeds=1, **RAMP)
    assert isinstance(finder, pl.Callback)
    used = []

    class Used(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            used.append([group["lr"] for group in optimizer.param_groups])

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=2, callbacks=[finder, Used()], **quiet, **CPU)
    trainer.fit(module, loader)
    lr = finder.result.suggested_lr
    assert module.lr == lr
    assert used[0] == pytest.approx([lr, 2 * lr])
    assert used[-1] == pytest.approx([lr / 2, lr])  # after the scheduler's step
    assert len(used) == 2 * len(loader)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Net(by_hand=True), "is optimized by hand"),
        (Net(optimizers=2), "has several optimizers"),
        (nn.Linear(1, 1), "must be a LightningModule"),
    ],
)
def test_what_it_cannot_is_told(module: Any, words: str, loader: DataLoader) -> None:
    if isinstance(module, nn.Linear):
        module.automatic_optimization = True
    with pytest.raises(lrexp.ConfigError, match=words):
        find_lr(module, loader, trainer_kwargs=CPU, seeds=1, **RAMP)
