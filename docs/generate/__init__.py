"""What the reference says, read from the code when the site is built, so that it cannot go stale.

A page takes a piece by a line such as ``<!-- generated: config -->``, which readers of the file itself do
not see. Every piece is Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from generate import commands, config, names, records, tables
from generate.repository import DOCS, page_of, with_links

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PLACE = re.compile(r"^<!-- generated: (\S+)(?: (\S+))? -->$", flags=re.MULTILINE)
PIECES: dict[str, Callable[..., str]] = {
    "config": config.sections,
    "comparison": config.comparison,
    "tables": tables.tables,
    "measures": tables.measures,
    "records": records.records,
    "flags": names.flags,
    "names": names.registry,
    "commands": commands.commands,
    "file": page_of,
}


def filled(text: str) -> str:
    """The text of a page with its pieces in place. Raises KeyError for a piece that there is not."""
    return PLACE.sub(lambda found: PIECES[found[1]](*filter(None, [found[2]])), text)


def _fill(app: Sphinx, page: str, source: list[str]) -> None:
    folder = (DOCS / page).parent
    source[0] = filled(with_links(source[0], folder, folder))


def setup(app: Sphinx) -> dict[str, Any]:
    """Fill every page as it is read."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
