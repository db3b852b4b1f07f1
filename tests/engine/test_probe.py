"""What the probe says about small modules of every awkward kind."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from lrexp.analysis.stopping import DivergenceStop
from lrexp.engine.sequential import run_sequentially
from lrexp.engine.task import Task
from lrexp.engine.vectorized.probe import Facts, differing_constant, probe, why_not_stackable
from lrexp.records import Steps, TrialId
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.losses import over_tokens
from lrexp.workloads.optimizers import make_optimizer

CPU = torch.device("cpu")


def make_task(model: nn.Module, loss: Any = functional.mse_loss, **changes: Any) -> Task:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(64, 6, generator=generator), torch.randn(64, 1, generator=generator)
    data = data_from_objects(((x[:48], y[:48]), (x[48:], y[48:])), batch_size=16)
    data = data.to(CPU, torch.float32)

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        copied = copy.deepcopy(model)
        return copied, make_optimizer(torch.optim.SGD, copied, lr=0.01, args={"momentum": 0.9})

    task = Task(
        trial=TrialId("a", 0),
        build=build,
        loss=loss,
        train=data.train,
        val=data.val,
        schedule=Schedule(lr=lambda step: 0.01 / (1 + step)),
        base_lr=0.01,
        total_steps=2,
        eval_every=2,
        stop=DivergenceStop(),
        device=CPU,
    )
    return replace(task, **changes)


class Base(nn.Module):
    """A linear layer with something beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.before(x))

    def before(self, x: Tensor) -> Tensor:
        return x


class Counting(Base):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.in_place = in_place

    def before(self, x: Tensor) -> Tensor:
        if self.in_place:
            self.count.add_(1)
        else:
            self.count = self.count + 1
        return x


class Attribute(Base):
    """Does `change(self, x)` in every forward."""

    def __init__(self, change: Callable[[Any, Tensor], Any], **attributes: Any) -> None:
        super().__init__()
        self.change = change
        vars(self).update(attributes)

    def before(self, x: Tensor) -> Tensor:
        self.change(self, x)
        return x


class OnTheClass(Base):
    calls = 0

    def before(self, x: Tensor) -> Tensor:
        OnTheClass.calls += 1
        return x


GLOBAL_CALLS = [0]


class InAGlobal(Base):
    def forward(self, x: Tensor) -> Tensor:
        GLOBAL_CALLS[0] += 1
        return self.layer(x)


def in_a_closure() -> nn.Module:
    calls = 0

    class Closure(Base):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return self.layer(x)

    return Closure()


class Box:
    def __init__(self) -> None:
        self.opened = 0


def set_attribute(name: str, value: Callable[[Any, Tensor], Any]) -> Callable[[Any, Tensor], Any]:
    return lambda self, x: setattr(self, name, value(self, x))


def cache_once(self: Any, x: Tensor) -> None:
    if self.mask is None:
        self.mask = torch.ones_like(x)
        self.cache["mask"] = self.mask


def in_evaluation(self: Any, x: Tensor) -> None:
    self.evaluations += not self.training


def renormalised(self: Any, x: Tensor) -> None:
    self.layer.weight.data = torch.renorm(self.layer.weight.data, 2, 0, 0.1)


def clamped(self: Any, x: Tensor) -> None:
    with torch.no_grad():
        self.layer.weight.clamp_(-0.1, 0.1)


def lazily_registered(self: Any, x: Tensor) -> None:
    if "table" not in self._buffers:
        self.register_buffer("table", torch.ones(6))


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.call = inner, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.inner, x)


def with_list_of_modules() -> nn.Module:
    model = Base()
    vars(model)["steps"] = [model.layer, {"again": model.layer.weight}]
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 1))
    model[2].weight = model[0].weight
    return model


def partly_frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    return model


CLEAN: dict[str, Callable[[], nn.Module]] = {
    "MLP": lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True), nn.Linear(4, 1)),
    "GRU": lambda: Wrapped(nn.GRU(6, 1, batch_first=True), lambda m, x: m(x[:, None])[0][:, 0]),
    "cache": lambda: Attribute(cache_once, mask=None, cache={}),
    "lists of its own modules": with_list_of_modules,
    "parametrised": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 1))),
    "orthogonal": lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(6, 1))),
    "tied": tied,
    "partly frozen": partly_frozen,
}


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_said_about_clean_models(name: str) -> None:
    facts = probe(make_task(CLEAN[name]()))
    assert why_not_stackable(facts) is None
    assert facts.mutated_buffers == frozenset()
    assert not any([facts.torch_random, facts.eval_random, facts.dropouts])


@pytest.mark.parametrize(
    ("model", "buffers"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), {"1.running_mean", "1.running_var", "1.num_batches_tracked"}),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4).eval(), nn.Linear(4, 1)), set()),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 1)), set()),
        (lambda: Counting(in_place=True), {"count"}),
        (lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 1))), {"0.parametrizations.weight.0._u", "0.parametrizations.weight.0._v"}),
    ],
)  # fmt: skip
def test_buffers_changed_in_place_can_be_stacked(model: Any, buffers: set[str]) -> None:
    facts = probe(make_task(model()))
    assert facts.mutated_buffers == buffers
    assert why_not_stackable(facts) is None


OPENED = set_attribute("box", lambda self, x: setattr(self.box, "opened", self.box.opened + 1) or self.box)  # fmt: skip
CHANGES = "the model changes its attribute `{}` in every step, which stacked copies would share"


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: Counting(in_place=False), "its forward replaces `count` by another tensor"),
        (lambda: Attribute(lazily_registered), "its forward replaces `table` by another tensor"),
        (lambda: Attribute(set_attribute("table", lambda self, x: nn.Parameter(x[0]))), "its forward replaces `table` by another tensor"),
        (lambda: Attribute(renormalised), "its forward changes the parameter `layer.weight`"),
        (lambda: Attribute(clamped), "its forward changes the parameter `layer.weight`"),
        (lambda: Attribute(set_attribute("calls", lambda self, x: self.calls + 1), calls=0), CHANGES.format("calls")),
        (lambda: Attribute(set_attribute("seen", lambda self, x: x), seen=None), CHANGES.format("seen")),
        (lambda: Attribute(lambda self, x: self.seen.add_(1), seen=torch.zeros(2)), CHANGES.format("seen")),
        (lambda: Attribute(lambda self, x: self.seen.append(len(x)), seen=[]), CHANGES.format("seen")),
        (lambda: Attribute(lambda self, x: self.seen.append(x), seen=deque(maxlen=1)), CHANGES.format("seen")),
        (lambda: Attribute(lambda self, x: self.seen["a"].append(1), seen={"a": []}), CHANGES.format("seen")),
        (lambda: Attribute(lambda self, x: self.seen.add(len(self.seen)), seen=set()), CHANGES.format("seen")),
        (lambda: Attribute(OPENED, box=Box()), CHANGES.format("box")),
        (lambda: Attribute(lambda self, x: self.seen.__iadd__(1), seen=np.zeros(2)), CHANGES.format("seen")),
        (lambda: Attribute(lambda self, x: torch.rand(1, generator=self.own), own=torch.Generator()), CHANGES.format("own")),
        (lambda: Attribute(lambda self, x: self.own.random(), own=random.Random(0)), CHANGES.format("own")),
        (lambda: Attribute(lambda self, x: self.own.random(), own=np.random.default_rng(0)), CHANGES.format("own")),
        (OnTheClass, CHANGES.format("calls")),
        (InAGlobal, CHANGES.format("GLOBAL_CALLS")),
        (in_a_closure, CHANGES.format("calls")),
        (lambda: Attribute(in_evaluation, evaluations=0), CHANGES.format("evaluations").replace("every step", "every evaluation")),
        (lambda: nn.Sequential(nn.Linear(6, 6), Attribute(set_attribute("calls", lambda self, x: self.calls + 1), calls=0)), CHANGES.format("calls").replace("the model", "its module 1")),
        (lambda: Attribute(lambda self, x: random.random()), "it draws random numbers of Python or NumPy, which stacked copies would share"),
        (lambda: Attribute(lambda self, x: np.random.rand()), "it draws random numbers of Python or NumPy, which stacked copies would share"),  # noqa: NPY002
    ],
)  # fmt: skip
def test_models_that_copies_cannot_share(model: Any, why: str) -> None:
    assert why_not_stackable(probe(make_task(model()))) == why


def test_embeddings_that_keep_their_norm_change_their_weights() -> None:
    embedding = nn.Embedding(10, 1, max_norm=0.1)
    model = Wrapped(embedding, lambda m, x: m(x.abs().long())[:, 0])
    facts = probe(make_task(model))
    assert facts.mutated_parameters == {"inner.weight"}


def hooked(register: Callable[[nn.Linear], Any]) -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 1))
    register(model[1])
    return model


def identity(*args: Any) -> None:
    return None


@pytest.mark.parametrize(
    "register",
    [
        lambda layer: layer.register_forward_hook(identity),
        lambda layer: layer.register_forward_pre_hook(identity),
        lambda layer: layer.register_full_backward_hook(identity),
    ],
)
def test_hooks_of_the_user_are_a_reason(register: Any) -> None:
    facts = probe(make_task(hooked(register)))
    assert facts.has_hooks
    assert "hooks are registered on it" in str(why_not_stackable(facts))


def test_hooks_on_parameters_count_and_those_of_torch_do_not() -> None:
    task = make_task(Base())

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model, optimizer = task.build()
        model.layer.weight.register_hook(lambda grad: grad * 0)
        return model, optimizer

    assert probe(replace(task, build=build)).has_hooks
    pruned = prune.random_unstructured(nn.Linear(6, 1), "weight", 2)
    pruned.weight = pruned.weight.detach()  # else it cannot be copied
    assert not probe(make_task(nn.Sequential(pruned))).has_hooks


class Noise(nn.Module):
    def __init__(self, always: bool) -> None:
        super().__init__()
        self.layer, self.always = nn.Linear(6, 1), always

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + torch.randn_like(x) if self.training or self.always else x)


class AlwaysDropping(Base):
    def before(self, x: Tensor) -> Tensor:
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
    facts = probe(make_task(model()))
    assert [(m.kind, m.shape, m.p) for m in facts.dropouts] == dropouts
    assert (facts.torch_random, facts.eval_random) == (torch_random, eval_random)
    assert why_not_stackable(facts) is None


class Smoothed(nn.Module):
    """A loss that remembers."""

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.count = 0
        self.register_buffer("average", torch.zeros(()))
        self.buffer = buffer

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        if self.buffer:
            self.average.mul_(0.9)
        else:
            self.count += 1
        return functional.mse_loss(output, target)


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
    ("loss", "attribute"),
    [
        (Smoothed(buffer=False), "count"),
        (Smoothed(buffer=True), "average"),
        (counting_loss(), "calls"),
        (wrapping(Smoothed(buffer=False)), "inner"),
        (nn.MSELoss(), None),
        (functional.mse_loss, None),
    ],
)
def test_losses_that_keep_something_are_found_and_not_changed(
    loss: Any, attribute: str | None
) -> None:
    task = make_task(Base(), loss, total_steps=4, eval_every=0)
    first = probe(task)
    why = f"its loss changes its attribute `{attribute}` in every step, which stacked copies would share"
    assert why_not_stackable(first) == (why if attribute else None)
    again = probe(task)
    assert again.losses == first.losses
    assert trained(task)[:2] == first.losses


def test_losses_over_tokens_are_copied_with_what_they_wrap() -> None:
    inner = Smoothed(buffer=False)
    loss = over_tokens(lambda logits, tokens: inner(logits.mean(1), tokens * 1.0))
    model = Wrapped(nn.Linear(1, 3), lambda m, x: m(x[..., None]))
    task = make_task(model, lambda o, t: loss(o, t.expand(-1, 6).abs().long() % 3))
    assert "its loss changes" in str(why_not_stackable(probe(task)))
    assert inner.count == 0


def trained(task: Task) -> list[float]:
    return [x for r in run_sequentially([task]) if isinstance(r, Steps) for x in r.loss]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_losses_are_those_of_the_sequential_engine(accumulate: int) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    cycling = Schedule(lr=lambda s: 0.1 / (1 + s), momentum=lambda s: 0.9 - 0.4 * s)
    task = make_task(model, accumulate=accumulate, schedule=cycling, grad_clip=0.3)
    for changed in (task, replace(task, autocast=True), replace(task, total_steps=1)):
        facts = probe(changed)
        assert facts.losses[: changed.total_steps] == trained(changed)
        assert len(facts.dropouts) == 1  # of one micro-batch


def test_the_probe_leaves_random_numbers_alone_and_gives_a_model_that_trains() -> None:
    task = make_task(Attribute(cache_once, mask=None, cache={}))
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[2]  # noqa: NPY002
    facts = probe(task)
    assert isinstance(facts, Facts)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (random.getstate(), np.random.get_state()[2]) == state[1:]  # noqa: NPY002
    assert facts.model.training
    assert facts.model.mask is not None


def test_exceptions_of_the_users_code_are_raised() -> None:
    def explode(self: Any, x: Tensor) -> None:
        raise ZeroDivisionError("boom")

    with pytest.raises(ZeroDivisionError, match="boom"):
        probe(make_task(Attribute(explode)))


def shuffled(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Attribute(identity, order=torch.randperm(6), steps=[nn.Linear(2, 2)])


def plus(n: int) -> Callable[[int], int]:
    return lambda x: x + n


class Sized:
    def __init__(self, size: float) -> None:
        self.size = size


@pytest.mark.parametrize(
    ("one", "other", "attribute"),
    [
        (Base(), Base(), None),  # weights may differ
        (Counting(True), Counting(True), None),
        (Counting(True), Counting(False), "in_place"),
        (shuffled(0), shuffled(1), "order"),
        (shuffled(0), shuffled(0), None),
        (Attribute(identity, steps=[nn.Linear(2, 2)]), Attribute(identity, steps=[nn.Linear(2, 2)]), "steps"),
        (Attribute(identity, box=Sized(1)), Attribute(identity, box=Sized(1)), None),
        (Attribute(identity, box=Sized(1)), Attribute(identity, box=Sized(2)), "box"),
        (Attribute(identity, f=lambda x: x), Attribute(identity, f=lambda x: x + 1), "f"),
        (Attribute(identity, f=plus(1)), Attribute(identity, f=plus(2)), "f"),
        (Attribute(identity, f=plus(2)), Attribute(identity, f=plus(2)), None),
        (nn.Dropout(0.5), nn.Dropout(0.4), "p"),
        (Attribute(identity, c={"a": float("nan")}), Attribute(identity, c={"a": float("nan")}), None),
        (Attribute(identity, c=np.arange(3)), Attribute(identity, c=np.arange(1, 4)), "c"),
    ],
)  # fmt: skip
def test_constants_that_differ_between_seeds(one: Any, other: Any, attribute: str | None) -> None:
    expected = attribute and f"the model has another `{attribute}` in every seed"
    assert differing_constant(one, other) == expected
    assert differing_constant(one, copy.deepcopy(one)) is None
