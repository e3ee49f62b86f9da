"""A directory that appears whole or not at all; what cannot be exported is told in a sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.test_cli import invoke
from tests.pipeline.conftest import selected_of
from tests.taken import lines_of, reading
from zpd_ray.errors import ZpdError
from zpd_ray.export.exporting import export_selection
from zpd_ray.rundir import Run
from zpd_ray.rundir.begin import recorded_run


def test_the_command_writes_all_stages_and_says_how_to_load_them(taken: Run, tmp_path: Path) -> None:
    into = tmp_path / "new" / "mine"
    code, text = invoke("export", taken.store.root, "--to", "trl", "--into", str(into), "--scores")
    assert code == 0, text
    assert f"120 items of stage 0, 1 in {into}, for trl" in text
    assert f'datasets.load_dataset("{into}"' in text
    rows = pa.concat_tables([pq.read_table(path) for path in sorted(into.glob("*.parquet"))])
    assert rows["stage"].to_pylist() == [0] * 60 + [1] * 60
    assert rows["rank"].to_pylist() == [*range(60)] * 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--to", "tlr"), "unknown export format 'tlr'"),
        (("--to", "trl", "--stage", "2"), "stage 2 has no finished selection"),
        (("--to", "trl", "--stage", "last"), "expected the number of a stage, or all"),
        (("--to", "trl", "--method", "ifd"), "selects by zpd, random; got 'ifd'"),
        (("--to", "no_such.module:write"), "cannot be imported"),
    ],
)
def test_what_there_is_not(taken: Run, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    code, text = invoke("export", taken.store.root, "--into", str(tmp_path / "new"), *arguments)
    assert code == 2
    assert told in text
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(taken: Run, tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("mine")
    with pytest.raises(ZpdError, match=r"not empty \(it holds theirs.txt\)"):
        export_selection(taken, "jsonl", str(tmp_path))
    with pytest.raises(ZpdError, match="is a file"):
        export_selection(taken, "jsonl", str(tmp_path / "theirs.txt"))
    with pytest.raises(ZpdError, match="takes a local directory"):
        export_selection(taken, "jsonl", "s3://bucket/new")
    empty = tmp_path / "empty"
    empty.mkdir()
    export_selection(taken, "jsonl", str(empty))
    assert len(lines_of(empty / "train.jsonl")) == 120
    with pytest.raises(ZpdError, match="not empty"):
        export_selection(taken, "jsonl", str(empty))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "theirs.txt"]


def test_a_method_beside_and_a_format_of_ones_own(taken: Run, tmp_path: Path) -> None:
    into = tmp_path / "texts"
    done = export_selection(taken, "tests.export.own_format:texts", str(into), 0, "random")
    wanted = selected_of(taken.store, 0, "random")["prompt"].to_pylist()
    assert (into / "prompts.txt").read_text().splitlines() == [turns[0]["content"] for turns in wanted]
    assert (done.items, done.stages, done.hint) == (60, (0,), "")


def changed(run: Run, directory: Path, files: str, column: str, value: pa.Array) -> Run:
    """A copy of the run whose files of a directory have one value in a column, everywhere."""
    shutil.copytree(run.store.root, directory)
    copy = recorded_run(str(directory))
    for name in copy.store.names(files):
        table = copy.store.read_table(f"{files}/{name}")
        at = table.schema.get_field_index(column)
        values = pa.concat_arrays([value] * table.num_rows).cast(table.schema.field(at).type)
        copy.store.write_table(f"{files}/{name}", table.set_column(at, table.schema.field(at), values))
    return copy


@pytest.mark.parametrize("to", ["trl", "llama-factory", "axolotl"])
def test_nothing_to_train_on(taken: Run, tmp_path: Path, to: str) -> None:
    pool = taken.config.pool.model_copy(update={"reference": "none"})
    run = Run(taken.config.model_copy(update={"pool": pool}), taken.store)
    with pytest.raises(ZpdError, match=f"{to} needs rows with a response to train on"):
        export_selection(run, to, str(tmp_path / "new"), 0)
    assert not list(tmp_path.iterdir())


def test_no_answer_to_reward(taken: Run, tmp_path: Path) -> None:
    run = changed(taken, tmp_path / "run", "pool", "answer", pa.array([None], pa.string()))
    with pytest.raises(ZpdError, match="verl needs rows with a gold answer"):
        export_selection(run, "verl", str(tmp_path / "new"), 0)


def test_turns_that_llama_factory_would_skip(taken: Run, tmp_path: Path) -> None:
    turns = [{"role": role, "content": "x"} for role in ("system", "user", "user")]
    run = changed(taken, tmp_path / "run", "pool", "messages", pa.array([turns]))
    with pytest.raises(ZpdError, match="has system, user, user, assistant; export to trl or axolotl"):
        export_selection(run, "llama-factory", str(tmp_path / "new"), 0)


def test_an_infinite_score_is_null_in_json(taken: Run, tmp_path: Path) -> None:
    """Methods of a user's own may give one; JSON has no word for it."""
    run = changed(taken, tmp_path / "run", "stages/00/selected", "score", pa.array([float("inf")]))
    export_selection(run, "jsonl", str(tmp_path / "new"), 0, scores=True)
    assert {row["score"] for row in lines_of(tmp_path / "new" / "train.jsonl")} == {None}


def test_files_are_read_one_by_one_and_measurements_only_for_pass_rates(
    taken: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [f"stages/00/selected/{name}" for name in taken.store.names("stages/00/selected")]
    with reading(taken, monkeypatch) as names:
        export_selection(taken, "parquet", str(tmp_path / "plain"), 0)
    assert names == files
    with reading(taken, monkeypatch) as names:
        export_selection(taken, "parquet", str(tmp_path / "scored"), 0, scores=True)
    parts = len(taken.store.names("pool"))
    assert names[-len(files) :] == files
    assert len(names) <= len(files) + 2 * parts
