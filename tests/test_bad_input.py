"""Bad input gets one clear sentence (what, got, expected, do this), exit code 2, and nothing half written."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tomli_w
from typer.testing import CliRunner

from tests import tiny
from zpd_ray.cli import app as cli
from zpd_ray.rundir.layout import LOCK, PROGRESS

Refused = Callable[..., str]
Cli = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_model(tmp_path_factory.mktemp("llama"), layers=1)


def rows(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"prompt": f"question {i}", "response": f"reply {i}", "answer": str(i)}
        for i in range(start, start + n)
    ]


def write_rows(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


@pytest.fixture
def run_toml(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run of the simulated engine over 40 items; keyword arguments are sections on top."""
    write_rows(tmp_path / "pool.jsonl", rows(40))

    def write(**sections: Any) -> Path:
        values: dict[str, Any] = {
            "output": "out",
            "stages": 1,
            "pool": {"path": "pool.jsonl", "items_per_part": 20},
            "model": {"path": "unused"},
            "engine": {"name": "simulated"},
            "measure": {"grader": "exact"},
            "select": {"budget": {"fraction": 0.1}},
            "train": {"method": "none"},
        }
        for name, section in sections.items():
            values[name] = values.get(name, {}) | section if isinstance(section, dict) else section
        path = tmp_path / "run.toml"
        path.write_text(tomli_w.dumps(values))
        return path

    return write


def invoke(*arguments: str) -> tuple[int, str, str]:
    """Exit code, what was said on the way, and the last line of stderr."""
    result = CliRunner().invoke(cli.app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception  # a traceback, where the user should have got a sentence
    *said, last = result.stderr.strip().splitlines() or [""]
    assert "Traceback" not in result.output
    return result.exit_code, "\n".join(said), last


@pytest.fixture
def refused(run_toml: Callable[..., Path], tmp_path: Path) -> Refused:
    """The sentence with which a command refuses its config; ``command`` and ``overrides`` as on the shell."""

    def refuse(command: str = "run", overrides: tuple[str, ...] = (), **sections: Any) -> str:
        flags = [part for override in overrides for part in ("--set", override)]
        code, _, sentence = invoke(command, str(run_toml(**sections)), *flags)
        assert code == 2, sentence
        assert sentence.startswith("zpd-ray: ")
        return sentence

    return refuse


@pytest.fixture
def refused_at_once(refused: Refused, tmp_path: Path) -> Refused:
    """The same for what is found before any work: the run directory must not even exist."""

    def refuse(*arguments: Any, **sections: Any) -> str:
        sentence = refused(*arguments, **sections)
        assert not (tmp_path / "out").exists()
        return sentence

    return refuse


def assert_says(sentence: str, *parts: str) -> None:
    for part in parts:
        assert part in sentence


# --- the config ---


def test_a_typo_is_told_before_ray_is_imported(run_toml: Callable[..., Path]) -> None:
    code = (
        "import sys\nfrom zpd_ray.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 2\n"
        "assert not {'ray', 'torch'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, "run", str(run_toml()), "--set", "select.budgte.items=5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_says(done.stderr, "select.budgte")


# --- sources and models, looked at before any work ---


REAL = {"engine": {"name": "transformers"}, "measure": {"grader": "greedy_match"}}


def test_vllm_that_is_not_installed(
    refused_at_once: Refused, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zpd_ray.engines.vllm.settings.find_spec", lambda name: None)
    sentence = refused_at_once(
        engine={"name": "vllm"}, model={"path": str(model_dir)}, measure={"grader": "exact"}
    )
    assert_says(sentence, "engine.name = 'vllm'", "no vllm is installed", "pip install 'zpd-ray[vllm]'")


# --- the run directory ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk takes a superuser's rights")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_disk_that_fills_up_midway(
    local_ray: None, refused: Refused, small_disk: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "pool.jsonl", [row | {"response": os.urandom(400).hex()} for row in rows(2000)])
    sentence = refused("ingest", output="disk/out")
    assert_says(sentence, "cannot write", "No space left on device", "free some space")
    assert not (small_disk / "out/pool.json").exists()
    assert not [p for p in small_disk.rglob(".*") if p.is_file() and p.name != ".zpd-ray.lock"]


# --- what only the rows tell ---


def test_more_bad_rows_than_allowed(local_ray: None, refused: Refused, tmp_path: Path) -> None:
    bad = [{"prompt": f"bad {i}", "response": ""} for i in range(10)]
    write_rows(tmp_path / "pool.jsonl", rows(30) + bad)
    sentence = refused(pool={"path": "pool.jsonl"})
    assert_says(
        sentence, "10 of 40 rows", "10 x empty response", "max_bad_share = 0.05", "raise max_bad_share"
    )
    # Its advice must work: the same run directory with a larger share.
    code, _, last = invoke("ingest", str(tmp_path / "run.toml"), "--set", "pool.max_bad_share=0.5")
    assert code == 0, last


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_cut_in_half(local_ray: None, refused: Refused, tmp_path: Path, suffix: str) -> None:
    lines = [json.dumps(row | {"response": os.urandom(40).hex()}) + "\n" for row in rows(4000)]
    text = "".join(lines).encode()
    whole = gzip.compress(text) if suffix == ".gz" else pa.compress(text, codec="zstd", asbytes=True)
    (tmp_path / f"pool.jsonl{suffix}").write_bytes(whole[: len(whole) // 2])
    pool = {"path": f"pool.jsonl{suffix}"}
    sentence = refused(pool=pool)
    assert_says(sentence, f"pool.jsonl{suffix} is damaged", "Fetch it again", "pool.allow_damaged = true")
    assert not (tmp_path / "out/pool.json").exists()
    # Its advice must work, in the same run directory.
    code, _, last = invoke("ingest", str(tmp_path / "run.toml"), "--set", "pool.allow_damaged=true")
    assert code == 0, last
    found = json.loads((tmp_path / "out/pool.json").read_text())
    assert 0 < found["items"] < 4000
    assert found["quarantined"] == {"damaged file": 1}


def test_a_pool_that_changed_under_a_run(
    local_ray: None, run_toml: Callable[..., Path], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "a.jsonl", rows(40))
    refused_when_resumed = ("ingest", str(run_toml(pool={"path": "data/*.jsonl"})))
    assert invoke(*refused_when_resumed)[0] == 0
    stat = (data / "a.jsonl").stat()
    os.utime(data / "a.jsonl", (stat.st_atime, stat.st_mtime + 60))  # copied anew: the same contents
    assert invoke(*refused_when_resumed)[0] == 0
    whole = (data / "a.jsonl").read_text()
    for change, told in (
        (whole.replace("question 1", "question x"), "has other contents"),
        (whole + "{}", "bytes and has"),
    ):
        (data / "a.jsonl").write_text(change)
        code, _, sentence = invoke(*refused_when_resumed)
        assert code != 0
        assert_says(sentence, "a.jsonl", told, "put it back as it was")
    (data / "a.jsonl").write_text(whole)
    write_rows(data / "b.jsonl", rows(3))
    assert_says(invoke(*refused_when_resumed)[2], "b.jsonl is new")
    (data / "b.jsonl").unlink()
    (data / "a.jsonl").unlink()  # the run has a copy of its own
    assert invoke(*refused_when_resumed)[0] == 0


def test_one_file_that_is_gone_does_not_hide_another_that_changed(
    local_ray: None, run_toml: Callable[..., Path], tmp_path: Path
) -> None:
    for name in "ab":
        write_rows(tmp_path / f"{name}.jsonl", rows(20, start=20 * (name == "b")))
    command = ("ingest", str(run_toml(pool={"path": ["a.jsonl", "b.jsonl"]})))
    assert invoke(*command)[0] == 0
    (tmp_path / "a.jsonl").unlink()
    assert invoke(*command)[0] == 0
    write_rows(tmp_path / "b.jsonl", rows(3))
    code, _, sentence = invoke(*command)
    assert code != 0
    assert_says(sentence, "b.jsonl had", "put it back as it was")


def test_responses_without_an_answer(local_ray: None, refused: Refused, tmp_path: Path) -> None:
    silent = {"engine": {"name": "tests.measures.silent:Silent"}}
    sentence = refused(measure={"grader": "numeric", "rollouts": 2, "max_new_tokens": 8}, **silent)
    assert_says(sentence, "of 80 responses; one began: 'Let us think'", "max_unparsed_share = 0.9")
    assert_says(
        sentence, "raise measure.max_new_tokens (now 8)", "take a grader (now numeric)", "in a new output"
    )
    assert not (tmp_path / "out/stages/00/measured.json").exists()


def test_responses_that_are_all_wrong(local_ray: None, refused: Refused, tmp_path: Path) -> None:
    hopeless = {"engine": {"name": "simulated", "simulated": {"theta": -60.0}}}
    sentence = refused(**hopeless)
    assert_says(sentence, "stage 0: all 40 responses are wrong", "below every item", "ability.allow_extreme")
    assert not (tmp_path / "out/stages/00/fit.json").exists()
    # Its advice must work.
    code, _, last = invoke("fit", str(tmp_path / "run.toml"), "--set", "ability.allow_extreme=true")
    assert code == 0, last
    assert (tmp_path / "out/stages/00/fit.json").exists()


def test_evaluation_set_that_overlaps_the_pool(
    local_ray: None, run_toml: Callable[..., Path], tmp_path: Path
) -> None:
    overlap = [row | {"prompt": row["prompt"].upper() + " "} for row in rows(7)]
    write_rows(tmp_path / "eval.jsonl", overlap + rows(5, start=100))
    code, said, _ = invoke("ingest", str(run_toml(evaluation={"path": "eval.jsonl"})))
    assert code == 0
    assert_says(said.replace("\n", " ") + _, "40 rows -> 33 items", "7 also in the evaluation set")
    pool = json.loads((tmp_path / "out/pool.json").read_text())
    assert (pool["rows"], pool["items"], pool["overlap"]) == (40, 33, 7)


def test_evaluation_set_that_is_the_pool(local_ray: None, refused: Refused, tmp_path: Path) -> None:
    sentence = refused(evaluation={"path": "pool.jsonl"})
    assert_says(sentence, "nothing is left of the 40 rows", "evaluation")
    assert not (tmp_path / "out/pool.json").exists()


# --- the cluster ---


@pytest.mark.parametrize(
    ("cluster", "asked"),
    [
        ({"actors": 2, "gpus_per_actor": 1.0}, ("not enough GPUs", "asks for 2", "has 0", "cluster.actors")),
        ({"actors": 100}, ("not enough CPUs", "asks for 101", "has 4", "cluster.address")),
    ],
    ids=["gpus", "cpus"],
)
def test_more_than_the_cluster_has(
    cluster: dict[str, Any], asked: tuple[str, ...], local_ray: None, refused: Refused, tmp_path: Path
) -> None:
    """Refused, where Ray would wait without a word; and the run directory holds its lock and how it ended."""
    assert_says(refused(cluster=cluster), *asked)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {LOCK, PROGRESS}


# --- another config, another process ---


def test_another_config_against_a_run_directory(
    local_ray: None, run_toml: Callable[..., Path], tmp_path: Path
) -> None:
    path = run_toml()
    assert invoke("ingest", str(path))[0] == 0
    files = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    code, _, sentence = invoke("run", str(path), "--set", "seed=7", "--set", "pool.items_per_part=7")
    assert code == 2
    assert_says(
        sentence, "seed: 0 -> 7", "pool.items_per_part: 20 -> 7", str(tmp_path / "out"), "another output"
    )
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == files


def test_a_run_directory_in_use(refused: Refused, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.zpd-ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert_says(refused(), "another process is working on", str(tmp_path / "out"))


# --- the process as the user sees it ---


def run_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from zpd_ray.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )


def assert_one_sentence(done: subprocess.CompletedProcess[str]) -> None:
    """Nothing but the program's own words, and the reason in the last line."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr.replace("ZpdError", "Error")
    assert done.stderr.strip().splitlines()[-1].startswith("zpd-ray: ")


def test_a_fault_found_by_a_ray_task_is_one_sentence_on_the_terminal(
    run_toml: Callable[..., Path],
) -> None:
    cluster = {"actors": 1, "cpus_per_actor": 1, "gpus_per_actor": 0}
    cluster |= {"cpus_per_train_worker": 1, "gpus_per_train_worker": 0}  # else a line tells what was taken
    done = run_process("run", str(run_toml(pool={"columns": {"prompt": "txet"}}, cluster=cluster)))
    assert_one_sentence(done)
    assert_says(done.stderr, "prompt = 'txet'", "correct 'columns'")
    assert len(done.stderr.removeprefix("starting Ray\n").strip().splitlines()) == 1, done.stderr


def test_a_fault_found_before_ray_starts_is_one_sentence_on_the_terminal(
    run_toml: Callable[..., Path],
) -> None:
    done = run_process("run", str(run_toml(pool={"path": "absent.jsonl"})))
    assert_one_sentence(done)
    assert len(done.stderr.removeprefix("starting Ray\n").strip().splitlines()) == 1, done.stderr
