"""One local Ray, and one run of the quickstart, for all tests that need one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.pipeline.processes import EXAMPLES, S3_KEY
from tests.pipeline.processes import address as address  # fixtures: one run for several modules
from tests.pipeline.processes import pronunciation as pronunciation
from tests.pipeline.processes import quickstart as quickstart
from tests.pipeline.processes import vllm_measured as vllm_measured
from tests.pipeline.processes import vllm_quickstart as vllm_quickstart
from tests.taken import taken as taken

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("zpd-ray", deadline=None)
settings.load_profile("zpd-ray")
# Ray's workers give way to every other process, and tests on the other core would starve them.
os.environ.setdefault("RAY_worker_niceness", "0")
# What Ray's own processes look at all the time they look at less often: tens of seconds of a core in all.
os.environ.setdefault("RAY_LOG_MONITOR_MANY_FILES_THRESHOLD", "0")
os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", "60000")
STARTUP = str(Path(__file__).with_name("startup"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [STARTUP, os.environ.get("PYTHONPATH")]))

# Tests of a group share a worker of pytest-xdist, and with it what is costly to start: a Ray, a run of the
# quickstart, the engines of vLLM. The first place that fits counts; elsewhere a file is a group.
GROUPS = {
    "tests/engines/test_vllm": "vllm",
    "tests/cluster/test_two_nodes": "nodes",
    "tests/pipeline/jobs": "jobs",
    "tests/pipeline/ingest": "ingest",
    "tests/test_bad_input": "ingest",
    "tests/pipeline/measure/test_measure": "measure",
    "tests/pipeline/train/test_train": "train",
    "tests/pipeline/test_run": "simulated",
    "tests/pipeline/select": "simulated",
    "tests/pipeline/rounds": "simulated",
    "tests/pipeline/cluster": "simulated",
    "tests/pipeline/test_own_method": "simulated",
    "tests/pipeline/test_own_parts": "simulated",
    "tests/report/test_every_run": "quickstart",
    "tests/report": "simulated",
    "tests/tracking": "simulated",
    "tests/export": "simulated",
    "tests/compare": "quickstart",
    "tests/docs/test_commands": "simulated",
    "tests/docs/test_exported": "simulated",
    "tests/pipeline": "quickstart",
    "tests/chaos": "quickstart",
    "tests/compare/test_plan": "quickstart",
    "tests/compare/test_compare": "quickstart",
}


# Groups that take longest begin first: pytest-xdist goes by the number of tests, and one worker would be left
# alone with them at the end.
LONGEST = ("quickstart", "vllm", "simulated", "train", "measure", "ingest", "jobs")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole groups go to whichever worker is free.

    Not by marks: pytest-xdist 3.8 adds a test's group to its id in a way that pytest 9.2 does not see.
    """
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            place = next((place for place in GROUPS if nodeid.startswith(place)), None)
            return GROUPS[place] if place else nodeid.partition("::")[0]

        def _assign_work_unit(self, node: Any) -> None:
            first = next((group for group in LONGEST if group in self.workqueue), None)
            if first is not None:
                self.workqueue.move_to_end(first, last=False)
            super()._assign_work_unit(node)

    return ByGroup(config, log)


FREE_SECONDS = 90.0  # within which the CPUs of what a test module has ended are free again


@pytest.fixture(scope="module", autouse=True)
def nothing_is_held() -> Iterator[None]:
    """What a module leaves running in Ray fails that module, and not one that waits for its CPUs."""
    yield
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    deadline = time.monotonic() + FREE_SECONDS
    while (held := _held(ray)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not held, f"{held} CPUs are held by {_holders(ray)}"


def _held(ray: Any) -> float:
    return float(ray.cluster_resources().get("CPU", 0.0) - ray.available_resources().get("CPU", 0.0))


def _holders(ray: Any) -> list[str]:
    """Actors and placement groups that have not ended."""
    from ray._private.state import actors
    from ray.util import placement_group_table

    alive = [f"{a['ActorClassName']} {a['State']}" for a in actors().values() if a["State"] != "DEAD"]
    groups = [str(group) for group in placement_group_table().values() if group["state"] != "REMOVED"]
    return alive + groups


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray with four logical CPUs, whatever the machine has, and what users have on their nodes."""
    from zpd_ray.config import ClusterConfig
    from zpd_ray.pipeline.cluster.session import start, stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 2)
        for name, value in S3_KEY.items():
            patch.setenv(name, value)
        own = [str(EXAMPLES / name) for name in ("own_loop", "own_parts")]
        paths = [*own, *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        start(ClusterConfig(), cpus=2)
    yield
    stop()
