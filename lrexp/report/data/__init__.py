"""What each picture shows, made from a run: a heading, panels of marks, a legend.

`picture.py` has the parts that all are made of; a file for each family of pictures fills them.
Nothing here draws: `lrexp.report.figure` does so with matplotlib. Neither that nor torch is
imported.
"""

from __future__ import annotations

from collections.abc import Sequence

from lrexp.report.data.heatmap import grid_of, heatmap_picture
from lrexp.report.data.losses import loss_picture, metric_pictures, overlaid_loss_picture
from lrexp.report.data.lr import lr_picture
from lrexp.report.data.picture import Picture
from lrexp.report.data.range_test import (
    curves_of_run,
    overlaid_range_test_picture,
    range_test_loss_picture,
    range_test_picture,
)
from lrexp.report.data.tried import race_picture
from lrexp.report.data.verdicts import differences_picture, sensitivity_picture
from lrexp.runs.reader import Run


def pictures(run: Run) -> dict[str, Picture]:
    """Return the pictures of a run, by the names of their files.

    A range test has range_test, loss and lr, and race where LRs were trained. A comparison has loss
    and lr, and metrics where some were asked for; a finished one also has verdicts, where there is
    one against a reference over several seeds, lr_sensitivity, where three LRs or more were
    compared, and heatmap, of a grid over two numbers.

    Example:
        >>> list(pictures(load_run("runs/...")))  # doctest: +SKIP
        ['loss', 'lr']
    """
    if run.command == "find-lr":
        test = curves_of_run(run)
        found = {
            "range_test": range_test_picture(run, test),
            "loss": range_test_loss_picture(run, test),
            "lr": lr_picture(run),
        }
        return found | ({"race": race_picture(run)} if run.of_kind("race") else {})
    found = {"loss": loss_picture(run), **metric_pictures(run), "lr": lr_picture(run)}
    summary = run.summary or {}  # that of an older version has no verdicts
    if summary.get("comparisons") and len(summary["seeds"]) > 1:
        found["verdicts"] = differences_picture(run)
    if summary.get("lr_sensitivity"):
        found["lr_sensitivity"] = sensitivity_picture(run)
    if summary and grid_of(run):
        found["heatmap"] = heatmap_picture(run)
    return found


def overlays(runs: Sequence[Run]) -> dict[str, Picture]:
    """Return several runs in one picture, overlay-loss and overlay-range-test for those of find-lr.

    One that is alone of its kind is shown as by itself.
    """
    tests = [run for run in runs if run.command == "find-lr"]
    others = [run for run in runs if run.command != "find-lr"]
    found = {}
    for name, own, alone, several in (
        ("overlay-loss", others, loss_picture, overlaid_loss_picture),
        ("overlay-range-test", tests, range_test_picture, overlaid_range_test_picture),
    ):
        if own:
            found[name] = alone(own[0]) if len(own) == 1 else several(own)
    return found
