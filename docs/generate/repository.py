"""Files of the repository as pages: what stands elsewhere is not said again in the docs."""

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
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def page_of(name: str) -> str:
    """The text of a file, its links as seen from a page in docs/; a site has no page for a directory."""
    text, folder = (ROOT / name).read_text(encoding="utf-8"), (ROOT / name).parent
    return LINK.sub(lambda link: _seen(folder, *link.groups(default="")), text)


def _seen(folder: Path, text: str, target: str, place: str) -> str:
    path = (folder / target).resolve()
    if path.is_dir():
        return text
    page = PAGES.get(path.relative_to(ROOT).as_posix())
    return f"[{text}]({page or os.path.relpath(path, DOCS)}{place})"
