"""CSV files as they come: quoting, delimiters, line ends; and what is wrong with one, and where."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrexp.errors import ConfigError
from lrexp.workloads.batches import Data
from lrexp.workloads.builtin_data import DATASETS
from lrexp.workloads.csv_columns import number_of
from lrexp.workloads.csv_text import read_cells
from lrexp.workloads.loading import load_data


def load(folder: Path, content: str | bytes, **args: Any) -> Data:
    path = folder / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_data(
        DATASETS["csv"],
        {"path": "data.csv", "target": "y", **args},
        batch_size=2,
        val_fraction=0,
        directory=folder,
    )


def columns(data: Data) -> tuple[list[list[float]], list[Any]]:
    inputs, targets = next(data.train.in_order())
    return inputs.T.tolist(), targets.squeeze(-1).tolist()


# -1, 0, 1 with standard deviation 1 by columns: √1.5 = 1.2247449
Z = [-1.2247449, 0.0, 1.2247449]

# content | args | columns of inputs | targets
GOOD: list[tuple[str, str | bytes, dict[str, Any], list[list[float]], list[Any]]] = [
    ("plain", "a,y\n1,0.1\n2,0.2\n3,0.3\n", {}, [Z], Z),
    ("crlf, no last line end", "a,y\r\n1,0.1\r\n2,0.2\r\n3,0.3", {}, [Z], Z),
    ("byte order mark", b"\xef\xbb\xbfa,y\n1,1e0\n2,2e0\n3,3e0\n", {}, [Z], Z),
    ("blank lines and spaces", "a, y\n\n1, .1\n\n 2,.2\n3 ,.3\n\n", {}, [Z], Z),
    ("quoted", 'a,"y"\n"1","0.1"\n"2",0.2\n3,"0.3"\n', {}, [Z], Z),
    ("line end in a cell", 'a,note,y\n1,"x\ny",.1\n2,"say ""no""",.2\n3,z,.3\n',
     {"features": ["a"]}, [Z], Z),
    ("semicolons", "a;y\n1;.1\n2;.2\n3;.3\n", {"delimiter": ";"}, [Z], Z),
    ("tabs", "a\ty\n1\t.1\n2\t.2\n3\t.3\n", {"delimiter": "\t"}, [Z], Z),
    ("semicolons, found", "a;y\n1;.1\n2;.2\n3;.3\n", {}, [Z], Z),
    ("Windows' encoding", "größe,y\n1,.1\n2,.2\n3,.3\n".encode("cp1252"), {}, [Z], Z),
    ("utf-16", "a,y\n1,.1\n2,.2\n3,.3\n".encode("utf-16"), {}, [Z], Z),
    ("shift_jis", "長,y\n1,.1\n2,.2\n3,.3\n".encode("shift_jis"), {"encoding": "shift_jis"}, [Z], Z),
    ("decimal commas", "a;y\n1,5;0,1\n2,5;0,2\n3,5;0,3\n", {}, [Z], Z),
    ("thousands by commas", 'a,y\n"1,000",.1\n"2,000",.2\n"3,000",.3\n', {}, [Z], Z),
    ("thousands by points", "a;y\n1.000;0,1\n2.000;0,2\n3.000;0,3\n", {}, [Z], Z),
    ("currency", 'a,y\n"$1,001.5",.1\n"$2,001.5",.2\n"$3,001.5",.3\n', {}, [Z], Z),
    ("minus as in print", "a,y\n\u22121,.1\n0,.2\n1,.3\n", {}, [Z], Z),
    ("what Excel is told", "sep=;\na;y\n1;.1\n2;.2\n3;.3\n", {}, [Z], Z),
    ("a delimiter at each end", "a;y;;\n1;.1;;\n2;.2;;\n3;.3;;\n", {}, [Z], Z),
    ("points of thousands, said", "a;y\n950;1\n1.000;2\n1.050;3\n", {"decimal": ","}, [Z], Z),
    ("decimal said", "a\ty\n1,500\t1\n2,500\t2\n3,500\t3\n", {"decimal": ","}, [Z], Z),
    ("text, one column each", "a,y\nu,.1\nv,.2\nu,.3\n", {}, [[1, 0, 1], [0, 1, 0]], Z),
    ("text as codes", "a,y\nu,.1\nv,.2\nu,.3\n", {"categories": "codes"}, [[1, 2, 1]], Z),
    ("an empty number", "a,y\n1,.1\n,.2\n3,.3\n", {}, [Z, [0, 1, 0]], Z),
    ("an empty text", "a,y\nu,.1\n,.2\nu,.3\nv,.4\n", {"missing": "drop", "task": "regression"},
     [[1, 1, 0], [0, 0, 1]], [-1.3363062, 0.2672612, 1.069045]),
    ("features in their order", "a,b,c,y\n1,9,3,.1\n2,9,2,.2\n3,9,1,.3\n",
     {"features": ["c", "a"]}, [Z[::-1], Z], Z),
    ("target in the middle", "a,y,b\n1,.1,3\n2,.2,2\n3,.3,1\n", {}, [Z, Z[::-1]], Z),
    ("constant column", "a,b,y\n1,7,.1\n2,7,.2\n3,7,.3\n", {}, [Z, [0, 0, 0]], Z),
    ("text classes, sorted", "a,y\n1,dog\n2,ant\n3,dog\n", {}, [Z], [1, 0, 1]),
    ("whole classes, sorted", "a,y\n1,10\n2,9\n3,10\n", {}, [Z], [1, 0, 1]),
    ("classes with a point", "a,y\n1,10.0\n2,2.0\n3,10\n", {"task": "classification"}, [Z], [1, 0, 1]),
    ("negative classes", "a,y\n1,1\n2,-1\n3,1\n", {}, [Z], [1, 0, 1]),
    ("numbers as classes", "a,y\n1,0.5\n2,1.5\n3,0.5\n", {"task": "classification"}, [Z], [0, 1, 0]),
    ("whole numbers as numbers", "a,y\n1,5\n2,5\n3,5\n", {"task": "regression"}, [Z], [0, 0, 0]),
    ("whole and all different", "a,y\n1,10\n2,20\n3,30\n", {}, [Z], Z),
    ("minus, plus, spaces of any kind", "a,y\n-1,.1\n+0,.2\n\u00a01,.3\n", {}, [Z], Z),
    ("whole numbers of many digits", f"a,y\n1,{2**64}\n2,{2**64 + 1}\n3,{2**64}\n", {}, [Z], [0, 1, 0]),
    ("classes with _ and digits of other scripts", "a,y\n1,1_0\n2,\u0661\n3,1_0\n", {}, [Z], [0, 1, 0]),
    ("unicode names", "größe,y\n1,α\n2,β\n3,α\n", {"features": ["größe"]}, [Z], [0, 1, 0]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "args", "inputs", "targets"), [row[1:] for row in GOOD], ids=[r[0] for r in GOOD]
)
def test_good_files(
    content: str | bytes, args: dict[str, Any], inputs: Any, targets: list[Any], tmp_path: Path
) -> None:
    found_inputs, found_targets = columns(load(tmp_path, content, **args))
    assert found_inputs == [pytest.approx(column, abs=1e-6) for column in inputs]
    assert found_targets == pytest.approx(targets, abs=1e-6)
    is_class = all(isinstance(value, int) for value in targets) and args.get("task") != "regression"
    assert isinstance(found_targets[0], int) == is_class


@pytest.mark.parametrize(("distinct", "is_class"), [(20, True), (21, False)], ids=["few", "many"])
def test_whole_numbers_are_classes_when_they_are_few(
    distinct: int, is_class: bool, tmp_path: Path
) -> None:
    rows = "".join(f"{i},{i % distinct}\n" for i in range(60))
    facts = load(tmp_path, "a,y\n" + rows).facts
    assert facts.num_classes == (distinct if is_class else None)
    assert facts.out_features == (distinct if is_class else 1)


def test_the_classes_of_the_whole_file_count(tmp_path: Path) -> None:
    # one row in ten is of class c: whatever side it falls on, there are three classes
    (tmp_path / "d.csv").write_text(
        "a,y\n" + "".join(f"{i},{'abbbbabbbc'[i]}\n" for i in range(10))
    )
    args = {"path": str(tmp_path / "d.csv"), "target": "y"}
    for fraction in (0.1, 0.3, 0.5, 0.7):
        data = load_data(DATASETS["csv"], args, batch_size=1, val_fraction=fraction)
        assert data.facts.num_classes == 3


@given(
    rows=st.lists(
        st.lists(st.floats(-1e6, 1e6).map(lambda x: x + 0.0), min_size=3, max_size=3),
        min_size=2,
        max_size=12,
    ),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
)
def test_what_pythons_writer_writes_is_read(
    rows: list[list[float]], delimiter: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "data.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([["a", "b", "y"], *rows])
    cells = read_cells(str(path))
    with path.open(newline="") as file:
        written = list(csv.reader(file, delimiter=delimiter))
    assert [[*row] for row in zip(*cells.columns.values(), strict=True)] == written[1:]
    read = np.array([[number_of(cell, ".") for cell in row] for row in written[1:]])
    assert read.tobytes() == np.array(rows).tobytes()
    assert cells.delimiter == delimiter


# what is wrong | content | args | key | words
BAD: list[tuple[str, str | bytes, dict[str, Any], str, list[str]]] = [
    ("no such column", "width,y\n1,2\n", {"target": "z"}, "target", ["column of data.csv", "'z'"]),
    ("misspelt column", "width,price\n1,2\n", {"target": "prise"}, "target", ["mean 'price'?"]),
    ("misspelt feature", "width,y\n1,2\n", {"features": ["widht"]}, "features[0]", ["'width'?"]),
    ("feature twice", "a,y\n1,2\n", {"features": ["a", "a"]}, "features[1]", ["is there twice"]),
    ("target as feature", "a,y\n1,2\n", {"features": ["y"]}, "features[0]", ["is the target"]),
    ("features as text", "a,y\n1,2\n", {"features": "a"}, "features", ["must be"]),
    ("no features", "a,y\n1,2\n", {"features": []}, "features", ["list of column names"]),
    ("only a target", "y\n1\n2\n", {}, "target", ["no column to predict it from"]),
    ("dates", "d,y\n2024-01-02,.1\n2024-01-03,.2\n", {}, "features", ["'d' holds dates", "data.csv:2"]),
    ("may be either", "a\ty\n1,500\t1\n2,500\t2\n3,500\t3\n", {}, "features", ["data.args.decimal", "'1,500'"]),
    ("points that may be either", "a;y\n950;1\n1.000;2\n1.050;3\n", {}, "features",
     ["decimal points or thousands", "'1.000'"]),
    ("times of two zones", "d,y\n2024-01-02T10:00+01:00,.1\n2024-01-03T10:00+02:00,.2\n", {}, "features",
     ["'d' holds dates"]),
    ("too large for float32", "a,y\n1,1e39\n2,2e39\n", {"target_transform": "none"}, "path", ["too large"]),
    ("a class per row", "a,y\n1,u\n2,v\n3,w\n", {}, "target", ["too many for classes", "data.csv:2"]),
    ("an encoding that is none", "a,y\n1,2\n", {"encoding": "zip"}, "encoding", ["no encoding of text"]),
    ("zero bytes", "a,y\n1,\0\n", {}, "path", ["zero bytes"]),
    ("a log of 0", "a,y\n1,.5\n2,0\n", {"target_transform": "log"}, "target_transform", ["above 0"]),
    ("text cell", "a,y\n1,.1\nx,.2\n", {}, "features", ["'a'", "data.csv:3", "got 'x'"]),
    ("infinite", "a,y\n1,.1\n2,.2\n-inf,.3\n", {}, "features", ["data.csv:4", "'-inf'"]),
    ("too large", "a,y\n1e999,.1\n2,.2\n", {}, "features", ["data.csv:2", "'1e999'"]),
    ("a number with _", "a,y\n1,.1\n1_0,.2\n", {}, "features", ["data.csv:3", "'1_0'"]),
    ("digits of another script", "a,y\n1,.1\n2,.2\n\u0661,.3\n", {}, "features", ["data.csv:4", "'\u0661'"]),
    ("full-width digits", "a,y\n\uff11,.1\n2,.2\n", {}, "features", ["data.csv:2", "'\uff11'"]),
    ("target with _", "a,y\n1,.1\n2,1_0\n3,.3\n", {}, "target", ["data.csv:3", "'1_0'"]),
    ("infinity in words", "a,y\n1,.1\nInfinity,.2\n", {}, "features", ["data.csv:3", "'Infinity'"]),
    ("a target of nan", "a,y\n1,.1\n2,NaN\n", {}, "target", ["data.csv:3", "'NaN'"]),
    ("a cell that is too long", "a,y\n1,2\n" + "x" * 140_000 + ",2\n", {}, "path",
     ["a cell of more than 131,072 characters at data.csv:3 ", "Shorten it."]),
    ("a quote over the rest of the file", 'a,y\n1,2\n"3,4\n' + "5,6\n" * 40_000, {}, "path",
     ["more than 131,072 characters at data.csv:3 ", "close the quote"]),
    ("a name that is too long", "x" * 140_000 + ",y\n1,2\n", {}, "path", ["characters at data.csv:1 "]),
    ("after a long cell", 'a,n,y\n1,"\n\n",.1\nx,"",.2\n', {"features": ["a"]}, "features",
     ["data.csv:5"]),
    ("text in a numeric target", "a,y\n1,.1\n2,n/a\n", {}, "target", ["data.csv:3", "'n/a'"]),
    ("target not numeric", "a,y\n1,u\n2,v\n", {"task": "regression"}, "target", ["data.csv:2"]),
    ("empty class", "a,y\n1,u\n2,\n3,v\n", {}, "target", ["data.csv:3", "name a class"]),
    ("one class", "a,y\n1,u\n2,u\n", {}, "target", ["at least two classes"]),
    ("unknown task", "a,y\n1,2\n", {"task": "clasification"}, "task", ["'classification'?"]),
    ("long delimiter", "a,y\n1,2\n", {"delimiter": "::"}, "delimiter", ["one character"]),
    ("delimiter is a quote", "a,y\n1,2\n", {"delimiter": '"'}, "delimiter", ["one character"]),
    ("delimiter is a number", "a,y\n1,2\n", {"delimiter": 3}, "delimiter", ["must be"]),
    ("short row", "a,b,y\n1,2,3\n1,2\n", {}, "path", ["data.csv:3 has 2 cells, the header 3 (got '1,2')"]),
    ("long row", "a,y\n1,2\n1,2,3\n", {}, "path", ["data.csv:3 has 3 cells, the header 2 (got '1,2,3')"]),
    ("a name twice", "a,b,a,y\n1,2,3,4\n", {}, "path", ["'a' more than once"]),
    ("no name", ",a,y\n0,1,2\n", {}, "path", ["column without a name"]),
    ("open quote", 'a,y\n1,"2\n3,4\n', {}, "path", ["not valid CSV", "data.csv:3"]),
    ("text after a quote", 'a,y\n"1"x,2\n', {}, "path", ["not valid CSV", "data.csv:2"]),
    ("empty file", b"", {}, "path", ["is empty"]),
    ("white space", b" \n\n", {}, "path", ["is empty"]),
    ("only a header", "a,y\n", {}, "path", ["a header and no rows"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "args", "key", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_bad_files(
    content: str | bytes, args: dict[str, Any], key: str, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content, **args)
    assert {problem.key for problem in caught.value.problems} == {f"data.args.{key}"}
    assert [word for word in words if word not in str(caught.value)] == []


def test_bad_columns_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "a,b,c,y\n1,x,3,.1\n1,2,inf,.2\n1,2,3,?\n")
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == 3
    for line, text in zip(("data.csv:2", "data.csv:3", "data.csv:4"), found, strict=True):
        assert line in text


@pytest.mark.parametrize(
    ("bad", "last"),
    [
        (3, "data.csv:4 has 1 cell, the header 2 (got '1')."),
        (4, "data.csv has 1 more such row."),
        (50, "data.csv has 47 more such rows."),
    ],
)
def test_of_many_bad_rows_three_are_shown_and_the_rest_counted(
    bad: int, last: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "a,y\r\n" + "1\r\n" * bad)
    lines = str(caught.value).split("\n")
    assert len(lines) == min(bad, 4)
    assert lines[0].startswith("data.args.path: data.csv:2 has 1 cell, the header 2 (got '1').")
    assert last in lines[-1]


MANY = 20_000


@pytest.mark.parametrize(
    ("header", "row", "args", "last"),
    [
        ([f"c{i}" for i in range(MANY)], "inf", {}, "19,990 more columns cannot be used."),
        ([f"c{i}" for i in range(MANY)], "1", {"target": "z"}, "It has 20,001: c0, c1"),
        ([f"c{i}" for i in range(MANY)], "1", {"features": ["z"] * 9_000}, "features[9]"),
        (["c" * 100_000], "inf", {}, "data.args.features"),
        (["c" * 100_000], "1", {"target": "z"}, "data.args.target"),
        (["c" * 100_000] * 2, "1", {}, "more than once"),
    ],
)
def test_wide_files_are_refused_in_few_words(
    header: list[str], row: str, args: dict[str, Any], last: str, tmp_path: Path
) -> None:
    text = ",".join([*header, "y"]) + "\n" + f"{row}," * len(header) + "1\n"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text + text.splitlines()[1] + "\n", **args)
    assert last in str(caught.value)
    assert len(str(caught.value)) < 5_000


def test_classes_of_long_names_take_little_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    rows = "".join(f"{i},c{i % 2}\n" for i in range(2_000))
    data = load(tmp_path, f"a,y\n{rows}1,{'z' * 100_000}\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.facts.num_classes == 3
    assert peak < 50e6  # an array of text of that width takes 800 MB


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("none.csv", "there is no such file"),
        (".", "is a directory"),
        ("", "must be the path"),
        ("a\0b", "must be the path"),
        (3, "must be"),
        (None, "must be"),
    ],
)
@pytest.mark.parametrize(("name", "others"), [("csv", {"target": "y"}), ("text", {})])
def test_a_path_that_leads_nowhere(
    path: Any, words: str, name: str, others: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_data(
            DATASETS[name],
            {"path": path, **others},
            batch_size=2,
            val_fraction=0,
            directory=tmp_path,
        )
    assert caught.value.problems[0].key == "data.args.path"
