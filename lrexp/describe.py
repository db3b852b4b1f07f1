"""What a run directory says of its run before training: all that the numbers depend on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lrexp.config import resolved_tree, to_yaml
from lrexp.data.fingerprint import fingerprint
from lrexp.engine import Choice, Unit, preserved_rng
from lrexp.home import Origin
from lrexp.left import read_units
from lrexp.order import Order
from lrexp.plan import Plan
from lrexp.store import RunWriter, describe_environment
from lrexp.store.files import read_json


def describe_run(writer: RunWriter, order: Order, plan: Plan, choice: Choice) -> None:
    """Write it all; order.json last, for with that the run can be resumed."""
    modules = plan.config.own_files()
    writer.text("config.yaml", plan.config.document.text)
    writer.text("resolved.yaml", resolved_text(plan, choice.units))
    writer.json("engine.json", choice.to_plain())
    writer.json("environment.json", surroundings(plan))
    for name, source in modules.items():
        writer.text(name, source)
    origin = Origin.of(order, writer.directory, modules)
    writer.json("order.json", order.to_plain() | origin.to_plain())


def describe_again(writer: RunWriter, order: Order, plan: Plan) -> None:
    """Write anew what a run says of places, where it goes on in another one than before."""
    origin = Origin.from_plain(read_json(writer.directory / "order.json"))
    if origin.folder == order.directory:
        return
    units, _ = read_units(writer.directory, order.lengths(plan))
    writer.text("resolved.yaml", resolved_text(plan, units))
    origin = origin.moved(order.directory, writer.directory)
    writer.json("order.json", order.to_plain() | origin.to_plain())


def facts(order: Order, plan: Plan) -> dict[str, Any]:
    """Return what status.json says of the run from its start to its end."""
    lengths = order.lengths(plan)
    return {
        "command": order.command,
        "name": plan.config.experiment.name,
        "variants": list(dict.fromkeys(trial.variant for trial in lengths)),
        "seeds": list(dict.fromkeys(trial.seed for trial in lengths)),
        "num_trials": len(lengths),
        "total_steps": {trial.variant: steps for trial, steps in lengths.items()},
    }


def surroundings(plan: Plan) -> dict[str, Any]:
    """Return the contents of environment.json: what numbers depend on besides the config."""
    known: dict[int, dict[str, Any] | None] = {}
    prints = {}
    with preserved_rng(plan.device):
        for name, variant in plan.variants.items():
            if id(variant.data) not in known:
                known[id(variant.data)] = fingerprint(variant.data)
            prints[name] = known[id(variant.data)]
    return describe_environment(plan.device) | {"data": prints}


def resolved_text(plan: Plan, units: Iterable[Unit]) -> str:
    """Return the contents of resolved.yaml, with the engine that repeats the run.

    Engines differ in rounding, and an unstable training makes much of that.
    """
    engines = {unit.engine for unit in units}
    engine = {"engine": engines.pop()} if len(engines) == 1 else {}
    return to_yaml(resolved_config(plan) | engine)


def resolved_config(plan: Plan) -> dict[str, Any]:
    """Return the config with every default filled in and every duration in steps."""
    clocks = {name: variant.clock for name, variant in plan.variants.items()}
    return resolved_tree(plan.config, clocks)
