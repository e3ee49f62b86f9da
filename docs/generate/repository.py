"""Files of the repository in the site: pages that stand elsewhere, and links to what has no page."""

from __future__ import annotations

import os
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent
ROOT = DOCS.parent
# Files outside of docs/ that have a page of their own, and that page.
PAGES = {
    "cluster/README.md": "cluster.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def page_of(name: str) -> str:
    """The text of a file of the repository, its links as a page in docs/ has to write them."""
    return with_links((ROOT / name).read_text(encoding="utf-8"), (ROOT / name).parent, DOCS)


def with_links(text: str, folder: Path, page: Path) -> str:
    """The text of a file in ``folder`` for a page in the directory ``page``: with links that the site has.

    A file that has no page can be downloaded if it is code; directories and other pages are named only. A
    link to what is not there stays, for Sphinx to complain of.
    """
    return LINK.sub(lambda link: _seen(folder, page, *link.groups(default="")), text)


def _seen(folder: Path, page: Path, text: str, target: str, place: str) -> str:
    path = (folder / target).resolve()
    if path.is_relative_to(ROOT):
        own = PAGES.get(path.relative_to(ROOT).as_posix())
        path = DOCS / own if own else path
    if path.is_dir() or (path.suffix == ".md" and path.exists() and not path.is_relative_to(DOCS)):
        return text
    return f"[{text}]({os.path.relpath(path, page)}{place})"
