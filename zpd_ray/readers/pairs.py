"""Items of many rows at once, where a block's columns make a prompt and a response that are texts.

``shapes.normalise`` says of one row what it is; this says the same of all rows of a table that are beyond
doubt, and leaves every other row to it: those whose texts are null or blank, that hold a system prompt or
choices, whose gold answer the grader refuses, or that hold what is neither text nor a whole number.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray import schema
from zpd_ray.config import SourceConfig
from zpd_ray.graders import Grader
from zpd_ray.readers.columns import (
    CONTEXTS,
    FIELDS,
    SOLUTION,
    SYSTEMS,
    in_lower_case,
    pair_of,
    recognise,
    view_of,
)
from zpd_ray.readers.extra import taken
from zpd_ray.readers.items import ITEMS
from zpd_ray.readers.keys import escaped, keys_of

Mask = NDArray[np.bool_]


class Piece(NamedTuple):
    """Rows as columns. rows: int64 (n,), places in the block. lines: the rows as text, where a row may lack
    a column or have it elsewhere in its order, which the table does not show; else None."""

    rows: NDArray[np.int64]
    table: pa.Table
    lines: pa.BinaryArray | None = None


class Layout(NamedTuple):
    """Which column holds what, in every row whose prompt and response are not null.

    context: is put after the prompt where it has text. needed: columns that a row must not lack. empty:
    columns that want a closer look where they are not null. extra: columns that no field takes, in order.
    """

    prompt: str
    response: str
    context: str | None
    fields: dict[str, str | None]
    needed: list[str]
    empty: list[str]
    extra: list[str]


def layout_of(names: list[str], source: SourceConfig) -> Layout | None:
    """The layout of rows that have some of these columns; None where each row has to be asked."""
    row = dict(zip(names, names, strict=True))
    doubled = any(name.casefold() != name and name.casefold() in row for name in names)
    inner = not set(source.columns.values()) <= row.keys()  # a mapped column inside another one
    if doubled or inner or "tools" in source.columns or source.prompts_alone:
        return None
    value, view = in_lower_case(row, source.columns.values()), view_of(row, source)
    shape = recognise(view)
    if shape in (None, "messages", "sharegpt") or not _as_told(shape, source):
        return None
    prompt, response = ("instruction", "output") if shape == "alpaca" else pair_of(view)
    contexts = [view[name] for name in (*CONTEXTS, *(["input"] if shape == "alpaca" else [])) if name in view]
    wavering = prompt == "problem" and SOLUTION in view and {"response", "completion"} & view.keys()
    if wavering or len(contexts) > 1:
        return None
    mapped = {str(field): name for field, name in source.columns.items()}
    fields = {field: value.get(mapped.get(field, field)) for field in FIELDS}
    if shape == "question_answer" and "answer" not in source.columns:
        fields["answer"] = view["answer"]
    unlikely = [fields.pop("choices"), *(view.get(name) for name in SYSTEMS)]
    used = taken(row, view, str(shape), source)
    return Layout(
        view[prompt],
        view[response],
        contexts[0] if contexts else None,
        fields,
        list(source.columns.values()),
        [name for name in unlikely if name],
        [name for name in names if name not in used and name.casefold() not in used],
    )


def _as_told(shape: str | None, source: SourceConfig) -> bool:
    """Whether the config leaves the shape open, or names this one."""
    return source.shape in ("auto", shape) or "prompt" in source.columns or "messages" in source.columns


class _Sieve:
    """Columns of a piece as texts; rows that do not pass are marked on the way. kept: bool (n,)."""

    def __init__(self, piece: Piece) -> None:
        self._table = piece.table
        self.kept = np.ones(piece.table.num_rows, bool)

    def filled(self, name: str) -> None:
        """Rows that are not null here pass."""
        self.kept &= _numpy(pc.is_valid(self._column(name)))

    def null(self, name: str) -> None:
        """Rows that are null here pass."""
        self.kept &= _numpy(pc.is_null(self._column(name)))

    def text(self, name: str) -> pa.StringArray:
        """Rows with text that is not blank pass."""
        texts = self.maybe_text(name)
        self.kept &= _numpy(pc.fill_null(has_text(texts), False))
        return texts

    def maybe_text(self, name: str) -> pa.StringArray:
        """Rows with text or null pass."""
        column = self._column(name)
        if not _is_text(column.type):
            self.null(name)
            return pa.nulls(len(column), pa.string())
        return column.cast(pa.string())

    def scalar(self, name: str | None) -> pa.StringArray:
        """Rows with text, a whole number or null pass; blank text becomes null."""
        if name is None:
            return pa.nulls(len(self.kept), pa.string())
        column = self._column(name)
        if pa.types.is_integer(column.type):
            return column.cast(pa.string())
        texts = self.maybe_text(name)
        return pc.if_else(pc.fill_null(has_text(texts), False), texts, pa.scalar(None, pa.string()))

    def as_json(self, name: str) -> pa.StringArray:
        """``, "name": value`` as json.dumps has it, "" of null; rows with what is neither text, whole number,
        true, false nor null do not pass."""
        column = self._column(name)
        if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
            told = column.cast(pa.string())
        else:
            told = pc.binary_join_element_wise('"', escaped(self.maybe_text(name)), '"', "")
        named = pc.binary_join_element_wise(f", {json.dumps(name, ensure_ascii=False)}: ", told, "")
        return pc.fill_null(named, "")

    def in_order(self, names: list[str], lines: pa.BinaryArray) -> None:
        """Lines whose keys stand in this order pass. A quote and a colon end a key, and nothing else."""
        last = np.full(len(self.kept), -1)
        for name in names:
            key = f"{json.dumps(name, ensure_ascii=False)}:".encode()
            place = pc.find_substring(lines, pattern=key).to_numpy(zero_copy_only=False)
            absent = _numpy(pc.is_null(self._column(name)))
            self.kept &= (place > last) | absent
            last = np.where(absent, last, place)

    def _column(self, name: str) -> pa.Array:
        column = self._table[name]
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def pairs(
    piece: Piece, numbers: NDArray[np.int64], file: str, source: SourceConfig, grader: Grader
) -> tuple[pa.Table, Mask]:
    """Items (``items.ITEMS``) of the rows that are beyond doubt, and which these are: bool (n,).

    numbers: places in the file. What is not among them has to go through ``items.to_items``.
    """
    layout = layout_of(piece.table.column_names, source)
    if layout is None:
        return ITEMS.empty_table(), np.zeros(piece.table.num_rows, bool)
    sieve = _Sieve(piece)
    columns = _fields(sieve, piece, layout)
    if grader.needs_answer:
        sieve.kept &= _graded(columns["answer"], sieve.kept, grader)
    kept = sieve.kept
    if not kept.all():
        columns = {name: column.filter(pa.array(kept)) for name, column in columns.items()}
    return _table(columns, numbers[kept], file), kept


def _fields(sieve: _Sieve, piece: Piece, layout: Layout) -> dict[str, pa.StringArray]:
    """Of all rows, those that do not pass included: their texts may be null."""
    prompt = sieve.text(layout.prompt)
    if layout.context:
        context = sieve.maybe_text(layout.context)
        both = pc.binary_join_element_wise(prompt, context, "\n\n")
        prompt = pc.if_else(pc.fill_null(has_text(context), False), both, prompt)
    columns = {"prompt": prompt, "response": sieve.text(layout.response)}
    columns |= {field: sieve.scalar(name) for field, name in layout.fields.items()}
    for name in layout.empty:
        sieve.null(name)
    if piece.lines is not None:
        for name in layout.needed:
            sieve.filled(name)
        if len(layout.extra) > 1:
            sieve.in_order(layout.extra, piece.lines)
    return columns | {"extra": _extra(sieve, layout.extra)}


def _extra(sieve: _Sieve, names: list[str]) -> pa.StringArray:
    if not names:
        return sieve.scalar(None)
    told = pc.binary_join_element_wise(*map(sieve.as_json, names), "")
    whole = pc.binary_join_element_wise(pc.binary_replace_slice(told, 0, 2, "{"), "}", "")
    return pc.if_else(pc.equal(told, ""), pa.scalar(None, pa.string()), whole)


def _graded(answers: pa.StringArray, kept: Mask, grader: Grader) -> Mask:
    """Where a gold answer is that the grader takes, among the rows that are kept so far."""
    kept = kept & _numpy(pc.is_valid(answers))
    places = np.flatnonzero(kept)
    texts = answers.take(pa.array(places)).to_pylist()
    kept[places] = [grader.accepts(text, None) is None for text in texts]
    return kept


def _table(columns: dict[str, pa.StringArray], numbers: NDArray[np.int64], file: str) -> pa.Table:
    n = len(numbers)
    prompt, response, answer = (columns[name] for name in ("prompt", "response", "answer"))
    keys = keys_of(prompt, response, answer)
    fields = [pa.repeat("user", n), prompt, pa.nulls(n, pa.string())]
    turns = pa.StructArray.from_arrays(fields, fields=list(schema.MESSAGE))
    own = {
        "item_id": pc.coalesce(columns["item_id"], keys.item_id),
        "messages": pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32), turns).cast(
            ITEMS.field("messages").type
        ),
        "response": response,
        "response_more": pa.nulls(n, pa.string()),
        "tools": pa.nulls(n, pa.string()),
        "answer": answer,
        "choices": pa.nulls(n, ITEMS.field("choices").type),
        "group": columns["group"],
        "extra": columns["extra"],
        "source_file": pa.repeat(file, n),
        "source_row": pa.array(numbers),
        "content_hash": pa.array(keys.content_hash),
        "prompt_key": pa.array(keys.prompt_key),
    }
    return pa.table(own, schema=ITEMS)


def has_text(texts: pa.StringArray) -> pa.BooleanArray:
    """Whether something is left without white space at both ends, as by ``str.strip``; null of null."""
    return pc.greater(pc.binary_length(pc.utf8_trim_whitespace(texts)), 0)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _numpy(mask: pa.BooleanArray) -> Mask:
    return np.asarray(mask.to_numpy(zero_copy_only=False), bool)
