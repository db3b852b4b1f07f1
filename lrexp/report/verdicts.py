"""What may be said, below the ranking: a verdict for each variant, then what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lrexp.analysis.claims import BETTER, TOO_FEW
from lrexp.report.text import (
    FIRST_SHOWN,
    NAME_WIDTH,
    cell,
    count_text,
    lr_text,
    measure_text,
    number_text,
    setting_text,
    shortened,
    shown_of,
)

MAX_LENGTH = 2_000  # characters of a paragraph
MANY_MISSES = 5  # variants that never reach the target; more are counted
STYLES = {BETTER: "", TOO_FEW: "dim"}


def verdict_lines(summary: Mapping[str, Any]) -> RenderableType | None:
    """Return the verdicts of summary.json; None where it has none, as that of an older run."""
    if not summary.get("declared"):
        return None
    parts: list[RenderableType] = []
    if summary.get("comparisons"):
        parts += [Padding(_heading(summary), (0, 0, 0, 2)), _verdicts(summary)]
    facts = [
        *([_noise_text(summary)] if len(summary["seeds"]) > 1 else []),
        _target_text(summary),
        *_sensitivity_texts(summary["lr_sensitivity"]),
    ]
    texts = [_plain(text, "dim") for text in facts if text]
    texts += [_plain(f"Warning: {text}", "yellow") for text in summary["warnings"]]
    parts += [Padding(text, (0, 0, 0, 2)) for text in texts]
    return Padding(Group(*parts), (0, 0, 1, 0)) if parts else None


def _plain(text: str, style: str = "") -> Text:
    """Return a sentence with names from a user in it, without control characters."""
    return Text(shortened(text, MAX_LENGTH), style)


def _heading(summary: Mapping[str, Any]) -> Text:
    """Return what was declared: metric and horizon, reference, how many comparisons."""
    declared = summary["declared"]
    lengths = set(declared["steps"].values())
    at = f"after {count_text(max(lengths), 'step')}" if len(lengths) == 1 else "at the end of each"
    family = declared["comparisons_corrected_for"]
    reference = shortened(declared["reference"], NAME_WIDTH)
    what = f", against {reference}: {measure_text(declared['metric'])} {at}"
    text = Text("Verdicts", "bold").append(what, "not bold dim")
    if declared["reference_is_best"]:
        text.append(f". The best was chosen by these seeds: p for all {family} pairs", "dim")
    elif family > 1:
        text.append(f", p for {count_text(family, 'comparison')} (Holm)", "not bold dim")
    return text


def _verdicts(summary: Mapping[str, Any]) -> RenderableType:
    comparisons = summary["comparisons"]
    if all(c["kind"] == TOO_FEW for c in comparisons):
        return Padding(_too_few(summary), (0, 0, 1, 2))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(overflow="fold", max_width=28)
    grid.add_column(overflow="fold")
    shown = shown_of(len(comparisons))
    for place, i in enumerate(shown):
        if place and i != shown[place - 1] + 1:
            grid.add_row("…", Text(_left_out(comparisons, shown), "dim"))
        comparison = comparisons[i]
        style = STYLES.get(comparison["kind"], "yellow")
        grid.add_row(cell(comparison["variant"], "bold"), _plain(comparison["verdict"], style))
    return Padding(grid, (0, 0, 1, 2))


def _left_out(comparisons: Sequence[Mapping[str, Any]], shown: Sequence[int]) -> str:
    """Return how many verdicts of each kind are not shown."""
    rest = [c["kind"] for i, c in enumerate(comparisons) if i not in shown]
    counts = {kind: rest.count(kind) for kind in dict.fromkeys(rest)}
    kinds = ", ".join(f"{count} × {kind}" for kind, count in counts.items())
    return f"{len(rest)} more, in summary.csv: {kinds}"


def _too_few(summary: Mapping[str, Any]) -> Text:
    """Return one line for all: they share the reason."""
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
    source = " (declared)" if found["declared"] else f" (where most of {reference} ends)"
    measure = measure_text(summary["metric"])
    head = f"Median {found['unit']}s to a {measure} of {number_text(found['target'])}{source}"
    return f"{head}: {', '.join(times)}."


def _time_text(name: str, times: Mapping[str, Any]) -> str:
    median, reached, total = times["median"], times["reached"], times["of"]
    if median is None:
        return f"{name} in {reached} of {total} seeds only"
    text = f"{name} {number_text(median)}"
    return f"{text} ({reached} of {total} seeds)" if reached < total else text


def _sensitivity_texts(curves: Sequence[Mapping[str, Any]]) -> list[str]:
    if len(curves) == 1:
        return [_sensitivity_text(curves[0], "LR")]
    texts = []
    for curve in curves[:FIRST_SHOWN]:
        settings = ", ".join(setting_text(k, v) for k, v in curve["settings"].items())
        texts.append(_sensitivity_text(curve, f"LR, with {settings or 'nothing else changed'}"))
    return texts


def _sensitivity_text(curve: Mapping[str, Any], start: str) -> str:
    lr, basin = curve["best_lr"], curve["basin"]
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
