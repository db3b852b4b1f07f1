"""What Python shows by itself: progress and tables in a terminal or notebook, HTML of results."""

from __future__ import annotations

import base64
import io
import sys
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType

from lrexp.report.text import Screen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUIET = Console(stderr=True, quiet=True)
_WIDTH = 96  # columns of a table in a notebook
_PRE = (
    '<pre style="white-space:pre;overflow-x:auto;line-height:1.25;'
    "font-family:Menlo,'DejaVu Sans Mono',Consolas,monospace\">{code}</pre>"
)


def is_watched() -> bool:
    """Return whether somebody looks at the output: a terminal, or a notebook."""
    return sys.stdout.isatty() or _is_notebook()


def _is_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell" or "google.colab" in sys.modules


def progress_console(console: Console | None, quiet: bool) -> Console:
    """Return where progress is shown: where the caller says, else where somebody looks."""
    if console is not None:
        return console
    return Screen(stderr=not _is_notebook()) if is_watched() and not quiet else QUIET


def show(result: RenderableType, console: Console | None, quiet: bool) -> None:
    """Print a result where somebody looks, unless the caller has a console or wants silence."""
    if console is None and not quiet and is_watched():
        Screen().print(result)


def html_of(table: RenderableType, figure: Figure | None) -> str:
    """Return a table, as a terminal shows it, and a picture as HTML that needs no other file."""
    screen = Screen(record=True, file=io.StringIO(), width=_WIDTH, force_jupyter=False)
    screen.print(table)
    html = screen.export_html(inline_styles=True, code_format=_PRE)
    if figure is None:
        return html
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    data = base64.b64encode(picture.getvalue()).decode()
    looks = 'alt="The picture that decides" style="max-width:100%"'
    return f'{html}<img {looks} src="data:image/png;base64,{data}">'
