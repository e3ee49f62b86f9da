"""Formats: a selection's rows as somebody else's trainer reads them. One small file each."""

from __future__ import annotations

from zpd_ray.export.base import Format, FunctionFormat, Rows
from zpd_ray.export.rows import selected
from zpd_ray.registry import Registry

__all__ = ["FORMATS", "Format", "Rows", "load", "selected"]

FORMATS = Registry(
    "export format",
    "a function(rows, directory) or a class with the methods of zpd_ray.export.Format",
    {
        "trl": "zpd_ray.export.trl:Trl",
        "trl-grpo": "zpd_ray.export.trl_grpo:TrlGrpo",
        "llama-factory": "zpd_ray.export.llama_factory:LlamaFactory",
        "axolotl": "zpd_ray.export.axolotl:Axolotl",
        "verl": "zpd_ray.export.verl:Verl",
        "hf": "zpd_ray.export.hf:Hf",
        "jsonl": "zpd_ray.export.jsonl:Jsonl",
        "parquet": "zpd_ray.export.parquet:Parquet",
    },
    ("write", "needs", "hint"),
)


def load(name: str) -> Format:
    """The format of a name, or what ``package.module:function`` (or a class) names.

    Raises ZpdError for an unknown name (with the nearest), or one that cannot be imported.
    """
    found = FORMATS.load(name)
    format: Format = found() if isinstance(found, type) else FunctionFormat(found)
    return format
