"""The tensors of K models side by side, and what the models must share for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.engine.state import misfit
from lrexp.engine.task import Task
from lrexp.engine.vectorized.update_rules import (
    RULES,
    Table,
    UpdateRule,
    hard_flags,
    numbers_of,
    soft_flags,
)
from lrexp.workloads.objectives import Objective, is_of_parts
from lrexp.workloads.optimizers import parts_of


class NotStackable(Exception):  # noqa: N818 - an answer, not a failure
    """These copies cannot be trained as one; the message goes on after "as a stack: "."""


class Trained(nn.Module):
    """A model with its objective: batch -> (loss, output), or what `measure` returns."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.loss = objective.loss  # one that is a module has its tensors stacked, too

    def forward(self, batch: Any, measure: bool = False) -> Any:
        """Return (loss, output), or (mean loss, what it is over, output)."""
        return (self.objective.measure if measure else self.objective)(self.model, batch)


@dataclass(frozen=True)
class ParameterGroup:
    """One parameter group of all copies.

    Args:
        names: of its parameters, and shapes: theirs in one model.
        flat: (copies, numbers), all parameters one after the other.
        states: of the optimizer, each as `flat`.
        numbers: hyperparameters by name, each (copies,); flags: which operations an update has.
        part: the number of its optimizer.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    rule: UpdateRule
    flat: Tensor
    states: tuple[Tensor, ...]
    numbers: dict[str, NDArray[np.float64]]
    flags: dict[str, bool]
    part: int = 0

    def views(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name of each parameter and its view (copies, *shape)."""
        first = 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            yield name, self.flat[:, first : first + shape.numel()].view(-1, *shape)
            first += shape.numel()

    def coefficients(self, lr: Table, momentum: Table, first_step: int) -> Table:
        """Return what `update` is given for each step, (steps, coefficients, copies)."""
        t = np.arange(first_step + 1, first_step + 1 + len(lr), dtype=np.float64)[:, None]
        with np.errstate(over="ignore"):  # an absurd LR is the copy's own affair
            tables = self.rule.coefficients(self.numbers, self.flags, lr, momentum, t)
        return np.stack(tables, axis=1)

    def update(self, gradient: Tensor, coefficients: Tensor) -> None:
        """Do one update; gradient (copies, numbers), coefficients (coefficients, copies, 1)."""
        if self.flags["maximize"]:
            gradient.neg_()
        parts = coefficients.unbind(0)
        self.rule.apply(self.flags, self.flat, gradient, self.states, parts)

    def keep(self, rows: Tensor) -> ParameterGroup:
        """Return the group with these copies alone."""
        numbers = {name: values[rows.cpu().numpy()] for name, values in self.numbers.items()}
        states = tuple(state.index_select(0, rows) for state in self.states)
        return replace(self, flat=self.flat.index_select(0, rows), states=states, numbers=numbers)

    def to_plain(self) -> dict[str, Any]:
        """Return what training changes, and which operations an update has."""
        return {"flat": self.flat, "states": list(self.states), "flags": self.flags}

    def restored(self, plain: Mapping[str, Any]) -> ParameterGroup:
        """Return the group as it was when `to_plain` was asked."""
        flat = _put_in_place_of(self.flat, plain["flat"], "the size of a parameter group")
        states = tuple(_put_in_place_of(flat, state, "the optimizer") for state in plain["states"])
        return replace(self, flat=flat, states=states, flags=dict(plain["flags"]))


@dataclass(frozen=True)
class Copies:
    """K models and their optimizers.

    Args:
        groups: trained parameters.
        stacked: other tensors by name, a row per copy; shared: those that need only one.
    """

    groups: tuple[ParameterGroup, ...]
    stacked: dict[str, Tensor]
    shared: dict[str, Tensor]

    def keep(self, rows: Tensor) -> Copies:
        """Return these copies alone, in memory of their own."""
        groups = tuple(group.keep(rows) for group in self.groups)
        stacked = {name: tensor.index_select(0, rows) for name, tensor in self.stacked.items()}
        return Copies(groups, stacked, self.shared)

    def to_plain(self) -> dict[str, Any]:
        """Return all tensors that training changes, a row per copy."""
        groups = [group.to_plain() for group in self.groups]
        return {"groups": groups, "stacked": self.stacked}

    def restored(self, plain: Mapping[str, Any]) -> Copies:
        """Return the copies as they were when `to_plain` was asked, in memory of their own.

        Raises:
            MisfitError: they are others now.
        """
        all_fixed = self.stacked | self.shared
        names = plain["stacked"].keys()
        fits = self.stacked.keys() <= names <= all_fixed.keys()
        if not fits or len(self.groups) != len(plain["groups"]):
            raise misfit("the parameters or buffers of the model are others now")
        groups = tuple(g.restored(own) for g, own in zip(self.groups, plain["groups"], strict=True))
        stacked = {
            name: tensor.to(all_fixed[name].device, copy=True)
            for name, tensor in plain["stacked"].items()
        }
        # some are stacked only because the copies of that time differed
        shared = {name: tensor for name, tensor in self.shared.items() if name not in stacked}
        return Copies(groups, stacked, shared)


def gather(tasks: Sequence[Task], mutated: frozenset[str], *, cycles_momentum: bool) -> Copies:
    """Build the model of every task and lay their tensors side by side.

    Args:
        tasks: of equal kind.
        mutated: names of the buffers, of a `Trained`, that training changes.
        cycles_momentum: some schedule sets the momentum.

    Raises:
        NotStackable: the models or optimizers differ in form, or an optimizer has no rule here.
    """
    groups: list[ParameterGroup] = []
    members: list[list[dict[str, Any]]] = []  # parameter groups of every copy, by group
    fixed: dict[str, list[Tensor]] = {}
    for row, task in enumerate(tasks):
        model, optimizer = task.build()
        trained = Trained(model, task.objective)
        names = {id(p): name for name, p in trained.named_parameters()}
        if row == 0:
            groups = _first_groups(optimizer, names, len(tasks))
            members = [[] for _ in groups]
        _check_optimizer(optimizer, groups, names)
        for group, own, seen in zip(groups, optimizer.param_groups, members, strict=True):
            torch.cat([p.detach().flatten() for p in own["params"]], out=group.flat[row])
            seen.append({key: value for key, value in own.items() if key != "params"})
        updated = {name for group in groups for name in group.names}
        for name, tensor in (*trained.named_parameters(), *trained.named_buffers()):
            if name not in updated:
                fixed.setdefault(name, []).append(tensor.detach())
    groups = [_with_numbers(g, m, cycles_momentum) for g, m in zip(groups, members, strict=True)]
    stacked, shared = {}, {}
    for name, tensors in fixed.items():
        if name in mutated or not all(_equal(tensors[0], tensor) for tensor in tensors):
            stacked[name] = _stack(tensors, name, len(tasks))
        else:
            shared[name] = tensors[0]
    return Copies(tuple(groups), stacked, shared)


def form(task: Task) -> tuple[Any, ...]:
    """Return what the optimizers of tasks must share to form a stack.

    Raises:
        NotStackable: there is no rule for the optimizer.
    """
    if is_of_parts(task.objective):
        raise NotStackable("its step returns a loss for each optimizer")
    model, optimizer = task.build()
    names = {id(p): name for name, p in model.named_parameters()}
    return tuple(_rules_of(optimizer)), task.others_stay, *_form_of(optimizer, names)


def _form_of(optimizer: Optimizer, names: dict[int, str]) -> tuple[Any, ...]:
    return tuple(
        (
            tuple(names[id(p)] for p in group["params"]),
            tuple(sorted(hard_flags(group, part).items())),
        )
        for part in parts_of(optimizer)
        for group in part.param_groups
    )


def _rules_of(optimizer: Optimizer) -> list[UpdateRule]:
    """Return the rule of each parameter group."""
    return [_rule_of(part) for part in parts_of(optimizer) for _ in part.param_groups]


def _rule_of(optimizer: Optimizer) -> UpdateRule:
    name = type(optimizer).__name__
    rule = RULES.get(type(optimizer))
    if rule is None:
        known = ", ".join(sorted(cls.__name__ for cls in RULES))
        raise NotStackable(f"there is no stacked form of the optimizer {name} (there is: {known})")
    # Adagrad makes its state at once; others make it in their first step
    if any(state and float(state.get("step", 1)) != 0 for state in optimizer.state.values()):
        raise NotStackable("its optimizer has been used before")
    if any(isinstance(group["lr"], Tensor) for group in optimizer.param_groups):
        raise NotStackable("its optimizer holds the LR in a tensor")
    return rule


def _first_groups(optimizer: Optimizer, names: dict[int, str], copies: int) -> list[ParameterGroup]:
    made = []
    groups = [
        (i, part, group)
        for i, part in enumerate(parts_of(optimizer))
        for group in part.param_groups
    ]
    for (i, part, group), rule in zip(groups, _rules_of(optimizer), strict=True):
        parameters: list[Tensor] = group["params"]
        if len({(p.dtype, p.device) for p in parameters}) > 1 or any(
            p.is_complex() or p.layout != torch.strided for p in parameters
        ):
            raise NotStackable("its parameters are of several types")
        flat = parameters[0].new_empty(copies, sum(p.numel() for p in parameters))
        shapes = tuple(p.shape for p in parameters)
        own_names = tuple(names[id(p)] for p in parameters)
        flags = hard_flags(group, part)
        made.append(ParameterGroup(own_names, shapes, rule, flat.detach(), (), {}, flags, i))
    return made


def _check_optimizer(
    optimizer: Optimizer, groups: Sequence[ParameterGroup], names: dict[int, str]
) -> None:
    """Refuse a copy whose optimizer or parameters are unlike the first's."""
    own = _form_of(optimizer, names)
    form = tuple((g.names, tuple(sorted(g.flags.items()))) for g in groups)
    shapes = [tuple(p.shape for p in group["params"]) for group in optimizer.param_groups]
    rules = [g.rule for g in groups]
    if own != form or shapes != [g.shapes for g in groups] or _rules_of(optimizer) != rules:
        raise NotStackable("its copies differ in the shape of parameters or the optimizer's form")


def _with_numbers(
    group: ParameterGroup, members: Sequence[dict[str, Any]], cycles: bool
) -> ParameterGroup:
    numbers = numbers_of(members)
    flags = group.flags | soft_flags(numbers)
    flags["momentum"] = flags["momentum"] or cycles
    flags["cycles"] = cycles
    if cycles and flags["dampening"]:  # when m was first used would have to be remembered
        raise NotStackable("its schedule cycles the momentum of an optimizer with dampening")
    begin = group.rule.first_state
    fill = torch.tensor(numbers[begin] if begin else 0.0).to(group.flat)
    states = tuple(
        torch.zeros_like(group.flat) + fill.view(-1, 1) for _ in range(group.rule.num_states(flags))
    )
    return replace(group, numbers=numbers, flags=flags, states=states)


def _put_in_place_of(tensor: Tensor, saved: Tensor, what: str) -> Tensor:
    if tensor.shape != saved.shape or tensor.dtype != saved.dtype:
        raise misfit(f"{what} is another now")
    return saved.to(tensor.device, copy=True)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one is other or (
        one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    )


def _stack(tensors: Sequence[Tensor], name: str, copies: int) -> Tensor:
    if len(tensors) != copies or len({(t.shape, t.dtype) for t in tensors}) > 1:
        raise NotStackable(f"its copies differ in the shape of {name.removeprefix('model.')}")
    return torch.stack(list(tensors))
