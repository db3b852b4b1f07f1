"""Words and numbers as a reader wants them, in tables and in pictures alike.

A run directory, a config or a folder's name may come from a stranger: everything that a command
prints passes through `Screen`, which shows control characters and obeys none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from lrexp.errors import without_controls
from lrexp.records import words_of
from lrexp.runs.files import to_json

if TYPE_CHECKING:
    from lrexp.runs.reader import Run

ELLIPSIS = "…"
FIRST_SHOWN, LAST_SHOWN = 15, 3  # of a long list of variants
MORE_DECIMALS = 2  # that a number may get to have as many as the others of its column
_DECIMAL = re.compile(r"-?\d+(\.\d+)?")
_JOINT = re.compile(r"[=,;:/ _|]|(?<!\de)-")  # where a name may be parted; not inside 1e-5


def lr_text(lr: float | None, digits: int = 3) -> str:
    """Return a learning rate as people write it.

    Example:
        >>> [lr_text(lr) for lr in (0.01, 0.0001, 3.16e-5, 10.0, 1.0, None)]
        ['0.01', '1e-4', '3.16e-5', '10', '1', '–']
    """
    if lr is None or math.isnan(lr):
        return "–"
    if lr == 0 or math.isinf(lr) or 1e-3 <= abs(lr) < 1e5:
        return number_text(lr, digits)
    return _power_text(lr, digits)


def number_text(value: float | None, digits: int = 4, *, zeros: bool = False) -> str:
    """Return a number with so many significant digits; `zeros` keeps those at its end.

    Example:
        >>> [number_text(value) for value in (0.123456, 12.0, 123456.0, 1.5e-7, math.inf, None)]
        ['0.1235', '12', '123456', '1.5e-7', 'inf', '–']
    """
    if value is None or math.isnan(value):
        return "–"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-4 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text and not zeros else text
    return _power_text(value, digits)


def mean_sd_text(mean: float | None, sd: float | None) -> str:
    """Return `mean ± sd`: the sd to two digits, the mean to the same decimal place.

    Example:
        >>> mean_sd_text(0.123456, 0.00456), mean_sd_text(12.3456, None), mean_sd_text(None, None)
        ('0.1235 ± 0.0046', '12.35', '–')
    """
    if mean is None or not math.isfinite(mean):
        return "–"
    if sd is None or not math.isfinite(sd):
        return number_text(mean)
    size = max(abs(mean), sd)
    if size == 0:
        return "0 ± 0"
    if not 1e-4 <= size < 1e6:
        return f"{number_text(mean)} ± {number_text(sd, 2)}"
    coarsest = 3 - math.floor(math.log10(size))  # four significant digits of the larger one
    decimals = coarsest if sd == 0 else min(6, 1 - math.floor(math.log10(sd)))
    decimals = max(0, min(decimals, coarsest + 2))
    return f"{mean:.{decimals}f} ± {sd:.{decimals}f}"


def mean_sd_column(
    pairs: Sequence[tuple[float | None, float | None]], *, signed: bool = False
) -> list[str]:
    """Return `mean ± sd` for the rows of a column, of equal width and aligned at the points.

    All have the decimals of the most precise; those more than two decimals short of it keep
    their own, for zeros that mean nothing would only widen the column.

    Example:
        >>> mean_sd_column([(0.645, 0.01), (0.6458, 0.0083), (31.2, 1.7), (None, None)])
        [' 0.6450 ± 0.0100', ' 0.6458 ± 0.0083', '31.2    ± 1.7   ', '               –']
    """
    plain = [mean_sd_text(mean, sd) for mean, sd in pairs]
    known = [_decimals(text) for text in plain]
    finest = max((number for number in known if number is not None), default=0)
    cells: list[tuple[str, ...]] = []
    for (mean, sd), text, decimals in zip(pairs, plain, known, strict=True):
        if decimals is None or mean is None:
            cells.append((text,))
            continue
        places = finest if finest - decimals <= MORE_DECIMALS else decimals
        gap = " " * (finest - places + (places == 0 < finest))
        sign = "+" if signed and mean >= 0 else ""
        spread = f"{sd:.{places}f}{gap}" if " ± " in text else ""
        cells.append((f"{sign}{mean:.{places}f}{gap}", spread))
    left, right = (max((len(c[i]) for c in cells if len(c) > 1), default=0) for i in (0, 1))
    lines = []
    for text, *spreads in cells:
        joint = " ± " if any(spreads) else "   "
        aside = [f"{joint}{spread:>{right}}" for spread in spreads if right]
        lines.append(f"{text:>{left if spreads else 0}}" + "".join(aside))
    width = max(map(len, lines), default=0)
    return [line.rjust(width) for line in lines]


def count_text(count: int, one: str) -> str:
    """Return `1 seed`, `5,000 seeds`.

    Example:
        >>> count_text(1, "seed"), count_text(5000, "seed")
        ('1 seed', '5,000 seeds')
    """
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def shown_of(
    count: int, first: int = FIRST_SHOWN, at_most: int = FIRST_SHOWN + LAST_SHOWN
) -> list[int]:
    """Return which of so many variants a list shows: all, or the first 15 and the last 3.

    Args:
        count: of all.
        first: shown of a list that is too long.
        at_most: so many are all shown.

    Example:
        >>> len(shown_of(18)), len(shown_of(60)), shown_of(60)[-4:]
        (18, 18, [14, 57, 58, 59])
    """
    if count <= at_most:
        return list(range(count))
    return [*range(first), *range(count - LAST_SHOWN, count)]


def steps_text(step: float) -> str:
    """Return a number of steps for an axis: `500`, `20k`, `1.5M`.

    Example:
        >>> [steps_text(step) for step in (0, 500, 20_000, 1_500_000)]
        ['0', '500', '20k', '1.5M']
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(step) >= size:
            return f"{step / (1e3 if unit == 'k' else size):.4g}{unit}"
    return f"{step:.4g}"


def told_apart(names: Sequence[str], width: int) -> list[str]:
    """Return names of at most `width` characters; what all long ones share is left out first.

    Example:
        >>> told_apart(["optimizer.lr=0.1, warm", "optimizer.lr=0.01, warm"], 10)
        ['…0.1…', '…0.01…']
    """
    if all(len(name) <= width for name in names) or len(set(names)) < 2:
        return [shortened(name, width) for name in names]
    shared = _shared_start(names)
    start = max((joint.end() for joint in _JOINT.finditer(shared)), default=0)
    names = [ELLIPSIS + name[start:] if start > 1 else name for name in names]
    if any(len(name) > width for name in names):
        shared = _shared_start([name[::-1] for name in names])[::-1]
        joint = _JOINT.search(shared)
        end = len(shared) - joint.start() if joint else 0
        names = [name[: len(name) - end] + ELLIPSIS if end > 1 else name for name in names]
    return [shortened(name, width) for name in names]


def shortened(text: str, width: int) -> str:
    """Return the text on one line, with an ellipsis in its middle where it is longer than `width`.

    The middle goes because names of a grid differ at their ends.

    Example:
        >>> shortened("lr=0.5-schedule=cosine-momentum=0.9", 20)
        'lr=0.5-sch…entum=0.9'
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + ELLIPSIS + text[len(text) - tail :]


def _decimals(text: str) -> int | None:
    """Return the decimals of `mean ± sd`, None where it is not written in decimals."""
    mean = text.partition(" ± ")[0]
    return len(mean.partition(".")[2]) if _DECIMAL.fullmatch(mean) and "e" not in text else None


def _shared_start(names: Sequence[str]) -> str:
    is_shared = [len(set(letters)) == 1 for letters in zip(*names, strict=False)]
    return names[0][: [*is_shared, False].index(False)]


def _power_text(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


class Screen(Console):
    """A console that shows the control characters of a text as escapes.

    Its own control codes, such as those that move a progress bar, are no text and stay.

    Example:
        >>> Screen(color_system=None).print("\\x1b[2J")
        \\x1b[2J
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield what is shown of a renderable."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield segment._replace(text=without_controls(segment.text))


def visible(value: Any) -> Any:
    """Return a value read from a file, with every text in it on one line, controls as escapes.

    Example:
        >>> visible({"word": "\\x9b2J", "values": [0.5, None]})
        {'word': '\\\\x9b2J', 'values': [0.5, None]}
    """
    if isinstance(value, str):
        return without_controls(value, keep="")
    if isinstance(value, dict):
        return {visible(key): visible(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [visible(item) for item in value]
    return value


def json_text(value: Any) -> str:
    """Return indented JSON, its invisible characters written as JSON escapes.

    Example:
        >>> json_text({"name": "a\\x9b\\u202eb"})
        '{\\n  "name": "a\\\\u009b\\\\u202eb"\\n}'
    """
    # json escapes those below a space itself; what is left stands in quotes
    return _INVISIBLE.sub(_escaped, to_json(value))


_INVISIBLE = re.compile("[^\n\x20-\x7e]")


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


NAME_WIDTH = 60  # characters of a name from a user, at most


def new_table(*columns: str | Column) -> Table:
    """Return an empty table; a column given by its name holds text, which folds when it must."""
    made = [words_column(name) if isinstance(name, str) else name for name in columns]
    return Table(*made, box=SIMPLE_HEAD, header_style="dim")


def least_width(table: Table, console: Console, options: ConsoleOptions) -> int:
    """Return the columns of the screen below which a word or a number would be cut.

    rich's own minimum takes a number such as `0.12 ± 0.01` for three words.
    """
    wide = options.update(width=10_000)
    total = len(table.columns) + 1  # the edges, and a space between two columns
    for column in table.columns:
        cells = [Measurement.get(console, wide, c) for c in (column.header, *column.cells)]
        widest = max(cell.maximum if column.no_wrap else cell.minimum for cell in cells)
        total += min(widest, column.max_width or widest) + sum(table.padding[1::2])
    return total


def words_column(name: str, max_width: int = 30) -> Column:
    """Return a column of text that folds at `max_width` characters, or before."""
    return Column(Text(name), overflow="fold", max_width=max_width)


def column(name: str) -> Column:
    """Return a column of numbers: aligned at the right, never broken."""
    return Column(Text(name), justify="right", no_wrap=True)


def cell(text: object, style: str = "") -> Text:
    """Return text from a user as it is: no markup, no control characters, one line."""
    return Text(shortened(str(text), NAME_WIDTH), style)


_KINDS = {  # of difference, by key; a key that ends with a dot stands for all others below it
    "optimizer.lr": "learning rate",
    "optimizer.name": "optimizer",
    "optimizer": "optimizer",
    "optimizer.": "optimizer setting",
    "schedule": "schedule",
    "schedule.": "schedule",
    "model": "model",
    "model.": "model",
    "data.batch_size": "batch size",
    "data.name": "data set",
    "data": "data set",
    "loss": "loss function",
    "loss.": "loss function",
    "train.duration": "duration",
}


def measure_text(measure: str) -> str:
    """Return `val_loss` in words: `validation loss`."""
    return words_of(measure)


def heading(measure: str) -> str:
    """Return a metric in words, as a line begins with it.

    Example:
        >>> heading("val_rmse")
        'Validation RMSE'
    """
    words = words_of(measure)
    return words[:1].upper() + words[1:]


def kinds_compared(keys: Iterable[str]) -> set[str]:
    """Return in singular what a comparison varies, given the dotted keys that its variants set.

    Example:
        >>> sorted(kinds_compared(["optimizer.lr", "schedule.warmup"]))
        ['learning rate', 'schedule']
    """
    keys = (re.sub(r"^optimizer\.parts(\[\d+\]|\.\d+)", "optimizer", key) for key in keys)
    return {_KINDS.get(key) or _KINDS.get(key.partition(".")[0] + ".", "variant") for key in keys}


def compared_text(count: int, keys: Iterable[str]) -> str:
    """Return `3 learning rates` where nothing else differs, `3 variants` otherwise."""
    kinds = kinds_compared(keys)
    return count_text(count, kinds.pop() if len(kinds) == 1 else "variant")


def changed_keys(run: Run) -> set[str]:
    """Return the dotted keys that the variants of a run set, or the ramp of a range test."""
    if run.command == "find-lr":
        return {"optimizer.lr", "schedule"}
    section = run.config.get("compare") or {}
    variants = section.get("variants") or {}
    return {key for changes in variants.values() for key in changes or {}} | set(
        section.get("grid") or {}
    )


def num_seeds(run: Run) -> int:
    """Return how many seeds the run is about; those that have not begun count."""
    planned = run.status.get("seeds")
    return len(planned if isinstance(planned, list) else {trial.seed for trial in run.trials})


def run_subtitle(run: Run) -> str:
    """Return how far the run got, unless it is complete, and what its variants have in common."""
    return " · ".join([*_progress(run), *_shared_settings(run.config, changed_keys(run))])


def setting_text(key: str, value: object) -> str:
    """Return one changed setting for a table.

    Example:
        >>> setting_text("optimizer.lr", 0.0001), setting_text("schedule", {"name": "cosine"})
        ('lr 1e-4', 'schedule cosine')
    """
    is_of_part = key.startswith("optimizer.parts")  # each has an `lr`
    name = key.partition(".")[2] if is_of_part else key.removesuffix(".name").rpartition(".")[2]
    if isinstance(value, Mapping) and "name" in value:
        inside = settings_text({k: v for k, v in value.items() if k != "name"})
        return f"{name} {value['name']}" + (f" ({inside})" if inside else "")
    return f"{name} {_value_text(value)}"


def settings_text(settings: Mapping[str, object]) -> str:
    """Return all settings in which a variant differs, `lr 1e-4, schedule cosine`."""
    return ", ".join(setting_text(key, value) for key, value in settings.items())


def lost_texts(outcomes: Mapping[str, int], total: int) -> list[str]:
    """Return how many of all seeds diverged, and failed: `diverged` of all, `2 of 5 failed`."""
    counts = {kind: outcomes.get(kind, 0) for kind in ("diverged", "failed")}
    return [
        kind if count == total else f"{count} of {total} {kind}"
        for kind, count in counts.items()
        if count
    ]


def ranking_note(row: Mapping[str, Any]) -> str:
    """Return `0.123 ± 0.004`, and how many seeds diverged or failed."""
    outcomes = row.get("outcomes") or {}
    value = [] if row.get("mean") is None else [mean_sd_text(row["mean"], row.get("sd"))]
    return ", ".join([*value, *lost_texts(outcomes, sum(outcomes.values()))])


def _progress(run: Run) -> list[str]:
    status = str(run.status.get("status", "interrupted"))
    if run.summary is not None or status == "complete":
        return []
    ended = sum(trial.result is not None for trial in run.trials)
    known = run.status.get("num_trials")  # of a race: those of the rungs that have begun
    planned = known if isinstance(known, int) else len(run.variants) * max(1, num_seeds(run))
    return [f"{status}, {ended} of {count_text(planned, 'trial')} ended"]


def _shared_settings(config: Mapping[str, Any], changed: set[str]) -> list[str]:
    """Return model, data, optimizer, schedule and batch size, as far as no variant changes them."""
    kinds = kinds_compared(changed)
    given = (config.get(key) for key in ("model", "data", "optimizer", "schedule"))
    model, data, optimizer, schedule = (
        {"name": None, **value} if isinstance(value, Mapping) else {"name": value}
        for value in given
    )
    if several := optimizer.get("parts"):
        optimizer = {"name": " and ".join(str(part.get("name")) for part in several)}
    names = [s["name"] for s, kind in ((model, "model"), (data, "data set")) if kind not in kinds]
    parts = [" on ".join(str(name) for name in names if name)]
    if "optimizer" not in kinds:
        has_lr = "lr" in optimizer and "learning rate" not in kinds
        facts = {"lr": optimizer["lr"]} if has_lr else {}
        facts |= {} if "optimizer setting" in kinds else optimizer.get("args") or {}
        inside = settings_text(facts)
        parts.append(f"{optimizer['name']} ({inside})" if inside else str(optimizer["name"] or ""))
    if "schedule" not in kinds and schedule["name"]:
        parts.append(f"{schedule['name']} schedule")
    if "batch size" not in kinds and data.get("batch_size"):
        parts.append(f"batch size {data['batch_size']}")
    return [part for part in parts if part]


def _value_text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return lr_text(value) if abs(value) < 1e-3 else number_text(value, 6)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_value_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value_text(v) for v in value) + "]"
    return str(value)
