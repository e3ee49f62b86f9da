"""SIGKILL at given moments, then the same command again: the result is that of an undisturbed run."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.pipeline.conftest import simulated_file
from tests.pipeline.processes import RUN_SECONDS, Quickstart, Simulated, call
from zpd_ray.rundir.store import Store

# A moment: when a file of this pattern is there (or a function says so), and so many seconds later.
Moment = tuple[str | Callable[[Path], bool], float]

EXACT = (
    "pool.json",
    "pool/*.parquet",
    "stages/*/measurements/answers/*.parquet",
    "stages/*/measured.json",
    "stages/*/fit.json",
    "stages/*/chosen/*.parquet",
    "stages/*/selected/*.parquet",
    "stages/*/selection.json",
    "stages/*/adapter/*",
)


def files_of(run: Path, pattern: str) -> dict[str, Path]:
    """Finished files by their name in the run directory."""
    found = (path for path in sorted(run.glob(pattern)) if not path.name.startswith("."))
    return {str(path.relative_to(run)): path for path in found}


def assert_same_files(run: Path, reference: Path, patterns: Sequence[str] = EXACT) -> None:
    for pattern in patterns:
        ours, theirs = files_of(run, pattern), files_of(reference, pattern)
        assert theirs, pattern
        assert ours.keys() == theirs.keys(), pattern
        for name in theirs:
            assert ours[name].read_bytes() == theirs[name].read_bytes(), name


def assert_same_result(run: Path, reference: Path) -> None:
    assert_same_files(run, reference)
    for name in ("base/metrics.json", "stages/00/metrics.json", "stages/01/metrics.json"):
        ours, theirs = Store(str(run)).read_json(name), Store(str(reference)).read_json(name)
        assert ours.pop("groups") == pytest.approx(theirs["groups"], rel=1e-6)
        assert ours == pytest.approx({k: v for k, v in theirs.items() if k != "groups"}, rel=1e-6)


class Attempt:
    """The command at work, and all processes that it has started."""

    def __init__(self, runs: Quickstart | Simulated, run: Path) -> None:
        self.process = subprocess.Popen(
            runs.command(run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.run, self.seen = run, set[psutil.Process]()

    def wait_for(self, moment: Moment) -> bool:
        """Wait for the moment; False when the command ended before."""
        what, seconds = moment
        deadline = time.monotonic() + RUN_SECONDS
        while not (files_of(self.run, what) if isinstance(what, str) else what(self.run)):
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"{what} did not appear"
            time.sleep(0.02)
        time.sleep(seconds)
        return self.process.poll() is None

    def kill(self) -> set[psutil.Process]:
        """SIGKILL for the command itself; returns the processes that it leaves to fate."""
        children = set(psutil.Process(self.process.pid).children(recursive=True))
        self.process.kill()
        self.process.wait()
        return children

    def finish(self) -> None:
        _, stderr = self.process.communicate(timeout=RUN_SECONDS)
        assert self.process.returncode == 0, stderr


def plant_leftovers(run: Path) -> None:
    """Half-written files, as a kill in the middle of a write leaves them."""
    for directory in (
        "stages/00/measurements/answers",
        "stages/00/selected",
        "stages/00/chosen",
        "stages/01",
    ):
        (run / directory).mkdir(parents=True, exist_ok=True)
        (run / directory / ".part-000000.parquet.0123").write_bytes(b"PAR1 half a file")


def killed_run(runs: Quickstart | Simulated, run: Path, moments: Sequence[Moment]) -> Iterator[Moment]:
    """Kill the run at each moment and start it again at once; yields where it was killed."""
    left: set[psutil.Process] = set()
    for moment in moments:
        attempt = Attempt(runs, run)
        if attempt.wait_for(moment):
            left |= attempt.kill()
            yield moment
        plant_leftovers(run)
    Attempt(runs, run).finish()
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive, "a killed run leaves processes behind"


def inside_second_stage(run: Path) -> bool:
    """Whether there is a checkpoint of it."""
    files = run.glob("ray_train/*/.metadata.json")
    return any(json.loads(file.read_text() or "{}").get("stage") == 1 for file in files)


@pytest.mark.slow  # tests/chaos has a short form
def test_killed_while_measuring_and_while_training(quickstart: Quickstart, tmp_path: Path) -> None:
    run = tmp_path / "run"
    moments: list[Moment] = [
        ("stages/00/measurements/answers/*.parquet", 0.0),  # the first of seven parts
        (inside_second_stage, 0.3),
    ]
    reached = []
    for moment in killed_run(quickstart, run, moments):
        reached.append(moment)
        closing = "stages/00/measured.json" if len(reached) == 1 else "stages/01/train.json"
        assert not (run / closing).exists(), "killed too late to say anything"
    assert reached == moments
    assert_same_result(run, quickstart.output)


def test_a_second_process_is_refused_and_the_first_goes_on(address: str, tmp_path: Path) -> None:
    stages = {"stages": 50, "select": {"budget": {"items": 5}}}  # more than it gets to
    simulated = simulated_file(tmp_path, n=400, cluster={"address": address}, **stages)
    run = tmp_path / "run"
    first = Attempt(simulated, run)
    assert first.wait_for(("pool.json", 0.0))
    second = call(simulated.command(run, "ingest"))
    assert first.process.poll() is None
    assert second.returncode == 2
    assert f"another process is working on {run}" in second.stderr
    before = files_of(run, "stages/*/measured.json")
    assert first.wait_for((lambda run: len(files_of(run, "stages/*/measured.json")) > len(before), 0.0))
    first.kill()


def seeded_moments(reference: Path, seed: int, count: int) -> list[Moment]:
    """``count`` files of the undisturbed run, in the order of their appearance, and seconds after each."""
    rng = random.Random(seed)
    files = [path for path in reference.rglob("*") if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if path.name not in ("config.toml", "events.jsonl", "progress.json")]
    chosen = sorted(rng.sample(sorted(files), count), key=lambda path: path.stat().st_mtime_ns)
    return [(str(path.relative_to(reference)), rng.uniform(0, 3)) for path in chosen]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_six_seeded_moments(quickstart: Quickstart, tmp_path: Path, seed: int) -> None:
    run = tmp_path / "run"
    moments = seeded_moments(quickstart.output, seed, 6)
    reached = list(killed_run(quickstart, run, moments))
    assert len(reached) >= 5
    assert_same_result(run, quickstart.output)
