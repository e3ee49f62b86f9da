"""The Kubernetes files keep their promises: read offline, since there is no Kubernetes here."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from tests.cluster.files import (
    BASE,
    CLUSTER,
    DOCKERFILE,
    HEAD,
    PODS,
    PROJECT,
    RAY_PODS,
    RAYCLUSTER,
    RAYJOB,
    ROOT,
    RUN,
    RUN_TOML,
    SPEC,
    WORKERS,
    Document,
    documents,
    instructions,
    quantity,
)
from tests.cluster.strict import crd_schema, strict
from zpd_ray import __version__
from zpd_ray.config_file import load_config

GPU = "nvidia.com/gpu"
KUBERNETES = "1.32"
SECRET = re.compile(r"\b[0-9a-fA-F]{32,}\b|\bAKIA[0-9A-Z]{16}\b|BEGIN [A-Z ]*PRIVATE KEY|\bhf_\w{20,}")


def containers(template: Document) -> list[Document]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def test_the_job_runs_on_the_cluster_of_the_other_file() -> None:
    assert RAYJOB["spec"]["rayClusterSpec"] == SPEC


@pytest.mark.parametrize("name", PODS)
def test_pods_run_without_root_and_without_privileges(name: str) -> None:
    pod = PODS[name]["spec"]["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert instructions("USER") == [f"{pod['runAsUser']}:{pod['runAsGroup']}"]
    contexts = [container["securityContext"] for container in containers(PODS[name])]
    for context in [*contexts, SPEC["autoscalerOptions"]["securityContext"]]:
        assert context["runAsNonRoot"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        assert key not in PODS[name]["spec"]
    assert not [v for v in PODS[name]["spec"].get("volumes", []) if "hostPath" in v]


@pytest.mark.parametrize("name", [*WORKERS, "submitter"])
def test_only_the_head_whose_autoscaler_needs_it_talks_to_kubernetes(name: str) -> None:
    assert PODS[name]["spec"]["automountServiceAccountToken"] is False


def test_tokens_are_asked_for_and_the_head_stays_inside() -> None:
    assert SPEC["authOptions"] == {"mode": "token"}
    assert HEAD["serviceType"] == "ClusterIP"
    assert HEAD["enableIngress"] is False
    policy = BASE["NetworkPolicy"]["spec"]
    member = policy["podSelector"]["matchLabels"]
    assert policy["policyTypes"] == ["Ingress"]
    assert all(member.items() <= PODS[name]["metadata"]["labels"].items() for name in PODS)
    among_us, operator = policy["ingress"]
    assert among_us == {"from": [{"podSelector": {"matchLabels": member}}]}
    assert [port["port"] for port in operator["ports"]] == [8265]
    assert all("podSelector" in source for source in operator["from"])


def autoscaling() -> Any:
    """What Ray's own autoscaler makes of the cluster's description."""
    described = RAYCLUSTER | {"metadata": RAYCLUSTER["metadata"] | {"namespace": "default"}}
    return _derive_autoscaling_config_from_ray_cr(described)["available_node_types"]


def test_nothing_is_computed_on_the_head() -> None:
    head = autoscaling()["headgroup"]
    assert head["resources"]["CPU"] == 0
    assert head["resources"].get("GPU", 0) == 0
    for container in containers(HEAD["template"]):
        assert GPU not in container["resources"]["limits"]


@pytest.mark.parametrize("name", ["score", "train"])
def test_workers_grow_and_shrink_and_carry_the_labels_that_the_run_selects(name: str) -> None:
    group, seen = WORKERS[name], autoscaling()[name]
    assert 0 < group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert (seen["min_workers"], seen["max_workers"]) == (group["minReplicas"], group["maxReplicas"])
    assert seen["labels"] == RUN["cluster"][f"{name}_nodes"] == {"zpd-ray": name}
    assert seen["resources"]["GPU"] == 1
    assert SPEC["enableInTreeAutoscaling"] is True
    assert SPEC["autoscalerOptions"]["version"] == "v2"  # the one that knows labels
    assert group["template"]["spec"]["restartPolicy"] == "Never"  # which it asks for


def test_the_run_asks_for_no_more_than_is_there_from_the_start() -> None:
    nodes, run = autoscaling(), RUN["cluster"]
    asked = {
        "score": (run["actors"], run["cpus_per_actor"], run["gpus_per_actor"]),
        "train": (RUN["train"]["workers"], run["cpus_per_train_worker"], run["gpus_per_train_worker"]),
    }
    spare = 0.0
    for name, (count, cpus, gpus) in asked.items():
        has, number = nodes[name]["resources"], nodes[name]["min_workers"]
        fitting = min(has["CPU"] // cpus, has["GPU"] // gpus)
        assert count <= number * fitting
        spare += number * has["CPU"] - count * cpus
    assert spare >= 1  # a task that reads and writes parts


def test_the_run_is_a_config_of_ours(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN_TOML)
    assert load_config(str(tmp_path / "run.toml")).cluster.address == "auto"


def keys(terms: list[Document]) -> dict[str, str]:
    return {e["key"]: e["operator"] for term in terms for e in term["matchExpressions"]}


def test_scoring_goes_to_spot_nodes_and_nothing_else_does() -> None:
    affinity = WORKERS["score"]["template"]["spec"]["affinity"]["nodeAffinity"]
    wanted = keys([p["preference"] for p in affinity["preferredDuringSchedulingIgnoredDuringExecution"]])
    assert len(wanted) >= 3
    assert set(wanted.values()) == {"In"}
    tolerated = {t["key"] for t in WORKERS["score"]["template"]["spec"]["tolerations"]}
    assert tolerated > {GPU}
    for pod in (HEAD["template"], WORKERS["train"]["template"]):
        required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert keys(required["nodeSelectorTerms"]) == dict.fromkeys(wanted, "NotIn")
        assert {t["key"] for t in pod["spec"].get("tolerations", [])} <= {GPU}
    # A pod must be gone before its node is: some clouds give 30 s in all.
    assert WORKERS["score"]["template"]["spec"]["terminationGracePeriodSeconds"] < 30


@pytest.mark.parametrize("name", RAY_PODS)
def test_every_node_has_the_shared_storage_and_memory_for_its_objects(name: str) -> None:
    spec = RAY_PODS[name]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    (container,) = spec["containers"]
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    claim = BASE["PersistentVolumeClaim"]["metadata"]["name"]
    assert mounts["/mnt/zpd"]["persistentVolumeClaim"]["claimName"] == claim
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    group = HEAD if name == "head" else WORKERS[name]
    store = int(group["rayStartParams"]["object-store-memory"])
    room = quantity(mounts["/dev/shm"]["emptyDir"]["sizeLimit"])
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    assert store < room < quantity(limits["memory"])
    assert requests == limits  # nodes that Ray may fill are not overbooked


def test_what_the_run_reads_and_writes_is_on_shared_storage() -> None:
    assert BASE["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    for path in (RUN["output"], RUN["pool"]["path"], RUN["evaluation"]["path"], RUN["model"]["path"]):
        assert path.startswith("/mnt/zpd/")


def test_the_job_resumes_and_gives_its_machines_back() -> None:
    job = RAYJOB["spec"]
    program, command, config = shlex.split(job["entrypoint"])
    assert (program, command) == ("zpd-ray", "run")
    (mount,) = [m for m in HEAD["template"]["spec"]["containers"][0]["volumeMounts"] if m["name"] == "run"]
    assert config in [f"{mount['mountPath']}/{name}" for name in BASE["ConfigMap"]["data"]]
    assert job["shutdownAfterJobFinishes"] is True
    assert job["ttlSecondsAfterFinished"] > 0
    assert job["backoffLimit"] > 0


def test_one_ray_everywhere_and_it_is_the_one_we_pin() -> None:
    (pin,) = [r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "ray"]
    assert pin.specifier.contains(SPEC["rayVersion"])
    assert f"RAY_VERSION={SPEC['rayVersion']}" in instructions("ARG")
    tag = f"zpd-ray:{__version__}-ray{SPEC['rayVersion']}"
    images = [container["image"] for pod in PODS.values() for container in containers(pod)]
    assert {image.rpartition("/")[2] for image in images} == {tag}
    assert tag in DOCKERFILE


def test_the_image_takes_the_package_and_nothing_else() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {name for line in instructions("COPY") for name in line.split()[:-1]}
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)
    assert not instructions("ADD")


@pytest.mark.parametrize("path", sorted(p for p in CLUSTER.rglob("*") if p.is_file()), ids=lambda p: p.name)
def test_no_secret_is_written_down(path: Path) -> None:
    text = path.read_text()
    assert not SECRET.search(text)
    if path.suffix == ".yaml":
        assert not [d for d in documents(path) if d.get("kind") == "Secret"]
    assert not re.search(r"RAY_AUTH_TOKEN[=:]\s*[\"']?\w", text)


@pytest.mark.parametrize("name", [*BASE, *PODS])
def test_kubernetes_knows_every_field(name: str) -> None:
    """Against Kubernetes' own schemas, where the package that carries them is installed."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    pod = {"apiVersion": "v1", "kind": "Pod", **PODS[name]} if name in PODS else BASE[name]
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    with pytest.raises(jsonschema.ValidationError):
        kubernetes_validate.validate(pod | {"unheardOf": 1}, KUBERNETES, strict=True)


@pytest.mark.parametrize("resource", [RAYCLUSTER, RAYJOB], ids=["RayCluster", "RayJob"])
def test_kuberay_knows_every_field(resource: Document) -> None:
    """Against KubeRay's CRDs, in the directory that KUBERAY_CRDS names (helm-chart/kuberay-operator/crds)."""
    directory = os.environ.get("KUBERAY_CRDS")
    if not directory:
        pytest.skip("KUBERAY_CRDS names no directory with KubeRay's CRDs")
    schema = crd_schema(Path(directory), resource["kind"])
    jsonschema.validate(resource, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(resource | {"spec": resource["spec"] | {"unheardOf": 1}}, schema)


CRD = """
spec:
  names: {kind: RayCluster}
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            metadata: {type: object}
            spec:
              type: object
              required: [groups]
              properties:
                groups:
                  type: array
                  items: {type: object, properties: {port: {x-kubernetes-int-or-string: true}}}
                labels: {type: object, additionalProperties: {type: string}}
                free:
                  type: object
                  x-kubernetes-preserve-unknown-fields: true
                  properties: {a: {type: string}}
                maybe: {type: string, nullable: true}
"""


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ({"groups": [{"port": "http"}, {"port": 80}], "labels": {"any": "x"}, "maybe": None}, True),
        ({"groups": [], "free": {"a": "x", "b": 1}}, True),
        ({"groups": [{"prt": 80}]}, False),
        ({"groups": [{"port": [80]}]}, False),
        ({"groups": [], "labels": {"any": 1}}, False),
        ({"labels": {}}, False),
        ({"groups": [], "group": []}, False),
    ],
)
def test_strict_schemas_refuse_what_they_do_not_name(spec: Document, fits: bool, tmp_path: Path) -> None:
    (tmp_path / "crd.yaml").write_text(CRD)
    schema = crd_schema(tmp_path, "RayCluster")
    resource = {"metadata": {"name": "x"}, "spec": spec}
    assert jsonschema.Draft202012Validator(schema).is_valid(resource) is fits


def test_strictness_keeps_the_schema_as_it_was() -> None:
    before = yaml.safe_load(CRD)
    strict(before["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    assert before == yaml.safe_load(CRD)
