"""Faults at seeded moments: what is struck, when, and how the run is brought to its end."""

from __future__ import annotations

import os
import random
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
from ray.cluster_utils import Cluster

from tests.pipeline.processes import RUN_SECONDS, Quickstart, Simulated, descendants

# What is struck: titles of its processes. The driver and a raylet are known otherwise.
TITLES = {
    "scoring actor": "ray::Scorer",
    "dispatcher": "ray::MapBatches(hand_out)",
    "ability actor": "ray::AbilityActor",
    "stage controller": "ray::Controller",
    "Ray Train's controller": "ray::TrainController",
    "train worker": "ray::RayTrainWorker",
}
KINDS = ("driver", "raylet", *TITLES)
MOST_DELAY = 1.5  # seconds after the moment
PRESENT_SECONDS = 20.0  # in which what is to be struck appears
# After which files something is at work that can be struck; anything can be after others.
SCORING = "answers/*.parquet|base/evaluation/*.parquet|00/evaluation/*.parquet"
TRAINING = "selection.json|00/canary.parquet"
WHILE = {
    "scoring actor": SCORING,
    "dispatcher": SCORING,
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


def plan(reference: Path, seed: int, count: int, kinds: tuple[str, ...] = KINDS) -> list[Fault]:
    """``count`` faults in the order of their moments: a function of seed and files of the reference run."""
    rng = random.Random(seed)
    files = [path for path in reference.rglob("*") if path.is_file() and not path.name.startswith(".")]
    rewritten = ("config.toml", "events.jsonl", "manifest.json", "progress.json")
    files = [path for path in files if path.name not in rewritten]
    order = {str(p.relative_to(reference)): p.stat().st_mtime_ns for p in sorted(files)}
    faults = []
    for index in range(count):
        kind = kinds[(seed * count + index) % len(kinds)]  # every kind as often as any other
        fitting = [
            name for name in order if any(Path(name).match(p) for p in WHILE.get(kind, "*").split("|"))
        ]
        faults.append(Fault(kind, rng.choice(fitting), round(rng.uniform(0, MOST_DELAY), 3)))
    return sorted(faults, key=lambda fault: (order[fault.moment], fault.delay))


class Nodes(Protocol):
    """A cluster on which a run suffers."""

    address: str

    def command(self, command: list[str]) -> list[str]:
        """The command as it is called to run on the head."""
        ...

    def strike(self, kind: str) -> bool:
        """A fault of the cluster's own; False when there was nothing to strike."""
        ...


class LocalNodes:
    """A head (1 CPU) and two nodes, by their raylets."""

    def __init__(self, cpus: int = 2) -> None:
        """cpus: of each of the two."""
        self.cpus = cpus

    def __enter__(self) -> LocalNodes:
        # Idle processes stay for a minute, as in a local session: starting them is what small runs wait for.
        head = {"num_cpus": 1, "_system_config": {"idle_worker_killing_time_threshold_ms": 60_000}}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.others = [self.cluster.add_node(num_cpus=self.cpus) for _ in range(2)]
        self.cluster.wait_for_nodes()
        self.address: str = self.cluster.address
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.shutdown()

    def command(self, command: list[str]) -> list[str]:
        """As it is."""
        return command

    def strike(self, kind: str) -> bool:
        """A node dies with all that is on it, and another one joins; or a process of some title."""
        if kind != "raylet":
            return _kill(TITLES[kind])
        self.cluster.remove_node(self.others.pop(0), allow_graceful=False)
        self.others.append(self.cluster.add_node(num_cpus=self.cpus))
        return True


class Sufferer:
    """A run on a cluster, started again whenever its driver dies."""

    def __init__(self, runs: Quickstart | Simulated, run: Path, nodes: Nodes) -> None:
        self.runs, self.run, self.nodes = runs, run, nodes
        self.log = run.parent / f"{run.name}.log"
        self.driver = self._start()

    def _start(self) -> subprocess.Popen[str]:
        command = self.runs.command(self.run)
        address = ["--set", f"cluster.address={self.nodes.address}"]
        with self.log.open("a") as log:
            return subprocess.Popen(
                self.nodes.command([*command, *address]), stdout=log, stderr=subprocess.STDOUT, text=True
            )

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
        return self.nodes.strike(fault.kind)

    def finish(self) -> None:
        """Wait for the end of the run, which has to be a good one."""
        assert self.driver.wait(RUN_SECONDS) == 0, self.log.read_text()

    def close(self) -> None:
        """At an early end, too."""
        self.driver.kill()
        self.driver.wait()


def _kill(title: str) -> bool:
    """SIGKILL for one process of that title, as soon as there is one."""
    deadline = time.monotonic() + PRESENT_SECONDS
    while time.monotonic() < deadline:
        for process in descendants(os.getpid(), title):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue  # it ended since it was listed: the next one, or the next try
            return True
        time.sleep(0.05)
    return False
