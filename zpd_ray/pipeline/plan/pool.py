"""The pool that is planned for: how many items it has, and a random sample of them.

Three ways. A run directory that has its pool is read. A pool of at most ``WHOLE_BYTES`` is read as a run
reads it, into a directory that goes again: nothing is left behind, so that the config may still change. Of a
larger one the first rows of some files are read so, and the number of rows follows from their size.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from zpd_ray import graders
from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline import steps
from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.ingest.ingest import ingest
from zpd_ray.plan.estimate import EMPTY, Group, Source
from zpd_ray.plan.rates import Line
from zpd_ray.readers.blocks import blocks
from zpd_ray.readers.formats import read
from zpd_ray.readers.found import find_items
from zpd_ray.readers.lengths import with_lengths
from zpd_ray.readers.sources import SourceFile, expand
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import EVALUATION, POOL
from zpd_ray.rundir.store import Store

WHOLE_BYTES = 32 * 2**20  # of the files of a pool that is read whole
FILES, ROWS = 16, 20_000  # of a larger one that are looked at
HEAD_BYTES = 4 * 2**20  # of a file, from which its rows are estimated


@dataclass(frozen=True)
class Read:
    """store: that holds ``pool/`` and ``evaluation/pool/``, all or a sample. ingest: seconds by rows."""

    store: Store
    pool: Source
    evaluation: Source
    ingest: Line


def read_pool(session: Session, real: Run) -> Read:
    """What is planned for; a pool that no run has read is read below the store of ``session.run``."""
    if real.store.exists(f"{POOL}.json"):
        told = f"counted, in {real.store.root}"
        pool, evaluation = counted(real, POOL, told), counted(real, EVALUATION, told)
        return Read(real.store, pool, evaluation, Line(0.0, 0.0))
    files = expand(real.config.pool.path, real.config.pool.format)
    small = Run(real.config, near(session.run.store, "/read"))
    size = sum(file.size for file in files)
    if size > WHOLE_BYTES:
        return _estimated(small, files, size)
    seconds = _ingest(small)
    pool, evaluation = counted(small, POOL, "counted"), counted(small, EVALUATION, "counted")
    return Read(small.store, pool, evaluation, Line(seconds, 0.0))


def near(store: Store, suffix: str) -> Store:
    """The store of a directory whose name is that of another one and a suffix; "/x" lies inside."""
    options = store.uri[len(store.root) :].lstrip("/")
    return Store(f"{store.root}{suffix}{options}")


def ingest_now(real: Run) -> None:
    """Read the pool into the run directory, as ``zpd-ray ingest`` does."""
    with Session(real) as session:
        steps.ingest_pool(session)


def counted(run: Run, items: str, told: str) -> Source:
    """A source that was ingested; empty where the run has none."""
    store = run.store
    if not store.exists(f"{items}.json"):
        return EMPTY
    summary, names = store.read_json(f"{items}.json"), store.names(items)

    def of_part(name: str) -> dict[str, Group]:
        return _groups(store.read_table(f"{items}/{name}", GROUPED))

    groups = parts.total(names, of_part, _added)
    return Source(
        rows=summary["rows"],
        items=summary["items"],
        prompt_tokens=summary["prompt_tokens"],
        response_tokens=summary["response_tokens"],
        parts=len(names),
        groups=dict(sorted(groups.items())),
        told=told,
    )


GROUPED = ["group", "prompt_tokens", "response_tokens"]


def _groups(table: pa.Table) -> dict[str, Group]:
    """Items and tokens by group."""
    table = pa.table(
        {
            "group": pc.fill_null(table["group"], ""),
            "tokens": pc.add(
                pc.cast(table["prompt_tokens"], pa.int64()), pc.cast(table["response_tokens"], pa.int64())
            ),
        }
    )
    found = table.group_by("group").aggregate([("tokens", "count"), ("tokens", "sum")]).to_pylist()
    return {row["group"]: Group(row["tokens_count"], row["tokens_sum"]) for row in found}


def _added(found: list[dict[str, Group]]) -> dict[str, Group]:
    """Over parts."""
    items: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for groups in found:
        for name, group in groups.items():
            items[name] += group.items
            tokens[name] += group.tokens
    return {name: Group(items[name], tokens[name]) for name in items}


def sample_of(store: Store, items: str, most: int, seed: int) -> pa.Table:
    """At most ``most`` items in random order (schema.ITEM); parts are dealt by a hash of the content."""
    random, tables, rows = np.random.default_rng(seed), [], 0
    for name in random.permutation(store.names(items)).tolist():
        if rows >= most:
            break
        tables.append(store.read_table(f"{items}/{name}"))
        rows += tables[-1].num_rows
    table = pa.concat_tables(tables).combine_chunks()
    return table.take(random.permutation(table.num_rows)[:most])


def _ingest(run: Run) -> float:
    started = time.perf_counter()
    ingest(run)
    return time.perf_counter() - started


def _estimated(small: Run, files: list[SourceFile], size: int) -> Read:
    """By the first rows of some files, which are ingested as if they were the pool."""
    looked = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, FILES).astype(int))]
    with tempfile.TemporaryDirectory(prefix="zpd-ray-") as directory:
        paths = [str(path) for path in _heads(looked, Path(directory))]
        pool = small.config.pool.model_copy(update={"path": paths, "format": "jsonl"})
        sampled = Run(small.config.model_copy(update={"pool": pool}), small.store)
        seconds = _ingest(sampled)
        each = _row_seconds(sampled.config, paths[0]) / min(len(files), cores())
    rows, rows_se = _all_rows(looked, files)
    found, evaluation = counted(small, POOL, ""), counted(small, EVALUATION, "counted")
    factor = rows / found.rows
    groups = {
        name: Group(round(each.items * factor), round(each.tokens * factor))
        for name, each in found.groups.items()
    }
    items = round(found.items * factor)
    source = Source(
        *(rows, items, round(found.prompt_tokens * factor), round(found.response_tokens * factor)),
        -(-items // small.config.pool.items_per_part),
        groups,
        rows_se * found.items / found.rows,
        f"estimated from {found.rows:,} rows of {len(looked)} of {len(files)} files, {size:,} bytes in all; "
        "duplicates among the others are not seen; --ingest counts",
    )
    known = found.rows + evaluation.rows
    return Read(small.store, source, evaluation, Line(max(0.0, seconds - each * known), each))


def _heads(files: list[SourceFile], directory: Path) -> Iterator[Path]:
    """The first rows of each file as lines of JSON; bad rows are left out."""
    share = max(1, ROWS // len(files))
    for number, file in enumerate(files):
        path = directory / f"{number:03d}.jsonl"
        rows = islice((row for batch in read(file, share) for row in batch), share)
        lines = [json.dumps(row.value, default=str) + "\n" for row in rows if row.value is not None]
        path.write_text("".join(lines), encoding="utf-8")
        if lines:
            yield path


def _row_seconds(config: Config, path: str) -> float:
    """What a row costs a core: to be read, checked and turned into tokens."""
    started = time.perf_counter()
    block = next(blocks(expand(path)[0]))
    found = find_items(block, path, config.pool, graders.load(config.measure.grader))
    with_lengths(config, found.items)
    return (time.perf_counter() - started) / len(block.numbers)


def _all_rows(looked: list[SourceFile], files: list[SourceFile]) -> tuple[int, float]:
    """Rows of all files, by bytes per row of those looked at, and the standard error of a ratio estimate."""
    counts = np.array([rows_in(file) for file in looked])
    sizes, size = np.array([float(file.size) for file in looked]), sum(file.size for file in files)
    ratio = counts.sum() / sizes.sum()
    left, n = counts - ratio * sizes, len(looked)
    unseen = 1.0 - n / len(files)
    noise = float(np.sqrt((left**2).sum() / max(1, n - 1) * n * unseen))
    return round(ratio * size), noise * size / float(sizes.sum())


def rows_in(file: SourceFile) -> float:
    """Rows of a file: counted in Parquet and Arrow, of text in proportion to the rows of its first bytes."""
    if file.format == "parquet":
        with file.filesystem().open_input_file(file.inner) as stream:
            return float(pq.ParquetFile(stream).metadata.num_rows)
    if file.size <= HEAD_BYTES or file.format == "arrow":
        return float(sum(len(batch) for batch in read(file)))
    with file.filesystem().open_input_stream(file.inner, compression=None) as stream:
        head = stream.read(HEAD_BYTES)
    ending = "".join(Path(file.path).suffixes[-2 if file.compression else -1 :])
    with tempfile.NamedTemporaryFile(suffix=ending) as copy:
        copy.write(head)
        copy.flush()
        rows = sum(len(batch) for batch in read(expand(copy.name, file.format)[0]))
    if rows < 2:
        raise ZpdError(f"the first {HEAD_BYTES:,} bytes of {file.path} hold no two rows; plan with --ingest")
    return (rows - 1) * file.size / len(head)  # the last one is cut


def cores() -> int:
    """That tasks over parts may compute on."""
    limit = ray.data.DataContext.get_current().execution_options.resource_limits.cpu
    return max(1, int(min(limit or np.inf, ray.cluster_resources().get("CPU", 1.0))))
