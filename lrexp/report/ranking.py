"""The table that a comparison ends with, the sentences below it, and what may be claimed.

The table takes the form that fits the console: with every seed's value where there is room, else
with those values among the sentences. Numbers are never cut; names fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from lrexp.analysis.claims import BETTER, NO_DIFFERENCE, TOO_FEW
from lrexp.analysis.statistics import MIN_SEEDS
from lrexp.report.metrics import GUESSES, guesses, metric_notes, metrics_table, other_columns
from lrexp.report.text import (
    FIRST_SHOWN,
    NAME_WIDTH,
    cell,
    count_text,
    heading,
    least_width,
    lr_text,
    mean_sd_column,
    measure_text,
    new_table,
    number_text,
    settings_text,
    shortened,
    shown_of,
    visible,
)
from lrexp.runs.files import as_written

MAX_SEED_VALUES = 6  # more values than these say less than their mean and sd
MANY_SENTENCES = 5  # of the best variants, where there are too many for all of them
STYLES = {"converging well": "green", "diverged": "red", "failed": "red"}
DELTA = "Δ to best"


def ranking_table(summary: Mapping[str, Any]) -> RenderableType:
    """Return what summary.json of a comparison says, as something that rich prints.

    Example:
        >>> from rich.console import Console                                  # doctest: +SKIP
        >>> Console().print(ranking_table(load_run("runs/...").summary))       # doctest: +SKIP

    Raises:
        RunError: when it is printed: it holds something else than a comparison writes.
    """
    return _Ranking(visible(summary))


@dataclass(frozen=True)
class _Ranking:
    """Chooses the form of the table when the width of the console is known."""

    summary: Mapping[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with as_written("summary.json"):
            table = [*self._table(console, options), *_metrics(self.summary)]
            parts = [*table, verdict_lines(self.summary)]
            parts.insert(0, Padding(_heading(self.summary), (1, 0, 0, 2)))
        yield from (part for part in parts if part is not None)

    def _table(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield table and sentences; a screen too narrow for any table gets no table."""
        wide = _table(self.summary, wide=True)
        unlimited = options.update(width=10_000)
        if Measurement.get(console, unlimited, wide).maximum <= options.max_width:
            yield wide
            yield _sentences(self.summary)
            return
        for delta, others in ((True, True), (False, True), (False, False)):
            narrow = _table(self.summary, delta=delta, others=others)
            if least_width(narrow, console, options) <= options.max_width:
                yield narrow
                told = {"delta": not delta, "others": not others}
                yield _sentences(self.summary, changes=True, **told)
                return
        yield _sentences(self.summary, changes=True, delta=True, others=True, value=True)


def _heading(summary: Mapping[str, Any]) -> Text:
    better = "higher" if summary.get("direction") == "max" else "lower"
    num_variants, num_seeds = len(summary["ranking"]), len(summary.get("seeds") or ())
    text = Text(heading(summary["metric"]), "bold")
    counts = f"{count_text(num_variants, 'variant')} × {count_text(num_seeds, 'seed')}"
    best = " · ranked by the best evaluation" if summary.get("select") == "best" else ""
    return text.append(f", {better} is better · {counts}{best}", "not bold dim")


def _metrics(summary: Mapping[str, Any]) -> RenderResult:
    """Yield the other metrics, and what is to be said of all."""
    table, notes = metrics_table(summary), metric_notes(summary)
    if table is not None:
        yield table
    told = [Padding(_plain(note, "yellow"), (0, 0, 0, 2)) for note in notes]
    if told:
        yield Padding(Group(*told), (0, 0, 1, 0))


def _table(
    summary: Mapping[str, Any], *, delta: bool = True, others: bool = True, wide: bool = False
) -> Table:
    """Return the ranking; a wide table has changes, and each seed's value, in it."""
    rows, values = summary["ranking"], _values(summary)
    differences = _differences(summary) if delta else []
    seeds = _shown_seeds(summary) if wide else ()
    value = "mean ± sd" if len(summary.get("seeds") or ()) > 1 else "value"
    beside = other_columns(summary) if others else []
    delta_column = [Column(Text(DELTA), no_wrap=True)] if differences else []
    table = new_table(
        *("", "variant", *(["changes"] if wide else [])),
        Column(Text(value), no_wrap=True),  # texts aligned among themselves, as those of the next
        *(Column(Text(name), justify="right", no_wrap=True) for name, _ in beside),
        *delta_column,
        *(Column(Text(f"seed {n}"), justify="right", no_wrap=True, style="dim") for n in seeds),
        Column(Text("diagnosis")) if wide else "diagnosis",
    )
    shown = shown_of(len(rows))
    for place, i in enumerate(shown):
        if place and i != shown[place - 1] + 1:
            table.add_row("…", Text(f"{len(rows) - len(shown)} more, in summary.csv", "dim"))
        row = rows[i]
        style = "bold" if row["rank"] == 1 else ""
        cells = [Text(str(row["rank"]), style), cell(row["variant"], style)]
        cells += [cell(settings_text(row.get("settings") or {}))] if wide else []
        cells += [values[i], *(Text(texts[i]) for _, texts in beside), *differences[i : i + 1]]
        by_seed = [number_text(value, zeros=True) for value in row["values"][: len(seeds)]]
        table.add_row(*cells, *by_seed, _diagnosis(row))
    if (guess := guesses(summary, summary["metric"])) is not None:
        changes = [Text()] if wide else []
        table.add_row(Text(), Text(GUESSES, "dim"), *changes, Text(guess, "dim"))
    return table


def _sentences(
    summary: Mapping[str, Any],
    *,
    changes: bool = False,
    delta: bool = False,
    others: bool = False,
    value: bool = False,
) -> RenderableType:
    """Return a paragraph for each variant, with what no table says of it."""
    grid = _paragraphs()
    seeds, rows, means = _shown_seeds(summary), summary["ranking"], _values(summary)
    differences = _differences(summary) if delta else []
    beside = other_columns(summary) if others else []
    for i in shown_of(len(rows), first=MANY_SENTENCES):
        row = rows[i]
        text = Text()
        if value:
            text.append(_squeezed(means[i]), means[i].style).append(", ")
            text.append_text(_diagnosis(row)).append("\n")
        text.append(str(row["diagnosis"]["sentence"]))
        values = [number_text(value, zeros=True) for value in row["values"][: len(seeds)]]
        facts = [
            settings_text(row.get("settings") or {}),
            f"seeds {'  '.join(values)}" if values else "",
            *(f"{title} {texts[i].strip()}" for title, texts in beside),
            *(f"{DELTA} {_squeezed(text)}" for text in differences[max(i, 1) : i + 1]),
        ]
        if changes and any(facts):
            text.append("\n" + " · ".join(fact for fact in facts if fact), "dim")
        grid.add_row(cell(row["variant"], "bold"), text)
    return Padding(grid, (0, 0, 1, 2))


def _paragraphs() -> Table:
    """Return an empty grid of names and the sentences on them."""
    names = Column(overflow="fold", max_width=28)
    return Table.grid(names, Column(overflow="fold"), padding=(0, 2, 0, 0))


def _values(summary: Mapping[str, Any]) -> list[Text]:
    """Return mean and sd of every row."""
    rows = summary["ranking"]
    texts = mean_sd_column([(row.get("mean"), row.get("sd")) for row in rows])
    styles = ["bold" if row["rank"] == 1 else "" for row in rows]
    return [Text(text, style) for text, style in zip(texts, styles, strict=True)]


def _differences(summary: Mapping[str, Any]) -> list[Text]:
    """Return how far every row is from the best, seed by seed; nothing where that tells nothing.

    A difference whose sd over the seeds is larger than itself is quiet; where there are too few
    seeds for a verdict, it says so.
    """
    found = [row.get("difference") or {} for row in summary["ranking"]]
    others = [(d.get("mean"), d.get("sd")) for d in found[1:]]
    num_seeds = len(summary.get("seeds") or ())
    if num_seeds < 2 or all(mean is None for mean, _ in others):
        return []
    texts = mean_sd_column([(None, None), *others], signed=True)
    cells = [Text(texts[0], "dim")]
    for text, (mean, sd), difference in zip(texts[1:], others, found[1:], strict=True):
        within = mean is not None and sd is not None and abs(mean) < sd
        cells.append(Text(text, "dim" if within or mean is None else ""))
        num_pairs = difference.get("num_pairs", num_seeds)
        notes = ["within spread"] if within and num_seeds < MIN_SEEDS else []
        notes += [f"over {count_text(num_pairs, 'seed')}"] if 0 < num_pairs < num_seeds else []
        for note in notes:
            cells[-1].append(f"\n{note}", "dim")
    return cells


def _squeezed(text: Text) -> str:
    """Return an aligned text for the middle of a line."""
    return " ".join(text.plain.split())


def _diagnosis(row: Mapping[str, Any]) -> Text:
    """Return the word, with the number of seeds that did not finish where it is not all or none."""
    word = str(row["diagnosis"]["word"])
    text = Text(word, STYLES.get(word, "yellow"))
    outcomes = row.get("outcomes") or {}
    total = sum(outcomes.values())
    for kind in ("diverged", "failed"):
        count = outcomes.get(kind, 0)
        if count and total > 1:
            share = f"all {total}" if count == total else f"{count} of {total}"
            text.append(f" ({share})" if kind == word else f" ({share} {kind})", "red")
    return text


def _shown_seeds(summary: Mapping[str, Any]) -> Sequence[int]:
    seeds: Sequence[int] = summary.get("seeds") or ()
    return seeds if 1 < len(seeds) <= MAX_SEED_VALUES else ()


MAX_LENGTH = 2_000  # characters of a paragraph
MANY_MISSES = 5  # variants that never reach the target; more are counted
CLAIM_STYLES = {BETTER: "", NO_DIFFERENCE: "", TOO_FEW: "dim"}  # what is open is yellow


def verdict_lines(summary: Mapping[str, Any]) -> RenderableType | None:
    """Return the verdicts of summary.json; None where it has none, as that of an older run."""
    if not summary.get("declared"):
        return None
    parts: list[RenderableType] = []
    if summary.get("comparisons"):
        parts += [Padding(declared_text(summary), (0, 0, 0, 2)), _verdicts(summary)]
    texts = [_plain(text, "dim") for text in verdict_facts(summary)]
    texts += [_plain(f"Warning: {text}", "yellow") for text in summary["warnings"]]
    parts += [Padding(text, (0, 0, 0, 2)) for text in texts]
    return Padding(Group(*parts), (0, 0, 1, 0)) if parts else None


def verdict_facts(summary: Mapping[str, Any]) -> list[str]:
    """Return sentences on the noise, the time to a target, and the LR."""
    curves = summary["lr_sensitivity"]
    facts = [
        *([_noise_text(summary)] if len(summary["seeds"]) > 1 else []),
        _target_text(summary),
        *(_sensitivity_text(c, curves) for c in curves[:FIRST_SHOWN]),
    ]
    return [text for text in facts if text]


def _plain(text: str, style: str = "") -> Text:
    return Text(shortened(text, MAX_LENGTH), style)  # names in it come from a user


def declared_text(summary: Mapping[str, Any]) -> Text:
    """Return what was declared before the training: reference, metric, corrections."""
    declared = summary["declared"]
    lengths = set(declared["steps"].values())
    at = f"after {count_text(max(lengths), 'step')}" if len(lengths) == 1 else "at the end of each"
    if summary.get("select") == "best":
        at = "of the best evaluation of each seed"
    family = declared["comparisons_corrected_for"]
    reference = shortened(declared["reference"], NAME_WIDTH)
    what = f", against {reference}: {measure_text(declared['metric'])} {at}"
    text = Text("Verdicts", "bold").append(what, "not bold dim")
    if declared["reference_is_best"]:
        pairs = f": p for all {family} pairs" if family > 1 else ""
        text.append(f". The best was chosen by these seeds{pairs}", "dim")
    elif family > 1:
        text.append(f", p for {count_text(family, 'comparison')} (Holm)", "not bold dim")
    looks, count = declared.get("looks") or (), len(summary["seeds"])
    if len(looks) > 1:
        place = sum(n <= count for n in looks)
        limit = f"{declared['alpha']:.2g}"
        text.append(f", look {place} of {len(looks)}: p has to be at most {limit}", "not bold dim")
    return text


def _verdicts(summary: Mapping[str, Any]) -> RenderableType:
    comparisons = summary["comparisons"]
    if all(c["kind"] == TOO_FEW for c in comparisons):
        return Padding(too_few_text(summary), (0, 0, 1, 2))
    grid = _paragraphs()
    shown = shown_of(len(comparisons))
    for place, i in enumerate(shown):
        if place and i != shown[place - 1] + 1:
            grid.add_row("…", Text(_left_out(comparisons, shown), "dim"))
        comparison = comparisons[i]
        style = CLAIM_STYLES.get(comparison["kind"], "yellow")
        grid.add_row(cell(comparison["variant"], "bold"), _plain(comparison["verdict"], style))
    return Padding(grid, (0, 0, 1, 2))


def _left_out(comparisons: Sequence[Mapping[str, Any]], shown: Sequence[int]) -> str:
    """Return how many verdicts of each kind are not shown."""
    rest = [c["kind"] for i, c in enumerate(comparisons) if i not in shown]
    counts = {kind: rest.count(kind) for kind in dict.fromkeys(rest)}
    kinds = ", ".join(f"{count} × {kind}" for kind, count in counts.items())
    return f"{len(rest)} more, in summary.csv: {kinds}"


def too_few_text(summary: Mapping[str, Any]) -> Text:
    """Return one line for all verdicts: they share the reason."""
    needed, family = (
        summary["declared"][key] for key in ("seeds_needed", "comparisons_corrected_for")
    )
    verdict = summary["comparisons"][0]["verdict"]
    takes = "a comparison takes" if family == 1 else f"{family} comparisons (Holm) take"
    return _plain(f"{verdict[:1].upper()}{verdict[1:]}: {takes} {needed} seeds.")


def _noise_text(summary: Mapping[str, Any]) -> str:
    noise = summary["noise"] or {}
    between = noise.get("between_seeds")
    text = ""
    if between:
        mean, highest = (number_text(between[key], 2) for key in ("mean", "highest"))
        most = f", {highest} at most" if between["num_seeds"] > 2 else ""
        whole = between["num_seeds"] == len(summary["seeds"])
        seeds = "seeds" if whole else f"of the {between['num_seeds']} seeds with a result"
        text = (
            f"A against A: two {seeds} of {between['variant']} differ by {mean} on average{most}; "
            "single trainings cannot tell less than that apart."
        )
    for equal in noise.get("equal_variants", ())[:FIRST_SHOWN]:
        if equal["highest"] is not None:
            names = ", ".join(equal["variants"])
            text += f" Equal settings ({names}) differ by {number_text(equal['highest'], 2)}."
    return text.strip()


def _target_text(summary: Mapping[str, Any]) -> str:
    found = summary["time_to_target"]
    if not found or len(found["variants"]) < 2:
        return ""
    rows = found["variants"]
    soonest = sorted(
        (name for name in rows if rows[name]["reached"]),
        key=lambda name: (rows[name]["median"] is None, rows[name]["median"] or 0.0),
    )
    times = [_time_text(name, rows[name]) for name in soonest[:FIRST_SHOWN]]
    never = [name for name in rows if not rows[name]["reached"]]
    named = ", ".join(never) if len(never) <= MANY_MISSES else f"{len(never)} variants"
    times += [f"{len(soonest) - FIRST_SHOWN} more"] if len(soonest) > FIRST_SHOWN else []
    times += [f"never {named}"] if never else []
    reference = summary["declared"]["reference"]
    most = "most of " if len(summary["seeds"]) > 1 else ""
    source = " (declared)" if found["declared"] else f" (where {most}{reference} ends)"
    measure = measure_text(summary["metric"])
    head = f"Median {found['unit']}s to a {measure} of {number_text(found['target'])}{source}"
    return f"{head}: {', '.join(times)}."


def _time_text(name: str, times: Mapping[str, Any]) -> str:
    median, reached, total = times["median"], times["reached"], times["of"]
    if median is None:
        return f"{name} in {reached} of {total} seeds only"
    text = f"{name} {number_text(median)}"
    return f"{text} ({reached} of {total} seeds)" if reached < total else text


def _sensitivity_text(curve: Mapping[str, Any], curves: Sequence[Mapping[str, Any]]) -> str:
    lr, basin, start = curve["best_lr"], curve["basin"], "LR"
    if len(curves) > 1:
        start += f", with {settings_text(curve['settings']) or 'nothing else changed'}"
    if lr is None:
        lost = sum(count > 0 for count in curve["diverged"])
        if lost == 0:
            return f"{start}: every trial failed."
        failed = "" if lost == len(curve["lrs"]) else ", or every one failed,"
        return f"{start}: a seed diverged{failed} at every one of them."
    if basin is None:
        return f"{start}: none got better than before training."
    ends = [
        f"{'at most ' if basin['open_low'] else ''}{lr_text(basin['low'], 2)}",
        f"{'at least ' if basin['open_high'] else ''}{lr_text(basin['high'], 2)}",
    ]
    least = "at least " if basin["open_low"] or basin["open_high"] else ""
    total, good = len(curve["lrs"]), basin["num_lrs"]
    tried = f"{good} of the {total} tried" if good > 1 else f"interpolated: no other of the {total}"
    return (
        f"{start}: {lr_text(lr)} is best; {ends[0]} to {ends[1]} come within 5 % of the way to it "
        f"({least}{number_text(basin['decades'], 2)} decades, {tried})."
    )
