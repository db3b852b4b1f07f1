"""One HTML page of a run, or of several: `report.html`.

`facts.py` says in words what the page says, `charts.py` draws the same pictures that `lrexp.report`
draws with matplotlib, `page.html` sets both. The file needs nothing else: plotly.js and the numbers
are in it, and its Content-Security-Policy forbids the network. Without JavaScript its words and
tables stay.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lrexp.report.page.facts import page_facts
from lrexp.runs.files import as_written, write_whole
from lrexp.runs.reader import Run, load_run

HERE = Path(__file__).parent
NAME = "report.html"


def write_page(runs: Sequence[Run], out: Path | None = None, reload: float | None = None) -> Path:
    """Write one page of these runs and return its path.

    Args:
        runs: finished, running or interrupted; several are overlaid and compared.
        out: the file; None is report.html in the run, or beside the runs where they are several.
        reload: seconds after which the page is to look for a newer one; None for never.

    Raises:
        RunError: a file of a run is damaged, or the disk refuses.
    """
    if out is None:
        out = (runs[0].path if len(runs) == 1 else runs[0].path.parent) / NAME
    write_whole(out, page(runs, reload))
    return out


def write_report(
    runs: Run | str | Path | Sequence[Run | str | Path], *, out: str | Path | None = None
) -> Path:
    """Write one self-contained HTML page of a run, or of several compared; return the file.

    Args:
        runs: directories or runs, finished or not.
        out: the file; None is report.html in the run, or beside the runs where they are several.

    Raises:
        ConfigError: a path is not a run directory.
        RunError: a file of a run is damaged, or the disk refuses.

    Example:
        >>> lrexp.write_report("runs/...")                                  # doctest: +SKIP
        PosixPath('runs/.../report.html')
    """
    given = [runs] if isinstance(runs, str | Path | Run) else list(runs)
    loaded = [run if isinstance(run, Run) else load_run(run) for run in given]
    return write_page(loaded, None if out is None else Path(out))


def write_live(run: Run | Path, reload: float | None = None) -> object:
    """Write the page of a run, or of a run directory that may go on; see `write_page`."""
    return write_page([run if isinstance(run, Run) else load_run(run)], reload=reload)


def page(runs: Sequence[Run], reload: float | None = None) -> str:
    """Return the page of these runs as text."""
    names = ", ".join(str(run.path) for run in runs)
    with as_written(names), np.errstate(invalid="raise", divide="raise"):
        facts = page_facts(runs)
    charts = facts.pop("charts")
    plotly, script = _file("plotly-basic.min.js"), _file("page.js")
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in (plotly, script))
    made: str = _template().render(
        facts,
        reload=reload,
        written=time.strftime("%H:%M:%S"),
        data=script_json({"charts": charts, "reload": reload, "written": time.time()}),
        style=_file("page.css"),
        plotly=plotly,
        script=script,
        hashes=hashes,
    )
    return made


def script_json(value: Any) -> str:
    """Return JSON that can end no script element and begin no comment.

    Example:
        >>> script_json({"name": "</script>"})
        '{"name":"\\\\u003c/script>"}'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _parted(name: str) -> Any:
    """Return the name of a variant as markup that a narrow column may part after its commas."""
    from markupsafe import Markup, escape

    return Markup(str(escape(name)).replace(",", ",<wbr>"))


@cache
def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # here: of a page alone

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["parted"] = _parted
    return environment.get_template("page.html")
