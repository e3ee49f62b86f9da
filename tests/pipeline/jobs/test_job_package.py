"""What a job takes along."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import simulated_values
from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.jobs.package import for_cluster, local_paths, package, variables


def config_of(directory: Path, **sections: Any) -> Config:
    return validate(simulated_values(directory, n=1, **sections))


def test_the_config_alone_is_shipped_and_joins_the_cluster(tmp_path: Path) -> None:
    config = config_of(tmp_path, seed=7)
    with package(config, None) as directory:
        assert [path.name for path in Path(directory).iterdir()] == ["run.toml"]
        shipped = validate(tomllib.loads((Path(directory) / "run.toml").read_text()))
    assert shipped == for_cluster(config)
    assert shipped.cluster.address == "auto"
    assert shipped.model_copy(update={"cluster": config.cluster}) == config
    assert not Path(directory).exists()


def test_code_goes_along_and_stays_as_it_is(tmp_path: Path) -> None:
    code = tmp_path / "code"
    (code / "deep").mkdir(parents=True)
    (code / "deep/mine.py").write_text("x = 1\n")
    (code / "run.toml").write_text("theirs")
    (code / ".gitignore").write_text("*.toml")
    before = {path: path.stat().st_mtime_ns for path in code.rglob("*")}
    with package(config_of(tmp_path), code) as directory:
        shipped = Path(directory)
        assert (shipped / "deep/mine.py").read_text() == "x = 1\n"
        assert "address" in (shipped / "run.toml").read_text()
        assert (shipped / ".gitignore").read_text().splitlines()[-1] == "!/run.toml"
    assert {path: path.stat().st_mtime_ns for path in code.rglob("*")} == before
    assert (code / "run.toml").read_text() == "theirs"


def test_code_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZpdError, match="is no directory; give the one with your code"):
        package(config_of(tmp_path), tmp_path / "nowhere").__enter__()


def test_only_the_variables_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZPD_ONE", "1")
    monkeypatch.setenv("ZPD_TWO", "2")
    assert variables(["ZPD_ONE"]) == {"ZPD_ONE": "1"}
    assert variables([]) == {}


def test_paths_that_every_node_must_see_are_named(tmp_path: Path) -> None:
    assert local_paths(config_of(tmp_path)) == ["output", "pool.path"]
    remote = config_of(
        tmp_path,
        output="s3://bucket/run",
        pool={"path": ["s3://bucket/a.jsonl", "/data/b.jsonl"]},
        evaluation={"path": "s3://bucket/eval.jsonl"},
        model={"path": "/models/base"},
    )
    assert local_paths(remote) == ["model.path", "pool.path"]
