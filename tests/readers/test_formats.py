"""Rows of every kind of file: in order, at their places, past whatever is bad."""

import csv
import gzip
import json
import tracemalloc
from contextlib import suppress
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zpd_ray.errors import ZpdError
from zpd_ray.readers import rows
from zpd_ray.readers.formats import read
from zpd_ray.readers.rows import RawRow
from zpd_ray.readers.sources import expand

VALUES = [{"prompt": f"p{i} «ü»\n", "response": "r" * (i % 7), "n": i} for i in range(23)]
TEXT = [{key: str(value) for key, value in row.items()} for row in VALUES]


def read_all(path: Path, rows_per_batch: int = 5000, format: str = "auto") -> list[RawRow]:
    (file,) = expand(str(path), format)
    batches = list(read(file, rows_per_batch))
    assert all(len(batch) == rows_per_batch for batch in batches[:-1])
    return [row for batch in batches for row in batch]


def lines(values: list[dict]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def write(path: Path, values: list[dict]) -> Path:
    """A real file of the format that the name says."""
    table = pa.Table.from_pylist(values)
    name = path.name
    if name.endswith(".gz") and "jsonl" in name:
        path.write_bytes(gzip.compress(lines(values[:9])) + gzip.compress(lines(values[9:])))  # two members
    elif name.endswith("jsonl.zst"):
        with pa.output_stream(path, compression="zstd") as stream:
            stream.write(lines(values))
    elif ".csv" in name or ".tsv" in name:
        with (
            gzip.open(path, "wt", newline="")
            if name.endswith(".gz")
            else open(path, "w", newline="") as stream
        ):
            writer = csv.DictWriter(stream, values[0], delimiter="\t" if ".tsv" in name else ",")
            writer.writeheader()
            writer.writerows(values)
    elif name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=10)
    elif name.endswith((".arrow", ".feather")):
        new = pa.ipc.new_stream if "stream" in name else pa.ipc.new_file
        with new(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=10)
    elif name.endswith(".json"):
        path.write_text(json.dumps(values, indent=2))
    else:
        path.write_bytes(lines(values))
    return path


NAMES = ["x.jsonl", "x.ndjson", "x.jsonl.gz", "x.jsonl.zst", "x.json", "x.parquet", "x.csv", "x.csv.gz"]
NAMES += ["x.arrow", "stream.arrow", "x.feather", "x.tsv", "x.tsv.gz"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows_per_batch", [1, 4, 5000])
def test_every_format_gives_every_row_at_its_place(tmp_path: Path, name: str, rows_per_batch: int) -> None:
    found = read_all(write(tmp_path / name, VALUES), rows_per_batch)
    assert [row.row for row in found] == list(range(len(VALUES)))
    assert [row.value for row in found] == (TEXT if ".csv" in name or ".tsv" in name else VALUES)
    assert not any(row.problem for row in found)


def test_a_dataset_saved_to_disk(tmp_path: Path) -> None:
    datasets.Dataset.from_list(VALUES).save_to_disk(tmp_path / "ds", num_shards=2)
    files = expand(str(tmp_path / "ds"))
    found = [row for file in files for batch in read(file, 4) for row in batch]
    assert [row.value for row in found] == VALUES
    assert [row.row for row in found] == [*range(12), *range(11)]


def test_bad_lines_are_told_by_their_number_and_reading_goes_on(tmp_path: Path) -> None:
    good = b'{"a": 1}'
    bad = [
        b'{"a": ',
        b"[1]",
        b'"text"',
        b'{"a": "\xff"}',
        b"{" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\x00",
    ]
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    content = [
        b"\xef\xbb\xbf" + good,
        bad[0],
        b"",
        bad[1],
        bad[2],
        b"   \r",
        good + b"\r",
        *bad[3:],
        deep,
        good,
    ]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(content))
    found = read_all(tmp_path / "x.jsonl")
    problems = [(row.row, row.problem) for row in found if row.problem]
    assert [row.row for row in found if row.value == {"a": 1}] == [0, 6, 12]
    assert problems == [
        (1, rows.NOT_JSON),
        (3, rows.NOT_AN_OBJECT),
        (4, rows.NOT_AN_OBJECT),
        (7, rows.NOT_UTF8),
        *((row, rows.NOT_JSON) for row in range(8, 12)),
    ]
    assert all(
        row.value is None and len(row.text) <= rows.EXCERPT and row.detail for row in found if row.problem
    )


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_an_overlong_line_is_one_bad_row(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 3 << 20)
    first, good = ("", '{"a": "b"}\n') if name == "x.jsonl" else ("a\n", "b\n")
    (tmp_path / name).write_text(first + good + "x" * (8 << 20) + "\n" + good + "y" * (4 << 20))
    found = read_all(tmp_path / name)
    assert [(row.row, row.problem) for row in found] == [
        (0, None),
        (1, rows.TOO_LONG),
        (2, None),
        (3, rows.TOO_LONG),
    ]
    assert found[2].value == {"a": "b"}


@pytest.mark.parametrize("codec", ["gz", "zst"])
@pytest.mark.parametrize("kept", [0.0, 0.4, 0.999])
def test_a_truncated_file_gives_what_is_sound_and_then_says_so(
    tmp_path: Path, codec: str, kept: float
) -> None:
    values = [{"prompt": f"p{i * 7919 % 10007}", "response": str(i**3)} for i in range(30_000)]
    whole = write(tmp_path / f"x.jsonl.{codec}", values).read_bytes()
    (tmp_path / f"t.jsonl.{codec}").write_bytes(whole[: max(int(len(whole) * kept), 5)])
    *sound, last = read_all(tmp_path / f"t.jsonl.{codec}")
    assert [row.value for row in sound] == values[: len(sound)]
    assert len(sound) >= len(values) * (kept - 0.1)
    assert (last.row, last.problem) == (len(sound), rows.DAMAGED)


def test_bad_records_of_a_csv_file(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfa,b\n1,"two\nlines, ""quoted"""\n1\n\n1,2,3\n1,"x"y\n1,\xff\n5,6\n"7,8\n'
    (tmp_path / "x.csv").write_bytes(content)
    found = read_all(tmp_path / "x.csv")
    assert [(row.row, row.problem) for row in found] == [
        (0, None), (1, rows.WRONG_FIELDS), (2, rows.WRONG_FIELDS), (3, rows.BAD_CSV), (4, None), (5, None),
        (6, rows.BAD_CSV),
    ]  # fmt: skip
    assert found[0].value == {"a": "1", "b": 'two\nlines, "quoted"'}
    assert found[5].value == {"a": "5", "b": "6"}
    assert "lines 10 to 10" in found[6].detail


@pytest.mark.parametrize("header", ["a,a\n1,2\n", '"a\n'])
def test_a_csv_header_that_cannot_be_used_is_an_error(tmp_path: Path, header: str) -> None:
    (tmp_path / "x.csv").write_text(header)
    with pytest.raises(ZpdError, match="header"):
        read_all(tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "stream.arrow"])
def test_a_corrupt_table_is_an_error(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, VALUES)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"rubbish " * 20, whole[:-20]):
        path.write_bytes(content)
        with pytest.raises(ZpdError, match="is no sound"):
            read_all(path)


def test_values_of_a_table_that_cannot_be_read_are_bad_rows(tmp_path: Path) -> None:
    raw = pa.array([b"a", b"\xff\xfe", b"c"]).view(pa.string())
    pq.write_table(pa.table({"t": raw}), tmp_path / "x.parquet")
    found = read_all(tmp_path / "x.parquet")
    assert [row.problem for row in found] == [None, rows.NOT_UTF8, None]
    assert found[2] == RawRow(2, {"t": "c"})


def test_two_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ZpdError, match="two columns named 'a'"):
        read_all(tmp_path / "x.arrow")


@pytest.mark.parametrize(
    ("content", "good", "problem"),
    [
        ("[]", 0, None),
        (" \n [ {}\n, {} ] \n", 2, None),
        ('[{}, 5, "x", {}]', 2, rows.NOT_AN_OBJECT),
        ('[{}, {"a": nope}, {}]', 1, rows.NOT_JSON),
        ("[{}, {}", 2, rows.NOT_JSON),
        ("[{} {}]", 1, rows.NOT_JSON),
        ("[" * 50_000, 0, rows.NOT_JSON),
    ],
)
def test_json_arrays(tmp_path: Path, content: str, good: int, problem: str | None) -> None:
    (tmp_path / "x.json").write_text(content)
    found = read_all(tmp_path / "x.json")
    assert sum(row.value is not None for row in found) == good
    assert next((row.problem for row in found if row.problem), None) == problem


def test_a_truncated_json_array_gives_what_is_sound(tmp_path: Path) -> None:
    values = [{"prompt": f"p{i * 7919 % 10007}", "response": str(i**3)} for i in range(30_000)]
    whole = gzip.compress(json.dumps(values).encode())
    (tmp_path / "x.json.gz").write_bytes(whole[: len(whole) * 2 // 3])
    *sound, last = read_all(tmp_path / "x.json.gz")
    assert [row.value for row in sound] == values[: len(sound)]
    assert len(sound) > 18_000
    assert (last.row, last.problem) == (len(sound), rows.DAMAGED)


def test_a_json_file_of_lines_is_read_by_line(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(lines(VALUES))
    assert [row.value for row in read_all(tmp_path / "x.json")] == VALUES


json_values = st.dictionaries(
    st.text(max_size=5), st.none() | st.integers() | st.text(max_size=20), max_size=4
)


@given(st.lists(json_values, max_size=20))
def test_json_comes_back_as_written(tmp_path_factory: pytest.TempPathFactory, values: list[dict]) -> None:
    directory = tmp_path_factory.mktemp("round")
    (directory / "x.jsonl").write_bytes(b"\n" + lines(values))
    (directory / "x.json").write_text(json.dumps(values), encoding="utf-8")
    assert [row.value for row in read_all(directory / "x.jsonl", 3)] == values
    assert [row.value for row in read_all(directory / "x.json", 3)] == values


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), min_size=1), min_size=1
    )
)
def test_csv_comes_back_as_written(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("round") / "x.csv"
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(
            [["a", "b"], *([text, text[::-1]] for text in texts)]
        )
    assert [row.value for row in read_all(path)] == [{"a": text, "b": text[::-1]} for text in texts]


@given(st.binary(max_size=300))
def test_no_bytes_raise_but_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    directory = tmp_path_factory.mktemp("bytes")
    for name in ("x.jsonl", "x.jsonl.gz", "x.jsonl.zst"):
        (directory / name).write_bytes(content + b"x")
        with suppress(ZpdError):
            for row in read_all(directory / name):
                assert (row.value is None) is (row.problem is not None)


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.jsonl.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    peaks = []
    for n in (1_000, 10_000):
        values = [{"prompt": f"{i}" * 50, "response": "r" * 200} for i in range(n)]
        (file,) = expand(str(write(tmp_path / name, values)))
        del values
        tracemalloc.start()
        assert sum(len(batch) for batch in read(file, 500)) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0] + (4 << 20)
