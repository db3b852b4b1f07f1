"""What reaches a terminal: text that it shows, and nothing that it obeys.

A run directory, a config or a folder's name may come from a stranger. Everything that a command
prints passes through here, whatever has made it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from lrexp.errors import without_controls
from lrexp.store.files import to_json


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
    character = found[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
