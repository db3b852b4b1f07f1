"""The training loop, one trial after the other. Start reading here."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

import torch
from torch import Tensor, nn

from lrexp.engine.cuda_graphs.capture import Graphs, prepare_update
from lrexp.engine.rng import preserved_rng, preserved_settings, seed_everything
from lrexp.engine.state import MisfitError
from lrexp.engine.step import DataState
from lrexp.engine.stop import may_be_of_loader
from lrexp.engine.task import Task
from lrexp.engine.training import Training
from lrexp.records import Evaluation, Failed, Interrupted, Record, Started
from lrexp.workloads.batches import Batches, size_of
from lrexp.workloads.metrics import Gathered
from lrexp.workloads.optimizers import set_mode
from lrexp.workloads.seeds import derive_seed


def evaluate(model: nn.Module, batches: Batches, task: Task) -> dict[str, float]:
    """Return `val_loss` (mean over all that counts), for classes `val_accuracy`, and metrics.

    Sums stay on the device until the end; there is one read-back for the whole split. Models that
    draw random numbers while evaluated draw the same ones every time, and training goes on with
    its own.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), preserved_rng(task.device):
            seed_everything(derive_seed(task.trial.seed, "evaluation"))
            return _measures(model, batches, task)
    finally:
        for module, training in modes:
            module.training = training


def _measures(model: nn.Module, batches: Batches, task: Task) -> dict[str, float]:
    wide = torch.float32 if task.device.type == "mps" else torch.float64  # MPS has no float64
    loss_sum = torch.zeros((), dtype=wide, device=task.device)
    right = torch.zeros((), dtype=wide, device=task.device)
    counted = torch.zeros((), dtype=wide, device=task.device)
    predicted = torch.zeros((), dtype=wide, device=task.device)
    objective, gathered = task.eval_objective or task.objective, Gathered(task.metrics)
    for batch in batches.in_order():
        with torch.autocast(task.device.type, task.autocast_dtype, enabled=task.autocast):
            loss, count, output = objective.measure(model, batch)
        loss_sum += weighed(loss.to(wide), count)
        counted += count
        if task.count_correct is not None:
            hits, made = task.count_correct(output, objective.target(batch))
            right += hits
            predicted += made
        if task.metrics:
            gathered.add(task.metrics.kept(output), objective.target(batch), size_of(batch))
    values = {"val_loss": (loss_sum / counted).item()}
    if predicted:
        values["val_accuracy"] = (right / predicted).item()
    return values | measured(gathered, task)


def measured(gathered: Gathered, task: Task) -> dict[str, float]:
    """Return the metrics of a split; functions that draw random numbers draw the same each time."""
    if task.metrics.functions:
        seed_everything(derive_seed(task.trial.seed, "metrics"))
    return gathered.values()


def weighed(mean: Tensor, count: Tensor | int) -> Tensor:
    """Return a batch's loss as part of a sum; one where no target counts has no mean."""
    return torch.where(count > 0, mean * count, 0.0) if isinstance(count, Tensor) else mean * count


def run_sequentially(tasks: Iterable[Task], graphs: Graphs | None = None) -> Iterator[Record]:
    """Train the tasks one by one; one that raises is reported and the next one begins.

    Where a stop is requested, the tasks that have not begun by then are left out.

    Args:
        tasks: in order.
        graphs: how updates are captured; None is as a GPU does it.

    Raises:
        MisfitError: the state of a task is of something else; the task has not been started.
    """
    for task in tasks:
        if task.is_stop_requested:
            return
        if task.is_over:
            continue
        if task.state is None:
            yield Started(task.trial)
        yield from train_or_fail(task, graphs)


def train_or_fail(task: Task, graphs: Graphs | None = None) -> Iterator[Record]:
    """Train one task that was started; one with a state is started here, once that fits.

    If it raises, its last record says so. What it raises while a stop is requested is not its
    failure: the signal may have reached the processes that load its data, too.

    Raises:
        MisfitError: its state is of something else.
    """
    started = task.state is None
    try:
        with (
            preserved_rng(task.device),
            preserved_settings(),
            DataState(task).kept(),
            closing(train(task, graphs)) as records,
        ):
            for record in records:
                started = True
                yield record
    except (KeyboardInterrupt, GeneratorExit, MisfitError):
        raise
    except BaseException as error:  # user code may raise; the other trials still count
        if is_due_to_stop(task, error):
            yield Interrupted((task.trial,), f"{type(error).__name__} was raised while it stopped")
            return
        if not started:
            yield Started(task.trial)
        yield Failed(task.trial, error)


def is_due_to_stop(task: Task, error: BaseException) -> bool:
    """Return whether an exception was raised while a stop is requested, or right before.

    Processes that load data are killed by the very signal that requests the stop. Where there are
    none, nothing has to be waited for.
    """
    if task.pause is not None and task.has_loader_processes and may_be_of_loader(error):
        return task.pause.is_coming()
    return task.is_stop_requested


def train(task: Task, graphs: Graphs | None = None) -> Generator[Record, None, None]:
    """Train one task and yield its records; what was done before an exception is among them."""
    training = Training(task)
    losses = training.losses
    try:
        interrupted = yield from _train(task, training, graphs)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException:
        if losses.pending:
            yield losses.flush()
        if losses.stopped_at is None:  # else it was over before, and nobody had looked yet
            raise
        interrupted = False
    if not interrupted:
        yield losses.ended(training.seconds)


def _train(task: Task, training: Training, graphs: Graphs | None) -> Generator[Record, None, bool]:
    """Train, and return whether that was cut short on request."""
    losses, lr_source = training.losses, training.lr_source
    model, optimizer = task.build()
    if not model.training:  # parts that its author froze in evaluation mode stay frozen
        model.train()
    batches, update = prepare_update(task, model, optimizer, training.capturable, graphs)
    seed_everything(derive_seed(task.trial.seed, "training"))  # Python's and NumPy's, too
    begin = training.begin(model, optimizer, update)  # or go on from a checkpoint
    if task.state is not None:
        yield Started(task.trial)

    if task.eval_every and begin.step == 0:
        initial = _evaluation(task, model, optimizer, 0, {"train_loss": math.nan})
        losses.begin(initial.values.get("val_loss"))
        yield initial
    for step, (epoch, micro_batches) in zip(
        range(begin.step, task.total_steps),
        training.updates(batches, begin),
        strict=False,
    ):
        lr, loss = training.step(step, epoch, micro_batches)
        losses.add(epoch, lr, loss, training.effective)
        if lr_source.wants_loss:
            lr_source.observe(step, losses.read_back())

        done = step + 1
        evaluate_now = task.evaluates_after(done)
        read_now = evaluate_now or done == task.total_steps or losses.stopped_at is not None
        if not (task.asks_to_stop() or read_now or losses.due()):
            continue
        yield losses.flush()
        if losses.stopped_at is not None:
            break
        if evaluate_now:
            values = {"train_loss": losses.mean_since_last()}
            evaluation = _evaluation(task, model, optimizer, done, values)
            yield evaluation
            training.observe(step, evaluation.values)
        if task.is_pause_due(done) and (yield from training.checkpoint(done, micro_batches)):
            return True
    losses.end(training.final)
    return False


def _evaluation(
    task: Task,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    values: dict[str, float],
) -> Evaluation:
    if task.val is not None:
        set_mode(optimizer, "eval")  # of those that evaluate other weights than they train
        values = values | evaluate(model, task.val, task)
        set_mode(optimizer, "train")
    per_epoch = task.steps_per_epoch
    return Evaluation(task.trial, step, step / per_epoch if per_epoch else math.nan, values)
