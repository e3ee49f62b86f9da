"""How large a pool is, counted or estimated."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipeline.conftest import questions, simulated_values, write_jsonl
from zpd_ray.config_file import validate
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.plan import pool as pools
from zpd_ray.readers.sources import expand
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.layout import POOL


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".parquet"])
def test_rows_of_a_file_follow_from_its_beginning(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "HEAD_BYTES", 30_000)
    file, rows = tmp_path / f"rows{ending}", 20_000
    numbers = np.random.default_rng(0).integers(10**9, 10**10, rows)
    if ending == ".parquet":
        pq.write_table(pa.table({"prompt": numbers, "response": numbers}), file)
    elif ending == ".csv":
        file.write_text("prompt,response\n" + "".join(f"{n},{n}\n" for n in numbers))
    else:
        text = "".join(f'{{"prompt": "{n}", "response": "{n}"}}\n' for n in numbers).encode()
        file.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    assert pools.rows_in(expand(str(file))[0]) == pytest.approx(rows, rel=0.05)


def test_directories_near_another_keep_its_options() -> None:
    assert pools.near(Store("/runs/mine"), ".plan").root == "/runs/mine.plan"
    assert pools.near(Store("file:///runs/mine"), "/read").root == "file:///runs/mine/read"


@pytest.mark.nightly
@pytest.mark.usefixtures("local_ray")
def test_an_estimate_is_near_what_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "FILES", 3)
    monkeypatch.setattr(pools, "ROWS", 300)
    files = tmp_path / "files"
    files.mkdir()
    for number in range(8):
        write_jsonl(files / f"{number}.jsonl", [*questions(400, 400 * number), "no row"])
    values = simulated_values(tmp_path, n=10, pool={"path": str(files / "*.jsonl")})
    real = Run(validate(values), Store(values["output"]))
    with Session(Run(real.config, Store(str(tmp_path / "small")))) as session:
        whole = pools.read_pool(session, real)
        assert (whole.pool.items, whole.pool.items_se, whole.pool.told) == (3200, 0.0, "counted")
        assert sum(group.tokens for group in whole.pool.groups.values()) == whole.pool.tokens
        sample = pools.sample_of(whole.store, POOL, 500, seed=1)
        assert sample.num_rows == 500
        assert sample.equals(pools.sample_of(whole.store, POOL, 500, seed=1))
        assert not sample.equals(pools.sample_of(whole.store, POOL, 500, seed=2))

        monkeypatch.setattr(pools, "WHOLE_BYTES", 0)
        found = pools.read_pool(session, real)
    assert found.pool.told.startswith("estimated from 300 rows of 3 of 8 files")
    assert abs(found.pool.items - 3200) < 0.05 * 3200 + 3 * found.pool.items_se
    assert found.pool.tokens == pytest.approx(whole.pool.tokens, rel=0.1)
    assert found.ingest.at(found.pool.rows).seconds > 0
    assert not (tmp_path / "out").exists()
