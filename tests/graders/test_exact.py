"""The exact grader: form does not count, content does."""

# ruff: noqa: RUF001

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zpd_ray.graders.exact import Exact

GRADER = Exact()


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("Paris", "paris."),
        ("  New\n York ", "new york"),
        ('"Paris"', "Paris"),
        ("**Paris.**", "Paris"),
        ("“Yes.”", "yes"),
        ("ﬁve", "five"),
        ("STRASSE", "straße"),
        ("Ｐａｒｉｓ", "Paris"),
        ("-5", "−5"),
    ],
)
def test_form_does_not_count(completion: str, answer: str) -> None:
    assert GRADER.grade(completion, answer, None) == (True, True)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("-5", "5"),
        (".5", "5"),
        ("5!", "5"),
        ("2⁵", "25"),
        ("C#", "C"),
        ("f'", "f"),
        ("(3, 5)", "[3, 5]"),
        ("The Who", "Who"),
        ("2½", "21/2"),
        ("Paris, France", "Paris"),
        ("ab", "a b"),
    ],
)
def test_content_counts(completion: str, answer: str) -> None:
    assert GRADER.grade(completion, answer, None) == (False, True)


@pytest.mark.parametrize("empty", ["", "  \n", "...", '""', "**"])
def test_nothing_is_unparsed_and_never_right(empty: str) -> None:
    assert GRADER.grade(empty, "x", None) == (False, False)
    assert GRADER.grade(empty, empty, None) == (False, False)
    assert GRADER.accepts(empty, None)


@given(st.text(max_size=100))
def test_any_text_equals_itself_in_any_form_or_is_empty(text: str) -> None:
    verdict = GRADER.grade(text, text, None)
    assert verdict.right is (GRADER.accepts(text, None) is None)
    assert GRADER.grade(f" {unicodedata.normalize('NFC', text)}\n", text, None) == verdict
