"""One local Ray, and one run of the quickstart, for all tests that need one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.pipeline.processes import quickstart as quickstart  # fixtures: one run for several modules
from tests.pipeline.processes import vllm_quickstart as vllm_quickstart


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray with four logical CPUs, whatever the machine has."""
    import ray

    from zpd_ray.config import ClusterConfig
    from zpd_ray.pipeline.cluster.session import start

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 2)
        start(ClusterConfig(), cpus=2)
    yield
    ray.shutdown()
