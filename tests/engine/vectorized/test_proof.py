"""Which models of every awkward kind are stacked: what copies would share shows in the first steps."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from lrexp.analysis.stopping import DivergenceStop
from lrexp.engine.choice import choose
from lrexp.engine.sequential import run_sequentially
from lrexp.engine.task import Task
from lrexp.engine.vectorized.copies import NotStackable
from lrexp.engine.vectorized.proof import facts_of, first_losses
from lrexp.errors import ConfigError
from lrexp.records import Steps, TrialId
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.losses import copy_loss
from lrexp.workloads.objectives import of_pairs
from lrexp.workloads.optimizers import make_optimizer
from lrexp.workloads.tensors import ResidentBatches

CPU = torch.device("cpu")
OTHERS = "not those of a trial on its own"


def make_task(
    make: Callable[[], nn.Module], loss: Any = functional.mse_loss, seed: int = 0, **changes: Any
) -> Task:
    """A task whose seed makes its model."""
    torch.manual_seed(seed)
    model = make()
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(64, 6, generator=generator), torch.randn(64, 1, generator=generator)
    data = data_from_objects(((x[:48], y[:48]), (x[48:], y[48:])), batch_size=16)
    data = data.to(CPU, torch.float32)

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        copied = copy.deepcopy(model)
        return copied, make_optimizer(torch.optim.SGD, copied, lr=0.01, args={"momentum": 0.9})

    task = Task(
        trial=TrialId("a", seed),
        build=build,
        objective=of_pairs(loss),
        train=data.train,
        val=data.val,
        schedule=Schedule(lr=lambda step: 0.01 / (1 + step)),
        base_lr=0.01,
        total_steps=4,
        eval_every=2,
        stop=DivergenceStop(),
        device=CPU,
    )
    return replace(task, **changes)


def refusal(make: Callable[[], nn.Module], seeds: Sequence[int] = (0,), **options: Any) -> str:
    """Return why two trials of each seed are not trained as a stack; nothing where they are."""
    first = make_task(make, seed=seeds[0], **options)
    data = {"train": first.train, "val": options.get("val", first.val)}
    tasks = [make_task(make, seed=seed, **{**options, **data}) for seed in seeds]
    tasks += [replace(task, trial=TrialId("b", task.trial.seed)) for task in tasks]
    try:
        groups = choose(tasks, "vectorized").groups
    except ConfigError as error:
        return str(error)
    assert sum(len(group.trials) for group in groups) == len(tasks)
    return ""


class Base(nn.Module):
    """A linear layer behind something else."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x * (1 + self.before(x)))
        return out

    def before(self, x: Tensor) -> Any:
        return 0.0


class Counting(Base):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.in_place = in_place

    def before(self, x: Tensor) -> Any:
        if self.in_place:
            self.count.add_(1)
        else:
            self.count = self.count + 1
        return self.count


class Attribute(Base):
    """Takes what `value(self, x)` is in every forward."""

    def __init__(self, value: Callable[[Any, Tensor], Any], **attributes: Any) -> None:
        super().__init__()
        self.value = value
        vars(self).update(attributes)

    def before(self, x: Tensor) -> Any:
        return self.value(self, x)


class OnTheClass(Base):
    calls = 0

    def before(self, x: Tensor) -> Any:
        OnTheClass.calls += 1
        return OnTheClass.calls


GLOBAL_CALLS = [0]


class InAGlobal(Base):
    def before(self, x: Tensor) -> Any:
        GLOBAL_CALLS[0] += 1
        return GLOBAL_CALLS[0]


def in_a_closure() -> nn.Module:
    calls = 0

    class Closure(Base):
        def before(self, x: Tensor) -> Any:
            nonlocal calls
            calls += 1
            return calls

    return Closure()


class Box:
    def __init__(self) -> None:
        self.opened = 0


def after(
    change: Callable[[Any], Any], value: Callable[[Any], Any]
) -> Callable[[Any, Tensor], Any]:
    def changed(self: Any, x: Tensor) -> Any:
        change(self)
        return value(self)

    return changed


def counted(self: Any, x: Tensor) -> Any:
    self.calls += 1
    return self.calls


def annealed(self: Any, x: Tensor) -> Any:
    self.calls += 1
    return self.calls / 1000


def of_the_step_before(self: Any, x: Tensor) -> Any:
    before, self.seen = self.seen, x.detach().mean()
    return before


def cache_once(self: Any, x: Tensor) -> Any:
    if self.mask is None:
        self.mask = torch.ones_like(x)
        self.cache["mask"] = self.mask
    return self.mask


def in_evaluation(self: Any, x: Tensor) -> Any:
    self.evaluations += not self.training
    return self.evaluations


def noise_in_evaluation(self: Any, x: Tensor) -> Any:
    return 0.0 if self.training else random.random()


def renormalised(self: Any, x: Tensor) -> Any:
    self.layer.weight.data = torch.renorm(self.layer.weight.data, 2, 0, 0.1)
    return 0.0


def lazily_registered(self: Any, x: Tensor) -> Any:
    if "table" not in self._buffers:
        self.register_buffer("table", torch.ones(6))
    return self.table


def another_parameter(self: Any, x: Tensor) -> Any:
    self.table = nn.Parameter(x[0].detach())
    return 0.0


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.call = inner, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.inner, x)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 1))
    model[2].weight = model[0].weight
    return model


def partly_frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    return model


def hooked(register: Callable[[nn.Linear], Any]) -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 1))
    register(model[1])
    return model


CLEAN: dict[str, Callable[[], nn.Module]] = {
    "MLP": lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True), nn.Linear(4, 1)),
    "a cache": lambda: Attribute(cache_once, mask=None, cache={}),
    "tied": tied,
    "partly frozen": partly_frozen,
    "a counter that nothing depends on": lambda: Attribute(after(lambda m: setattr(m, "calls", m.calls + 1), lambda m: 0.0), calls=0),
    "a hook": lambda: hooked(lambda layer: layer.register_forward_hook(lambda m, x, y: y * 2)),
    "a counting buffer": lambda: Counting(in_place=True),
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_clean_models_are_stacked(name: str) -> None:
    assert refusal(CLEAN[name], seeds=(0, 1)) == ""


@pytest.mark.parametrize(
    ("make", "buffers"),
    [
        (CLEAN["batch norm"], {"model.1.running_mean", "model.1.running_var", "model.1.num_batches_tracked"}),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4).eval(), nn.Linear(4, 1)), set()),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 1)), set()),
        (lambda: Counting(in_place=True), {"model.count"}),
        (lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 1))), {"model.0.parametrizations.weight.0._u", "model.0.parametrizations.weight.0._v"}),
        (lambda: Attribute(cache_once, mask=None, cache={}), set()),
    ],
)  # fmt: skip
def test_buffers_changed_in_place_are_known(make: Any, buffers: set[str]) -> None:
    assert facts_of(make_task(make)).mutated == buffers


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Counting(in_place=False), "its forward replaces `count` by another tensor"),
        (lambda: Attribute(lazily_registered), "its forward replaces `table` by another tensor"),
        (lambda: Attribute(another_parameter), "its forward replaces `table` by another tensor"),
    ],
)
def test_tensors_that_are_replaced_are_a_reason(make: Any, why: str) -> None:
    with pytest.raises(NotStackable, match=why):
        facts_of(make_task(make))


KEPT: dict[str, Callable[[], nn.Module]] = {
    "a number": lambda: Attribute(counted, calls=0),
    "a slow number": lambda: Attribute(annealed, calls=0),
    "what was before": lambda: Attribute(of_the_step_before, seen=0.0),
    "a tensor": lambda: Attribute(lambda m, x: m.seen.add_(1), seen=torch.zeros(())),
    "a list": lambda: Attribute(after(lambda m: m.seen.append(1), lambda m: len(m.seen)), seen=[]),
    "a deque": lambda: Attribute(after(lambda m: m.seen.append(m.seen[-1] + 1), lambda m: m.seen[0]), seen=deque([0], maxlen=1)),
    "a dict": lambda: Attribute(after(lambda m: m.seen["a"].append(1), lambda m: len(m.seen["a"])), seen={"a": []}),
    "a set": lambda: Attribute(after(lambda m: m.seen.add(len(m.seen)), lambda m: len(m.seen)), seen=set()),
    "an object": lambda: Attribute(after(lambda m: setattr(m.box, "opened", m.box.opened + 1), lambda m: m.box.opened), box=Box()),
    "an array": lambda: Attribute(after(lambda m: m.seen.__iadd__(1), lambda m: float(m.seen[0])), seen=np.zeros(2)),
    "a generator of Python": lambda: Attribute(lambda m, x: m.own.random(), own=random.Random(0)),
    "a generator of NumPy": lambda: Attribute(lambda m, x: m.own.random(), own=np.random.default_rng(0)),
    "a generator of torch": lambda: Attribute(lambda m, x: torch.rand((), generator=m.own), own=torch.Generator()),
    "a class": OnTheClass,
    "a global": InAGlobal,
    "a closure": in_a_closure,
    "a module inside": lambda: nn.Sequential(nn.Unflatten(1, (6,)), Attribute(counted, calls=0)),
    "evaluations": lambda: Attribute(in_evaluation, evaluations=0),
    "noise of Python": lambda: Attribute(lambda m, x: random.random()),
    "noise of NumPy": lambda: Attribute(lambda m, x: float(np.random.rand())),  # noqa: NPY002
    "noise of Python in evaluations": lambda: Attribute(noise_in_evaluation),
    "its weights": lambda: Attribute(renormalised),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_models_that_copies_cannot_share_are_refused(name: str) -> None:
    val = make_task(Base).val
    rows = torch.arange(val.num_samples).repeat(600)
    longer = ResidentBatches(val.gather(rows), val.batch_size)
    assert len(list(longer.in_order())) > 1  # each evaluation begins with the same noise
    why = refusal(KEPT[name], val=longer)
    assert OTHERS in why or "vmap cannot run it" in why


def test_a_hook_on_a_parameter_shows_in_the_second_step() -> None:
    tasks = [replace(make_task(Base), trial=TrialId(name, 0)) for name in "ab"]

    def hooked_build(build: Any) -> Any:
        model, optimizer = build()
        model.layer.weight.register_hook(lambda grad: grad * 0)
        return model, optimizer

    data = {"train": tasks[0].train, "val": None}
    tasks = [replace(task, build=partial(hooked_build, task.build), **data) for task in tasks]
    with pytest.raises(ConfigError, match=OTHERS):
        choose(tasks, "vectorized")


def plus(n: float) -> Callable[[float], float]:
    return lambda x: x + n


def in_a_buffer() -> nn.Module:
    model = Attribute(lambda m, x: m.c)
    model.register_buffer("c", torch.rand(6))
    return model


SHUFFLED: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "a permutation": (lambda: Attribute(lambda m, x: x[:, m.order], order=torch.randperm(6)), True),
    "a number": (lambda: Attribute(lambda m, x: m.size, size=torch.rand(()).item()), True),
    "a function": (lambda: Attribute(lambda m, x: m.f(1), f=plus(torch.rand(()).item())), True),
    "an array": (lambda: Attribute(lambda m, x: float(m.c[0]), c=torch.rand(3).numpy()), True),
    "a buffer": (in_a_buffer, False),
    "the same number": (lambda: Attribute(lambda m, x: m.size, size=0.5), False),
}


@pytest.mark.parametrize("name", SHUFFLED)
def test_constants_that_differ_between_seeds(name: str) -> None:
    make, is_refused = SHUFFLED[name]
    assert (OTHERS in refusal(make, seeds=(0, 1))) == is_refused
    assert refusal(make, seeds=(1,)) == ""


class Noise(nn.Module):
    def __init__(self, always: bool) -> None:
        super().__init__()
        self.layer, self.always = nn.Linear(6, 1), always

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + torch.randn_like(x) if self.training or self.always else x)


class AlwaysDropping(Base):
    def before(self, x: Tensor) -> Any:
        return functional.dropout(x, 0.5)


@pytest.mark.parametrize(
    ("model", "dropouts", "torch_random", "eval_random"),
    [
        (lambda: nn.Sequential(nn.Dropout(0.1), nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, 1)), [("dropout", (16, 6), 0.1), ("dropout", (16, 4), 0.5)], False, False),
        (lambda: nn.Sequential(nn.Unflatten(1, (3, 2, 1)), nn.Dropout2d(0.2), nn.Flatten(), nn.Linear(6, 1)), [("dropout2d", (16, 3, 1, 1), 0.2)], False, False),
        (lambda: nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Dropout1d(0.2), nn.Flatten(), nn.Linear(6, 1)), [("dropout1d", (16, 3, 1), 0.2)], False, False),
        (lambda: nn.Sequential(nn.Unflatten(1, (3, 2, 1, 1)), nn.Dropout3d(0.2), nn.Flatten(), nn.Linear(6, 1)), [("dropout3d", (16, 3, 1, 1, 1), 0.2)], False, False),
        (lambda: nn.Sequential(nn.Dropout(0.0), nn.Linear(6, 1)), [], False, False),
        (lambda: Wrapped(nn.MultiheadAttention(6, 2, 0.1, batch_first=True), lambda m, x: m(*3 * [x[:, None]])[0].mean(2)), [("dropout", (32, 1, 1), 0.1)], False, False),
        (lambda: Wrapped(nn.TransformerEncoderLayer(6, 2, 8, 0.1, batch_first=True), lambda m, x: m(x[:, None]).mean(2)), [("dropout", (16, 2, 1, 1), 0.1), ("dropout", (16, 1, 6), 0.1), ("dropout", (16, 1, 8), 0.1), ("dropout", (16, 1, 6), 0.1)], False, False),
        (lambda: Wrapped(nn.LSTM(6, 1, 2, dropout=0.5, batch_first=True), lambda m, x: m(x[:, None])[0][:, 0]), [], True, False),
        (lambda: Noise(always=False), [], True, False),
        (lambda: Noise(always=True), [], True, True),
        (AlwaysDropping, [("dropout", (16, 6), 0.5)], False, True),
    ],
)  # fmt: skip
def test_random_numbers_of_torch(
    model: Any, dropouts: list[Any], torch_random: bool, eval_random: bool
) -> None:
    facts = facts_of(make_task(model))
    assert [(m.kind, m.shape, m.p) for m in facts.dropouts] == dropouts
    assert (facts.torch_random, facts.eval_random) == (torch_random, eval_random)


class Smoothed(nn.Module):
    """A loss that remembers."""

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.count = 0
        self.register_buffer("average", torch.ones(()))
        self.buffer = buffer

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        if self.buffer:
            self.average.mul_(0.9)
        else:
            self.count += 1
        return functional.mse_loss(output, target) * (self.average + self.count)


class Averaged:
    """A loss that scales itself by what it was before, in a plain attribute."""

    def __init__(self) -> None:
        self.average = 1.0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        loss = functional.mse_loss(output, target)
        self.average = 0.9 * self.average + 0.1 * target.mean().item()
        return loss / self.average


def counting_loss() -> Callable[[Tensor, Tensor], Tensor]:
    calls = 0

    def loss(output: Tensor, target: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return functional.mse_loss(output, target) * calls

    return loss


def wrapping(inner: Any) -> Any:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return inner(output, target)

    return loss


@pytest.mark.parametrize(
    ("loss", "is_refused"),
    [
        (Smoothed(buffer=False), True),
        (Smoothed(buffer=True), False),
        (counting_loss(), True),
        (wrapping(Smoothed(buffer=False)), True),
        (Averaged(), True),
        (nn.MSELoss(), False),
        (functional.mse_loss, False),
    ],
)
def test_losses_that_keep_something_are_found_and_not_changed(loss: Any, is_refused: bool) -> None:
    before = trained(make_task(Base, copy_loss(loss), eval_every=0))
    why = refusal(Base, loss=loss, eval_every=0)
    assert (why != "") == is_refused
    assert trained(make_task(Base, loss, eval_every=0)) == before


def trained(task: Task) -> list[float]:
    return [x for r in run_sequentially([task]) if isinstance(r, Steps) for x in r.loss]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_losses_compared_are_those_of_the_sequential_engine(accumulate: int) -> None:
    def make() -> nn.Module:
        layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)]
        return nn.Sequential(*layers)

    cycling = Schedule(lr=lambda s: 0.1 / (1 + s), momentum=lambda s: 0.9 - 0.2 * s)
    task = make_task(make, accumulate=accumulate, schedule=cycling, grad_clip=0.3)
    for changed in (task, replace(task, autocast=True), replace(task, total_steps=1)):
        assert first_losses(changed, {}) == trained(changed)[:3]
        assert len(facts_of(changed).dropouts) == 1  # of one micro-batch


def test_a_look_leaves_random_numbers_alone_and_gives_a_model_that_trains() -> None:
    task = make_task(lambda: Attribute(cache_once, mask=None, cache={}))
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[2]  # noqa: NPY002
    facts = facts_of(task)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (random.getstate(), np.random.get_state()[2]) == state[1:]  # noqa: NPY002
    assert facts.model.training
    assert facts.model.mask is not None


def test_exceptions_of_the_users_code_are_raised() -> None:
    def explode(self: Any, x: Tensor) -> None:
        raise ZeroDivisionError("boom")

    with pytest.raises(ZeroDivisionError, match="boom"):
        facts_of(make_task(lambda: Attribute(explode)))
