"""Selecting reads no text: neither of the pool nor of the model's own responses, whatever they take."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.pipeline.conftest import Simulate, perform_in, selected_of
from tests.pipeline.test_run import files_of
from tests.reads import counted, spoil
from zpd_ray.pipeline.select import select
from zpd_ray.pipeline.select.select import select_items
from zpd_ray.rundir import Run
from zpd_ray.rundir.begin import recorded_run
from zpd_ray.rundir.records import load_fit
from zpd_ray.rundir.row_groups import GROUP_ROWS

OWN: dict[str, Any] = {"measure": {"rollouts": 1}, "train": {"method": "none", "target": "own"}}
SELECTED = ("stages/00/selected", "stages/00/chosen")


@pytest.mark.parametrize("more", [{"select": {"replay": 0.2}}, OWN])
def test_what_is_selected_from_texts_that_nobody_can_read(
    simulate: Simulate, tmp_path: Path, more: dict[str, Any]
) -> None:
    """The same files, byte for byte, as where they can be read."""
    budget = {"budget": {"tokens": 300}, "diverse": {"quota": "equal"}}
    config, store = simulate(stages=1, **more | {"select": budget | more.get("select", {})})
    before, chosen = files_of(store, *SELECTED), store.read_bytes("stages/00/selection.json")
    shutil.copytree(store.root, tmp_path / "spoilt")
    run = recorded_run(str(tmp_path / "spoilt"))
    for part in run.store.names("pool"):
        assert spoil(run.store, f"pool/{part}") > 1000
        if config.train.target == "own":
            assert spoil(run.store, f"stages/00/measurements/answers/{part}", ("own",)) > 100
    select_items(run, load_fit(run.store, 0), "zpd")
    assert files_of(run.store, *SELECTED) == before
    assert run.store.read_bytes("stages/00/selection.json") == chosen
    with pytest.raises(OSError, match="page header"):  # whoever reads texts is told
        selected_of(run.store)


def test_a_hundred_times_the_text_takes_no_more_bytes(local_ray: None, tmp_path: Path) -> None:
    config, store = perform_in(tmp_path, n=3000, stages=1, pool={"items_per_part": 3000})
    (part,) = store.names("pool")
    read = {"short": _bytes_read(Run(config, store), part)}
    items = store.read_table(f"pool/{part}")
    for name in ("response", "extra"):  # texts that do not compress
        at = items.schema.get_field_index(name)
        long = pa.array([f"{i:x}".join(map(str, range(i, i + 400))) for i in range(items.num_rows)])
        items = items.set_column(at, name, long)
    size = Path(store.path(f"pool/{part}")).stat().st_size
    store.write_table(f"pool/{part}", items, GROUP_ROWS)
    assert Path(store.path(f"pool/{part}")).stat().st_size > 20 * size
    read["long"] = _bytes_read(Run(config, store), part)
    assert read["long"] < 1.2 * read["short"]
    counting, seen = counted(store)
    counting.read_table(f"pool/{part}", ["response"])
    assert seen.bytes[f"pool/{part}"] > 20 * read["long"]  # the count would have shown it


def _bytes_read(run: Run, part: str) -> int:
    """Of a part, by the task that writes which of its items were chosen."""
    store, seen = counted(run.store)
    store.write_table = lambda *_: None  # type: ignore[method-assign]
    scoring = select._scoring(
        Run(run.config, run.store), load_fit(run.store, 0), "zpd", False, "items", False
    )
    found = select._find(scoring, "zone", 300, True, None)
    files = select.Files(found.starts, found.starts)
    scoring = select.replace(scoring, run=Run(run.config, store))
    assert select._chosen_rows(scoring, found.top.threshold, files, part).num_rows == 300
    return seen.bytes[f"pool/{part}"]
