"""Sums over parts: the same whoever adds them up, and the errors of tasks as they are."""

from __future__ import annotations

import json
import os
import sys
from itertools import chain

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from ray.exceptions import WorkerCrashedError

from tests.pipeline.processes import call
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster import parts
from zpd_ray.selection.counts import Counts, count
from zpd_ray.selection.top import Prefix

NAMES = [parts.part_name(index) for index in range(60)]


def of_part(name: str) -> Counts:
    """A histogram of keys that the name tells."""
    rng = np.random.default_rng(int(name[5:-8]))
    return count([Prefix()], rng.integers(0, 2**64, 50, dtype=np.uint64), rng.integers(1, 9, 50))


def assert_plain(found: Counts) -> None:
    plain = Counts.add(map(of_part, NAMES))
    for name in ("at", "rows", "weight"):
        assert_array_equal(getattr(found, name), getattr(plain, name))


@pytest.mark.parametrize("fan_out", [1, 3, 100])
def test_sums_are_those_of_all_parts_whoever_adds_them_up(
    local_ray: None, monkeypatch: pytest.MonkeyPatch, fan_out: int
) -> None:
    monkeypatch.setattr(parts, "FAN_OUT", fan_out)
    monkeypatch.setattr(parts, "HELD", 2 * fan_out)
    assert_plain(parts.total(NAMES, of_part, Counts.add))


def test_what_is_made_of_each_part_comes_once(local_ray: None) -> None:
    assert sorted(parts.results(NAMES, lambda name: name)) == NAMES
    assert parts.total(NAMES, lambda _: 1, parts.added) == len(NAMES)


def test_the_sum_of_no_parts_is_what_adding_nothing_gives(local_ray: None) -> None:
    assert parts.total([], of_part, Counts.add).rows.tolist() == []


@pytest.mark.parametrize("fan_out", [2, 100])
def test_the_error_of_a_task_arrives_as_it_was_raised(
    local_ray: None, monkeypatch: pytest.MonkeyPatch, fan_out: int
) -> None:
    monkeypatch.setattr(parts, "FAN_OUT", fan_out)

    def refuse(name: str) -> int:
        if name == NAMES[41]:
            raise ZpdError(f"{name} is damaged")
        return 1

    with pytest.raises(ZpdError) as raised:
        parts.total(NAMES, refuse, sum)
    assert type(raised.value) is ZpdError
    assert str(raised.value) == f"{NAMES[41]} is damaged"


@pytest.mark.parametrize(("parts_of", "pieces"), [(7, 3), (3, 3), (100, 7)])
def test_pieces_are_the_parts_in_order_and_nearly_of_one_size(parts_of: int, pieces: int) -> None:
    names = [parts.part_name(index) for index in range(parts_of)]
    split = parts._split(names, pieces)
    sizes = [len(piece) for piece in split]
    assert len(sizes) == pieces
    assert sum(sizes) == parts_of
    assert max(sizes) - min(sizes) <= 1
    assert list(chain(*split)) == names


CODE = """
import json, sys
import ray
from ray.cluster_utils import Cluster
from tests.pipeline.cluster.test_parts import NAMES, of_part
from zpd_ray.pipeline.cluster import parts
from zpd_ray.selection.counts import Counts

nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
for _ in range(2):
    nodes.add_node(num_cpus=2)
nodes.wait_for_nodes()
ray.init(address=nodes.address, log_to_driver=False)
parts.FAN_OUT = int(sys.argv[1])  # of the driver

added = []  # how many sums came to the driver

def seen(name):
    return of_part(name), {ray.get_runtime_context().get_node_id()}

def add(found):
    added.append(len(found))
    counts, where = zip(*found)
    return Counts.add(counts), set.union(*where)

try:
    total, where = parts.total(NAMES, seen, add)
    came = sum(added) - len(added) + 1  # what was added up is added again
    print(json.dumps([came, len(where), [c.tolist() for c in (total.at, total.rows, total.weight)]]))
finally:
    ray.shutdown()
    nodes.shutdown()
"""


@pytest.mark.nightly
@pytest.mark.parametrize(("fan_out", "came"), [(100, 48), (6, 8)])
def test_three_nodes_give_the_same_sums_and_the_driver_gets_few(fan_out: int, came: int) -> None:
    done = call([sys.executable, "-c", CODE, str(fan_out)])
    assert done.returncode == 0, done.stderr
    sums, nodes, columns = json.loads(done.stdout.splitlines()[-1])
    assert sums == came
    assert nodes > 1
    assert_plain(Counts(*(np.array(column) for column in columns)))


def test_a_part_that_ends_every_process_ends_the_sum(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "RETRIES", 1)
    with pytest.raises(WorkerCrashedError):
        parts.total(NAMES[:2], lambda name: os._exit(1) if name == NAMES[1] else 1, parts.added)
