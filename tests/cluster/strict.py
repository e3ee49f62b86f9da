"""Schemas of Kubernetes custom resources, made to refuse fields that they do not name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """An openAPIV3Schema as a JSON schema that refuses what an API server would drop without a word."""
    out = dict(schema)
    if out.pop("x-kubernetes-int-or-string", False):
        return {"type": ["integer", "string"]}
    if out.pop("nullable", False) and "type" in out:
        out["type"] = [out["type"], "null"]
    if "properties" in out:
        out["properties"] = {name: strict(value) for name, value in out["properties"].items()}
        open_ended = out.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in out
        if not open_ended:
            out["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = strict(out[key])
    return out


def crd_schema(directory: Path, kind: str) -> dict[str, Any]:
    """The strict schema of ``kind`` at ray.io/v1, from the CRDs in a directory."""
    documents = [d for file in sorted(directory.glob("*.yaml")) for d in yaml.safe_load_all(file.read_text())]
    (crd,) = [d for d in documents if d and d["spec"]["names"]["kind"] == kind]
    (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
    return strict(version["schema"]["openAPIV3Schema"])
