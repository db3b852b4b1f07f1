"""What a picture or a table says about a run: what is compared, with what, how far it got."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lrexp.report.text import count_text, lr_text, mean_sd_text, number_text, shortened
from lrexp.store.read import Run

MEASURES = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "val_accuracy": "validation accuracy",
}
_KINDS = {  # of difference, by key; a key that ends with a dot stands for all below it
    "optimizer.lr": ("learning rate", "learning rates"),
    "optimizer.name": ("optimizer", "optimizers"),
    "optimizer": ("optimizer", "optimizers"),
    "optimizer.": ("optimizer setting", "optimizer settings"),
    "schedule": ("schedule", "schedules"),
    "schedule.": ("schedule", "schedules"),
    "model": ("model", "models"),
    "model.": ("model", "models"),
    "data.batch_size": ("batch size", "batch sizes"),
    "data.name": ("data set", "data sets"),
    "data": ("data set", "data sets"),
    "loss": ("loss function", "loss functions"),
    "train.duration": ("duration", "durations"),
}
_OTHER = ("variant", "variants")


def measure_text(measure: str) -> str:
    """Return `val_loss` in words: `validation loss`."""
    return MEASURES.get(measure, measure.replace("_", " "))


def kinds_compared(keys: Iterable[str]) -> set[str]:
    """Return in singular what a comparison varies, given the dotted keys that its variants set.

    Example:
        >>> sorted(kinds_compared(["optimizer.lr", "schedule.warmup"]))
        ['learning rate', 'schedule']
    """
    return {_kind(key)[0] for key in keys}


def compared_text(count: int, keys: Iterable[str]) -> str:
    """Return `3 learning rates` where nothing else differs, `3 variants` otherwise."""
    kinds = {_kind(key) for key in keys}
    return count_text(count, *(kinds.pop() if len(kinds) == 1 else _OTHER))


def changed_keys(run: Run) -> set[str]:
    """Return the dotted keys that the variants of a run set, or the ramp of a range test."""
    if run.command == "find-lr":
        return {"optimizer.lr", "schedule"}
    section = run.config.get("compare") or {}
    variants = section.get("variants") or {}
    return {key for changes in variants.values() for key in changes or {}} | set(
        section.get("grid") or {}
    )


def seeds_of(run: Run) -> list[int]:
    """Return the seeds that the run is about, also those that have not begun."""
    planned = run.status.get("seeds")
    return list(planned) if isinstance(planned, list) else sorted({t.seed for t in run.trials})


def run_title(run: Run, what: str) -> str:
    """Return `digits-lr: validation loss of 3 learning rates, 5 seeds`."""
    seeds = count_text(len(seeds_of(run)), "seed")
    compared = compared_text(len(run.variants), changed_keys(run))
    return f"{shortened(run.name, 48)}: {what} of {compared}, {seeds}"


def run_subtitle(run: Run) -> str:
    """Return how far the run got, unless it is complete, and what its variants have in common."""
    return " · ".join([*_progress(run), *_shared_settings(run.config, changed_keys(run))])


def setting_text(key: str, value: object) -> str:
    """Return one changed setting for a table.

    Example:
        >>> setting_text("optimizer.lr", 0.0001), setting_text("schedule", {"name": "cosine"})
        ('lr 1e-4', 'schedule cosine')
    """
    name = key.rpartition(".")[2] if key != "name" else key
    if name == "name":
        name = key.split(".")[-2]
    if isinstance(value, Mapping) and "name" in value:
        rest = {k: v for k, v in value.items() if k != "name"}
        inside = ", ".join(setting_text(k, v) for k, v in rest.items())
        return f"{name} {value['name']}" + (f" ({inside})" if inside else "")
    return f"{name} {_value_text(value)}"


def ranking_note(row: Mapping[str, Any]) -> str:
    """Return `0.123 ± 0.004`, and how many seeds diverged or failed."""
    outcomes = row.get("outcomes") or {}
    total = sum(outcomes.values())
    bad = [
        kind if count == total else f"{count} of {total} {kind}"
        for kind in ("diverged", "failed")
        if (count := outcomes.get(kind, 0))
    ]
    value = [] if row.get("mean") is None else [mean_sd_text(row["mean"], row.get("sd"))]
    return ", ".join([*value, *bad])


def _kind(key: str) -> tuple[str, str]:
    """Return what a key changes, in singular and plural."""
    return next((kind for start, kind in _KINDS.items() if _is_or_below(key, start)), _OTHER)


def _is_or_below(key: str, start: str) -> bool:
    return key == start or (start.endswith(".") and key.startswith(start))


def _progress(run: Run) -> list[str]:
    status = str(run.status.get("status", "interrupted"))
    if run.summary is not None or status == "complete":
        return []
    ended = sum(trial.result is not None for trial in run.trials)
    known = run.status.get("num_trials")  # of a race: those of the rungs that have begun
    planned = known if isinstance(known, int) else len(run.variants) * max(1, len(seeds_of(run)))
    return [f"{status}, {ended} of {count_text(planned, 'trial')} ended"]


def _shared_settings(config: Mapping[str, Any], changed: set[str]) -> list[str]:
    """Return model, data, optimizer, schedule and batch size, as far as no variant changes them."""
    kinds = kinds_compared(changed)
    model, data, optimizer, schedule = (
        _section(config.get(key)) for key in ("model", "data", "optimizer", "schedule")
    )
    names = [s["name"] for s, kind in ((model, "model"), (data, "data set")) if kind not in kinds]
    parts = [" on ".join(str(name) for name in names if name)]
    if "optimizer" not in kinds:
        facts = {} if "learning rate" in kinds else {"lr": optimizer.get("lr")}
        facts |= {} if "optimizer setting" in kinds else optimizer.get("args") or {}
        inside = ", ".join(setting_text(key, value) for key, value in facts.items())
        parts.append(f"{optimizer['name']} ({inside})" if inside else str(optimizer["name"] or ""))
    if "schedule" not in kinds and schedule["name"]:
        parts.append(f"{schedule['name']} schedule")
    if "batch size" not in kinds and data.get("batch_size"):
        parts.append(f"batch size {data['batch_size']}")
    return [part for part in parts if part]


def _section(value: object) -> dict[str, Any]:
    return {"name": None, **value} if isinstance(value, Mapping) else {"name": value}


def _value_text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return lr_text(value) if abs(value) < 1e-3 else number_text(value, 6)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_value_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value_text(v) for v in value) + "]"
    return str(value)
