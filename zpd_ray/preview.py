"""A look at data before a run: what rows are taken for, what the model would see, what would be left out.

Reads the first rows of a source and nothing more; needs no Ray. ``zpd-ray check`` and ``zpd-ray init``
show it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from zpd_ray import graders
from zpd_ray.config import Config, SourceConfig
from zpd_ray.engines import ENGINES, tokens
from zpd_ray.errors import ZpdError
from zpd_ray.readers.columns import check_columns, recognised_as
from zpd_ray.readers.formats import read
from zpd_ray.readers.items import to_items
from zpd_ray.readers.lengths import with_lengths
from zpd_ray.readers.rows import RawRow
from zpd_ray.readers.sources import SourceFile, expand

ROWS, FILES = 500, 20  # that are looked at
SHOWN = 3  # prompts that are shown
CHARACTERS = 600  # of a prompt or a reference
SHORT = 5  # words: a reference that is no more holds no solution


@dataclass(frozen=True)
class Preview:
    """The first rows of a source. items: ``schema.ITEM`` and more; bad: ``schema.QUARANTINE``."""

    files: list[SourceFile]
    rows: int
    shape: str
    items: pa.Table
    bad: pa.Table


def first_rows(files: list[SourceFile]) -> Iterator[tuple[SourceFile, list[RawRow]]]:
    """The first rows of each of the first files, ``ROWS`` in all."""
    share = max(1, ROWS // min(len(files), FILES))
    for file in files[:FILES]:
        yield file, list(islice((row for batch in read(file, share) for row in batch), share))


def preview(config: Config, source: SourceConfig) -> Preview:
    """Raises ZpdError as a run would: for files, columns or shapes that are not there."""
    files, grader = expand(source.path, source.format), graders.load(config.measure.grader)
    tables, count, shapes = [], 0, Counter[str]()
    for file, rows in first_rows(files):
        columns = dict.fromkeys(name for row in rows for name in row.value or ())
        if columns:
            check_columns(columns, source)
        tables.append(to_items(rows, file.path, source, grader))
        count += len(rows)
        shapes.update(str(recognised_as(row.value, source)) for row in rows if row.value)
    items, too_long = with_lengths(config, pa.concat_tables([good for good, _ in tables]))
    bad = pa.concat_tables([*(bad for _, bad in tables), too_long])
    return Preview(files, count, ", ".join(shapes), items, bad)


def describe(config: Config, name: str, source: SourceConfig) -> Iterator[str]:
    """What ``zpd-ray check`` says of one source, line by line."""
    seen = preview(config, source)
    size = sum(file.size for file in seen.files)
    count = f"{len(seen.files)} file{'s' * (len(seen.files) > 1)}"
    yield f"{name}: {count}, {size:,} bytes; first {seen.files[0].path}"
    yield f"  shape: {seen.shape or 'none'}"
    yield f"  of the first {seen.rows} rows {seen.items.num_rows} are items"
    yield from _quarantined(seen.bad)
    yield from _lengths(config, seen.items)
    for note in notes(config, seen.items):
        yield f"  note: {note}"
    yield from _shown(config, seen.items.slice(0, SHOWN))


def announce(config: Config) -> Iterator[str]:
    """What a new run says of its pool before it starts, line by line.

    Raises ZpdError where the rows hold no solution, and the config does not say what the reference is.
    """
    seen = preview(config, config.pool)
    if _answers_alone(seen.items) and _must_choose(config):
        raise ZpdError(
            f"the rows of {config.pool.path} hold a prompt and a gold answer, and no solution: map the "
            'column that has one (columns = { response = "solution" }), or say with pool.reference = '
            '"answer" that the model is to be trained on the answers alone, with pool.reference = "none" '
            "that it is not"
        )
    yield f"pool: rows of the shape {seen.shape}"
    for note in notes(config, seen.items):
        yield f"  note: {note}"


def _must_choose(config: Config) -> bool:
    completes = graders.load(config.measure.grader).needs_completion
    return config.pool.reference is None and config.train.method != "none" and completes


def _answers_alone(items: pa.Table) -> bool:
    rows = items.select(["response", "answer"]).to_pylist()
    alone = (row["answer"] is not None and row["answer"].strip() == row["response"].strip() for row in rows)
    return bool(rows) and all(alone) and max(len(row["response"].split()) for row in rows) <= SHORT


def notes(config: Config, items: pa.Table) -> Iterator[str]:
    """What would go wrong without a word, in sentences."""
    rows = items.select(["messages", "choices"]).to_pylist()
    if _answers_alone(items) and _must_choose(config):
        yield (
            "the reference is the gold answer alone, and a run will ask: map the column that has a solution, "
            'as in columns = { response = "solution" }, or give pool.reference = "answer" or "none"'
        )
    unseen = sum(_hidden(row) for row in rows)
    if unseen:
        yield (
            f"of the first {len(rows)} items {unseen} have choices that their prompt does not show, and the "
            "model will not see: put them into the prompt"
        )
    if not ENGINES.load(config.engine.name).reads_text:
        return
    tokenizer = tokens.load_tokenizer(config.model.path)
    turns = [turn["role"] for row in rows for turn in row["messages"]]
    if tokenizer.chat_template is None and set(turns) - {"user"}:
        yield "the model has no chat template: roles are dropped, and turns joined by a blank line"
    if tokens.end_id(tokenizer) is None:
        yield (
            "the model has no end-of-text token: its responses end at measure.max_new_tokens, and references "
            "teach it no end"
        )
    vocabulary = tokens.vocabulary_of(config.model.path)
    if len(tokenizer) > vocabulary:
        yield (
            f"the tokenizer has {len(tokenizer)} tokens with those that were added, the model {vocabulary}: "
            "a text that holds one of the others cannot be measured"
        )


def _hidden(row: dict[str, Any]) -> bool:
    prompt = "\n".join(turn["content"] for turn in row["messages"])
    return any(text not in prompt for text in row["choices"] or ())


def _quarantined(bad: pa.Table) -> Iterator[str]:
    first = {row["reason"]: row for row in reversed(bad.to_pylist())}
    for reason, count in Counter(bad["reason"].to_pylist()).most_common():
        row = first[reason]
        place = f"row {row['source_row']} of {row['source_file']}"
        yield f"  quarantine: {count} x {reason}; first in {place}: {row['detail']}"


def _lengths(config: Config, items: pa.Table) -> Iterator[str]:
    if not ENGINES.load(config.engine.name).reads_text or items.num_rows == 0:
        return
    limit = tokens.max_length(config.model, tokens.load_tokenizer(config.model.path))
    told = []
    for what in ("prompt", "response"):
        low, middle, high = np.percentile(items[f"{what}_tokens"].to_numpy(), [0, 50, 100]).astype(int)
        told.append(f"{what} {low} to {high}, median {middle}")
    yield f"  tokens: {'; '.join(told)}; the model takes {limit}"


def _shown(config: Config, items: pa.Table) -> Iterator[str]:
    if not ENGINES.load(config.engine.name).reads_text:
        return
    tokenizer = tokens.load_tokenizer(config.model.path)
    ids = tokens.encode(tokenizer, items["messages"], items["response"], config.model.separator)
    answers = items["answer"].to_pylist()
    for number, (prompt, response) in enumerate(zip(ids.prompt_ids, ids.response_ids, strict=True), 1):
        yield f"  prompt {number}, as the model reads it: {_text(str(tokenizer.decode(prompt)))}"
        yield f"    reference: {_text(str(tokenizer.decode(response)))}"
        if answers[number - 1] is not None:
            yield f"    answer to be graded against: {_text(answers[number - 1])}"


def _text(text: str) -> str:
    return repr(text[:CHARACTERS]) + (" ..." if len(text) > CHARACTERS else "")


def imported_code(config: Config) -> list[str]:
    """What a run would import because the config names it: ``package.module:name``."""
    named = {
        "grader": config.measure.grader,
        "engine": config.engine.name,
        "method": config.select.method,
        "training loop": config.train.function or "",
    } | {f"method beside ({name})": name for name in config.select.beside}
    return [f"{what} {name}" for what, name in named.items() if ":" in name]
