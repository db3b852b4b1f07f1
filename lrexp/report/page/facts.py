"""What a page says: the question, the answer, the verdicts, its pictures, its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lrexp.analysis.claims import BETTER, TOO_FEW
from lrexp.report.data import overlays, pictures
from lrexp.report.data.finals import finals_picture
from lrexp.report.data.picture import Cells, Entry, Picture
from lrexp.report.page.charts import (
    Budget,
    charts,
    color_of,
    key_of,
)
from lrexp.report.page.looks import SWATCHES
from lrexp.report.page.tables import added_settings, cells_table, how_table, variants_table
from lrexp.report.ranking import declared_text, too_few_text, verdict_facts
from lrexp.report.show import progress_of, time_text
from lrexp.report.text import (
    changed_keys,
    compared_text,
    count_text,
    lr_text,
    mean_sd_text,
    measure_text,
    number_text,
    run_subtitle,
    shortened,
    visible,
)
from lrexp.runs.reader import Run

MOST_NUMBERS = 250_000  # points of all lines of a page: some 3 MB
SHOWN_AT_FIRST = 10  # variants of a picture that has more
HEADINGS = {
    "verdicts": "Differences to the reference",
    "finals": "Where every seed ended",
    "heatmap": "Over two settings",
    "lr_sensitivity": "Over the learning rate",
    "loss": "Losses",
    "metrics": "Further metrics",
    "lr": "Learning rate",
    "range_test": "Range test",
    "race": "Learning rates tried",
    "overlay-loss": "Losses",
    "overlay-range-test": "Range tests",
}
Plain = dict[str, Any]


def page_facts(runs: Sequence[Run]) -> Plain:
    """Return what the template of a page is filled with."""
    drawn = _pictures(runs)
    budget = Budget.of(drawn.values(), MOST_NUMBERS)
    made: dict[str, Plain] = {}
    single = runs[0] if len(runs) == 1 else None
    ranking = ((single.summary or {}).get("ranking") or ()) if single else ()
    best = [row["variant"] for row in ranking[:SHOWN_AT_FIRST]]
    sections = [_section(name, picture, made, budget, best) for name, picture in drawn.items()]
    return {
        "title": shortened(" · ".join(dict.fromkeys(run.name for run in runs)), 80),
        "question": _question(runs),
        "runs": [_of_run(run) for run in runs],
        "single": single is not None,
        "sections": sections,
        "charts": made,
    }


def _pictures(runs: Sequence[Run]) -> dict[str, Picture]:
    """Return the pictures, the one that decides first."""
    if len(runs) > 1:
        return overlays(runs)
    run = runs[0]
    found = pictures(run)
    if run.command == "find-lr":  # loss and lr would show the range test once more
        found = {name: found[name] for name in ("race", "range_test") if name in found}
    if run.command == "compare" and run.summary:
        found["finals"] = finals_picture(run)
    first = next((name for name in _deciding(run) if name in found), None)
    order = [first, *HEADINGS] if first else list(HEADINGS)
    names = [*dict.fromkeys([*order, *found])]
    return {name: found[name] for name in names if name in found}


def _deciding(run: Run) -> list[str]:
    """Return the names of pictures that may answer the question, the best answer first."""
    if run.command == "find-lr":
        return ["race", "range_test"]
    claims = (run.summary or {}).get("comparisons") or []
    told = [claim for claim in claims if claim["kind"] != TOO_FEW]
    verdicts = ["verdicts"] if told and len(claims) <= SHOWN_AT_FIRST else []
    return ["heatmap", *verdicts, "lr_sensitivity", "finals", "loss"]


def _question(runs: Sequence[Run]) -> str:
    if len(runs) > 1:
        return f"How do {count_text(len(runs), 'run')} compare?"
    run = runs[0]
    if run.command == "find-lr":
        return f"Which learning rate suits {shortened(run.name, 60)}?"
    summary = run.summary or {}
    asked = (run.config.get("compare") or {}).get("metric") or "val_loss"
    metric = str(summary.get("metric") or asked)
    best = "highest" if summary.get("direction") == "max" else "lowest"
    compared = compared_text(len(run.variants), changed_keys(run))
    return f"Which of {compared} gives the {best} {measure_text(metric)}?"


def _of_run(run: Run) -> Plain:
    summary = visible(run.summary) if run.summary else None
    status = str(run.status.get("status", "open"))
    return {
        "name": run.name,
        "folder": run.path.name,
        "command": run.command,
        "status": status,
        "subtitle": run_subtitle(run),
        "answer": _answer(run, summary),
        "verdicts": _verdicts(summary),
        "notes": _notes(summary),
        "progress": _progress(run) if summary is None else None,
        "table": variants_table(run, summary) if summary else None,
        "how": how_table(run),
    }


def _progress(run: Run) -> Plain:
    found = progress_of(run)
    rows = [
        {
            "name": name,
            "done": row["steps"]["done"],
            "of": row["steps"]["of"],
            "seeds": f"{row['seeds']['done']} of {row['seeds']['of']}",
            "last": number_text(row["last"]),
        }
        for name, row in found["variants"].items()
    ]
    left = found["seconds_left"]
    asked = (run.config.get("compare") or {}).get("metric") or "val_loss"
    metric = measure_text(str(asked) if run.command == "compare" else "train_loss")
    return found | {"rows": rows, "left": "" if left is None else time_text(left), "metric": metric}


def _answer(run: Run, summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return ""
    if run.command == "find-lr":
        return _found(summary)
    rows = summary["ranking"]
    best = rows[0] if rows else None
    if best is None or best.get("mean") is None:
        return "None: no variant has a result."
    changes = added_settings(best)
    name = shortened(best["variant"], 60)
    named = f"{name} ({changes})" if changes else name
    seeds = count_text(len(summary.get("seeds") or ()), "seed")
    value = mean_sd_text(best["mean"], best.get("sd"))
    return f"{named}: {value} over {seeds}. {_claim(summary, best['variant'])}".strip()


def _claim(summary: Mapping[str, Any], best: str) -> str:
    """Return how far the verdicts bear out that the best is the best."""
    claims, count = summary.get("comparisons") or [], len(summary.get("seeds") or ())
    if not claims:
        return ""
    if count < 2:
        return "One seed each: a difference may be luck."
    if all(claim["kind"] == TOO_FEW for claim in claims):
        return "Too few seeds to tell whether the difference is luck."
    of_best = [claim for claim in claims if best in (claim["variant"], claim["reference"])]
    won = [claim for claim in of_best if claim["kind"] == BETTER and claim["better"] == best]
    others = {c["variant"] for c in of_best} | {c["reference"] for c in of_best}
    if len(won) == len(of_best) and len(of_best) > 1:
        return f"It is better than each of the {len(won)} it was tested against."
    if len(of_best) == 1:
        [other] = others - {best}
        is_won = "is better than" if won else "is not shown to be better than"
        return f"It {is_won} {shortened(other, 60)}."
    return f"It is shown to be better than {len(won)} of the {len(of_best)} others."


def _found(summary: Mapping[str, Any]) -> str:
    lr = summary.get("suggested_lr")
    if lr is None:
        return f"No suggestion. {summary.get('reason') or 'The curve has no signal.'}"
    interval = summary.get("interval")
    if not interval:
        return f"{lr_text(lr)}."
    ends = f"{lr_text(interval[0])} to {lr_text(interval[1])}"
    said = "are probably as good" if summary.get("race") else "is its interval"
    return f"{lr_text(lr)}; {ends} {said}."


def _verdicts(summary: Mapping[str, Any] | None) -> Plain | None:
    claims = (summary or {}).get("comparisons") or []
    if not summary or not claims:
        return None
    heading = declared_text(summary).plain.removeprefix("Verdicts, ")
    if all(claim["kind"] == TOO_FEW for claim in claims):
        return {"heading": heading, "rows": [], "text": too_few_text(summary).plain}
    rows = [{"variant": c["variant"], "text": c["verdict"], "kind": _word_of(c)} for c in claims]
    return {"heading": heading, "rows": rows, "text": ""}


def _word_of(claim: Mapping[str, Any]) -> str:
    """Return better, worse or open."""
    if claim["kind"] != BETTER:
        return "open"
    return "better" if claim["better"] == claim["variant"] else "worse"


def _notes(summary: Mapping[str, Any] | None) -> list[str]:
    if summary is None:
        return []
    if "suggested_lr" in summary:
        return [str(summary["note"])] if summary.get("note") else []
    if not summary.get("declared"):
        return []
    return [*verdict_facts(summary), *(f"Warning: {text}" for text in summary["warnings"])]


def _section(
    name: str,
    picture: Picture,
    made: dict[str, Plain],
    budget: Budget,
    best: Sequence[str],
) -> Plain:
    """Return a section of the page, and put its charts with the others.

    Args:
        name, picture: of the section.
        made: charts by their names, to which its own are added.
        budget: of points.
        best: variants to show at first where there are many; empty where that is not known.
    """
    found = []
    for i, chart in enumerate(charts(picture, budget)):
        id_ = f"{name}-{i}"
        made[id_] = chart
        found.append({"id": id_, "title": chart["title"], "scales": chart["scales"] is not None})
    traces = [trace for chart in found for trace in made[chart["id"]]["data"]]
    cells = [m for p in picture.panels for m in p.marks if isinstance(m, Cells)]
    entries = [_entry(entry, traces) for entry in picture.entries]
    lines = [e for e in entries if e["by"] in ("name", "key") and not picture.scale]
    if len(lines) > SHOWN_AT_FIRST:
        for i, entry in enumerate(lines):
            entry["off"] = not _is_of(entry["name"], best) if best else i >= SHOWN_AT_FIRST
        entries.sort(key=lambda entry: bool(entry["off"]))
    is_opened = any(trace["kind"] == "loss.seed" for trace in traces)
    return {
        "name": name,
        "heading": HEADINGS.get(name, name.replace("_", " ")),
        "title": picture.title.partition(": ")[2] or picture.title,
        "caption": picture.caption,
        "charts": found,
        "tables": [cells_table(c, picture.panels[0]) for c in cells],
        "entries": entries,
        "many": max(0, len(lines) - SHOWN_AT_FIRST),
        "legend_title": picture.legend_title,
        "scale": _scale(picture),
        "opens": is_opened,
        "seeds": "none" if picture.scale and len(picture.entries) > SHOWN_AT_FIRST else "band",
        "has_raw": any(trace["kind"] == "loss.raw" for trace in traces),
    }


def _is_of(name: str, variants: Sequence[str]) -> bool:
    """Return whether a line is one of these variants', such as `a` or `a (lr_1)`."""
    return any(name == variant or name.startswith(f"{variant} (") for variant in variants)


def _scale(picture: Picture) -> Plain | None:
    """Return what the ends of the scale of shades stand for."""
    if picture.scale is None:
        return None
    low, high = lr_text(picture.scale.low), lr_text(picture.scale.high)
    return {"title": picture.scale.title, "low": low, "high": high}


def _entry(entry: Entry, traces: Sequence[Plain]) -> Plain:
    """Return a line of a legend, and which traces it shows and hides."""
    key = key_of(entry.look)
    found = {"name": entry.name, "note": entry.note, "off": False, "value": entry.name}
    found |= {"color": color_of(entry.look)[1:] if entry.look else None, "by": ""}
    found |= {"dash": entry.look.dash if entry.look else 0}
    found["swatch"] = SWATCHES.get(entry.kind, "line" if entry.look else "dot")
    if any(trace.get("variant") == entry.name for trace in traces):
        return found | {"by": "name"}
    if entry.kind in SWATCHES:
        return found
    if key and any(trace["key"] == key for trace in traces):
        return found | {"by": "key", "value": key}
    if any(trace["kind"] == entry.kind for trace in traces):
        return found | {"by": "kind", "value": entry.kind}
    return found
