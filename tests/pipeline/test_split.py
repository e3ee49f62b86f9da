"""Split placement: measuring overlaps training, and says how it lags."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest
import ray

from tests.pipeline.conftest import simulated_values, table_of
from tests.pipeline.processes import SELECTED, Quickstart, call, run_here
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.resources import check_resources
from zpd_ray.report.summary import idle_share
from zpd_ray.rundir.records import load_events, load_fit
from zpd_ray.rundir.store import Store

CODE = """
import sys
import ray
from ray.cluster_utils import Cluster
from zpd_ray.config_file import load_config
from zpd_ray.pipeline.commands import perform

nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
nodes.add_node(num_cpus=1, labels={"zpd-ray": "score"})
nodes.add_node(num_cpus=1, labels={"zpd-ray": "train"})
nodes.wait_for_nodes()
try:
    perform("run", load_config(sys.argv[1], [*sys.argv[2:], f"cluster.address={nodes.address}"]))
finally:
    ray.shutdown()
    nodes.shutdown()
"""


def on_one_node(config: Path, overrides: tuple[str, ...]) -> None:
    """On the tests' Ray: to score and to train are said to be for the one node that it has."""
    (node,) = ray.nodes()
    label = f"{{'ray.io/node-id' = '{node['NodeID']}'}}"
    run_here("run", config, *overrides, f"cluster.score_nodes={label}", f"cluster.train_nodes={label}")


def on_nodes_of_their_own(config: Path, overrides: tuple[str, ...]) -> None:
    """On a cluster of three raylets."""
    done = call([sys.executable, "-c", CODE, str(config), *overrides])
    assert done.returncode == 0, done.stderr


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((on_one_node, 2), id="on_one_node"),
        pytest.param((on_nodes_of_their_own, 3), id="on_nodes_of_their_own", marks=pytest.mark.nightly),
    ],
)
def split(
    quickstart: Quickstart, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Store:
    """A run in which a stage is measured while the one before trains."""
    place, stages = request.param
    output = quickstart.partly(tmp_path_factory.mktemp("split") / "run", {"00": SELECTED})
    (output / "events.jsonl").unlink()  # of another run, whose train workers idled otherwise
    changed = (f"stages={stages}", "train.rehearse=false", "cluster.placement=split", f"output={output}")
    place(quickstart.config, (*quickstart.overrides, *changed))
    return Store(str(output))


def stages_of(split: Store) -> int:
    return len(split.entries("stages"))


def test_the_fit_states_how_stale_its_measurement_is(split: Store) -> None:
    stages = range(stages_of(split))
    assert [load_fit(split, stage).staleness for stage in stages] == [0, 1, 1][: len(stages)]
    measured = [table_of(split, f"stages/{stage:02d}/measurements/answers") for stage in stages]
    assert measured[1].equals(measured[0])  # by the base model both times: stage 0 was training
    assert not any(later.equals(measured[0]) for later in measured[2:])


def test_nothing_is_trained_on_twice(split: Store) -> None:
    """But for what is replayed."""
    tables = [table_of(split, f"stages/{stage:02d}/selected") for stage in range(stages_of(split))]
    zones = [table.filter(pc.not_equal(table["reason"], "replay")) for table in tables]
    chosen = [set(zone["item_id"].to_pylist()) for zone in zones]
    assert len(set.union(*chosen)) == sum(map(len, chosen)) > 0


def test_the_next_stage_is_measured_while_this_one_trains(split: Store) -> None:
    events = {(event.step, event.stage): event for event in load_events(split)}
    later = range(1, stages_of(split))
    for stage in range(len(later)):
        train, measure = events["train", stage], events["measure", stage + 1]
        assert measure.at - measure.seconds < train.at, "measuring began after training had ended"
    assert "waited" not in events["train", 0].details
    assert all(events["train", stage].details["waited"] >= 0 for stage in later)
    idle = idle_share(load_events(split))
    assert idle is not None
    assert 0 < idle < 1


def test_without_nodes_of_their_own_it_is_refused(local_ray: None, tmp_path: Path) -> None:
    config = validate(simulated_values(tmp_path, n=1, cluster={"placement": "split"}))
    told = r"no room for the scoring actors: .*'zpd-ray': 'score'.*0 of 1 nodes.*ray start --labels"
    with pytest.raises(ZpdError, match=told):
        check_resources(config)
