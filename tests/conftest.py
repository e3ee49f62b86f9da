"""One local Ray for all tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray with four logical CPUs, whatever the machine has."""
    import ray

    from zpd_ray.config import ClusterConfig
    from zpd_ray.pipeline.session import start

    start(ClusterConfig(), cpus=4)
    yield
    ray.shutdown()
