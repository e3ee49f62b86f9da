"""A format of a user's own: a function in a file outside of the package."""

from __future__ import annotations

from pathlib import Path

from zpd_ray.export.base import Rows


def texts(rows: Rows, directory: Path) -> None:
    """Prompts as plain text, a line each."""
    lines = [row[0]["content"] for table in rows for row in table["prompt"].to_pylist()]
    (directory / "prompts.txt").write_text("\n".join(lines))
