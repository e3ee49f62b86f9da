"""Tables and code in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a cell that is empty in all rows loses its column."""
    cells = [list(head), *([_cell(text) for text in row] for row in rows)]
    kept = [at for at in range(len(head)) if any(row[at] for row in cells[1:])]
    lines = ["| " + " | ".join(row[at] for at in kept) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(kept), *lines[1:]]) + "\n"


def code(text: object) -> str:
    """In code type; a bar inside would end a cell."""
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def prose(docstring: str) -> str:
    """A docstring as a paragraph: what it puts in double backticks is code here."""
    return " ".join(docstring.split()).replace("``", "`").replace("*", "\\*").replace("<", "\\<")
