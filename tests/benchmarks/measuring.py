"""Contenders that take turns: time per trial-step without start-up, and medians of ratios."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from baselines import graphed_loop, tuned_loop, usual_loop
from nets import Workload, data
from ours import Watch, available, choice_for, train_chosen
from torch.utils.flop_counter import FlopCounterMode

MAX_STEPS = 20_000
SHORT = 0.1  # length of the training that is subtracted from the long one
STEADY_SECONDS = 1.0  # of a training whose records tell when it began: they come every 0.25 s
RUN_SECONDS = 120  # one by one: the run that `auto` chooses for


@dataclass(frozen=True)
class Training:
    """One call of a contender: the trial-steps done, how long they took, and how long the start."""

    trial_steps: int
    seconds: float
    start_up: float = 0.0


@dataclass(frozen=True)
class Contender:
    """What takes part in a cell of the table.

    Args:
        train: trains its copies for so many steps.
        copies: models that it trains in one call.
        short: a training of this share of the steps is subtracted; 0 for none.
        cores: that it may use.
        choose: makes the contender that really trains, anew in every round, with the reasons.
    """

    name: str
    train: Callable[[int], Training]
    copies: int
    short: float = SHORT
    cores: int = 1
    choose: Callable[[float], tuple[Contender, str]] | None = None


@dataclass(frozen=True)
class Sample:
    """One round of one contender."""

    rate: float  # trial-steps per second
    start_up: float  # seconds
    cores: int
    said: str = ""


def contenders(
    work: Workload, copies: int, device: torch.device, jobs: int, names: Sequence[str]
) -> dict[str, Contender]:
    """Return who takes part; `names` are those wanted, of engines and loops that exist.

    A loop by hand trains K models one after the other, K times what it does for one: it is
    measured with one.
    """
    loops = {"usual": usual_loop, "tuned": tuned_loop}
    if device.type == "cuda":
        loops["graphed"] = graphed_loop
    made = {
        name: Contender(name, partial(_by_hand, loop, work, device), 1)
        for name, loop in loops.items()
    }
    for name, engine in available(jobs).items():
        workers = min(jobs, copies) if name == "processes" else 1
        # one trial after the other has no common start that could be left out
        is_steady = name != "sequential"
        train = partial(_by_us, engine, work, copies, device, workers, is_steady)
        choose = partial(_chosen, work, copies, device) if name == "auto" else None
        made[name] = Contender(name, train, copies, 0.0 if is_steady else SHORT, workers, choose)
    return {name: made[name] for name in names if name in made}


def suitable_steps(these: dict[str, Contender], seconds: float) -> tuple[dict[str, int], float]:
    """Return steps with which each training takes about so many seconds without start-up.

    And the trial-steps per second of one model.

    Found by trying, which also warms up. For processes and auto, whose workers would start each
    time, it is reckoned from the others; several times as long, since no training is subtracted.
    """
    tried = {n: _tried(c, seconds) for n, c in these.items() if n not in ("processes", "auto")}
    steps = {name: tried[name][0] if name in tried else 0 for name in these}
    for name in these.keys() - tried.keys():
        trial_steps = max(seconds, STEADY_SECONDS) * max(
            8 * alone(tried), *(rate for _, rate in tried.values()), 0.0
        )
        steps[name] = max(2, min(MAX_STEPS, math.ceil(trial_steps / these[name].copies)))
    return steps, alone(tried)


def alone(tried: Mapping[str, tuple[int, float]]) -> float:
    """Return the trial-steps per second of one model, from what was tried."""
    return max((tried[n][1] for n in ("usual", "tuned", "sequential") if n in tried), default=100.0)


def _tried(contender: Contender, seconds: float) -> tuple[int, float]:
    """Return the steps, and the trial-steps per second."""
    short = contender.train(1).seconds if contender.short else 0.0
    seconds = seconds if contender.short else max(seconds, STEADY_SECONDS)
    steps = 2
    while True:
        taken = max(1e-9, contender.train(steps).seconds - short)
        if taken >= seconds or steps >= MAX_STEPS:
            return steps, contender.copies * (steps - 1) / taken
        steps = min(MAX_STEPS, math.ceil(steps * min(10, max(1.5, 1.3 * seconds / taken))))


def sample(contender: Contender, steps: int, alone_rate: float) -> Sample:
    """Return the rate without start-up: a long training minus a short one."""
    begun, said = time.perf_counter(), ""
    if contender.choose is not None:
        contender, said = contender.choose(alone_rate)
    choosing = time.perf_counter() - begun
    short = Training(0, 0.0)
    if contender.short:
        short = contender.train(max(1, int(steps * contender.short)))
    long = contender.train(steps)
    per_step = max(1e-9, long.seconds - short.seconds) / (long.trial_steps - short.trial_steps)
    start_up = choosing + long.start_up + (long.seconds - per_step * long.trial_steps)
    return Sample(1 / per_step, start_up, contender.cores, said)


def take_turns(
    these: dict[str, Contender], steps: dict[str, int], rounds: int, alone_rate: float
) -> dict[str, list[Sample]]:
    """Return the samples of every contender, every second round in the opposite order."""
    samples: dict[str, list[Sample]] = {name: [] for name in these}
    for i in range(rounds):
        for name in list(these)[:: 1 if i % 2 == 0 else -1]:
            samples[name].append(sample(these[name], steps[name], alone_rate))
    return samples


def spread(values: Sequence[float], digits: str = ".2f") -> str:
    """Return the median with the smallest and the largest.

    Example:
        >>> spread([3.0, 1.0, 2.0])
        '2.00 (1.00 to 3.00)'
    """
    middle = statistics.median(values)
    return f"{middle:{digits}} ({min(values):{digits}} to {max(values):{digits}})"


def ratios(ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[float]:
    """Return how many times as fast ours is, round by round."""
    return [a.rate / b.rate for a, b in zip(ours, theirs, strict=True)]


def flops_per_step(work: Workload) -> int:
    """Return the floating-point operations of products and convolutions in one step of one copy.

    Counted on a CPU, where recurrent layers fall apart into products.
    """
    inputs, targets = (tensor[: work.batch_size] for tensor in data(work.name))
    model = work.make_model()
    with FlopCounterMode(display=False) as counter:
        work.loss(model(inputs), targets).backward()
    return counter.get_total_flops()


def matmul_peak(device: torch.device, size: int = 1024) -> float:
    """Return FLOP/s of a large product of float32 matrices, the best of some."""
    a, b = torch.randn(2, size, size, device=device)
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        product = a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    assert product.shape == (size, size)
    return 2 * size**3 / min(times)


def _by_hand(
    loop: Callable[[Workload, int, torch.device], list[float]],
    work: Workload,
    device: torch.device,
    steps: int,
) -> Training:
    begun = time.perf_counter()
    losses = loop(work, steps, device)
    seconds = time.perf_counter() - begun
    if len(losses) != steps or not all(map(math.isfinite, losses)):
        raise RuntimeError(f"{work.name}: the loop by hand did not do its {steps} steps")
    return Training(steps, seconds)


def _by_us(
    engine: Callable[[Workload, int, int, torch.device], Watch],
    work: Workload,
    copies: int,
    device: torch.device,
    workers: int,
    is_steady: bool,
    steps: int,
) -> Training:
    begun = time.perf_counter()
    watch = engine(work, copies, steps, device)
    done = [len(losses) for losses in watch.losses.values()]
    if done != [steps] * copies:  # a trial that was stopped would be a result from less work
        raise RuntimeError(f"{work.name}: {copies} copies had to do {steps} steps, and did {done}")
    start_up = watch.begun - begun
    if is_steady:
        seconds, trial_steps = watch.steady(workers)
        return Training(trial_steps, seconds, watch.ended - begun - seconds)
    return Training(copies * steps, watch.ended - watch.begun, start_up)


def _chosen(
    work: Workload, copies: int, device: torch.device, alone_rate: float
) -> tuple[Contender, str]:
    """Return a contender that trains as lrexp chooses for a run of `RUN_SECONDS`, and the choice."""
    steps = max(10, math.ceil(RUN_SECONDS * alone_rate / copies))
    choice = choice_for(work, copies, steps, device)
    is_steady = choice.jobs > 1 or choice.groups[0].engine == "vectorized"
    train = partial(
        _by_us, partial(train_chosen, choice), work, copies, device, choice.jobs, is_steady
    )
    engines = ", ".join(sorted({group.engine for group in choice.groups}))
    said = f"{engines} in {choice.jobs} process(es), {len(choice.groups)} group(s)"
    return Contender("auto", train, copies, 0.0 if is_steady else SHORT, choice.jobs), said
