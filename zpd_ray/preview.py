"""A look at data before a run: what rows are taken for, what the model would see, what would be left out.

Reads the first rows of a source and nothing more; needs no Ray. ``zpd-ray check`` and ``zpd-ray init``
show it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress, islice

import numpy as np
import pyarrow as pa

from zpd_ray import graders
from zpd_ray.config import Config, SourceConfig
from zpd_ray.engines import ENGINES, model_files, tokens
from zpd_ray.errors import ZpdError
from zpd_ray.notes import answers_alone, notes, undecided
from zpd_ray.readers.columns import check_columns, recognised_as
from zpd_ray.readers.formats import read
from zpd_ray.readers.items import MISSING_ANSWER, to_items
from zpd_ray.readers.lengths import with_lengths
from zpd_ray.readers.rows import RawRow
from zpd_ray.readers.sources import SourceFile, expand

ROWS, FILES = 500, 20  # that are looked at
GLANCED = 3  # files, before every new run
SHOWN = 3  # prompts that are shown
CHARACTERS = 600  # of a prompt or a reference, in lines for people


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


def preview(config: Config, source: SourceConfig, most: int = FILES) -> Preview:
    """A look at ``most`` files at most. Raises ZpdError as a run would, for what is not there."""
    files, grader = expand(source.path, source.format), graders.load(config.measure.grader)
    tables, count, shapes = [], 0, Counter[str]()
    for file, rows in first_rows(files[:most]):
        columns = dict.fromkeys(name for row in rows for name in row.value or ())
        if columns:
            check_columns(columns, source)
        tables.append(to_items(rows, file.path, source, grader))
        count += len(rows)
        shapes.update(str(recognised_as(row.value, source)) for row in rows if row.value)
    if count == 0 and len(files) <= most:
        raise ZpdError(f"{source.path} holds no rows; expected at least one")
    items, too_long = with_lengths(config, pa.concat_tables([good for good, _ in tables]))
    bad = pa.concat_tables([*(bad for _, bad in tables), too_long])
    return Preview(files, count, ", ".join(shapes), items, bad)


@dataclass(frozen=True)
class Quarantined:
    """Rows that are left out for one reason, and the first of them."""

    reason: str
    count: int
    file: str
    row: int
    detail: str


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model reads it, its reference, and the answer to grade against.

    Where earlier answers are trained on, what comes before the first of them, and all of them in a row.
    reference: None where the item is a prompt alone; counted: what of it its NLL is over then, else None.
    """

    prompt: str
    reference: str | None
    answer: str | None
    counted: str | None = None


@dataclass(frozen=True)
class SourceLook:
    """What ``zpd-ray check`` says of a source.

    size: bytes. rows: that were looked at. tokens: of prompts and responses, min, median and max; empty for
    an engine that reads no text. limit: tokens that the model takes.
    """

    files: int
    size: int
    first: str
    rows: int
    shape: str
    items: int
    quarantined: list[Quarantined]
    tokens: dict[str, dict[str, int]]
    limit: int | None
    notes: list[str]
    prompts: list[Prompt]


@dataclass(frozen=True)
class Look:
    """All that ``zpd-ray check`` says. imported_code: what the config has a run import."""

    pool: SourceLook
    evaluation: SourceLook | None
    imported_code: list[str]


def look(config: Config) -> Look:
    """Look at the sources of a run; raises as ``preview`` does."""
    evaluation = look_at(config, config.evaluation) if config.evaluation is not None else None
    return Look(look_at(config, config.pool), evaluation, imported_code(config))


def look_at(config: Config, source: SourceConfig) -> SourceLook:
    """Look at one source."""
    seen = preview(config, source)
    lengths = _lengths(config, seen.items)
    return SourceLook(
        files=len(seen.files),
        size=sum(file.size for file in seen.files),
        first=seen.files[0].path,
        rows=seen.rows,
        shape=seen.shape or "none",
        items=seen.items.num_rows,
        quarantined=list(_quarantined(seen.bad)),
        tokens=lengths,
        limit=model_files.max_length(config.model, model_files.load_tokenizer(config.model.path))
        if lengths
        else None,
        notes=list(notes(config, seen.items)),
        prompts=list(_shown(config, seen.items.slice(0, SHOWN))),
    )


def told(look: Look) -> Iterator[str]:
    """The same for people, line by line."""
    for name, source in (("pool", look.pool), ("evaluation", look.evaluation)):
        if source is not None:
            yield from _told_of(name, source)
    for code in look.imported_code:
        yield f"a run imports code that the config names: {code}"


def _told_of(name: str, look: SourceLook) -> Iterator[str]:
    yield f"{name}: {look.files} file{'s' * (look.files > 1)}, {look.size:,} bytes; first {look.first}"
    yield f"  shape: {look.shape}"
    yield f"  of the first {look.rows} rows {look.items} are items"
    for bad in look.quarantined:
        place = f"row {bad.row} of {bad.file}"
        yield f"  quarantine: {bad.count} x {bad.reason}; first in {place}: {bad.detail}"
    if look.tokens:
        each = (f"{what} {n['min']} to {n['max']}, median {n['median']}" for what, n in look.tokens.items())
        yield f"  tokens: {'; '.join(each)}; the model takes {look.limit}"
    for note in look.notes:
        yield f"  note: {note}"
    for number, shown in enumerate(look.prompts, 1):
        yield f"  prompt {number}, as the model reads it: {_text(shown.prompt)}"
        if shown.reference is not None:
            yield f"    reference: {_text(shown.reference)}"
        if shown.counted is not None:
            yield f"    no reference; the NLL is that of: {_text(shown.counted)}"
        if shown.answer is not None:
            yield f"    answer to be graded against: {_text(shown.answer)}"


def announce(config: Config) -> Iterator[str]:
    """What a new run says of its pool before it starts, line by line.

    Raises ZpdError where the rows hold no solution, and the config does not say what the reference is; or
    where they hold prompts alone, and the grader compares with a gold answer.
    """
    seen = preview(config, config.pool, GLANCED)
    if config.pool.prompts_alone:
        _check_answers(config, seen)
    completes = graders.load(config.measure.grader).needs_completion
    if completes and undecided(config) and answers_alone(seen.items):
        raise ZpdError(
            f"the rows of {config.pool.path} hold a prompt and a gold answer, and no solution: map the "
            'column that has one (columns = { response = "solution" }), or say with pool.reference = '
            '"answer" that the model is to be trained on the answers alone, with pool.reference = "none" '
            "that it is not"
        )
    yield f"pool: rows of the shape {seen.shape}"
    for note in notes(config, seen.items):
        yield f"  note: {note}"


def _check_answers(config: Config, seen: Preview) -> None:
    if set(seen.bad["reason"].to_pylist()) == {MISSING_ANSWER} and seen.bad.num_rows == seen.rows:
        raise ZpdError(
            f"measure.grader = {config.measure.grader!r} compares with a gold answer, and none of the first "
            f"{seen.rows} rows of {config.pool.path} has one: map the column that has it, as in columns = "
            '{ answer = "..." }, or take a grader that judges completions alone, function(completion) or '
            "function(completion, item) (docs/howto/own-grader.md)"
        )


def _quarantined(bad: pa.Table) -> Iterator[Quarantined]:
    first = {row["reason"]: row for row in reversed(bad.to_pylist())}
    for reason, count in Counter(bad["reason"].to_pylist()).most_common():
        row = first[reason]
        yield Quarantined(reason, count, row["source_file"], row["source_row"], row["detail"])


def _lengths(config: Config, items: pa.Table) -> dict[str, dict[str, int]]:
    if not ENGINES.load(config.engine.name).reads_text or items.num_rows == 0:
        return {}
    told = {}
    alone = items["response"].null_count == items.num_rows
    for what in ("prompt",) if alone else ("prompt", "response"):
        three = np.percentile(items[f"{what}_tokens"].to_numpy(), [0, 50, 100]).tolist()
        told[what] = dict(zip(("min", "median", "max"), map(int, three), strict=True))
    return told


def _shown(config: Config, items: pa.Table) -> Iterator[Prompt]:
    if not ENGINES.load(config.engine.name).reads_text:
        return
    tokenizer = model_files.load_tokenizer(config.model.path)
    ids = tokens.encode_items(tokenizer, items, config)
    learnt = ids.response_ids
    if ids.trained is not None:
        learnt = [list(compress(*row)) for row in zip(learnt, ids.trained, strict=True)]
    rows = zip(ids.prompt_ids, ids.response_ids, learnt, items.to_pylist(), strict=True)
    for prompt, rest, counts, item in rows:
        said = str(tokenizer.decode(counts))
        if item["response"] is None:
            yield Prompt(str(tokenizer.decode(prompt + rest)), None, item["answer"], said)
        else:
            yield Prompt(str(tokenizer.decode(prompt)), said, item["answer"])


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
