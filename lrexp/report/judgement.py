"""Tables and words of verdicts on what was trained already: `lrexp judge`, `verdict`, `power`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from lrexp.analysis.claims import BETTER, UNDECIDED
from lrexp.report.text import (
    NAME_WIDTH,
    cell,
    count_text,
    heading,
    mean_sd_column,
    measure_text,
    new_table,
    number_text,
    shortened,
    shown_of,
    visible,
)

_STYLES = {"better": "green", "worse": "red", "undecided": "yellow", "equivalent": ""}


def judgement_table(judged: Mapping[str, Any]) -> RenderableType:
    """Return what `lrexp.judge` says, as something that rich prints."""
    judged = visible(judged)
    parts: list[RenderableType] = [
        Padding(_heading(judged), (1, 0, 0, 2)),
        _ranking(judged),
        Padding(_how(judged), (0, 0, 0, 2)),
        Padding(_sentences(judged), (0, 0, 1, 2)),
        *(Padding(Text(f"Warning: {w}", "yellow"), (0, 0, 1, 2)) for w in judged["warnings"]),
    ]
    return Group(*parts)


def _heading(judged: Mapping[str, Any]) -> Text:
    better = "higher" if judged["direction"] == "max" else "lower"
    text = Text(heading(judged["metric"]), "bold")
    select = " · best evaluation of each seed" if judged.get("select") == "best" else ""
    count = count_text(len(judged["ranking"]), "variant")
    return text.append(f", {better} is better · {count}{select}", "not bold dim")


def _ranking(judged: Mapping[str, Any]) -> Table:
    rows = judged["ranking"]
    verdicts = {c["variant"]: c["verdict"] for c in judged["comparisons"]}
    values = mean_sd_column([(row["mean"], row["sd"]) for row in rows])
    lost = any(row["outcomes"].keys() - {"finished"} for row in rows)
    table = new_table(
        *("", "variant"),
        Column(Text("mean ± sd"), no_wrap=True),
        Column(Text("n"), justify="right", no_wrap=True),
        *([Column(Text("lost"), justify="right", no_wrap=True)] if lost else []),
        Column(Text(f"against {shortened(judged['reference'], NAME_WIDTH)}")),
    )
    shown = shown_of(len(rows))
    for place, i in enumerate(shown):
        if place and i != shown[place - 1] + 1:
            table.add_row("…", Text(f"{len(rows) - len(shown)} more, with --json", "dim"))
        row = rows[i]
        style = "bold" if row["rank"] == 1 else ""
        total = sum(row["outcomes"].values())
        gone = [Text(str(total - row["num_finished"]), "red")] if lost else []
        says = verdicts.get(row["variant"], "reference")
        table.add_row(
            Text(str(row["rank"]), style), cell(row["variant"], style), Text(values[i], style),
            Text(str(total)), *gone, Text(says, _STYLES.get(says, "dim")),
        )  # fmt: skip
    return table


def _how(judged: Mapping[str, Any]) -> Text:
    family = judged["comparisons_corrected_for"]
    pairs = f"pairs by {judged['pair']}" if judged.get("pair") else "pairs by seed"
    how = f"{pairs}: exact sign flips" if judged["paired"] else "no pairs: Welch's t, Mann-Whitney"
    text = Text("Verdicts", "bold").append(f", {how}", "not bold dim")
    if judged["reference_is_best"]:
        text.append(f". The best was chosen by these values: p for all {family} pairs", "dim")
    elif family > 1:
        text.append(f", p for {count_text(family, 'comparison')} (Holm)", "not bold dim")
    return text


def _sentences(judged: Mapping[str, Any]) -> Table:
    names = Column(overflow="fold", max_width=28)
    grid = Table.grid(names, Column(overflow="fold"), padding=(0, 2, 0, 0))
    found = judged["comparisons"]
    for i in shown_of(len(found)):
        style = "yellow" if found[i]["kind"] == UNDECIDED else ""
        style = style if found[i]["kind"] in (BETTER, UNDECIDED) else "dim"
        grid.add_row(cell(found[i]["variant"], "bold"), Text(found[i]["sentence"], style))
    return grid


def power_table(power: Mapping[str, Any]) -> RenderableType:
    """Return how many seeds a difference takes, as something that rich prints."""
    power = visible(power)
    family, reference = (
        power["comparisons_corrected_for"],
        shortened(power["reference"], NAME_WIDTH),
    )
    text = Text("Seeds", "bold").append(
        f" that show a difference of {number_text(power['difference'])} in "
        f"{measure_text(power['metric'])} to {reference} in {100 * power['power']:.0f} % of "
        f"experiments, p for {count_text(family, 'comparison')}",
        "not bold dim",
    )
    table = new_table(
        "variant",
        Column(Text("sd of differences"), justify="right", no_wrap=True),
        Column(Text("from seeds"), justify="right", no_wrap=True),
        Column(Text("seeds needed"), justify="right", no_wrap=True),
    )
    for row in power["comparisons"]:
        seeds = "more than 10,000" if row["seeds"] is None else f"{row['seeds']:,}"
        sd = "unknown" if row["sd"] is None else number_text(row["sd"])
        table.add_row(
            cell(row["variant"]), Text(sd), Text(str(row["n"])), Text(seeds if row["sd"] else "")
        )
    return Group(Padding(text, (1, 0, 0, 2)), table)
