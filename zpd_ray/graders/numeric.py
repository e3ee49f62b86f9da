"""The completion's final number equals the gold answer's.

**Where it is.** The last ``\\boxed{...}``; else the last ``#### 42``; else the first number after the last
"answer is" or "answer:" that one follows on its line (after its ``=``, if there is one); else the last
number of the text. A box that holds no single number is unparsed: nothing else is taken in its stead. Only
the last 65,536 characters are looked at.

**What equals what.** Numbers are exact fractions. Equal is equal; besides,

- two numbers agree when they differ by less than one unit in the last digit of the coarser one, that unit
  being below 1, and by at most 1e-4 of the larger: 0.3333 = 1/3, 0.333 != 1/3, 12345.67 != 12345.68;
- ``%``, "thousand", "million" ... scale where both sides have one; where one has, the number agrees with or
  without it: "50%" equals 0.5 and 50, "5 million" equals 5,000,000 and 5.

**What is a number.** Signs, thousands as 1,234,567 (or with no-break, thin or LaTeX spaces; plain spaces
where nothing else is there), a decimal point, 1e5, 1.5 x 10^3, a/b, \\frac{a}{b}, mixed 1 1/2, with units and
currency around it. Unparsed, being ambiguous or no number: 1,5 and 1 234,5 (decimal comma), 10:30, 12/2/2020,
"3, 5", 2\\pi, \\sqrt{2}, 2^5, "3 + 4" without a result, 1/0, and numbers of more than 400 digits.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from zpd_ray.graders.base import UNPARSED, CompletionGrader, Verdict
from zpd_ray.graders.latex import plain
from zpd_ray.graders.text import WINDOW, after_markers, last_boxed

RELATIVE_TOLERANCE = Fraction(1, 10_000)
MAX_DIGITS = 400  # of a number, and the largest power of ten

_SCALES = {"%": -2, "percent": -2, "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(rf"\s?({'|'.join(_SCALES)})", re.IGNORECASE)

# What numbers are made of, taken whole, so that "1,5" or "12/2/2020" is seen to be none.
_TOKEN = re.compile(
    r"(?<!\w)(?<!\w\.)(?:"
    r"(?P<whole>\d{1,9}) (?P<part>\d{1,9}/\d{1,9})(?![\d/,:])"  # 1 1/2
    r"|(?P<spaced>\d{1,3}(?: \d{3})+)(?![\d,:/])(?:\.\d+)?"  # 1 234 567
    r"|(?P<run>(?:\d|(?<!\.)\.\d)[\d.,:/]*(?:[eE][-+]?\d+)?)"
    r")"
)
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_NUMBER = re.compile(rf"(?P<top>{_PLAIN})(?:[eE](?P<exponent>[-+]?\d+)|/(?P<bottom>{_PLAIN}))?")

_CURRENCY = "[$€£¥₹]"
_MINUS = re.compile(
    rf"(?:(?<![\w)])-|\b(?:negative|minus) |=\s{{0,2}}-\s){_CURRENCY}?$|{_CURRENCY}-$",
    re.IGNORECASE,
)
_LOOSE_MINUS = re.compile(rf"-\s?{_CURRENCY}?\s?$|{_CURRENCY}\s?-\s?$")
_STARTS_NEGATIVE = re.compile(r"^\s*-\s+")
_SIGN = re.compile(rf"(?:(?<![\w)])(?<![\w)]\s)[-+])?\s?(?:{_CURRENCY}\s?[-+]?\s?)?$")

# Context in which a number is a part of something else.
_PART_BEFORE = re.compile(r"(?:[\^_{√]|\\\w*[{(]?|[\d)]\s?(?:[-+*/x]|or|and)\s?[-+]?\$?)\s?$")
_PART_AFTER = re.compile(
    r"\s?(?:[\^π√∞\\]|[xyzn]\b|\*\s?[(a-z]|and\s(?:a|one)\b|(?:[-+*/x]|or|and)\s?[-+$(]?\.?\d)"
)
_LIST_AFTER = re.compile(r"\s?,\s?(?:and\s|or\s)?[-+$(]?\.?\d")
_NO_UNIT = re.compile(r"[\d\\^_+*|<>{}\[\]√π∞≤≥!]|-(?=\W|$)")

_HASHES = re.compile(
    r"####(?=[^\w\n]{0,5}\d)(?!\W{0,5}\d+\s?[.):]\s*[^\W\d])(.*)"
)  # not "#### 3. Add them up"
_SENTENCE_END = re.compile(r"[.?!](?:\s|$)")
_LETTER_OR_RESULT = re.compile(r"[^\W\d_]|=")


class Number(NamedTuple):
    """``value`` as written, its last digit's ``unit`` (0 for a fraction), and the power of ten that a word
    or percent sign multiplies it by."""

    value: Fraction
    unit: Fraction
    scale: int = 0

    def scaled(self) -> Number:
        """With the scale multiplied in."""
        factor = Fraction(10) ** self.scale
        return Number(self.value * factor, self.unit * factor)


class Numeric(CompletionGrader):
    """Right when the final number of the completion equals that of the gold answer (see the module)."""

    def accepts(self, answer: str | None, choices: list[str] | None) -> str | None:
        """An answer without a number that can be read cannot be compared with."""
        if answer and _is_plain(answer):
            return None
        return None if answer and parse(answer) else f"expected a number, got {(answer or '')[-80:]!r}"

    def grade(self, completion: str, answer: str, choices: list[str] | None) -> Verdict:
        """A completion, or a gold answer, without a number that can be read is unparsed."""
        got, gold = parse(completion), parse(answer)
        if got is None or gold is None:
            return UNPARSED
        return Verdict(right=equal(got, gold), parsed=True)

    def answer_of(self, completion: str, choices: list[str] | None) -> str | None:
        """The number: whole ones in full, others with six digits."""
        got = parse(completion)
        if got is None:
            return None
        value = got.scaled().value
        whole = value.denominator == 1
        return str(value) if whole else f"{Decimal(value.numerator) / value.denominator:.6g}"


def _is_plain(answer: str) -> bool:
    """Whether a few digits are all of it, or of its last line after ``####``: what ``parse`` reads, at 1/50
    of its time. Pools are read with this. False says nothing."""
    last = answer[answer.rfind("\n") + 1 :]
    digits = last.removeprefix("#### ")
    marked = last is not digits and "\\boxed" not in answer
    return (marked or digits is answer) and len(digits) <= 9 and digits.isascii() and digits.isdigit()


def equal(one: Number, other: Number) -> bool:
    """Whether two numbers agree, as the module defines it. Symmetric."""
    if _agree(one.scaled(), other.scaled()):
        return True
    return (one.scale == 0) != (other.scale == 0) and _agree(one, other)


def _agree(one: Number, other: Number) -> bool:
    if one.value == other.value:
        return True
    difference, unit = abs(one.value - other.value), max(one.unit, other.unit)
    larger = max(abs(one.value), abs(other.value))
    return unit < 1 and difference < unit and difference <= RELATIVE_TOLERANCE * larger


def parse(text: str) -> Number | None:
    """The number that a text ends up with, or None. Time is linear in at most 65,536 characters."""
    text = text[-WINDOW:]
    if (box := last_boxed(text)) is not None:
        return _alone(plain(box))
    if "####" in text and (hashes := _HASHES.findall(text)):
        return _first(plain(hashes[-1]))
    for rest in map(plain, reversed(after_markers(text))):
        if _TOKEN.search(_sentence(rest)):
            return _first(rest)
    text = plain(text)
    return _last(text) if _LETTER_OR_RESULT.search(text) else _alone(text)


def _sentence(text: str) -> str:
    return _SENTENCE_END.split(text, maxsplit=1)[0]


def _alone(text: str) -> Number | None:
    """The number of a text that holds one and, besides, only words, units and currency."""
    text = text.rpartition("=")[2]
    token = _TOKEN.search(text)
    if token is None:
        return None
    before, after = text[: token.start()], text[_end(token) :]
    if _PART_AFTER.match(after) or _NO_UNIT.search(f"{_SIGN.sub('', before)} {after.strip()}"):
        return None
    return _number(token, after, negative=_LOOSE_MINUS.search(before) or _MINUS.search(before))


def _first(line: str) -> Number | None:
    """The first number of the first sentence, after its last equals sign."""
    phrase = _STARTS_NEGATIVE.sub("-", _sentence(line).rpartition("=")[2])
    token = _TOKEN.search(phrase)
    if token is None or _LIST_AFTER.match(phrase, _end(token)):
        return None
    return _in_prose(phrase, token)


def _last(text: str) -> Number | None:
    token = None
    for token in _TOKEN.finditer(text):  # noqa: B007
        pass
    return _in_prose(text, token) if token else None


def _end(token: re.Match[str]) -> int:
    """Where the number ends: a token may take along the punctuation after it."""
    return token.start() + len(token[0].rstrip(".,:/"))


def _in_prose(text: str, token: re.Match[str]) -> Number | None:
    before = text[max(0, token.start() - 16) : token.start()]
    after = text[_end(token) :][:24]
    if token["spaced"] or _PART_BEFORE.search(before) or _PART_AFTER.match(after):
        return None
    return _number(token, after, negative=_MINUS.search(before))


def _number(token: re.Match[str], after: str, negative: object) -> Number | None:
    """The value of a token, with the sign before it and the scale after it."""
    if token["whole"]:
        part = _value(token["part"])
        number = part and part._replace(value=int(token["whole"]) + part.value)
    else:
        number = _value(token[0].replace(" ", ",").rstrip(".,:/"))
    if number is None:
        return None
    scale = _SCALE.match(after)
    power = _SCALES[scale[1].lower()] if scale else 0
    return Number(-number.value if negative else number.value, number.unit, power)


def _value(digits: str) -> Number | None:
    found = _NUMBER.fullmatch(digits)
    if found is None or len(digits) > MAX_DIGITS:
        return None
    top, unit = _decimal(found["top"])
    if found["bottom"]:
        bottom, _ = _decimal(found["bottom"])
        return Number(top / bottom, Fraction(0)) if bottom else None
    if not found["exponent"]:
        return Number(top, unit)
    power = int(found["exponent"])
    if abs(power) > MAX_DIGITS:
        return None
    factor = Fraction(10) ** power
    return Number(top * factor, unit * factor)


def _decimal(digits: str) -> tuple[Fraction, Fraction]:
    """The value of 1,234.50, and one unit of its last digit."""
    digits = digits.replace(",", "")
    whole, _, decimals = digits.partition(".")
    return Fraction(int(whole + decimals), 10 ** len(decimals)), Fraction(1, 10 ** len(decimals))
