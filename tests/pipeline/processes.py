"""``zpd-ray`` as a process of its own, and one quickstart run that several test modules look at."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
RUN_SECONDS = 900  # a run takes one minute; machines that are shared take several


def command(verb: str, config: Path, *overrides: str) -> list[str]:
    """``zpd-ray verb config --set ... --set ...`` with this Python."""
    flags = [part for override in overrides for part in ("--set", override)]
    return [sys.executable, "-c", "from zpd_ray.cli import main; main()", verb, str(config), *flags]


def call(
    arguments: list[str], seconds: float = RUN_SECONDS, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run to the end, from the root of the repository."""
    return subprocess.run(arguments, capture_output=True, text=True, timeout=seconds, cwd=ROOT, env=env)


def descendants(pid: int, title: str) -> list[psutil.Process]:
    """Processes below ``pid`` whose command line holds ``title``."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended since it was listed
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found


@dataclass(frozen=True)
class Quickstart:
    """The quickstart's config on a world small enough for tests."""

    config: Path
    overrides: tuple[str, ...]
    output: Path  # of the run that nothing disturbed
    stdout: str
    stderr: str

    def command(self, output: Path, verb: str = "run") -> list[str]:
        """The same run into another run directory."""
        return command(verb, self.config, *self.overrides, f"output={output}")

    def with_engine(self, engine: str) -> Quickstart:
        """Another run of the same world, from start to end, with another engine."""
        overrides, output = (*self.overrides, f"engine.name={engine}"), self.output.with_name(engine)
        done = call(command("run", self.config, *overrides, f"output={output}"))
        assert done.returncode == 0, done.stderr
        return Quickstart(self.config, overrides, output, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def vllm_quickstart(quickstart: Quickstart) -> Quickstart:
    """The quickstart as a user of vLLM runs it."""
    return quickstart.with_engine("vllm")


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    """Generated and run from start to end, as the README says, in small."""
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
        "stages=2",
        "select.budget={fraction = 0.2}",
        "train.batch_size=8",
        "train.micro_batch_size=8",
        "train.checkpoint_steps=4",
    )
    config, output = EXAMPLES / "quickstart/run.toml", directory / "undisturbed"
    done = call(command("run", config, *overrides, f"output={output}"))
    assert done.returncode == 0, done.stderr
    return Quickstart(config, overrides, output, done.stdout, done.stderr)
