"""What is placed where."""

from __future__ import annotations

from tests.plan.conftest import config_of
from zpd_ray.plan.rates import Memory
from zpd_ray.plan.room import Node, room

NODES = [Node("a", 8, 2, 32.0), Node("b", 8, 2, 32.0)]
SMALL = Memory(1.0)


def test_actors_spread_and_workers_pack() -> None:
    found = room(config_of(train={"workers": 1}), NODES, True, SMALL, SMALL)
    assert [(each.actors, each.workers) for each in found.nodes] == [(2, 1), (2, 0)]
    assert [each.needed for each in found.nodes] == [3.0, 2.0]
    assert found.fits


def test_in_turns_a_node_holds_the_larger_of_both() -> None:
    found = room(config_of(), NODES[:1], False, Memory(2.0), Memory(5.0))
    assert found.nodes[0].needed == 8.0
    assert found.fits


def test_labels_are_kept_apart() -> None:
    nodes = [Node("s", 8, 0, 32.0, {"zpd-ray": "score"}), Node("t", 8, 0, 32.0, {"zpd-ray": "train"})]
    found = room(config_of(cluster={"placement": "split"}), nodes, True, SMALL, SMALL)
    assert [(each.actors, each.workers) for each in found.nodes] == [(4, 0), (0, 1)]


def test_what_does_not_fit_is_said() -> None:
    cluster = {"gpus_per_actor": 1, "actors": 5}
    found = room(config_of(cluster=cluster), NODES, True, Memory(20.0, 90.0, 80.0), SMALL)
    assert not found.fits
    told = " ".join(found.problems)
    assert "4 of 5 scoring actors find a place" in told
    assert "a would need" in told
    assert "90 GiB of a GPU that has 80" in told


def test_a_model_that_one_gpu_does_not_hold_may_be_shared_out() -> None:
    large = Memory(1.0, 90.0, 80.0)
    whole = room(config_of(train={"workers": 2}), NODES, True, SMALL, large)
    shared = room(config_of(train={"workers": 2, "sharding": "fsdp"}), NODES, True, SMALL, large)
    told = "a train worker would need 90 GiB of a GPU that has 80"
    assert whole.problems == [f"{told}; train.sharding = 'fsdp' shares it among several"]
    assert shared.problems == [told]
