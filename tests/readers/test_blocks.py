"""Rows by blocks are what they are row by row: same items, bad rows and columns, whatever is in a file.

The reference is ``to_items`` over ``formats.read``, which looks at one row at a time.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zpd_ray.config import SourceConfig
from zpd_ray.graders import load
from zpd_ray.readers import blocks as blocks_module
from zpd_ray.readers import spans, streams
from zpd_ray.readers.blocks import blocks
from zpd_ray.readers.formats import read
from zpd_ray.readers.found import find_items
from zpd_ray.readers.items import to_items
from zpd_ray.readers.sources import expand
from zpd_ray.readers.spans import newlines_in, numbered, spans_of

DATA = Path(__file__).parents[3] / "shared/data"
AUTO = SourceConfig(path="x")
TEXTS = [
    "What is 2 + 2?",
    "four\n#### 4",
    "",
    " \t",
    "\u2003",
    "5",
    "é Σ\u00a0 İ",
    'a "quote" \\ \x1f\x7f',
    "Two  words ",
]
VALUES: list[Any] = [*TEXTS, None, 7, -3, 10**30, 1.5, True, ["x", "y"], [], {"A": "x", "B": "y"}, "\ud800"]
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def assert_same(path: Path, source: SourceConfig = AUTO, grader: str = "greedy_match") -> int:
    """The number of rows of a file that are the same by blocks and row by row, in blocks of 7 rows."""
    (file,) = expand(str(path))
    found = [find_items(block, file.path, source, load(grader)) for block in blocks(file, 7)]
    rows = [row for batch in read(file) for row in batch]
    items, bad = to_items(rows, file.path, source, load(grader))
    if found:
        assert pa.concat_tables([each.items for each in found]).equals(items)
        assert pa.concat_tables([each.bad for each in found]).equals(bad)
    names = {name for row in rows for name in row.value or ()}
    assert {name for each in found for name in each.names} == names
    return len(rows)


def write_lines(path: Path, rows: list[Any]) -> Path:
    """A row per line: text and bytes as they are, the rest as JSON."""
    raw = [
        row if isinstance(row, bytes) else row.encode() if isinstance(row, str) else json.dumps(row).encode()
        for row in rows
    ]
    text = b"\n".join(raw) + b"\n"
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def good(i: int) -> dict[str, Any]:
    return {
        "prompt": f"Question {i}",
        "response": f'It is\n"{i}".',
        "answer": str(i),
        "level": i,
        "source": "s",
    }


NASTY: list[Any] = [
    *(good(i) for i in range(50)),
    b'{"prompt": "two", "response": "in a line"}{"prompt": "two", "response": "in a line"}',
    b'{"prompt": "over two lines",',
    b'"response": "r"}',
    b'{"prompt": {}',
    b'{"prompt": "p", "response": "r"}}',
    "",
    "   ",
    b'{"prompt": "p", "response": "a key twice", "response": "this one counts"}',
    b'{"prompt": "p", "response": "\xff"}',
    b'{"prompt": "p", "response": "lone \\ud800"}',
    b'{"prompt": "p", "response": "\\ud83d\\ude00 \\u00e9 \\/"}',
    b'{"prompt": "p", "response": "r", "score": NaN}',
    b'{"prompt": "p", "response": "a raw \t tab"}',
    b'{"prompt": "p", "response": "r", "answer": 1e3}',
    b'{"prompt": "p", "response": "r", "answer": 007}',
    b'{"prompt": "p", "response": "r"}\r',
    b' {"prompt": "p", "response": "r"} ',
    b'{"source": "the other order", "level": 1, "prompt": "p", "response": "r"}',
    b'{"level":3,"source":"\\"level\\": 1","prompt":"p","response":"r"}',
    b'{"pr\\u006fmpt": "an escaped key", "response": "r", "source": "s", "level": 3}',
    *({"prompt": value, "response": "r", "answer": "1"} for value in VALUES),
    *({"prompt": "p", "response": value, "answer": "1"} for value in VALUES),
    *({"prompt": "p", "response": "r", "answer": value} for value in VALUES),
    *(
        good(i) | {name: value}
        for i, value in enumerate(VALUES)
        for name in ("level", "item_id", "group", "context")
    ),
    *(
        good(1) | {name: "x"}
        for name in ("system", "system_prompt", "messages", "question", "Prompt", "output")
    ),
    {"prompt": "q", "response": "r", "choices": ["x", "y"], "answer": "A"},
    {"messages": TURNS},
    {"problem": "p", "solution": "s", "answer": "5"},
    {"Question": "q", "Answer": "a", "id": 3},
    {"instruction": "i", "input": "with this", "output": "o"},
    {"instruction": "i", "input": "", "output": "o"},
    [1, 2],
    "null",
    {},
    *(good(i) for i in range(50, 100)),
]


@pytest.mark.parametrize("grader", ["greedy_match", "numeric", "choice"])
@pytest.mark.parametrize("chunk", [200, 1 << 20])
def test_a_nasty_file_of_lines(
    tmp_path: Path, grader: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CHUNK", chunk)
    path = write_lines(tmp_path / "nasty.jsonl", NASTY)
    for source in (AUTO, SourceConfig(path="x", columns={"answer": "level", "group": "source"})):
        assert assert_same(path, source, grader) == len(NASTY) - 2  # blank lines
    turned = write_lines(tmp_path / "turned.jsonl.gz", ["\ufeff{}", *NASTY[::-1]])
    assert_same(turned, AUTO, grader)


def test_a_file_that_ends_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "cut.jsonl.gz", [good(i) for i in range(3000)])
    path.write_bytes(path.read_bytes()[:-50])
    assert assert_same(path) > 1000
    monkeypatch.setattr("zpd_ray.readers.rows.MAX_ROW_BYTES", 100)
    long = [
        good(1),
        {"prompt": "x" * 150, "response": "r"},
        good(2),
        good(3),
        {"prompt": "x" * 250, "response": "r"},
    ]
    for chunk in (90, 1000):
        monkeypatch.setattr(streams, "CHUNK", chunk)
        for rows in (long, long[::-1], [*long, *long]):
            assert assert_same(write_lines(tmp_path / "long.jsonl", rows)) == len(rows)


def test_records(tmp_path: Path) -> None:
    rows = ["Prompt,response,answer,level", *(f'"Question ""{i}""\nand more",r,{i},' for i in range(30))]
    rows[20:20] = ["q,r", "", " ,r,1,2", "q,\xff,1,2", "q,,1,2", "q,r, ,2"]
    path = tmp_path / "a.csv"
    path.write_bytes("\n".join(rows).encode("latin-1"))
    for columns in ({}, {"answer": "level"}):
        source = SourceConfig(path="x", columns=columns)  # type: ignore[arg-type]
        assert assert_same(path, source, "numeric") == 35


KEYS = ["prompt", "response", "answer", "question", "completion", "problem", "solution", "instruction"]
KEYS += ["input", "output", "context", "system", "item_id", "group", "choices", "messages", "Question"]
KEYS += ["extra_a", "extra_b"]
COLUMNS: list[dict[str, str]] = [
    {},
    {"prompt": "input", "response": "extra_a"},
    {"answer": "extra_b", "item_id": "extra_a"},
    {"prompt": "context", "answer": "Question"},
    {"response": "extra_b.x"},
]


@given(
    shared=st.fixed_dictionaries({}, optional={key: st.sampled_from(TEXTS) for key in KEYS}),
    rows=st.lists(
        st.fixed_dictionaries({}, optional={key: st.sampled_from(VALUES) for key in KEYS}), max_size=5
    ),
    columns=st.sampled_from(COLUMNS),
    shape=st.sampled_from(["auto", "auto", "alpaca", "question_answer", "prompt_response"]),
)
def test_any_columns_with_any_values(
    shared: dict, rows: list[dict], columns: Any, shape: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Rows of one layout, some of them spoilt: in lines, in which columns may be missing, and as a table."""
    whole = [shared, *(shared | row for row in rows), *(row | shared for row in rows), shared]
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    source = SourceConfig(path="x", columns=columns, shape=shape)
    assert_same(write_lines(path, whole), source)
    texts = [{key: value for key, value in row.items() if isinstance(value, str)} for row in whole]
    sound = [row for row in texts if "\ud800" not in row.values()]
    names = list(dict.fromkeys(name for row in sound for name in row))
    if names:
        table = pa.table({name: pa.array([row.get(name) for row in sound], pa.string()) for name in names})
        pq.write_table(table, path.with_suffix(".parquet"))
        assert_same(path.with_suffix(".parquet"), source)


def test_tables_of_every_type(tmp_path: Path) -> None:
    n = 21
    texts = pa.array([f"text {i}" for i in range(n)])
    spoilt = pa.array([b"\xff" if i == 10 else b"fine" for i in range(n)]).view(pa.string())
    columns = {
        "large": texts.cast(pa.large_string()),
        "dictionary": texts.dictionary_encode(),
        "view": texts.cast(pa.string_view()),
        "some": pa.array([None if i % 3 else f"text {i}" for i in range(n)]),
        "small": pa.array(np.arange(n), pa.int8()),
        "unsigned": pa.array(np.arange(n), pa.uint64()),
        "half": pa.array(np.arange(n) / 2),
        "truth": pa.array(np.arange(n) % 2 == 0),
        "date": pa.array([0] * n, pa.date32()),
        "binary": texts.cast(pa.binary()),
        "list": pa.array([["a", "b"]] * n),
        "nothing": pa.nulls(n),
        "spoilt": spoilt,
    }
    for name, column in columns.items():
        for field in ("prompt", "response", "answer", "item_id", "context", "system", "level", "choices"):
            table = {"prompt": texts, "response": texts, "source": texts} | {field: column}
            with pa.ipc.new_file(tmp_path / "t.arrow", pa.table(table).schema) as writer:
                writer.write_table(pa.table(table))
            assert_same(tmp_path / "t.arrow"), (name, field)


def test_well_formed_rows_are_not_looked_at_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are the others of a block with a few bad ones, save for those beside them."""
    rows: list[Any] = [good(i) for i in range(1000)]
    rows[500], rows[700] = {"prompt": 7, "response": "r"}, "{not json"
    assert assert_same(write_lines(tmp_path / "a.jsonl", rows)) == 1000
    looked: list[int] = []
    monkeypatch.setattr(
        "zpd_ray.readers.found.to_items",
        lambda rows, *rest: looked.append(len(rows)) or to_items(rows, *rest),
    )
    for path in (tmp_path / "a.jsonl", tmp_path / "b.parquet"):
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist([good(i) for i in range(1000)]), path)
        (file,) = expand(str(path))
        for block in blocks(file):
            find_items(block, file.path, AUTO, load("numeric"))
    assert 2 <= looked[0] <= 2 * blocks_module.FEW
    assert looked[1] == 0


@pytest.mark.skipif(not DATA.exists(), reason="shared data is not here")
def test_real_files(tmp_path: Path) -> None:
    path = DATA / "gsm8k/train.jsonl.gz"
    assert assert_same(path, AUTO, "numeric") == 6000
    mapped = {
        "item_id": "id",
        "prompt": "problem",
        "response": "solution",
        "choices": "options",
        "group": "level",
    }
    assert_same(DATA / "math/train.jsonl.gz", SourceConfig(path="x", columns=mapped), "choice")  # type: ignore[arg-type]


def found_in(path: Path, source: SourceConfig = AUTO) -> tuple[int, pa.Table, pa.Table]:
    """How many spans a file has, and what is in them."""
    (file,) = expand(str(path))
    spans = spans_of(file, 0)
    if file.format == "jsonl" and len(spans) > 1:
        spans = numbered(spans, [newlines_in(file, span) for span in spans])
    each = [
        find_items(block, file.path, source, load("numeric"))
        for span in spans
        for block in blocks(file, 50, span)
    ]
    return (
        len(spans),
        pa.concat_tables([one.items for one in each]),
        pa.concat_tables([one.bad for one in each]),
    )


@pytest.mark.parametrize("size", [1, 60, 61, 1000])
def test_spans_of_a_file_hold_what_the_file_holds(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows with their places, whatever the cuts; lines too long for a span, or at all, included."""
    monkeypatch.setattr("zpd_ray.readers.rows.MAX_ROW_BYTES", 250)
    monkeypatch.setattr(streams, "CHUNK", 100)  # a chunk is shorter than the longest row
    rows = [
        *NASTY[:70],
        {"prompt": "x" * 600, "response": "r"},
        "",
        "",
        good(1),
        {"prompt": "x" * 230, "response": "r"},
    ]
    some = rows[40:] if size < 10 else rows
    path = write_lines(tmp_path / "a.jsonl", some)
    path.write_bytes(path.read_bytes()[: -1 if size % 2 else None])  # the last line without its newline
    table = pa.Table.from_pylist([good(i) for i in range(200)])
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=9)
    for name in ("a.jsonl", "b.parquet"):
        _, items, bad = found_in(tmp_path / name)
        with monkeypatch.context() as patch:
            patch.setattr(spans, "SPAN_BYTES", size)
            count, in_spans, bad_in_spans = found_in(tmp_path / name)
        assert count > 5
        assert in_spans.equals(items)
        assert bad_in_spans.equals(bad)
