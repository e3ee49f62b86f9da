"""A model by URI: what is copied of it, how often, and that it is the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from tests import tiny
from tests.s3 import Bucket
from tests.s3 import bucket as bucket  # fixtures
from tests.s3 import server as server
from zpd_ray.config_file import load_config, validate
from zpd_ray.engines import remote
from zpd_ray.engines.base import ModelRef
from zpd_ray.engines.model_files import generation_stops, load_tokenizer, vocabulary_of
from zpd_ray.engines.remote import at_hand, with_weights
from zpd_ray.engines.weights import check_weights, matrices, weight_bytes
from zpd_ray.errors import ZpdError
from zpd_ray.rundir import Store


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_model(tmp_path_factory.mktemp("llama"), layers=1)


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZPD_RAY_MODELS", str(tmp_path / "copies"))
    remote._copy.cache_clear()
    return tmp_path / "copies"


@pytest.fixture
def uri(bucket: Bucket, model: Path, copies: Path, request: pytest.FixtureRequest) -> str:
    """The model in the bucket, with what is not to be fetched."""
    uri = bucket.uri(f"models/{request.node.name.partition('[')[0]}")
    fs, base = pafs.FileSystem.from_uri(uri)
    pafs.copy_files(str(model), base, pafs.LocalFileSystem(), fs)
    for name in ("modeling_own.py", "pytorch_model.bin"):
        with fs.open_output_stream(f"{base}/{name}") as stream:
            stream.write(b"raise SystemExit('this was run')")
    return uri


def test_what_is_read_of_it_is_what_a_directory_has(uri: str, model: Path) -> None:
    assert load_tokenizer(uri).get_vocab() == load_tokenizer(str(model)).get_vocab()
    assert vocabulary_of(uri) == vocabulary_of(str(model))
    assert generation_stops(uri) == generation_stops(str(model))
    check_weights(uri)
    assert matrices(uri) == matrices(str(model))
    assert weight_bytes(uri) == weight_bytes(str(model)) == (model / "model.safetensors").stat().st_size


def test_weights_are_fetched_by_who_loads_them_alone_and_no_code_by_anybody(
    uri: str, model: Path, copies: Path
) -> None:
    light, whole = Path(at_hand(uri)), Path(with_weights(uri))
    held = {path.name for path in model.iterdir()}
    assert {path.name for path in whole.iterdir()} == held
    assert {path.name for path in light.iterdir()} == held - {"model.safetensors"}
    assert (whole / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert not list(copies.glob(".*"))
    ref = Store("s3://elsewhere/run?region=us-east-1").fetched(ModelRef(uri), "unused")
    assert ref.base == str(whole)


def test_the_processes_of_a_machine_share_one_copy(uri: str, copies: Path) -> None:
    code = "import sys; from zpd_ray.engines.remote import with_weights; print(with_weights(sys.argv[1]))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, uri], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert len(told) == 1
    assert [path for path in copies.iterdir() if path.is_dir()] == [Path(told.pop())]


def test_another_model_at_the_same_place_gets_another_copy(uri: str) -> None:
    before = with_weights(uri)
    fs, base = pafs.FileSystem.from_uri(uri)
    with fs.open_output_stream(f"{base}/chat_template.jinja") as stream:
        stream.write(b"{{ messages }}")
    assert with_weights(uri) == before  # a process sees one model
    remote._copy.cache_clear()
    assert with_weights(uri) != before


def test_a_model_that_is_cut_off_leaves_no_copy(uri: str, model: Path, copies: Path) -> None:
    fs, base = pafs.FileSystem.from_uri(uri)
    with fs.open_output_stream(f"{base}/model.safetensors") as stream:
        stream.write((model / "model.safetensors").read_bytes()[:-1])
    with pytest.raises(ZpdError, match="cut off or damaged"):
        with_weights(uri)
    assert not [path for path in copies.iterdir() if path.is_dir()]


def test_where_there_is_no_model_that_is_told_without_the_options(bucket: Bucket, copies: Path) -> None:
    with pytest.raises(ZpdError, match="cannot read the model at s3://bucket/nowhere: ") as nowhere:
        load_tokenizer(bucket.uri("nowhere"))
    assert "endpoint_override" not in str(nowhere.value)
    fs, base = pafs.FileSystem.from_uri(bucket.uri("letters"))
    with fs.open_output_stream(f"{base}/letter.doc") as stream:
        stream.write(b"dear")
    with pytest.raises(ZpdError, match=r"no model at s3://bucket/letters, which holds letter.doc; expected"):
        at_hand(bucket.uri("letters"))


def test_a_uri_in_a_config_stays_what_it_is_and_holds_no_credentials(tmp_path: Path) -> None:
    sections = (
        "[pool]",
        'path = "pool.jsonl"',
        "[measure]",
        'grader = "exact"',
        "[select.budget]",
        "items = 1",
    )
    values = "\n".join(('output = "out"', *sections, "[model]", 'path = "{}"'))
    (tmp_path / "run.toml").write_text(values.format("s3://bucket/model?region=us-east-1"))
    config = load_config(str(tmp_path / "run.toml"), ())
    assert config.model.path == "s3://bucket/model?region=us-east-1"
    with pytest.raises(ZpdError, match=r"model.path is a URI of s3 with credentials"):
        validate(config.model_dump() | {"model": {"path": "s3://me:secret@bucket/model"}})


def test_links_to_weights_are_followed(model: Path, tmp_path: Path) -> None:
    """As in the hub's cache."""
    os.symlink(model / "model.safetensors", tmp_path / "model.safetensors")
    check_weights(str(tmp_path))
    assert weight_bytes(str(tmp_path)) == weight_bytes(str(model))
