"""Faults at seeded moments: what is struck, when, and how the run is brought to its end."""

from __future__ import annotations

import os
import random
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster

from tests.pipeline.processes import RUN_SECONDS, Quickstart, descendants

# What is struck: titles of its processes. The driver and a raylet are known otherwise.
TITLES = {
    "scoring actor": "ray::Scorer",
    "desk": "ray::Desk",
    "ability actor": "ray::AbilityActor",
    "stage controller": "ray::Controller",
    "Ray Train's controller": "ray::TrainController",
    "train worker": "ray::RayTrainWorker",
}
KINDS = ("driver", "raylet", *TITLES)
MOST_DELAY = 1.5  # seconds after the moment
PRESENT_SECONDS = 20.0  # in which what is to be struck appears
# After which files something is at work that can be struck; after the last of a run nothing is.
SCORING = "measurements/*.parquet|base/evaluation/*.parquet|00/evaluation/*.parquet"
TRAINING = "selection.json|00/canary.parquet"
WHILE = {
    "driver": "*",
    "raylet": "*",
    "scoring actor": SCORING,
    "desk": SCORING,
    "ability actor": "fit.json|measured.json",
    "stage controller": TRAINING,
    "Ray Train's controller": TRAINING,
    "train worker": TRAINING,
}


@dataclass(frozen=True)
class Fault:
    """kind: what is killed; moment: the file of the run directory that starts the clock; delay: seconds."""

    kind: str
    moment: str
    delay: float


def plan(reference: Path, seed: int, count: int) -> list[Fault]:
    """``count`` faults in the order of their moments: a function of seed and files of the reference run."""
    rng = random.Random(seed)
    files = [path for path in reference.rglob("*") if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if path.name not in ("config.toml", "events.jsonl", "manifest.json")]
    order = {str(p.relative_to(reference)): p.stat().st_mtime_ns for p in sorted(files)}
    faults = []
    for index in range(count):
        kind = KINDS[(seed * count + index) % len(KINDS)]  # every kind as often as any other
        fitting = [name for name in order if any(Path(name).match(p) for p in WHILE[kind].split("|"))]
        faults.append(Fault(kind, rng.choice(fitting), round(rng.uniform(0, MOST_DELAY), 3)))
    return sorted(faults, key=lambda fault: (order[fault.moment], fault.delay))


class Sufferer:
    """A run on a cluster of a head and two nodes, started again whenever its driver dies."""

    def __init__(self, quickstart: Quickstart, run: Path) -> None:
        self.quickstart, self.run = quickstart, run
        self.nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        self.others = [self.nodes.add_node(num_cpus=2) for _ in range(2)]
        self.nodes.wait_for_nodes()
        self.log = run.parent / f"{run.name}.log"
        self.driver = self._start()

    def _start(self) -> subprocess.Popen[str]:
        command = self.quickstart.command(self.run)
        address = ["--set", f"cluster.address={self.nodes.address}"]
        with self.log.open("a") as log:
            return subprocess.Popen([*command, *address], stdout=log, stderr=subprocess.STDOUT, text=True)

    def suffer(self, fault: Fault) -> bool:
        """Wait for the moment and strike; False when the run was over, or there was nothing to strike."""
        deadline = time.monotonic() + RUN_SECONDS
        while not (self.run / fault.moment).exists():
            if self.driver.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"{fault.moment} did not appear: {self.log.read_text()}"
            time.sleep(0.02)
        time.sleep(fault.delay)
        if self.driver.poll() is not None:
            return False
        if fault.kind == "driver":
            self.driver.kill()
            self.driver.wait()
            self.driver = self._start()
            return True
        return self._lose_node() if fault.kind == "raylet" else _kill(TITLES[fault.kind])

    def _lose_node(self) -> bool:
        """A node dies with all that is on it; another one joins."""
        self.nodes.remove_node(self.others.pop(0), allow_graceful=False)
        self.others.append(self.nodes.add_node(num_cpus=2))
        return True

    def finish(self) -> None:
        """Wait for the end of the run, which has to be a good one."""
        assert self.driver.wait(RUN_SECONDS) == 0, self.log.read_text()

    def close(self) -> None:
        self.driver.kill()
        self.nodes.shutdown()


def _kill(title: str) -> bool:
    """SIGKILL for one process of that title, as soon as there is one."""
    deadline = time.monotonic() + PRESENT_SECONDS
    while time.monotonic() < deadline:
        for process in descendants(os.getpid(), title):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
            return True
        time.sleep(0.05)
    return False
