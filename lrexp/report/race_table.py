"""What a race prints: the LR it ends with, and what every LR came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lrexp.report.cells import column, new_table, words_column
from lrexp.report.text import count_text, lr_text, number_text


def race_panel(summary: Mapping[str, Any]) -> RenderableType:
    """Return what summary.json of a race says: the answer, then a line for each training.

    Example:
        >>> from rich.console import Console                                # doctest: +SKIP
        >>> Console().print(race_panel(load_run("runs/...").summary))       # doctest: +SKIP
    """
    race = summary["race"]
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True, style="dim")
    lines.add_column(overflow="fold")
    lr, interval = summary.get("suggested_lr"), summary.get("interval")
    if lr is None:
        lines.add_row("suggested LR", Text("none", "bold yellow"))
        lines.add_row("because", Text(str(summary.get("reason") or "no LR learned")))
    else:
        lines.add_row("suggested LR", Text(lr_text(lr), "bold green"))
    if interval:
        span = Text(f"{lr_text(interval[0])} to {lr_text(interval[1])}")
        lines.add_row("probably as good", span.append("  as far as short trainings tell", "dim"))
    if summary.get("estimated_regret") is not None:
        regret = Text(f"about {summary['estimated_regret']:.1%}")
        lines.add_row("estimated regret", regret.append("  0 % is the best LR, 100 % none", "dim"))
    if summary.get("base_lr") and summary.get("max_lr"):
        text = f"{lr_text(summary['base_lr'])} to {lr_text(summary['max_lr'])}"
        lines.add_row("base to max LR", Text(text).append("  for cyclic schedules", "dim"))
    tested = summary.get("range_test") or {}
    if tested.get("suggested_lr"):
        steps = f"  {count_text(tested['steps'], 'step')}"
        lines.add_row("range test", Text(lr_text(tested["suggested_lr"])).append(steps, "dim"))
    if summary.get("note"):
        lines.add_row("note", Text(str(summary["note"])))
    title = Text.assemble(("Race", "bold"), (f" · {_cost(race)}", "dim"))
    panel = Panel(lines, title=title, expand=False, padding=(1, 2))
    return Group(panel, _table(race))


def _cost(race: Mapping[str, Any]) -> str:
    share = race["steps"] / race["total_steps"]
    return f"{count_text(race['steps'], 'step')}, {share:.2g} × a full training"


def _table(race: Mapping[str, Any]) -> Table:
    table = new_table(
        column("trained for"), column("LR"), column("loss"), column("regret"), words_column("")
    )
    halved = len(race["rungs"]) > 1
    for i, rung in enumerate(race["rungs"]):
        is_first = halved and i == 0  # some of them went on
        share = rung["horizon"] / race["total_steps"]
        length = Text(f"{count_text(rung['horizon'], 'step')}, {share:.0%}")
        for row in rung["lrs"]:
            known = [loss for loss in row["losses"] if loss is not None]
            loss = number_text(sum(known) / len(known), 4) if known else "–"
            table.add_row(
                length, lr_text(row["lr"]), loss, f"{row['regret']:.1%}", _word(row, is_first),
                style="dim" if is_first and row["dropped"] else "",
            )  # fmt: skip
            length = Text("")
    return table


def _word(row: Mapping[str, Any], is_halved: bool) -> Text:
    lost, seeds = row["diverged"], len(row["losses"])
    if lost:
        share = "" if lost == seeds else f" with {lost} of {count_text(seeds, 'seed')}"
        return Text(f"diverged{share}", "red")
    if not is_halved:
        return Text("best", "green") if row["regret"] == 0 else Text("")
    return Text("dropped") if row["dropped"] else Text("stays", "green")
