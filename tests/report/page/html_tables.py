"""What stands on the page, read back by a parser: tables by caption, items, and whatever would be fetched."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "input", "br", "img", "link"}
FETCHED = {"src", "srcset", "href", "xlink:href", "action", "poster", "data", "background"}


@dataclass
class Item:
    """An item of the sample: its kind and stage, names and values, texts."""

    kind: str
    stage: int
    known: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """tags: all that were opened. unclosed: those that others closed. addresses: attributes to be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.unclosed: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.warnings: list[str] = []
        self.items: list[Item] = []
        self._open: list[tuple[str, dict[str, str]]] = []
        self._text, self._rows, self._name = "", [[""]][:0], ""
        self.feed(text)
        self.close()
        self.unclosed += [tag for tag, _ in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.addresses += [value for name, value in own.items() if name in FETCHED]
        self.handlers += [name for name in own if name.startswith("on")]
        if tag not in VOID:
            self._open.append((tag, own))
        if tag == "tr":
            self._rows.append([])
        elif tag == "table":
            self._rows = []
        elif own.get("class") == "item":
            self.items.append(Item(own["data-kind"], int(own["data-stage"])))
        if tag in ("th", "td", "caption", "li", "dt", "dd", "p"):
            self._text = ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        opened, own = self._open.pop()
        if opened != tag:
            self.unclosed.append(opened)
        text, within = self._text, [attrs.get("class") for _, attrs in self._open]
        if tag in ("th", "td"):
            self._rows[-1].append(text)
        elif tag == "caption":
            self.tables[text] = self._rows
        elif tag == "li" and "warnings" in within:
            self.warnings.append(text)
        elif tag == "dt":
            self._name = text
        elif tag == "dd" and "known" in within:
            self.items[-1].known[self._name] = text
        elif tag == "p" and own.get("class") == "text":
            self.items[-1].texts.append(text)
