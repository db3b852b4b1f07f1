"""Tables, read as the text that a terminal shows."""

from __future__ import annotations

import io
import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

from lrexp.report.ranking import ranking_table
from lrexp.report.tables import runs_table, schedule_table, suggestion_panel
from lrexp.report.text import Screen, compared_text, json_text, mean_sd_column, mean_sd_text
from lrexp.runs.listing import RunEntry

from .synthetic import ranking

VALUES = {
    "standard": [0.09612, 0.08926, 0.08955],
    "low": [1.729, 1.904, 1.75],
    "high": [None, None, None],
}
SUGGESTION = {
    "suggested_lr": 0.047,
    "interval": [0.031, 0.068],
    "base_lr": 0.0047,
    "max_lr": 0.21,
    "rules": {"auto": 0.047, "steepest": 1e-4, "slide": None},
    "reason": None,
    "seeds": [0, 1, 2],
}
NOW = datetime(2026, 11, 21, 21, 0, 0, tzinfo=timezone.utc)


def shown(table: RenderableType, width: int = 80, **terminal: Any) -> str:
    console = Console(width=width, file=io.StringIO(), **{"color_system": None, **terminal})
    console.print(table)
    text = console.file.getvalue()
    assert all(cell_len(line) <= width for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines())
    return text


def summary(**changes: Any) -> dict[str, Any]:
    return ranking(["standard", "low", "high"], VALUES) | changes


def test_a_wide_terminal_shows_every_seed_in_the_table() -> None:
    text = shown(ranking_table(summary()), 120)
    heading, head, standard, low, high = [
        line.split() for line in text.splitlines() if line.strip() and "──" not in line
    ][:5]
    assert " ".join(heading) == "Validation loss, lower is better · 3 variants × 3 seeds"
    assert " ".join(head) == "variant changes mean ± sd seed 0 seed 1 seed 2 diagnosis"
    assert " ".join(standard) == (
        "1 standard lr 0.01 0.0916 ± 0.0039 0.09612 0.08926 0.08955 converging well"
    )
    assert " ".join(low) == "2 low lr 1e-4 1.7943 ± 0.0956 1.729 1.904 1.750 converging well"
    assert " ".join(high) == "3 high lr 0.5 – – – – diverged (all 3)"
    assert "high      The loss left for infinity at step 12. Lower the LR" in text


@pytest.mark.parametrize("width", [80, 60, 40, 30])
def test_a_narrow_terminal_shows_the_same_numbers(width: int) -> None:
    text = shown(ranking_table(summary()), width)
    numbers = ["0.0916 ± 0.0039", "1.7943 ± 0.0956", "0.09612", "0.08926", "0.08955", "1.750"]
    flat = " ".join(text.split())
    assert all(number in flat for number in numbers)
    assert "diverged (all 3)" in flat
    assert "lr 1e-4" in flat


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (["optimizer.lr"], "3 learning rates"),
        (["optimizer", "optimizer.name"], "3 optimizers"),
        (["optimizer.groups"], "3 optimizer settings"),
        (["schedule", "schedule.warmup"], "3 schedules"),
        (["data.batch_size"], "3 batch sizes"),
        (["data.args.noise"], "3 variants"),
        (["model.args.hidden"], "3 models"),
        (["optimizer.lr", "schedule"], "3 variants"),
        (["lossless"], "3 variants"),
        ([], "3 variants"),
    ],
)
def test_what_is_compared_is_named(keys: list[str], text: str) -> None:
    assert compared_text(3, keys) == text


def test_many_seeds_are_told_by_mean_and_sd_alone() -> None:
    values = {"a": [0.1 + 0.01 * i for i in range(7)]}
    text = shown(ranking_table(ranking(["a"], values)), 120)
    assert "1 variant × 7 seeds" in text
    assert "0.130 ± 0.022" in text
    assert "seed 0" not in text


def with_differences(**changes: Any) -> dict[str, Any]:
    data = summary()
    found = [(0.0, 0.0, 3), (0.0021, 0.0104, 3), (None, None, 0)]
    for row, (mean, sd, num_pairs) in zip(data["ranking"], found, strict=True):
        row["difference"] = {"mean": mean, "sd": sd, "num_pairs": num_pairs}
    data["ranking"][1]["difference"] |= changes
    return data


@pytest.mark.parametrize(
    ("changes", "text", "within"),
    [
        ({}, "+0.002 ± 0.010", True),
        ({"mean": 0.021}, "+0.021 ± 0.010", False),
        ({"mean": -0.021}, "-0.021 ± 0.010", False),
        ({"sd": None, "num_pairs": 1}, "+0.0021", False),
    ],
)
@pytest.mark.parametrize("width", [140, 80, 45])
def test_the_distance_to_the_best_stands_beside_its_spread(
    changes: dict[str, Any], text: str, within: bool, width: int
) -> None:
    flat = " ".join(shown(ranking_table(with_differences(**changes)), width).split())
    assert "Δ to best" in flat
    assert text in flat
    assert ("within spread" in flat) == within
    assert ("over 1 seed" in flat) == ("num_pairs" in changes)


def test_a_single_seed_has_no_distances() -> None:
    assert "Δ" not in shown(ranking_table(with_differences() | {"seeds": [0]}), 120)


@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(-1e9, 1e9), st.none() | st.floats(0, 1e9) | st.floats(0, 1e-3)
        ),
        max_size=6,
    )
)
def test_a_column_has_one_width_and_says_what_its_rows_say(rows: list) -> None:
    texts = mean_sd_column(rows)
    assert len({len(text) for text in texts}) <= 1
    for text, (mean, sd) in zip(texts, rows, strict=True):
        for ours, alone in zip(text.split("±"), mean_sd_text(mean, sd).split("±"), strict=True):
            if mean is not None:
                assert float(ours) == pytest.approx(float(alone), rel=0.051, abs=10)
    plain = [text for text in texts if "." in text and "e" not in text]
    assert len({text.index(".") for text in plain}) <= 1


def test_one_seed_has_a_value_and_no_sd() -> None:
    text = shown(ranking_table(ranking(["a"], {"a": [0.96]}, metric="val_accuracy")), 100)
    assert "Validation accuracy, higher is better · 1 variant × 1 seed" in text
    assert "±" not in text
    assert "0.96" in text


def test_seeds_that_diverged_are_counted_beside_the_diagnosis() -> None:
    data = summary()
    data["ranking"][1]["outcomes"] = {"finished": 1, "diverged": 1, "failed": 1}
    data["ranking"][1]["diagnosis"] = {"word": "unstable", "sentence": "It spiked."}
    text = shown(ranking_table(data), 130)
    assert "unstable (1 of 3 diverged) (1 of 3 failed)" in " ".join(text.split())


@pytest.mark.parametrize("width", [120, 80])
def test_text_from_users_is_neither_markup_nor_control_characters(width: int) -> None:
    data = summary()
    data["ranking"][0]["variant"] = "[red]a[/red] \x1b[31mb\n[/]"
    data["ranking"][0]["settings"] = {"model.name": "[bold]m"}
    data["ranking"][0]["diagnosis"] = {"word": "[b]w", "sentence": "[i]s [link=x]"}
    text = shown(ranking_table(data), width)
    assert "\x1b" not in text
    flat = " ".join(text.split())
    for part in ("[red]a[/red]", "[bold]m", "[b]w", "[i]s [link=x]"):
        assert part in flat


@pytest.mark.parametrize("width", [140, 80, 40])
def test_a_strangers_run_is_shown_without_controls(width: int) -> None:
    evil = "\x1b]0;owned\x07\x9b2J\u202e"
    data = summary(metric=evil)
    for row in data["ranking"]:
        row["diagnosis"] = {"word": evil, "sentence": evil}
        row["settings"] = {evil: {"name": evil, evil: [evil]}}
    facts = SUGGESTION | {"note": evil, "rules": {evil: 0.1}, "reason": evil}
    listed = [entry(path=Path(evil)), entry(path=Path(evil), name=evil, status=evil, command=evil)]
    for table in (
        ranking_table(data), suggestion_panel(facts), suggestion_panel(facts | {"suggested_lr": None}),
        runs_table(listed, NOW),
    ):  # fmt: skip
        assert shown(table, width).replace("\n", "").isprintable()


def test_a_screen_shows_the_controls_of_any_text() -> None:
    file = io.StringIO()
    screen = Screen(file=file, force_terminal=True, color_system="standard", width=60)
    with screen.status("working"):  # a spinner has control codes of its own
        screen.print(Text("a\x1b[2Jb", "red"))
    assert "\\x1b[2Jb" in file.getvalue()
    assert "\x1b[2J" not in file.getvalue()
    assert "\x1b[31m" in file.getvalue()


@given(
    st.recursive(
        st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner)
    )
)
def test_json_is_escaped_and_reads_back(value: Any) -> None:
    text = json_text(value)
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value


def test_colours_are_only_colours() -> None:
    table = ranking_table(summary())
    coloured = shown(table, 120, color_system="standard", force_terminal=True)
    assert "\x1b[32m" in coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert plain.split() == shown(table, 120).split()


@given(
    values=st.dictionaries(
        st.text(min_size=1, max_size=50),
        st.lists(
            st.one_of(st.none(), st.floats(-1e12, 1e12), st.floats(0, 1e-3)),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=5,
    ),
    width=st.integers(60, 160),
)
def test_no_number_is_cut(values: dict[str, list[float | None]], width: int) -> None:
    data = ranking(list(values), values)
    flat = " ".join(shown(ranking_table(data), width).split())
    for text in mean_sd_column([(row["mean"], row["sd"]) for row in data["ranking"]]):
        assert " ".join(text.split()) in flat


def test_a_suggestion_is_shown_with_every_rule() -> None:
    readings = {"low": 0.01, "bottom / 10": 0.02, "high / 10": 0.03}
    facts = {**SUGGESTION, "readings": readings, "stability_edge": 0.9, "mean_frac": 0.5}
    text = " ".join(shown(suggestion_panel(facts), 200).split())
    origin = "geometric mean of 0.045 (edge of stability / 20) and the median of 0.01 (low), 0.02"
    assert f"{origin} (bottom / 10), 0.03 (high / 10); / 0.5 for the schedule" in text
    lines = [line.strip("│ ").split() for line in shown(suggestion_panel(SUGGESTION)).splitlines()]
    flat = [" ".join(line) for line in lines]
    assert "suggested LR 0.047" in flat
    assert "interval 0.031 to 0.068" in flat
    assert "base to max LR 0.0047 to 0.21 for cyclic schedules" in flat
    assert "steepest 1e-4" in flat
    assert not any(line.startswith("slide") for line in flat)  # it said nothing
    assert "LR range test · 3 seeds" in flat[0]


def test_a_refusal_is_shown_with_its_reason() -> None:
    reason = "The loss never falls: lower [min_lr] or check the data. " * 3
    facts = dict.fromkeys(SUGGESTION) | {"reason": reason, "seeds": [0]}
    text = shown(suggestion_panel(facts), 60)
    flat = " ".join(" ".join(line.strip("│ ") for line in text.splitlines()).split())
    assert "suggested LR none" in flat
    assert reason.strip() in flat
    assert "1 seed" in flat


def entry(**changes: Any) -> RunEntry:
    facts = {
        "path": Path("runs/20261121-210301-digits-lr-compare-3f9c"),
        "name": "digits-lr",
        "command": "compare",
        "status": "complete",
        "best_variant": "standard",
        "suggested_lr": None,
        "started": NOW - timedelta(hours=5),
    }
    return RunEntry(**(facts | changes))


def test_a_run_takes_one_line_at_80_columns() -> None:
    entries = [entry(), entry(status="interrupted"), entry(command="find-lr", suggested_lr=0.1)]
    text = shown(runs_table(entries[:2], NOW), 80)
    assert len([line for line in text.splitlines() if "20261121" in line and "5 h" in line]) == 2
    assert "compare  " not in text  # the folder says so
    assert "digits-lr find-lr" in shown(runs_table(entries, NOW), 140)  # here it does not


@pytest.mark.parametrize("width", [140, 80])
def test_runs_are_listed_with_what_a_next_command_needs(width: int) -> None:
    entries = [
        entry(),
        entry(command="find-lr", best_variant=None, suggested_lr=1e-4, started=None),
        entry(command="find-lr", best_variant=None, name="[b]x", status="complete"),
        entry(status="interrupted", best_variant=None, started=NOW - timedelta(days=3)),
    ]
    text = shown(runs_table(entries, NOW), width)
    assert text.count("20261121-210301-digits-lr-compare-3f9c") == 4  # whole, to be copied
    for part in ("digits-lr", "standard", "5 h", "lr 1e-4", "no suggestion", "[b]x", "3 d"):
        assert part in text
    assert "interrupted" in text


@pytest.mark.parametrize("width", [80, 40])
def test_schedules_are_listed_in_numbers(width: int) -> None:
    traces = {
        "warm [b]": np.array([0.001, 0.1, 1e-5]),
        "constant": np.full(12_000, 0.05),
        "empty": np.empty(0),
    }
    flat = " ".join(shown(schedule_table(traces), width).split())
    assert "warm [b]" in flat
    for number in ("12,000", "0.001", "1e-5", "0.05"):
        assert number in flat
    assert "…" not in flat


@given(mean=st.floats(-1e9, 1e9), sd=st.floats(0, 1e9))
def test_mean_and_sd_are_rounded_not_changed(mean: float, sd: float) -> None:
    shown_mean, shown_sd = (float(part) for part in mean_sd_text(mean, sd).split(" ± "))
    size = max(abs(mean), sd)
    assert shown_mean == pytest.approx(mean, abs=max(0.06 * sd, 0.0006 * size, 1e-12))
    assert shown_sd == pytest.approx(sd, abs=max(0.06 * sd, 0.0006 * size, 1e-12))


def test_a_run_that_goes_on_says_how_far_it_is_within_80_columns() -> None:
    text = shown(runs_table([entry(status="running", trials_ended=7, num_trials=24)], NOW), 80)
    assert "running 7/24" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "/" not in shown(runs_table([entry()], NOW), 80)
