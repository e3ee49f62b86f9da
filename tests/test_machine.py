"""What follows from the machine, what the user says, and what a run directory remembers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zpd_ray import machine
from zpd_ray.config import Config
from zpd_ray.config_file import differences, to_toml, validate
from zpd_ray.machine import Machine, derive, left_out, resolve, this_machine
from zpd_ray.pipeline.jobs.package import CONFIG, package

GIB = 2**30


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory that holds 1 GiB of weights, as far as the file system says."""
    directory = tmp_path / "model"
    directory.mkdir()
    with (directory / "model.safetensors").open("wb") as file:
        file.truncate(GIB)
    return directory


def config_of(model: object, output: object = "unused", workers: int = 1, **cluster: Any) -> Config:
    return validate(
        {
            "output": str(output),
            "pool": {"path": "pool"},
            "model": {"path": str(model)},
            "select": {"budget": {"items": 1}},
            "train": {"workers": workers, "batch_size": 32 * workers},
            "cluster": cluster,
        }
    )


def taken(config: Config, cores: int, gpus: int = 0, memory: int = 1000 * GIB) -> dict[str, float]:
    given = {key: getattr(config.cluster, key) for key in set(machine.DERIVED) - left_out(config.cluster)}
    return derive(config, Machine(cores, gpus, memory), given)


def numbers(actors: int, cpus: float, gpus: float, train_cpus: float, train_gpus: float) -> dict[str, float]:
    names = ("actors", "cpus_per_actor", "gpus_per_actor", "cpus_per_train_worker", "gpus_per_train_worker")
    return dict(zip(names, (actors, cpus, gpus, train_cpus, train_gpus), strict=True))


@pytest.mark.parametrize(
    ("cores", "workers", "expected"),
    [
        (1, 1, numbers(1, 1, 0, 1, 0)),
        (8, 1, numbers(8, 1, 0, 8, 0)),
        (8, 3, numbers(8, 1, 0, 2, 0)),
        (2, 4, numbers(2, 1, 0, 1, 0)),
    ],
)
def test_every_core_scores_and_train_workers_share_the_cores(
    model: Path, cores: int, workers: int, expected: dict[str, float]
) -> None:
    assert taken(config_of(model, workers=workers), cores) == expected


@pytest.mark.parametrize(
    ("memory", "actors", "cpus"), [(100, 8, 1), (16, 8, 1), (8, 4, 2), (6, 3, 2), (3, 1, 8), (1, 1, 8)]
)
def test_weights_take_no_more_than_half_of_the_memory(
    model: Path, memory: int, actors: int, cpus: int
) -> None:
    found = taken(config_of(model), 8, memory=memory * GIB)
    assert (found["actors"], found["cpus_per_actor"]) == (actors, cpus)


def test_the_size_of_a_model_on_the_hub_is_not_known() -> None:
    assert taken(config_of("somebody/model"), 8) == numbers(1, 8, 0, 8, 0)


@pytest.mark.parametrize(
    ("workers", "cluster", "expected"),
    [
        (1, {}, numbers(4, 1, 1, 16, 1)),
        (8, {}, numbers(4, 1, 1, 2, 0)),  # not enough for each: they train on cores
        (1, {"gpus_per_actor": 2}, numbers(2, 1, 2, 16, 1)),
        (1, {"gpus_per_actor": 0.5}, numbers(8, 1, 0.5, 16, 1)),
        (1, {"gpus_per_actor": 0}, numbers(16, 1, 0, 16, 1)),
        (1, {"actors": 1, "gpus_per_train_worker": 0}, numbers(1, 1, 1, 16, 0)),
    ],
)
def test_an_actor_on_each_gpu(
    model: Path, workers: int, cluster: dict[str, float], expected: dict[str, float]
) -> None:
    assert taken(config_of(model, workers=workers, **cluster), 16, gpus=4) == expected


def test_the_number_of_actors_decides_nothing_else(model: Path) -> None:
    found = [taken(config_of(model, actors=n), 8, memory=8 * GIB) for n in (1, 3)]
    assert [each.pop("actors") for each in found] == [1, 3]
    assert found[0] == found[1]


def test_given_cpus_are_kept_and_actors_fill_the_cores(model: Path) -> None:
    config = config_of(model, cpus_per_actor=3, cpus_per_train_worker=5)
    assert taken(config, 8) == numbers(2, 3, 0, 5, 0)


def with_machine(monkeypatch: pytest.MonkeyPatch, cores: int, gpus: int = 0, bf16: bool = False) -> None:
    monkeypatch.setattr(machine, "this_machine", lambda: Machine(cores, gpus, 1000 * GIB, bf16))


def test_what_a_run_takes_is_told(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_machine(monkeypatch, 8, gpus=2)
    config, told = resolve(config_of(model, tmp_path / "out", actors=3), own_ray=True)
    assert left_out(config.cluster) == set()
    assert told == (
        "of 8 cores, 2 GPUs: 3 scoring actors with 1 CPU and 1 GPU each, "
        "1 train worker with 8 CPUs and 1 GPU each"
    )


@pytest.mark.parametrize(("own_ray", "address"), [(False, "local"), (True, "auto")])
def test_a_cluster_that_was_there_before_is_not_filled(
    model: Path, tmp_path: Path, own_ray: bool, address: str
) -> None:
    config, told = resolve(config_of(model, tmp_path / "out", address=address), own_ray)
    assert config.cluster.model_dump(include=set(machine.DERIVED)) == numbers(1, 1, 0, 1, 0)
    assert told == ""


def test_a_resumed_run_keeps_what_changes_results(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with_machine(monkeypatch, 8)
    first, _ = resolve(config_of(model, output), own_ray=True)
    (output / "config.toml").write_text(to_toml(first))
    with_machine(monkeypatch, 4)
    again, _ = resolve(config_of(model, output), own_ray=True)
    assert differences(first, again) == []
    assert (again.cluster.actors, again.cluster.cpus_per_train_worker) == (4, 8)
    joined, _ = resolve(config_of(model, output, address="auto"), own_ray=True)
    assert differences(first, joined) == []
    assert joined.cluster.actors == 1
    given, _ = resolve(config_of(model, output, cpus_per_train_worker=2), own_ray=True)
    assert differences(first, given) == ["cluster.cpus_per_train_worker: 8.0 -> 2.0"]


@pytest.mark.parametrize(
    ("stored", "bf16", "gpus", "taken"),
    [
        ({"dtype": "bfloat16"}, True, 0, "bfloat16"),
        ({"torch_dtype": "bfloat16"}, True, 0, "bfloat16"),  # as older versions of transformers wrote it
        ({"text_config": {"dtype": "bfloat16"}}, True, 0, "bfloat16"),
        ({"dtype": "bfloat16"}, False, 0, "auto"),
        ({"dtype": "bfloat16"}, True, 1, "auto"),
        ({"dtype": "float32"}, True, 0, "auto"),
        ({}, True, 0, "auto"),
    ],
)
def test_a_cpu_that_computes_in_bfloat16_leaves_weights_in_it(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stored: dict[str, Any],
    bf16: bool,
    gpus: int,
    taken: str,
) -> None:
    (model / "config.json").write_text(json.dumps(stored))
    with_machine(monkeypatch, 8, gpus, bf16)
    config, told = resolve(config_of(model, tmp_path / "out"), own_ray=True)
    assert config.model.dtype == taken
    assert told.endswith("weights in bfloat16, as they are stored (model.dtype)") == (taken == "bfloat16")


def test_a_resumed_run_keeps_the_type_of_its_weights(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "config.json").write_text('{"dtype": "bfloat16"}')
    for bf16 in (True, False):
        output = tmp_path / f"out{bf16}"
        output.mkdir()
        with_machine(monkeypatch, 8, bf16=bf16)
        first, _ = resolve(config_of(model, output), own_ray=True)
        (output / "config.toml").write_text(to_toml(first))
        with_machine(monkeypatch, 8, bf16=not bf16)
        again, _ = resolve(config_of(model, output), own_ray=True)
        assert again.model.dtype == first.model.dtype == ("bfloat16" if bf16 else "auto")


def test_a_job_leaves_open_what_the_user_left_open(model: Path) -> None:
    with package(config_of(model, actors=5, gpus_per_actor=1), None) as directory:
        text = Path(directory, CONFIG).read_text()
    assert "actors = 5" in text
    assert "gpus_per_actor = 1.0" in text
    assert not [key for key in ("cpus_per", "gpus_per_train_worker") if key in text]


@pytest.mark.parametrize(
    ("listed", "bf16"),
    [
        ("flags\t\t: fpu amx_bf16 sse\n", True),
        ("flags : avx512_bf16", True),
        ("flags : avx512f", False),
        ("", False),
    ],
)
def test_what_a_cpu_computes_in_is_read_off_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, bf16: bool
) -> None:
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert not this_machine().bf16
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{listed}")
    assert this_machine().bf16 is bf16


def test_of_a_container_its_share_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    whole = this_machine()
    assert whole.cores >= 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert this_machine() == whole
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    part = this_machine()
    assert (part.cores, part.memory) == (1, GIB)
