"""Files that are not what their names say are named for what they are, with what to do; no others are."""

import csv
import gzip
import io
import json
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.readers.test_formats import VALUES, json_values, lines, read_all
from zpd_ray.errors import ZpdError
from zpd_ray.readers import rows
from zpd_ray.readers.csv_rows import delimiter_of

TABLE = "prompt,response\n" + "".join(f'"p{i}, «ü»",r\n' for i in range(5))
LINES = lines(VALUES).decode()
ARRAY = json.dumps(VALUES)


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ZpdError) as caught:
        read_all(path)
    return str(caught.value)


def after(command: str, directory: Path) -> Path:
    """The file that a command writes, which a sentence advises."""
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"no {command.split()[0]} here")
    subprocess.run(command, shell=True, check=True, cwd=directory)
    return directory / command.rpartition("> ")[2].strip("'")


@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-16LE", "UTF-16BE", "UTF-32"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "my x.csv", "x.jsonl.gz", "x.tsv.gz"])
def test_wide_text_is_named_and_the_command_makes_it_readable(
    tmp_path: Path, encoding: str, name: str
) -> None:
    text = TABLE if ".csv" in name or ".tsv" in name else ARRAY if name == "x.json" else LINES
    content = text.encode(encoding)
    told = refusal(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    assert f"is text in {encoding}, expected UTF-8" in told
    new = after(told.partition("convert it: ")[2], tmp_path)
    assert new.read_text(encoding="utf-8") == text
    assert not any(row.problem for row in read_all(new))


PRETTY = "\n".join(json.dumps(value, indent=2) for value in VALUES)


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.jsonl.gz", "x.ndjson"])
@pytest.mark.parametrize("text", ["{0}", "\n\n  {0}\n", "\ufeff{0}"])
def test_objects_over_several_lines_are_named(tmp_path: Path, name: str, text: str) -> None:
    content = text.replace("{0}", PRETTY).encode()
    told = refusal(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    assert "JSON objects over several lines" in told
    new = after(told.partition("write them so: ")[2].partition(" (jq")[0], tmp_path)
    assert [row.value for row in read_all(new)] == VALUES


def test_objects_over_several_lines_of_windows_and_one_object_are_named(tmp_path: Path) -> None:
    for text in (PRETTY.replace("\n", "\r\n"), json.dumps({"data": VALUES}, indent=1)):
        assert "JSON objects over several lines" in refusal(tmp_path / "x.json", text.encode())


@pytest.mark.parametrize(
    "text",
    [ARRAY, json.dumps(VALUES, indent=2), "\n" + ARRAY.replace("}, {", "},\n{"), "[ {}, {} ]\n\n"],
)
def test_an_array_in_a_file_of_lines_is_named_and_read_where_it_is_called_json(
    tmp_path: Path, text: str
) -> None:
    told = refusal(tmp_path / "x.jsonl", text.encode())
    assert "is one JSON array" in told
    new = after(told.partition("in lines: ")[2], tmp_path)
    (tmp_path / "x.jsonl").rename(tmp_path / "x.json")
    assert [row.value for row in read_all(tmp_path / "x.json")] == json.loads(text)
    assert [row.value for row in read_all(new)] == json.loads(text)


def test_an_array_longer_than_a_row_may_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 1 << 10)
    assert "is one JSON array" in refusal(tmp_path / "x.jsonl", ARRAY.encode())


@pytest.mark.parametrize("first", ["{", "[", "[1]", '[{"a": 1}]', "}", "[{", '{"a": 1'])
def test_one_bad_line_before_sound_ones_is_one_bad_row(tmp_path: Path, first: str) -> None:
    (tmp_path / "x.jsonl").write_text(f"{first}\n{LINES}")
    bad, *good = read_all(tmp_path / "x.jsonl")
    assert bad.problem in (rows.NOT_JSON, rows.NOT_AN_OBJECT)
    assert [row.value for row in good] == VALUES


def test_lines_that_are_lists_are_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('[{"role": "user"}]\n' * 3)
    found = read_all(tmp_path / "x.jsonl")
    assert [row.problem for row in found] == [rows.NOT_AN_OBJECT] * 3
    assert found[0].detail == "got a list, expected an object {...}"


@given(st.lists(json_values, min_size=1, max_size=8), st.booleans(), st.text("\n\r ", max_size=3))
def test_lines_in_utf8_are_read_whatever_they_say(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict], ascii: bool, blank: str
) -> None:
    path = tmp_path_factory.mktemp("utf8") / "x.jsonl"
    text = "".join(f"{json.dumps(value, ensure_ascii=ascii)}\n{blank}\n" for value in values)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    if "surrogates" not in text:
        assert [row.value for row in read_all(path)] == values


@pytest.mark.parametrize(("ending", "kind"), [(".gz", "gzip"), (".zst", "zstd")])
@pytest.mark.parametrize("content", [LINES.encode(), b"x", b"\x28\xb5\x2f\xfe", b"\x1f\x8c\0\0\0\0"])
def test_what_is_not_compressed_is_named(tmp_path: Path, ending: str, kind: str, content: bytes) -> None:
    told = refusal(tmp_path / f"x.jsonl{ending}", content)
    assert f"is called {ending} and is not {kind}: it begins with {content[:4]!r}" in told
    assert f"rename it without {ending}, to x.jsonl" in told


@pytest.mark.parametrize(("name", "format"), [("x.jsonl", "jsonl"), ("x.json", "jsonl"), ("x.csv", "csv")])
def test_what_is_no_text_is_named(tmp_path: Path, name: str, format: str) -> None:
    table = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(VALUES), table)
    contents = {
        "Parquet": table.getvalue().to_pybytes(),
        "Zstandard": pa.compress(LINES.encode(), "zstd", asbytes=True),
        "gzip": gzip.compress(LINES.encode()),
    }
    for kind, content in contents.items():
        told = refusal(tmp_path / name, content)
        assert f"holds no text, as a {format} file has to, but {kind}" in told


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("prompt;response", ";"),
        ("prompt\tresponse", "\t"),
        ("prompt,response;x", ","),
        ('"a,b";c', ";"),
        ('"a;b"', ","),
        ("a;b\tc;d", ";"),
        ("prompt", ","),
        ("", ","),
    ],
)
def test_the_header_says_what_separates_fields(header: str, expected: str) -> None:
    assert delimiter_of(header) == expected


def test_a_tab_comes_first_in_a_tsv_file() -> None:
    assert delimiter_of("a, or b\tc", is_tsv=True) == "\t"
    assert delimiter_of("a,b", is_tsv=True) == ","


names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5)
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), min_size=1, max_size=9)


@given(st.sampled_from(",;\t"), st.lists(names, min_size=2, max_size=4, unique=True), st.data())
def test_any_delimiter_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, delimiter: str, header: list[str], data: st.DataObject
) -> None:
    records = data.draw(st.lists(st.lists(cells, min_size=len(header), max_size=len(header)), max_size=5))
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([header, *records])
    path = tmp_path_factory.mktemp("delimiter") / ("x.tsv" if delimiter == "\t" else "x.csv")
    path.write_text("\n\n" + text.getvalue(), encoding="utf-8", newline="")
    assert [row.value for row in read_all(path)] == [dict(zip(header, each, strict=True)) for each in records]
