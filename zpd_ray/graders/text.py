"""One form for the many ways in which Unicode and LaTeX write the same text, and where an answer is in it."""

from __future__ import annotations

import re
import unicodedata

WINDOW = 1 << 16  # characters at the end of a completion that are looked at: it is hostile input

# NFKC alone would turn "2⁵" into "25" and "2½" into "21/2".
_APART = str.maketrans(
    {character: "^" + unicodedata.normalize("NFKC", character) for character in "⁰¹²³⁴⁵⁶⁷⁸⁹"}
    | {character: " " + unicodedata.normalize("NFKC", character) for character in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
)
_SAME = str.maketrans({"−": "-", "–": "-", "⁄": "/", "∕": "/", "×": "*", "·": "*"})  # noqa: RUF001

_MARKER = re.compile(r"\banswer\b[*_]{0,2}(?:[ \t]{0,3}(?:is|=|:|：)[*_]{0,2}){1,3}", re.IGNORECASE)  # noqa: RUF001
_REST = re.compile(r"[*_\s]*([^\n]*)")
_MARKERS = 50  # of a text, the last ones: each costs a copy of its line


def fold(text: str) -> str:
    """NFKC that keeps exponents and mixed numbers apart, and one minus, times and fraction sign."""
    return unicodedata.normalize("NFKC", text.translate(_APART)).translate(_SAME)


def last_boxed(text: str) -> str | None:
    """The content of the last ``\\boxed{...}``, braces nested; "" when it never closes, None without one."""
    start = text.rfind("\\boxed")
    if start < 0:
        return None
    opening = start + len("\\boxed")
    depth = 0
    for place in range(opening, len(text) if text[opening : opening + 1] == "{" else opening):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[opening + 1 : place]
    return ""


def after_markers(text: str) -> list[str]:
    """The rest of the line after each "answer is", "answer:" or "answer =", in order; where the marker ends
    its line, the next one that is not blank."""
    starts = [found.end() for found in _MARKER.finditer(text)]
    return [rest[1] for start in starts[-_MARKERS:] if (rest := _REST.match(text, start))]
