"""Whatever dies at whatever moment, the run ends as the undisturbed one: docs/faults.md has the matrix."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import KINDS, Fault, LocalNodes, Sufferer, plan
from tests.chaos.links import CUTS, LinkedNodes, permitted
from tests.pipeline.conftest import Simulate, simulated_file
from tests.pipeline.conftest import simulate as simulate  # a fixture
from tests.pipeline.processes import Quickstart, Simulated
from tests.pipeline.test_resume import EXACT, assert_same_files, assert_same_result

RUNS, FAULTS, LINK_RUNS = 20, 5, 5


def struck(
    runs: Quickstart | Simulated, run: Path, faults: list[Fault], nodes: LocalNodes | LinkedNodes
) -> list[Fault]:
    """Those of the faults that hit something, in a run that ended well."""
    with nodes:
        sufferer = Sufferer(runs, run, nodes)
        try:
            hit = [fault for fault in faults if sufferer.suffer(fault)]
            sufferer.finish()
        finally:
            sufferer.close()
    return hit


def test_the_plan_is_a_function_of_the_seed(quickstart: Quickstart) -> None:
    plans = [plan(quickstart.output, seed, FAULTS) for seed in range(RUNS)]
    assert plans == [plan(quickstart.output, seed, FAULTS) for seed in range(RUNS)]
    assert len({tuple(faults) for faults in plans}) == RUNS
    kinds = Counter(fault.kind for faults in plans for fault in faults)
    assert kinds.keys() == set(KINDS)
    assert max(kinds.values()) - min(kinds.values()) <= 1


NODE = Fault("raylet", "stages/00/measurements/answers/part-000000.parquet", 0.0)
DRIVER = Fault("driver", "stages/01/measurements/answers/part-000000.parquet", 0.0)


def assert_the_same(
    simulate: Simulate, place: Path, run: dict[str, Any], faults: list[Fault], nodes: LocalNodes
) -> None:
    """As an undisturbed run on the tests' Ray; every fault has to hit something."""
    _, undisturbed = simulate(n=3000, **run)
    assert struck(simulated_file(place, n=3000, **run), place / "run", faults, nodes) == faults
    untrained = [pattern for pattern in EXACT if "adapter" not in pattern]
    assert_same_files(place / "run", Path(undisturbed.root), untrained)


def test_a_node_dies(simulate: Simulate, tmp_path: Path) -> None:
    """With an engine that computes nothing: what dies while training is in tests/pipeline/train."""
    assert_the_same(simulate, tmp_path, {"stages": 1, "pool": {"items_per_part": 100}}, [NODE], LocalNodes(1))


@pytest.mark.nightly
def test_a_node_the_driver_and_actors_die(simulate: Simulate, tmp_path: Path) -> None:
    faults = [
        NODE,
        Fault("ability actor", "stages/00/fit.json", 0.0),
        DRIVER,
        Fault("scoring actor", "stages/02/measurements/answers/part-000000.parquet", 0.0),
    ]
    assert_the_same(simulate, tmp_path, {"stages": 3, "pool": {"items_per_part": 100}}, faults, LocalNodes())


@pytest.mark.nightly
def test_a_node_the_driver_and_both_controllers_die(quickstart: Quickstart, tmp_path: Path) -> None:
    faults = [
        Fault("raylet", "stages/00/measurements/answers/part-000000.parquet", 0.1),
        Fault("stage controller", "stages/00/selection.json", 0.5),
        Fault("driver", "stages/01/measurements/answers/part-000000.parquet", 0.0),
        Fault("Ray Train's controller", "stages/01/selection.json", 0.2),
    ]
    assert struck(quickstart, tmp_path / "run", faults, LocalNodes()) == faults
    assert_same_result(tmp_path / "run", quickstart.output)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(RUNS))
def test_five_seeded_faults(quickstart: Quickstart, tmp_path: Path, seed: int) -> None:
    faults = plan(quickstart.output, seed, FAULTS)
    hit = struck(quickstart, tmp_path / "run", faults, LocalNodes())
    print(f"seed {seed}: {len(hit)} of {len(faults)} hit:", *hit, sep="\n  ")
    assert len(hit) >= FAULTS - 2
    assert_same_result(tmp_path / "run", quickstart.output)


@pytest.mark.slow
@pytest.mark.skipif(not permitted(), reason="network namespaces are not permitted here")
@pytest.mark.parametrize("seed", range(LINK_RUNS))
def test_two_cuts_of_a_node_s_link(quickstart: Quickstart, tmp_path: Path, seed: int) -> None:
    faults = plan(quickstart.output, seed, len(CUTS), tuple(CUTS))
    hit = struck(quickstart, tmp_path / "run", faults, LinkedNodes())
    print(f"seed {seed}: {len(hit)} of {len(faults)} hit:", *hit, sep="\n  ")
    assert hit
    assert_same_result(tmp_path / "run", quickstart.output)
