"""The loops that a user would write by hand, from the usual one to the best on a GPU.

Each trains one model and returns the losses of its updates. All have a constant LR and no rows to
write, which lrexp has: what they leave out is in their favour.
"""

from __future__ import annotations

import torch
from nets import Workload, data
from torch.utils.data import DataLoader, TensorDataset

WARM_UP = 3  # updates before a graph is captured; they are not counted


def usual_loop(work: Workload, steps: int, device: torch.device) -> list[float]:
    """A DataLoader, a read-back every step, the optimizer's default kernel."""
    dataset = TensorDataset(*data(work.name))
    loader = DataLoader(dataset, work.batch_size, shuffle=True, drop_last=True)
    model = work.make_model().to(device)
    optimizer = work.make_optimizer(model)
    losses: list[float] = []
    while True:
        for inputs, targets in loader:
            if len(losses) == steps:
                return losses
            optimizer.zero_grad()
            loss = work.loss(model(inputs.to(device)), targets.to(device))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())


def tuned_loop(work: Workload, steps: int, device: torch.device) -> list[float]:
    """Resident data by index, the fused optimizer, losses read back once at the end."""
    x, y = (tensor.to(device) for tensor in data(work.name))
    model = work.make_model().to(device)
    optimizer = work.make_optimizer(model, fused=True)
    size = work.batch_size
    losses: list[torch.Tensor] = []
    while len(losses) < steps:
        order = torch.randperm(len(x)).to(device)
        for i in range(min(work.batches, steps - len(losses))):
            rows = order[i * size : (i + 1) * size]
            loss = work.loss(model(x.index_select(0, rows)), y.index_select(0, rows))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())
    return torch.stack(losses).tolist()


def graphed_loop(work: Workload, steps: int, device: torch.device) -> list[float]:
    """The tuned loop as a CUDA graph: one small copy and one launch per step.

    The graph holds the choice of the batch, the update and the note of its loss. It is captured
    after a few updates on a side stream, as torch asks for; capturing itself runs nothing.
    """
    x, y = (tensor.to(device) for tensor in data(work.name))
    model = work.make_model().to(device)
    # Adam's step count must live on the device to be captured; SGD has none, and no such option
    capturable = {} if work.optimizer == "SGD" else {"capturable": True}
    optimizer = work.make_optimizer(model, fused=True, **capturable)
    size = work.batch_size
    rows = torch.arange(size, device=device)
    losses = torch.zeros(max(steps, WARM_UP), device=device)
    done = torch.zeros(1, dtype=torch.int64, device=device)

    def update() -> None:
        loss = work.loss(model(x.index_select(0, rows)), y.index_select(0, rows))
        loss.backward()
        optimizer.step()
        losses.index_copy_(0, done, loss.detach().view(1))
        done.add_(1)

    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            optimizer.zero_grad(set_to_none=True)
            update()
    torch.cuda.current_stream(device).wait_stream(side)
    # without gradients here, backward makes them in the graph's own memory and a replay writes
    # them anew instead of adding to the last ones
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update()
    done.zero_()
    for step in range(steps):
        batch = step % work.batches
        if batch == 0:
            order = torch.randperm(len(x)).to(device)
        rows.copy_(order[batch * size : (batch + 1) * size])
        graph.replay()
    return losses[:steps].tolist()
