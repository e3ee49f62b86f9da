"""Ingest on a real Ray: every row is an item, a duplicate, an overlap or in quarantine, whatever its file."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests import tiny
from tests.pipeline.conftest import questions, simulated_values, table_of, write_jsonl
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.commands import perform
from zpd_ray.rundir.layout import LOCK
from zpd_ray.rundir.store import Store

pytestmark = pytest.mark.usefixtures("local_ray")

CONTENT = ["item_id", "messages", "response", "answer", "group", "prompt_tokens", "response_tokens"]


def ingest(directory: Path, output: str, **sections: Any) -> tuple[Store, dict[str, Any]]:
    """Run ``zpd-ray ingest`` with the simulated engine; the store and pool.json."""
    config = validate(simulated_values(directory, output=str(directory / output), **sections))
    perform("ingest", config)
    store = Store(config.output)
    return store, store.read_json("pool.json")


def quarantined(store: Store, source: str = "pool") -> list[tuple[str, int, str]]:
    """(file name, row, reason) of every row in quarantine, sorted."""
    if not store.names(f"quarantine/{source}"):
        return []
    rows = table_of(store, f"quarantine/{source}").to_pylist()
    assert all(row["detail"] for row in rows)
    return sorted((Path(row["source_file"]).name, row["source_row"], row["reason"]) for row in rows)


def assert_adds_up(store: Store, summary: dict[str, Any], source: str = "pool") -> None:
    """rows = items + duplicates + overlap + quarantined, in the summary and in the files."""
    bad = sum(summary["quarantined"].values())
    assert summary["rows"] == summary["items"] + summary["duplicates"] + summary["overlap"] + bad
    assert Counter(reason for _, _, reason in quarantined(store, source)) == summary["quarantined"]
    items = table_of(store, source)
    assert items.num_rows == summary["items"] == len(set(items["item_id"].to_pylist()))
    for column in ("prompt_tokens", "response_tokens"):
        assert pc.sum(items[column]).as_py() == summary[column]


def parts_of(store: Store) -> dict[str, bytes]:
    return {name: store.read_bytes(f"pool/{name}") for name in store.names("pool")}


def write_every_format(directory: Path, rows: list[dict[str, Any]]) -> list[str]:
    """The rows over seven files of seven formats; returns their paths."""
    directory.mkdir()
    shares = [rows[i::7] for i in range(7)]
    text = ["".join(json.dumps(row) + "\n" for row in share).encode() for share in shares]
    tables = [pa.Table.from_pylist(share) for share in shares]
    (directory / "a.jsonl").write_bytes(text[0])
    (directory / "b.jsonl.gz").write_bytes(gzip.compress(text[1]))
    with pa.CompressedOutputStream(str(directory / "c.jsonl.zst"), "zstd") as stream:
        stream.write(text[2])
    pq.write_table(tables[3], directory / "d.parquet", row_group_size=3)
    pyarrow.csv.write_csv(tables[4], directory / "e.csv")
    with pa.ipc.new_file(directory / "f.arrow", tables[5].schema) as writer:
        writer.write_table(tables[5], max_chunksize=4)
    datasets.Dataset.from_list(shares[6]).save_to_disk(str(directory / "hf"))
    return [str(path) for path in sorted(directory.iterdir())]


def test_every_format_in_one_pool_is_the_same_pool(tmp_path: Path) -> None:
    """The same parts with the same items in the same order, and the same bytes for any order of the files."""
    rows = questions(140)
    paths = write_every_format(tmp_path / "files", rows)  # type: ignore[arg-type]
    whole = write_jsonl(tmp_path / "whole.jsonl", rows)
    size = {"items_per_part": 30}
    many, summary = ingest(tmp_path, "many", pool={"path": paths, **size})
    turned, _ = ingest(tmp_path, "turned", pool={"path": paths[::-1], **size})
    one, of_one = ingest(tmp_path, "one", pool={"path": str(whole), **size})
    assert parts_of(many) == parts_of(turned)
    assert many.names("pool") == one.names("pool")
    assert len(one.names("pool")) >= 4
    for name in one.names("pool"):
        assert many.read_table(f"pool/{name}", CONTENT).equals(one.read_table(f"pool/{name}", CONTENT))
    assert summary["items"] == of_one["items"] == 140
    assert len(summary["sources"]) == 7
    assert_adds_up(many, summary)


def mixed_rows() -> dict[str, list[dict[str, Any] | str]]:
    """Two files with a bad row of every kind that a grader of answers knows, duplicates and overlap."""
    good: list[Any] = [row | {"item_id": f"q{i}"} for i, row in enumerate(questions(60))]  # type: ignore[operator]
    first = [
        *good[:40],
        "{not json",  # row 40
        {"item_id": "x1", "prompt": "p", "response": "", "answer": "1"},
        {"item_id": "x2", "prompt": "p", "response": "r"},
        "",  # a blank line is no row, but counts as a line
        {"item_id": "q3", "prompt": "another", "response": "content", "answer": "1"},
        good[5] | {"item_id": "other5"},  # an exact duplicate under another id
        [1, 2],
    ]
    second = [
        *good[40:],
        good[7],  # an exact duplicate with its id
        good[8] | {"prompt": "  QUESTION  8 ", "item_id": "q8 again"},  # not exact, yet the same task
        {"item_id": "x3", "prompt": 7, "response": "r", "answer": "1"},
    ]
    as_text = [row if isinstance(row, str) else json.dumps(row) for row in first]
    return {"one.jsonl": list(as_text), "two.jsonl": second}


def test_each_row_is_accounted_for_with_its_reason_file_and_row(tmp_path: Path) -> None:
    files = {name: write_jsonl(tmp_path / name, rows) for name, rows in mixed_rows().items()}
    evaluation = write_jsonl(
        tmp_path / "eval.jsonl",
        [
            {"prompt": "Question 8", "response": "other words", "answer": "8"},
            {"prompt": "question  9", "response": "other words", "answer": "9"},
            {"prompt": "question 999", "response": "r", "answer": "999"},
        ],
    )
    pool = {"path": [str(path) for path in files.values()], "max_bad_share": 0.2, "items_per_part": 25}
    store, summary = ingest(tmp_path, "out", pool=pool, evaluation={"path": str(evaluation)})
    assert quarantined(store) == [
        ("one.jsonl", 40, "not valid JSON"),
        ("one.jsonl", 41, "empty response"),
        ("one.jsonl", 42, "missing answer"),
        ("one.jsonl", 44, "item_id used twice"),
        ("one.jsonl", 46, "not an object"),
        ("two.jsonl", 22, "wrong type"),
    ]
    assert summary["rows"] == 46 + 23
    assert summary["duplicates"] == 2  # q5 under another id, q7 again
    assert summary["overlap"] == 3  # q8, the same task once more, q9
    assert_adds_up(store, summary)
    ids = set(table_of(store, "pool")["item_id"].to_pylist())
    assert ids == {f"q{i}" for i in range(60)} - {"q8", "q9"}
    assert_adds_up(store, store.read_json("evaluation/pool.json"), "evaluation/pool")


def test_few_rows_are_dealt_as_some_and_many_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read whole by each task, by its share, and shuffled: the same files, quarantine included."""
    files = [write_jsonl(tmp_path / name, rows) for name, rows in mixed_rows().items()]
    sections: dict[str, Any] = {
        "pool": {"path": [str(path) for path in files], "max_bad_share": 0.2, "items_per_part": 25},
        "evaluation": {"path": str(write_jsonl(tmp_path / "eval.jsonl", questions(12, start=50)))},
    }
    few, of_few = ingest(tmp_path, "few", **sections)
    assert len(few.names("pool")) == 3
    for way, constant in (("some", "FEW_ROWS"), ("many", "MOST_READERS")):
        monkeypatch.setattr(f"zpd_ray.pipeline.ingest.dealing.{constant}", 0)
        other, of_other = ingest(tmp_path, way, **sections)
        assert of_few == of_other
        for directory in ("pool", "evaluation/pool", "quarantine/pool"):
            assert few.names(directory) == other.names(directory)
            for name in few.names(directory):
                assert few.read_bytes(f"{directory}/{name}") == other.read_bytes(f"{directory}/{name}")


def test_large_files_are_read_in_spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines and row groups: the same parts, the same rows in quarantine at their places, in their order."""
    lines, table = tmp_path / "a.jsonl", tmp_path / "b.parquet"
    write_jsonl(lines, [*questions(40), "{not json", "", *questions(20, start=60), "[1, 2]"])
    pq.write_table(pa.Table.from_pylist(questions(40, start=70)), table, row_group_size=6)  # type: ignore[arg-type]
    pool = {"path": [str(lines), str(table)], "max_bad_share": 0.2, "items_per_part": 25}
    whole, of_whole = ingest(tmp_path, "whole", pool=pool)
    monkeypatch.setattr("zpd_ray.readers.spans.SPAN_BYTES", 500)
    apart, of_apart = ingest(tmp_path, "apart", pool=pool)
    assert of_whole == of_apart
    assert parts_of(whole) == parts_of(apart)
    assert len(apart.names("quarantine/pool")) == 2 > len(whole.names("quarantine/pool"))
    assert table_of(whole, "quarantine/pool").equals(table_of(apart, "quarantine/pool"))
    assert_adds_up(apart, of_apart)


def test_items_too_long_for_the_model_are_quarantined_and_lengths_are_the_tokenizers(tmp_path: Path) -> None:
    model = tiny.build_model(tmp_path / "model", layers=1, max_length=48)
    rows = [*questions(30), {"prompt": "long", "response": "word " * 60, "answer": "1"}]
    pool = write_jsonl(tmp_path / "pool.jsonl", rows)
    store, summary = ingest(
        tmp_path,
        "out",
        pool={"path": str(pool)},
        model={"path": str(model)},
        engine={"name": "transformers"},
        measure={"max_new_tokens": 8},
    )
    assert quarantined(store) == [("pool.jsonl", 30, "too long for the model")]
    assert "the model takes 48" in table_of(store, "quarantine/pool")["detail"][0].as_py()
    assert_adds_up(store, summary)
    items = table_of(store, "pool")
    total = items["prompt_tokens"].to_numpy() + items["response_tokens"].to_numpy()
    assert np.all(total <= 48)
    tokenizer = tiny.build_tokenizer()
    for item in items.slice(0, 5).to_pylist():
        text = item["messages"][0]["content"] + "\n" + item["response"]
        assert abs(item["prompt_tokens"] + item["response_tokens"] - len(tokenizer(text).input_ids) - 1) <= 1


def test_a_refused_pool_can_be_mended_and_nothing_of_the_first_attempt_stays(tmp_path: Path) -> None:
    rows = questions(40)
    pool = write_jsonl(tmp_path / "pool.jsonl", [*rows, "{not json", "{nor this", "{nor that"])
    told = (
        r"3 of 43 rows .* are bad \(3 x not valid JSON\).*max_bad_share.*row 40 of .*pool\.jsonl, not valid"
    )
    with pytest.raises(ZpdError, match=told):
        ingest(tmp_path, "out", pool={"path": str(pool)})
    store = Store(str(tmp_path / "out"))
    assert not store.exists("pool.json")
    assert len(quarantined(store)) == 3
    write_jsonl(pool, [*rows, "{not json"])
    store, summary = ingest(tmp_path, "out", pool={"path": str(pool)})
    assert quarantined(store) == [("pool.jsonl", 40, "not valid JSON")]
    assert_adds_up(store, summary)


@pytest.mark.parametrize("share", [0.0, 1.0])  # what is left: too little, or nothing
def test_a_refusal_shows_a_row_that_is_bad_for_the_commonest_reason(tmp_path: Path, share: float) -> None:
    wrong = [{"prompt": i, "response": "r"} for i in range(6)]
    rows: list[Any] = [*questions(0 if share else 4), "{not json", *wrong, {"prompt": "p", "response": ""}]
    first, second = (
        write_jsonl(tmp_path / name, rows[i::2]) for i, name in enumerate(("a.jsonl", "b.jsonl"))
    )
    pool = {"path": [str(first), str(second)], "max_bad_share": share}
    with pytest.raises(ZpdError) as caught:
        ingest(tmp_path, "out", pool=pool)
    example = re.search(
        r"; for example row (\d+) of (\S+), wrong type: prompt is a number, ", str(caught.value)
    )
    assert example
    lines = Path(example[2]).read_text().splitlines()
    assert json.loads(lines[int(example[1])])["prompt"] in range(6)
    assert "1 x empty response, 1 x not valid JSON, 6 x wrong type" in str(caught.value)


def test_leftovers_of_a_killed_ingest_do_not_matter(tmp_path: Path) -> None:
    """Stale parts, staged rows, quarantine and half-written files, as a kill at any moment may leave them."""
    pool = write_jsonl(tmp_path / "pool.jsonl", [*questions(100), "{not json"])
    clean, of_clean = ingest(tmp_path, "clean", pool={"path": str(pool), "items_per_part": 40})
    part = clean.read_table(f"pool/{clean.names('pool')[0]}")
    bad = table_of(clean, "quarantine/pool")
    killed = Store(str(tmp_path / "killed"))
    killed.write_bytes(LOCK, b"")
    for name in (
        "pool.staging/000000-000007.arrows",
        "pool/part-000000.parquet",
        "pool/part-000009.parquet",
    ):
        killed.write_table(name, part.slice(0, 7))
    killed.write_table("quarantine/pool/part-000009.parquet", bad)
    killed.write_bytes("pool/.part-000001.parquet.0123", b"half")
    again, of_again = ingest(tmp_path, "killed", pool={"path": str(pool), "items_per_part": 40})
    assert parts_of(again) == parts_of(clean)
    assert of_again == of_clean
    assert not again.exists("pool.staging")
    assert_adds_up(again, of_again)


def test_a_pool_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl.gz").write_bytes(gzip.compress(b"\n\n"))
    with pytest.raises(ZpdError, match="holds no rows; expected at least one"):
        ingest(tmp_path, "out", pool={"path": str(tmp_path / "empty.jsonl.gz")})
    assert not Store(str(tmp_path / "out")).exists("pool.json")
