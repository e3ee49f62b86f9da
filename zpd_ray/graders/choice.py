"""The completion picks the right option of a multiple-choice item, by letter or by text.

**Where the pick is.** The last ``\\boxed{...}``; else after each "answer is" or "answer:"; else the whole
text, when it is a letter or the text of an option; else the letter that it starts with ("B) seven"); else the
only option letter that stands alone in it, if nothing is negated. Different letters are ambiguous, hence
unparsed, as is a marker that no option follows.

A letter is a capital, or any letter that is alone or in brackets ("b", "(b)"). Where an option's text is the
letter of another option, the letter counts.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray.graders import exact
from zpd_ray.graders.base import UNPARSED, CompletionGrader, Verdict
from zpd_ray.graders.text import WINDOW, after_markers, fold, last_boxed

_ALONE = re.compile(
    r"\W{0,4}(?:the\s)?(?:(?:correct|final)\s)?(?:(?:option|choice|answer|letter)\s?(?:is|:)?\s?)?\W{0,4}([a-z])\W{0,4}",
    re.IGNORECASE,
)
_DIRECT = re.compile(
    r"(?:(?:the|option|choice|letter)\s){0,2}\W{0,4}(?:([A-Z])|(?<=[(\[])([a-z])(?=[)\]]))(?![\w'])"
)
_ANOTHER = re.compile(
    r"\W{0,4}(?:\b(?:or|and)\b|[/&,+])\W{0,4}(?:(?:option|choice)\s)?\W{0,2}([A-Z])(?![\w'])"
)
_STARTING = re.compile(r"[\s*(\[]{0,4}[A-Z][\s*]{0,2}[.):\]]")
_MARKED = re.compile(r"(?<![\w'])([A-Z])\*{0,2}[.):\]]")
_STANDING = re.compile(r"(?<![\w'])([A-Z])(?![\w'])")
_ARTICLE = re.compile(r"(?:^|[.!?\n]\s*)A(?=\s+(?!(?:and|or|is|because)\b)[a-z])")
_NEGATED = re.compile(r"\b(?:not|neither|none|never|incorrect|wrong|except|cannot)\b|n['’]t\b", re.IGNORECASE)  # noqa: RUF001
_MATH = re.compile(r"\\(?:text|textbf|mathrm|mathbf|rm|bf)(?![a-z])|[${}]|\\[()\[\],;! ]")


class Choice(CompletionGrader):
    """Right when the completion picks the option that the gold answer names, by letter or by text."""

    guessable = True

    def accepts(self, answer: str | None, choices: list[str] | None) -> str | None:
        """A gold answer must be the letter or the text of one option."""
        if answer and _one(_named(answer, choices), choices) is not None:
            return None
        options = (
            f"one of {len(choices)} options" if choices else "an option (there are no choices: its letter)"
        )
        return f"expected the letter or the text of {options}, got {(answer or '')[:80]!r}"

    def options(self, choices: pa.ChunkedArray) -> np.ndarray:
        """The number of options; 0 for a single one, since a floor of 1 leaves a response nothing to say."""
        lengths = pc.fill_null(pc.list_value_length(choices), 0).to_numpy().astype(np.int64)
        return np.where(lengths > 1, lengths, 0)

    def grade(self, completion: str, answer: str, choices: list[str] | None) -> Verdict:
        """A completion that picks no option, or more than one, is unparsed."""
        gold, got = _one(_named(answer, choices), choices), _picked(completion, choices)
        if gold is None or got is None:
            return UNPARSED
        return Verdict(right=got == gold, parsed=True)

    def answer_of(self, completion: str, choices: list[str] | None) -> str | None:
        """The letter of the option that is picked."""
        got = _picked(completion, choices)
        return None if got is None else chr(ord("A") + got)


def _picked(completion: str, choices: list[str] | None) -> int | None:
    """The one option that a completion picks, from 0."""
    completion = completion[-WINDOW:]
    return _one(_named(completion, choices) or _mentioned(completion, choices), choices)


def _one(picks: set[int], choices: list[str] | None) -> int | None:
    """The option, from 0, when there is exactly one pick and the item has that option."""
    if len(picks) != 1:
        return None
    (pick,) = picks
    return pick if pick < _count(choices) else None


def _count(choices: list[str] | None) -> int:
    return len(choices) if choices else 26


def _named(text: str, choices: list[str] | None) -> set[int]:
    """The options that a text names as its answer; -1 among them when what it names is no option."""
    if (box := last_boxed(text)) is not None:
        return _stated(box, choices) or {-1, -2}
    if phrases := after_markers(text):
        return set().union(*(_stated(phrase, choices) or {-1, -2} for phrase in phrases))
    return _whole(text, choices)


def _whole(text: str, choices: list[str] | None) -> set[int]:
    """The option whose letter or text this is, and nothing else."""
    bare = _bare(text)
    if letter := _ALONE.fullmatch(bare):
        return {_index(letter[1])}
    wanted = exact.normalise(bare)
    return {
        place
        for place, option in enumerate(choices or [])
        if wanted and exact.normalise(_bare(option)) == wanted
    }


def _stated(phrase: str, choices: list[str] | None) -> set[int]:
    """The options in what follows "the answer is"."""
    if whole := _whole(phrase, choices):
        return whole
    bare = _bare(phrase)
    if direct := _DIRECT.match(bare):
        picks = {_index(direct[1] or direct[2])}
        another = _ANOTHER.match(bare, direct.end())
        if another and _index(another[1]) < _count(choices):  # "B, I think" has one letter
            picks.add(_index(another[1]))
        return picks
    return _standing(bare, choices)


def _mentioned(text: str, choices: list[str] | None) -> set[int]:
    """The options in a text that says nowhere which is its answer."""
    bare = _bare(text)
    if _STARTING.match(bare):
        return {_index(letter) for letter in _MARKED.findall(bare)}
    return _standing(bare, choices)


def _standing(bare: str, choices: list[str] | None) -> set[int]:
    if _NEGATED.search(bare):
        return set()
    letters = {_index(letter) for letter in _STANDING.findall(_ARTICLE.sub(" ", bare))}
    return {letter for letter in letters if letter < _count(choices)}


def _bare(text: str) -> str:
    return _MATH.sub(" ", fold(text)).strip()


def _index(letter: str) -> int:
    return ord(letter.upper()) - ord("A")
