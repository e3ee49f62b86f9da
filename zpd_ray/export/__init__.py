"""Formats: a selection's rows as somebody else's trainer reads them. One small file each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zpd_ray.export.base import Format, FunctionFormat, Rows
from zpd_ray.registry import Registry

if TYPE_CHECKING:
    import pyarrow as pa

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


def selected(output: str, stage: int, method: str | None = None) -> Iterator[pa.Table]:
    """What a run has selected at a stage: tables of ``schema.SELECTED``, in order of rank.

    output: the run directory, path or URI. method: None takes the one that is trained on. Texts are read from
    the pool a table at a time, of at most some 50,000 rows. Raises ZpdError where there is no run, another
    version has written it, or the stage has no finished selection by the method.
    """
    # Here: the command line asks for the names of formats, and nothing else.
    from zpd_ray.rundir.begin import recorded_run
    from zpd_ray.rundir.selected import check_selected, selected_tables

    run = recorded_run(output)
    check_selected(run, stage, method or run.methods[0])
    return selected_tables(run, stage, method)
