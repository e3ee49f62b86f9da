"""The file for Ray's launcher on AWS: valid for Ray itself, closed to the world."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import ray
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.files import AWS, RUN, SPEC
from tests.cluster.test_manifests import HEAD as KUBERAY_HEAD

SCHEMA = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
TYPES = AWS["available_node_types"]


def test_ray_accepts_it() -> None:
    jsonschema.validate(AWS, SCHEMA)
    validate_config(prepare_config(AWS))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(AWS | {"unheard_of": 1}, SCHEMA)


def test_every_container_has_the_token_and_no_privileges() -> None:
    options = " ".join(AWS["docker"]["run_options"])
    (mounted,) = AWS["file_mounts"]
    assert f"-e RAY_AUTH_MODE=token -e RAY_AUTH_TOKEN_PATH={mounted}" in options
    assert "--cap-drop ALL" in options
    assert "no-new-privileges" in options
    assert "--privileged" not in options


def test_nothing_is_reachable_from_outside() -> None:
    assert AWS["provider"]["use_internal_ips"] is True
    (start,) = [command for command in AWS["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in start
    for node in TYPES.values():
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in node["node_config"]["BlockDeviceMappings"])


def test_same_image_labels_and_roles_as_on_kubernetes() -> None:
    assert AWS["docker"]["image"] == KUBERAY_HEAD["template"]["spec"]["containers"][0]["image"]
    assert TYPES[AWS["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    for group in SPEC["workerGroupSpecs"]:
        node = TYPES[group["groupName"]]
        assert node["labels"] == group["labels"] == RUN["cluster"][f"{group['groupName']}_nodes"]
        assert node["resources"]["GPU"] == 1
        assert 0 < node["min_workers"] <= node["max_workers"]
    assert AWS["max_workers"] >= sum(node.get("max_workers", 0) for node in TYPES.values())


def test_scoring_alone_is_on_spot() -> None:
    spot = {name for name, node in TYPES.items() if "InstanceMarketOptions" in node["node_config"]}
    assert spot == {"score"}
