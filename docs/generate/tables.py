"""Every column of every table: name, arrow type, meaning."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from generate.markdown import code, prose, table
from generate.source import column_comments, first_sentence, source_of
from zpd_ray import schema
from zpd_ray.measures import MEASURES

HEAD = ("column", "type", "meaning")


class Files(NamedTuple):
    """Files with the same columns. schema: its name in ``zpd_ray.schema``; parts: those it is made of."""

    schema: str
    parts: tuple[str, ...]
    where: str
    row: str


FILES = (
    Files("ITEM", ("ITEM",), "`pool/`, `evaluation/pool/`", "An item of the pool or of the evaluation set."),
    Files(
        "QUARANTINE",
        ("QUARANTINE",),
        "`quarantine/pool/`, `quarantine/evaluation/pool/`",
        "A row of the source that was put aside.",
    ),
    Files(
        "RANK",
        ("PLACE", "SELECTION"),
        "`stages/NN/selected/`, `stages/NN/beside/METHOD/selected/`",
        "Where a selected item lies in the pool, in order of rank.",
    ),
    Files(
        "SELECTED",
        ("ITEM", "PAIR", "SELECTION"),
        "`zpd_ray.export.selected`, and what an export format is given",
        "A selected item with its texts, in order of rank, as trainers of conversations take it.",
    ),
    Files("STEP", ("STEP",), "`stages/NN/steps.parquet`", "An optimiser step of our own trainer."),
)


def tables() -> str:
    """A heading and a table for each schema."""
    told = column_comments(source_of(schema.__name__))
    return "\n".join(
        f"### {files.where}\n\n{files.row}\n\n"
        + _columns(
            getattr(schema, files.schema), {k: v for part in files.parts for k, v in told[part].items()}
        )
        for files in FILES
    )


def measures() -> str:
    """A heading and a table for each measure of the package."""
    return "\n".join(
        f"### `stages/NN/measurements/{name}/`\n\n{prose(first_sentence(path))}\n\n"
        + _columns(MEASURES.load(name).columns, _comments_of(path))
        for name, path in MEASURES.items()
    )


def _columns(columns: pa.Schema, told: dict[str, str]) -> str:
    return table(
        HEAD, [(code(each.name), _type(each.type), prose(told.get(each.name, ""))) for each in columns]
    )


def _type(kind: pa.DataType) -> str:
    names = {pa.list_(schema.MESSAGE): "list of messages", pa.list_(pa.string()): "list of strings"}
    return names.get(kind, str(kind))


def _comments_of(path: str) -> dict[str, str]:
    """Beside the columns of a measure, or in the schema that they are taken from."""
    own = column_comments(source_of(path.partition(":")[0])).get("columns")
    return own or column_comments(source_of(schema.__name__))["MEASUREMENT"]
