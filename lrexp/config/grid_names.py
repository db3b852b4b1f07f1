"""Short names for the combinations of a grid: `lr=0.5,schedule=cosine`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lrexp.config.safe_names import MAX_LENGTH, make_safe, why_unsafe

_MAX_LABEL = 24


def axis_names(keys: Sequence[str]) -> list[str]:
    """Return what each dotted key is called in names: its last part, more where that is shared.

    Example:
        >>> axis_names(["optimizer.lr", "schedule", "model.args.hidden", "data.name"])
        ['lr', 'schedule', 'hidden', 'data']
    """
    parts = [key.removesuffix(".name").split(".") for key in keys]
    names = []
    for own in parts:
        size = 1
        while size < len(own) and sum(other[-size:] == own[-size:] for other in parts) > 1:
            size += 1
        names.append(".".join(own[-size:]))
    return names


def value_labels(values: Sequence[object]) -> list[str]:
    """Return a label for each value of one axis, different from the others whatever their case.

    Example:
        >>> value_labels([0.5, 1e-07, "cosine", {"name": "cosine", "warmup": "5%"}])
        ['0.5', '1e-07', 'cosine', 'cosine+warmup=5%']
    """
    labels = [_short(value) for value in values]
    clashing = [i for i, label in enumerate(labels) if _count(label, labels) > 1]
    for i in clashing:
        labels[i] = _long(values[i])
    if all(_count(label, labels) == 1 for label in labels):
        return labels
    return [f"{label}-{i}" for i, label in enumerate(labels, start=1)]


def combination_name(axes: Sequence[str], labels: Sequence[str], index: int) -> str:
    """Return the name of one combination; `index` makes a name that is too long unique."""
    name = ",".join(f"{axis}={label}" for axis, label in zip(axes, labels, strict=True))
    if why_unsafe(name) is None:
        return name
    tail = f"-{index}"
    return make_safe(name)[: MAX_LENGTH - len(tail)].rstrip(" .") + tail


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        value = value.get("name", "-".join(value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, list):
        return _clean("x".join(_short(item) for item in value))
    return _clean(str(value))


def _long(value: object) -> str:
    if isinstance(value, Mapping):
        rest = [f"{key}={_short(item)}" for key, item in value.items() if key != "name"]
        return _clean("+".join([_short(value), *rest]), MAX_LENGTH)
    return repr(value) if isinstance(value, float) else _short(value)


def _clean(text: str, length: int = _MAX_LABEL) -> str:
    return make_safe(text.replace(",", "-"))[:length]


def _count(label: str, labels: Sequence[str]) -> int:
    return sum(other.lower() == label.lower() for other in labels)
