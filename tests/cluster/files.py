"""The files in cluster/, read for the tests."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
KUBERAY = CLUSTER / "kuberay"

Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    return list(yaml.safe_load_all(path.read_text()))


BASE = {document["kind"]: document for document in documents(KUBERAY / "base.yaml")}
(RAYCLUSTER,) = documents(KUBERAY / "raycluster.yaml")
(RAYJOB,) = documents(KUBERAY / "rayjob.yaml")
(AWS,) = documents(CLUSTER / "aws.yaml")
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUN_TOML = BASE["ConfigMap"]["data"]["run.toml"]
RUN = tomllib.loads(RUN_TOML)

SPEC = RAYCLUSTER["spec"]
HEAD = SPEC["headGroupSpec"]
WORKERS = {group["groupName"]: group for group in SPEC["workerGroupSpecs"]}
RAY_PODS = {"head": HEAD["template"], **{name: group["template"] for name, group in WORKERS.items()}}
PODS = {**RAY_PODS, "submitter": RAYJOB["spec"]["submitterPodTemplate"]}


def instructions(name: str) -> list[str]:
    """Arguments of the Dockerfile's instructions of one name, in order."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name}\s+(.*)$", joined, flags=re.MULTILINE)


def quantity(text: str) -> int:
    """Bytes of a Kubernetes quantity in Gi."""
    assert text.endswith("Gi"), text
    return int(text.removesuffix("Gi")) * 2**30
