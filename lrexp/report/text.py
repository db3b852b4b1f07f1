"""Numbers and names as a reader wants them, in tables and in pictures alike."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

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
    cells: list[list[str]] = []
    for (mean, sd), text, decimals in zip(pairs, plain, known, strict=True):
        if decimals is None or mean is None:
            cells.append([text])
            continue
        places = finest if finest - decimals <= MORE_DECIMALS else decimals
        gap = " " * (finest - places + (places == 0 < finest))
        sign = "+" if signed and mean >= 0 else ""
        has_sd = " ± " in text
        parts = [f"{sign}{mean:.{places}f}{gap}", f"{sd:.{places}f}{gap}" if has_sd else ""]
        cells.append(parts)
    widths = [max((len(c[i]) for c in cells if len(c) > 1), default=0) for i in (0, 1)]
    lines = [_aligned(parts, widths) for parts in cells]
    width = max((len(line) for line in lines), default=0)
    return [line.rjust(width) for line in lines]


def count_text(count: int, one: str, many: str = "") -> str:
    """Return `1 seed`, `5 seeds`.

    Example:
        >>> count_text(1, "seed"), count_text(5, "seed"), count_text(2, "loss", "losses")
        ('1 seed', '5 seeds', '2 losses')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


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


def _aligned(parts: list[str], widths: list[int]) -> str:
    if len(parts) == 1:
        return parts[0]
    mean, sd = (part.rjust(width) for part, width in zip(parts, widths, strict=True))
    return mean + (f" {'±' if parts[1] else ' '} {sd}" if widths[1] else "")


def _decimals(text: str) -> int | None:
    """Return the decimals of `mean ± sd`, None where it is not written in decimals."""
    mean = text.partition(" ± ")[0]
    return len(mean.partition(".")[2]) if _DECIMAL.fullmatch(mean) and "e" not in text else None


def _shared_start(names: Sequence[str]) -> str:
    shortest = min(names, key=len)
    for i, letter in enumerate(shortest):
        if any(name[i] != letter for name in names):
            return shortest[:i]
    return shortest


def _power_text(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"
