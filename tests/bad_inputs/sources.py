"""Data that is not there, not whole, or not what it seems."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bad_inputs.cases import Desk, case, rows

PLACE, FILE, ROW = "Where the data is", "What a file is", "What a row is"
LINES = "".join(json.dumps(row) + "\n" for row in rows(40))

PATHS = [
    ("a file that is not there", "pol.jsonl"),
    ("a glob that matches nothing", "*.parquet"),
    ("an empty path", ""),
    ("no path at all", []),
    ("a web address", "http://example.org/pool.jsonl"),
    ("a scheme that nothing opens", "gopher://bucket/pool.jsonl"),
]


def _path(did: str, path: object) -> None:
    @case(PLACE, did)
    def spoilt(desk: Desk) -> None:
        desk.set("pool", path=path)


for place in PATHS:
    _path(*place)


@case(PLACE, "an evaluation set that is not there")
def no_evaluation(desk: Desk) -> None:
    desk.set("evaluation", path="eval.jsonl")


@case(PLACE, "a directory without data")
def no_data(desk: Desk) -> None:
    desk.file("data/readme.md", "nothing here")
    desk.set("pool", path="data")


@case(PLACE, "data inside of the run directory")
def inside(desk: Desk) -> None:
    desk.pool(rows(40), "out/data/pool.jsonl")
    desk.file("out/.zpd-ray.lock", "")
    desk.set("pool", path="out/data/pool.jsonl")


@case(PLACE, "a dataset with several splits")
def splits(desk: Desk) -> None:
    desk.file("data/dataset_dict.json", '{"splits": ["train", "test"]}')
    desk.set("pool", path="data")


@case(PLACE, "a dataset of which a file is missing")
def incomplete(desk: Desk) -> None:
    desk.file("data/state.json", '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    desk.set("pool", path="data")


def _file(did: str, name: str, content: str | bytes, **pool: object) -> None:
    @case(FILE, did)
    def spoilt(desk: Desk) -> None:
        desk.file(name, content)
        desk.set("pool", path=name, **pool)


def _table(*names: str) -> bytes:
    sink = pa.BufferOutputStream()
    columns = [pa.array([f"{name} {i}" for i in range(40)]) for name in names]
    pq.write_table(pa.table(columns, names=list(names)), sink)
    return sink.getvalue().to_pybytes()


WHOLE = gzip.compress(LINES.encode(), mtime=0)
_file("no bytes", "empty.jsonl", "")
_file("an extension that nobody reads", "pool.txt", LINES)
_file("text that is called parquet", "pool.parquet", LINES)
_file("parquet that is cut off", "pool.parquet", _table("prompt", "response")[:500])
_file("parquet with a column twice", "pool.parquet", _table("prompt", "response", "prompt"))
_file("CSV with a column twice", "pool.csv", "prompt,response,prompt\na,b,c\n")
_file("CSV without a known column", "pool.csv", "alpha,beta\na,b\n")
_file("CSV without a header", "pool.csv", "\n\n")
_file("a file that is called a dataset", "pool.jsonl", LINES, format="hf")
_file("columns of no known shape", "pool.jsonl", '{"alpha": "a", "beta": "b"}\n' * 9)
_file("a mapped column that is not there", "pool.jsonl", LINES, columns={"prompt": "question"})
_file(
    "prompt and messages both mapped",
    "pool.jsonl",
    LINES,
    columns={"prompt": "prompt", "messages": "response"},
)


@case(FILE, "gzip that is cut in half", ray=True)
def half(desk: Desk) -> None:
    desk.file("pool.jsonl.gz", WHOLE[: len(WHOLE) // 2])
    desk.set("pool", path="pool.jsonl.gz")


for did, name, content in [
    ("text that is called gzip", "pool.jsonl.gz", LINES),
    ("UTF-16", "pool.jsonl", LINES.encode("utf-16")),
    ("pretty-printed JSON", "pool.jsonl", json.dumps(rows(1)[0], indent=2) + "\n"),
    ("an array of objects in a .jsonl", "pool.jsonl", json.dumps(rows(3))),
    ("an array over many lines in a .jsonl", "pool.jsonl", json.dumps(rows(3), indent=2)),
]:
    _file(did, name, content)


@case(FILE, "a file of bytes", ray=True)
def binary(desk: Desk) -> None:
    desk.file("pool.jsonl", bytes(range(128, 256)) * 20 + b"\n")


@case(FILE, "blank lines alone")
def blank(desk: Desk) -> None:
    desk.file("pool.jsonl", "\n\n\n")


ROWS = [
    ("a prompt that is a number", {"prompt": 5}),
    ("a response that is a list of numbers", {"response": [1, 2]}),
    ("a prompt that is true", {"prompt": True}),
    ("a blank prompt", {"prompt": "  "}),
    ("a blank response", {"response": ""}),
    ("no response", {"response": None, "answer": None}),
    ("no gold answer, and a grader that needs one", {"answer": None}),
    ("choices that are a text", {"choices": "A, B"}),
    ("choices without a B", {"choices": {"A": "x", "C": "y"}}),
    ("an answer that is an object", {"answer": {"value": 4}}),
]


def _row(did: str, changes: dict[str, object]) -> None:
    @case(ROW, did)
    def spoilt(desk: Desk) -> None:
        desk.row(**changes)


for changed in ROWS:
    _row(*changed)

GOOD = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}]
TURNS = [
    ("messages without an answer", [{"role": "user", "content": "hello"}]),
    ("messages without a question", [{"role": "assistant", "content": "hello"}]),
    ("an unknown role", [{"role": "robot", "content": "hello"}]),
    (
        "a call of a tool",
        [{"role": "user", "content": "2"}, {"role": "assistant", "content": "", "tool_calls": [1]}],
    ),
    (
        "arguments of a tool that are no JSON",
        [
            {"role": "user", "content": "2"},
            {"role": "assistant", "tool_calls": [{"name": "add", "arguments": "1, 2"}]},
        ],
    ),
    ("a turn of weight 0 at the end", [{"role": "user", "content": "2"}, GOOD[1] | {"weight": 0}]),
    ("a turn that is a text", ["hello"]),
    ("no messages", []),
    ("messages that are a text", "hello"),
]


def _turns(did: str, messages: object) -> None:
    @case(ROW, did)
    def spoilt(desk: Desk) -> None:
        good = [
            {"messages": [{"role": "user", "content": str(i)}, {"role": "assistant", "content": "x"}]}
            for i in range(9)
        ]
        desk.pool([*good, {"messages": messages}])
        desk.set("measure", grader="greedy_match")
        desk.command = ("check",)


for turns in TURNS:
    _turns(*turns)

RAW = [
    ("a line that is no JSON", b'{"prompt": "a", \n'),
    ("a line that is no object", b"[1, 2]\n"),
    ("a line that is no UTF-8", b'{"prompt": "\xff\xfe", "response": "x", "answer": "x"}\n'),
    ("half of an emoji", b'{"prompt": "\\ud83d", "response": "x", "answer": "x"}\n'),
]


def _raw(did: str, line: bytes) -> None:
    @case(ROW, did)
    def spoilt(desk: Desk) -> None:
        desk.file("pool.jsonl", LINES.encode() + line)
        desk.command = ("check",)


for raw in RAW:
    _raw(*raw)


@case(ROW, "a CSV row with a field too many")
def ragged(desk: Desk) -> None:
    desk.file("pool.csv", "prompt,response,answer\n" + "a,b,c\n" * 9 + "a,b,c,d\n")
    desk.set("pool", path="pool.csv")
    desk.command = ("check",)


@case(ROW, "an answer without a number, and a numeric grader")
def no_number(desk: Desk) -> None:
    desk.row(answer="many")
    desk.set("measure", grader="numeric")


@case(ROW, "an answer that is none of the choices")
def no_choice(desk: Desk) -> None:
    desk.row(answer="D", choices=["x", "y"])
    desk.set("measure", grader="choice")


@case(ROW, "choices that the prompt does not show")
def hidden_choices(desk: Desk) -> None:
    desk.row(answer="A", choices=["north", "south"])
    desk.set("measure", grader="exact")


@case(ROW, "all rows are bad", ray=True)
def all_bad(desk: Desk) -> None:
    desk.pool([{"prompt": "", "response": "x", "answer": "x"}] * 9)


@case(ROW, "more rows are bad than allowed", ray=True)
def many_bad(desk: Desk) -> None:
    desk.pool([*rows(30), *({"prompt": 5, "response": "x", "answer": "x"} for _ in range(10))])


@case(ROW, "an id that is used twice", ray=True)
def twice(desk: Desk) -> None:
    desk.pool([row | {"item_id": "same"} for row in rows(9)])


@case(ROW, "a gold answer and no solution")
def answers_alone(desk: Desk) -> None:
    desk.pool([{"prompt": row["prompt"], "answer": row["answer"]} for row in rows(40)])
    desk.model()
    desk.set("train", method="lora")
