"""The pages of docs/ as a test sees them: their blocks of code, and what they name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from tests.pipeline.processes import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"# ([\w./-]+\.(?:py|toml))\n")


@dataclass(frozen=True)
class Page:
    """name: below docs/, without .md."""

    name: str
    text: str

    @property
    def blocks(self) -> list[Block]:
        """In order."""
        return [Block(self.name, *found) for found in BLOCK.findall(self.text)]

    @property
    def prose(self) -> str:
        """Without its blocks of code."""
        return BLOCK.sub("", self.text)

    @property
    def code(self) -> list[str]:
        """What is in backticks between the blocks."""
        return re.findall(r"`([^`]+)`", self.prose)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, where its first line says so."""
        named = NAMED_FILE.match(self.text)
        return named[1] if named else None

    @property
    def commands(self) -> Iterator[list[str]]:
        """Arguments of each call of zpd-ray in a block of bash."""
        yield from calls(self.text)


def calls(text: str) -> Iterator[list[str]]:
    """Arguments of each call of zpd-ray in a text of bash, comments aside."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "zpd-ray" in words:
            yield words[words.index("zpd-ray") + 1 :]


def pages() -> list[Page]:
    """All of them."""
    files = sorted(DOCS.rglob("*.md"))
    return [Page(str(f.relative_to(DOCS).with_suffix("")), f.read_text(encoding="utf-8")) for f in files]


def blocks(*languages: str) -> list[Block]:
    """Those of some languages, over all pages."""
    return [block for page in pages() for block in page.blocks if block.language in languages]
