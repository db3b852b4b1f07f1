"""K copies of a model trained as one: an update and an evaluation of all of them.

The loss of one copy, as a function of its tensors, is vmapped over the copies; the gradient of
the sum of their losses holds each copy's own gradient, since no copy's loss depends on another's
parameters. That is traced into a `Program` for every shape of batch that comes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence, Sized
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree

from lrexp.engine.cuda_graphs.capture import CapturedStep
from lrexp.engine.dropout import draw_masks, explicit_attention, given_masks
from lrexp.engine.rng import Reseed, preserved_rng, seed_everything
from lrexp.engine.sequential import measured, weighed
from lrexp.engine.task import Task
from lrexp.engine.vectorized.copies import NotStackable, Trained, gather
from lrexp.engine.vectorized.program import Program, compile_program
from lrexp.engine.vectorized.proof import Facts
from lrexp.engine.vectorized.recorded import NotTraceableError
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.batches import size_of
from lrexp.workloads.metrics import Gathered, on_cpu
from lrexp.workloads.seeds import derive_seed

_UNCAPTURABLE: set[str] = set()  # kinds of tasks whose update could not be captured
MANY_SHAPES = 16  # programs that are kept; data of ever new shapes is no case for a stack


class Stack:
    """The live copies of some tasks; all tasks must be of equal kind and form.

    What a copy gets depends on the others by rounding alone: kernels take the rows of all copies
    together, and split them differently where there are more. A stack with the same rows is equal
    to the bit.

    Args:
        tasks: a trial each, a row each.
        facts: what a step of one of them told.

    Raises:
        NotStackable: with the reason.
    """

    def __init__(self, tasks: Sequence[Task], facts: Facts) -> None:
        self.tasks = list(tasks)
        self.facts = facts
        self._one = Trained(
            facts.model, tasks[0].objective
        )  # the Python code that all copies share
        cycles = any(isinstance(t.schedule, Schedule) and t.schedule.momentum for t in tasks)
        self.copies = gather(self.tasks, facts.mutated, cycles_momentum=cycles)
        self.seeds = list(dict.fromkeys(task.trial.seed for task in tasks))
        self._place()

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all copies but these."""
        self.tasks = [self.tasks[row] for row in rows]
        self.copies = self.copies.keep(torch.tensor(rows, device=self.device))
        self._place()

    def close(self) -> None:
        """Let go of programs and graphs, which hold the stack in turn."""
        for held in (self._programs, self._graphs, self._eval_programs):
            held.clear()

    def numbers(self, losses: Tensor) -> dict[str, Tensor]:
        """Return the losses of an update, and all that training changes, by name."""
        views = dict(view for group in self.copies.groups for view in group.views())
        return {"loss": losses, **views, **self.copies.stacked}

    def to_plain(self) -> dict[str, Any]:
        """Return what it takes to go on with a stack of the same tasks."""
        return self.copies.to_plain() | {"seeds": self.seeds, "shapes": sorted(self._shapes_seen)}

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Go on from what `to_plain` gave.

        Raises:
            MisfitError: the copies are others now.
        """
        self.copies = self.copies.restored(plain)
        self.seeds = list(plain["seeds"])  # of copies that were dropped, too: they shape a program
        self._place()
        self._shapes_seen.update(plain["shapes"])

    def _place(self) -> None:
        """Note where everything lies; programs made for other places are of no use any more."""
        self.device = self.tasks[0].device
        self._programs: dict[Any, Program] = {}
        self._shapes_seen: set[str] = set()
        self._seen: set[Any] = set()
        self._graphs: dict[Any, Callable[..., Tensor]] = {}
        self._eval_programs: dict[Any, tuple[Program, Any]] = {}
        limits = [torch.inf if t.grad_clip is None else t.grad_clip for t in self.tasks]
        flat = self.copies.groups[0].flat
        clip = torch.tensor(limits, dtype=torch.float64).to(flat)[:, None]
        self._clip = None if min(limits) == torch.inf else clip
        views = dict(view for group in self.copies.groups for view in group.views())
        self._trained = list(views)
        constants = {**views, **self.copies.stacked, **self.copies.shared}
        self._names, self._constants = list(constants), list(constants.values())
        self._dims = [None if name in self.copies.shared else 0 for name in constants]
        rows = [self.seeds.index(task.trial.seed) for task in self.tasks]
        self.seed_rows = torch.tensor(rows, device=self.device)

    def update(
        self, micro_batches: Sequence[Any], masks: Sequence[Tensor], coefficients: Sequence[Tensor]
    ) -> Tensor:
        """Do one update of every copy and return their losses, (copies,), on the device.

        Args:
            micro_batches: batches; with several seeds, a row per copy in front.
            masks: dropout masks of all micro-batches in order, each (seeds, ...); with one seed
                they may be left out, and are drawn here from the default generator.
            coefficients: of each group, (coefficients, copies, 1).
        """
        step = self._replayed if self.device.type == "cuda" else self._update
        losses: Tensor = step(micro_batches, masks, coefficients)
        return losses

    def _replayed(self, *arguments: Sequence[Any]) -> Tensor:
        """Do an update as a CUDA graph, from the second with batches of these shapes on."""
        leaves, tree = pytree.tree_flatten(tuple(map(list, arguments)))
        key = (_shapes(leaves), str(tree))
        if key not in self._seen:
            self._seen.add(key)
            return self._update(*arguments)  # makes the program
        if key not in self._graphs:
            self._graphs[key] = self._captured(leaves, tree)
        return self._graphs[key](*leaves).clone()  # the next replay overwrites it

    def _captured(self, leaves: Sequence[Tensor], tree: Any) -> Callable[..., Tensor]:
        """Return the update as a CUDA graph, or as it is where it cannot be captured."""

        def update(*inputs: Tensor) -> Tensor:
            return self._update(*pytree.tree_unflatten(list(inputs), tree))

        state = [*self.copies.stacked.values()]
        for group in self.copies.groups:
            state += [group.flat, *group.states]
        if self.tasks[0].kind in _UNCAPTURABLE:
            return update
        try:
            static = [leaf.clone() for leaf in leaves]
            return CapturedStep(update, static, state, device=self.device)
        except Exception:  # of any kind: an operation that waits for the device, no memory
            _UNCAPTURABLE.add(self.tasks[0].kind)  # memory of a failed capture is lost
            return update

    def _update(
        self, micro_batches: Sequence[Any], masks: Sequence[Tensor], coefficients: Sequence[Tensor]
    ) -> Tensor:
        if not masks and self._given_masks:
            shapes = self.facts.dropouts * len(micro_batches)
            masks = [mask.unsqueeze(0) for mask in draw_masks(shapes, self.device)]
        share = len(masks) // len(micro_batches)
        gradient: list[Tensor] = []
        losses = []
        for i, batch in enumerate(micro_batches):
            leaves, tree = pytree.tree_flatten(batch)
            inputs = [*leaves, *masks[i * share : (i + 1) * share]]
            loss, *found = self._program(inputs, len(leaves), tree)(*inputs)
            losses.append(loss)
            if gradient:
                torch._foreach_add_(gradient, found)
            else:
                gradient = found
        if self._clip is not None:
            _clip(gradient, self._clip)
        for group, own, numbers in zip(self.copies.groups, gradient, coefficients, strict=True):
            group.update(own, numbers)
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean(0)

    def evaluate(self) -> list[dict[str, float]]:
        """Return the measures of every copy over the whole validation split."""
        task, model = self.tasks[0], self._one.model
        assert task.val is not None
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with torch.no_grad(), preserved_rng(task.device):
                seed_everything(derive_seed(self.seeds[0], "evaluation"))
                return self._measures(task)
        finally:
            for module, training in modes:
                module.training = training

    def _measures(self, task: Task) -> list[dict[str, float]]:
        assert task.val is not None
        wide = torch.float32 if task.device.type == "mps" else torch.float64
        sums = torch.zeros(4, len(self.tasks), dtype=wide, device=task.device)
        gathered = [Gathered(task.metrics) for _ in self.tasks]
        for batch in task.val.in_order():
            leaves, tree = pytree.tree_flatten(batch)
            program, kept_tree = self._eval_program(leaves, tree)
            found = program(*leaves)
            loss, count, right, made = (row.to(wide) for row in found[:4])
            sums += torch.stack([weighed(loss, count), count, right, made])
            if task.metrics:
                self._gather(gathered, found[4:], kept_tree, batch)
        losses, counted, right, made = sums
        values = [{"val_loss": loss} for loss in (losses / counted).tolist()]
        if made.any():
            for value, share in zip(values, (right / made).tolist(), strict=True):
                value["val_accuracy"] = share
        own = zip(values, gathered, self.tasks, strict=True)
        return [value | measured(found, of_copy) for value, found, of_copy in own]

    def _gather(self, gathered: Sequence[Gathered], kept: Any, tree: Any, batch: Any) -> None:
        """Give each copy its own of what a batch's program returned for all of them."""
        first = self.tasks[0]
        target = (first.eval_objective or first.objective).target(batch)
        if first.metrics.functions:
            kept, target = on_cpu(kept), on_cpu(target)
        for row, of_copy in enumerate(gathered):
            own = [leaf[row] for leaf in kept]
            of_copy.add(pytree.tree_unflatten(own, tree), target, size_of(batch))

    def activation_bytes(self) -> int:
        """Return a bound on the memory that one update needs besides parameters and states."""
        return max((p.activation_bytes for p in self._programs.values()), default=0)

    def _program(self, inputs: list[Tensor], num_leaves: int, tree: Any) -> Program:
        key = _shapes(inputs)
        if key not in self._programs:
            if str(key) not in self._shapes_seen:  # else before the checkpoint
                _check_shapes(self._shapes_seen)
                self._shapes_seen.add(str(key))
            self._programs[key] = self._compiled(self._gradients(num_leaves, tree), inputs)
        return self._programs[key]

    def _gradients(self, num_leaves: int, tree: Any) -> Callable[..., tuple[Tensor, ...]]:
        """Return (*constants, *leaves, *masks) -> the losses, and each group's gradient."""
        batch_dim = 0 if len(self.seeds) > 1 else None
        accumulate = self.tasks[0].accumulate
        sizes = [len(group.names) for group in self.copies.groups]
        num_trained, copies = len(self._trained), len(self.tasks)

        def one(tensors: Sequence[Tensor], leaves: Any, masks: Any, seed_row: Tensor) -> Tensor:
            # one seed: a mask for all copies; several: each copy takes its seed's
            own = [mask[seed_row] if batch_dim == 0 else mask[0] for mask in masks]
            with given_masks(own) if self._given_masks else nullcontext():
                found: tuple[Tensor, Any] = self._call(
                    tensors, pytree.tree_unflatten(list(leaves), tree)
                )
                return found[0]

        def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
            constants, inputs = tensors[: len(self._names)], tensors[len(self._names) :]
            trained = [tensor.detach().requires_grad_() for tensor in constants[:num_trained]]
            batched = vmap(one, in_dims=(self._dims, batch_dim, None, 0), randomness="same")
            losses = batched(
                [*trained, *constants[num_trained:]],
                list(inputs[:num_leaves]),
                list(inputs[num_leaves:]),
                self.seed_rows,
            )
            total = losses.sum() / accumulate
            found = iter(self._checked(torch.autograd.grad(total, trained, allow_unused=True)))
            per_group = [[next(found).reshape(copies, -1) for _ in range(n)] for n in sizes]
            return (losses.detach(), *(torch.cat(parts, 1) for parts in per_group))

        return gradients

    def _checked(self, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """Refuse parameters that the loss does not depend on: torch's optimizers skip them."""
        for name, gradient in zip(self._trained, gradients, strict=True):
            if gradient is None:
                raise NotStackable(f"its loss does not depend on {name.removeprefix('model.')}")
        return [gradient for gradient in gradients if gradient is not None]

    def _eval_program(self, leaves: list[Tensor], tree: Any) -> tuple[Program, Any]:
        """Return (*constants, *leaves) -> mean losses, what these are over, right answers of all,
        and what metrics keep; with the structure of the last.
        """
        key = _shapes(leaves)
        if key not in self._eval_programs:
            _check_shapes(self._eval_programs)
            count_correct, first = self.tasks[0].count_correct, self.tasks[0]
            objective, kept_tree = first.eval_objective or first.objective, None
            evaluated = Trained(self._one.model, objective)

            def one(tensors: Sequence[Tensor], *leaves: Tensor) -> tuple[Tensor, ...]:
                nonlocal kept_tree
                batch = pytree.tree_unflatten(list(leaves), tree)
                loss, count, output = self._call(tensors, batch, evaluated, measure=True)
                right, made = (
                    (0, 0)
                    if count_correct is None
                    else count_correct(output, objective.target(batch))
                )
                kept: list[Any] = []
                if first.metrics:
                    kept, kept_tree = pytree.tree_flatten(first.metrics.kept(output))
                    kept = [torch.as_tensor(leaf, device=loss.device) for leaf in kept]
                zero = torch.zeros_like(loss, dtype=torch.float32)
                return loss, zero + count, zero + right, zero + made, *kept

            dims = (self._dims, *[None for _ in leaves])
            batched = vmap(one, in_dims=dims, randomness="same")
            split = len(self._names)
            program = self._compiled(lambda *t: batched(list(t[:split]), *t[split:]), leaves)
            self._eval_programs[key] = program, kept_tree
        return self._eval_programs[key]

    @property
    def _given_masks(self) -> bool:
        # a model that draws other random numbers too draws all of them itself, in its own order
        return bool(self.facts.dropouts) and not self.facts.torch_random

    def _call(
        self,
        tensors: Sequence[Tensor],
        batch: Any,
        trained: Trained | None = None,
        *,
        measure: bool = False,
    ) -> Any:
        """Run the Python code of one copy with its tensors in place; see `Trained`."""
        autocast = torch.autocast(
            self.device.type,
            torch.bfloat16,
            enabled=self.tasks[0].autocast,
            cache_enabled=False,  # it would keep casts of one copy's weights for the others
        )
        named = dict(zip(self._names, tensors, strict=True))
        with explicit_attention(), autocast:
            found: Any = functional_call(trained or self._one, named, (batch, measure))
            return found

    def _compiled(
        self, function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]
    ) -> Program:
        """Return the program, or say why there can be none."""
        if not all(isinstance(tensor, Tensor) for tensor in inputs):
            raise NotStackable("its batches hold other things than tensors")
        state = [tensor.clone() for tensor in self.copies.stacked.values()]
        with warnings.catch_warnings(record=True) as caught, preserved_rng(self.device):
            warnings.simplefilter("always")
            try:
                # copies: a model may change its inputs in place, and tracing runs it
                examples = [tensor.clone() for tensor in inputs]
                program = compile_program(function, self._constants, examples)
            except NotStackable:
                raise
            except NotTraceableError as error:
                raise NotStackable(str(error)) from error
            except Exception as error:  # vmap raises all kinds
                raise NotStackable(_reason(error)) from error
            finally:  # tracing has run the forward once, buffers and all
                for tensor, before in zip(self.copies.stacked.values(), state, strict=True):
                    tensor.copy_(before)
        for warning in caught:
            if "performance drop" in str(warning.message):
                slow = _operation(str(warning.message))
                raise NotStackable(f"torch would run its {slow} copy by copy, which is slow")
        return program


class Masks:
    """Dropout masks of every step, the same that the sequential engine draws for each seed."""

    def __init__(self, stack: Stack, facts: Facts) -> None:
        # A model that also draws other random numbers draws all of them itself, in its own order;
        # it is in stacks of one seed, where one draw is right for all copies.
        self._shapes = () if facts.torch_random else facts.dropouts * stack.tasks[0].accumulate
        self._device = stack.device
        self._reseed = [Reseed(seed, stack.device) for seed in stack.seeds]

    def draw(self, step: int) -> list[Tensor]:
        """Seed the generator for a step; with several seeds, return its masks, (seeds, ...) each.

        With one seed the stack draws them itself, so that they can be part of a CUDA graph.
        """
        by_seed = []
        for reseed in self._reseed:
            reseed(step)
            if self._shapes and len(self._reseed) > 1:
                by_seed.append(draw_masks(self._shapes, self._device))
        return [torch.stack(masks) for masks in zip(*by_seed, strict=True)]


def _clip(gradient: Sequence[Tensor], limits: Tensor) -> None:
    """Scale each copy's gradient down to its limit, as `clip_grad_norm_` does."""
    norms = torch.stack([torch.linalg.vector_norm(g, dim=1, keepdim=True) for g in gradient])
    norm = torch.linalg.vector_norm(norms, dim=0)  # (copies, 1)
    factor = (limits / (norm + 1e-6)).clamp(max=1.0)
    for own in gradient:
        own.mul_(factor)


def _check_shapes(programs: Sized) -> None:
    if len(programs) == MANY_SHAPES:
        raise NotStackable("its batches have ever new shapes")


def _shapes(tensors: Sequence[Any]) -> tuple[Any, ...]:
    return tuple((getattr(t, "shape", t), getattr(t, "dtype", None)) for t in tensors)


def _reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    if "Batching rule not implemented" in text:
        return f"torch has no batched form of {_operation(text)}"
    if "data-dependent control flow" in text or ".item()" in text:
        return "its forward decides by the values of tensors, which differ from copy to copy"
    return f"torch.func.vmap cannot run it ({type(error).__name__}: {text[:200]})"


def _operation(message: str) -> str:
    return message.partition("aten::")[2].split(".")[0].split(" ")[0] or "one of its operations"
