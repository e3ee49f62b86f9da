"""Numbers in LaTeX, Markdown and typographic dress, written plainly. Every pattern is linear in the text."""

from __future__ import annotations

import re

from zpd_ray.graders.text import fold

_GROUP_SPACE = re.compile(r"(?<=\d)(?:[\u00a0\u2009\u202f]|\\[,;:]|\{,\}|,\\!)(?=\d{3}(?!\d))")
_NUMERAL = r"\s{0,3}([-+]?[\d.,]{1,400})\s{0,3}"
_EXPONENT = r"(?:\{([-+]?\d{1,9})\}|\(([-+]?\d{1,9})\)|([-+]?\d{1,9}))"  # never a brace of something else
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|bf|rm)\s?\{([^{}]*)\}")

# Applied in this order; each pair is pattern -> replacement.
_LATEX = [
    (re.compile(r"\\(?:left|right|displaystyle|approx|quad|!|,|;|:| )"), " "),
    (re.compile(r"\\[()\[\]]"), " "),
    (re.compile(r"\\([$%#&])"), r"\1"),
    (re.compile(r"\^\s?(?:\{\s?\\circ\s?\}|\\circ)|\\degree"), " "),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), "*"),
    (re.compile(r"(?<=\d)\s?(?=\\[dtc]?frac)"), " "),  # 1\frac12 is a mixed number
    (re.compile(rf"\\[dtc]?frac\s?\{{{_NUMERAL}\}}\s?\{{{_NUMERAL}\}}"), r"\1/\2"),
    (re.compile(r"\\[dtc]?frac\s?(\d)\s?(\d)"), r"\1/\2"),
]
_ALWAYS = [
    (re.compile(r"(?<=[\d)])\*\*(?=[\d(])"), "^"),  # 2**5
    (re.compile(r"\*\*|__"), " "),  # bold
    (re.compile(r"°"), " "),
    (re.compile(rf"(?<=[\d.])\s?[*x]\s?10\s?\^\s?{_EXPONENT}(?!\w)"), r"e\1\2\3"),  # 1.5 x 10^3
    (re.compile(rf"(?<![\w.,])10\s?\^\s?{_EXPONENT}(?!\w)"), r"1e\1\2\3"),
    (re.compile(r"(?<=[a-zA-Z])\s?\^\s?(?:\{-?\d\}|-?\d)"), ""),  # cm^2
]


def plain(text: str) -> str:
    """The text with its numbers in ASCII: 1,234.5, -3/4, 1 1/2, 1.5e3. What is no number stays LaTeX."""
    text = fold(_GROUP_SPACE.sub(",", text))
    if "\\" in text:
        text = _WRAPPED.sub(r" \1 ", text)
        text = _replaced(text, _LATEX)
    return _replaced(text, _ALWAYS)


def _replaced(text: str, replacements: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in replacements:
        text = pattern.sub(replacement, text)
    return text
