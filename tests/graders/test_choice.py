"""The choice grader: letters, option texts, ambiguity, and every item of TAL-SCQ5K."""

import gzip
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zpd_ray.graders.choice import Choice

MATH = Path(__file__).parents[3] / "shared/data/math/train.jsonl.gz"
GRADER = Choice()
CHOICES = ["seven hundred", r"\emph{seventy}", "$$49$$", "A cat"]


def picked(completion: str, choices: list[str] | None = CHOICES) -> str:
    """The letters of the gold answers that the completion is right for; "?" when it is unparsed."""
    letters = "ABCDEFGH"[: len(choices) if choices else 8]
    verdicts = {letter: GRADER.grade(completion, letter, choices) for letter in letters}
    if not any(verdict.parsed for verdict in verdicts.values()):
        return "?"
    return "".join(letter for letter, verdict in verdicts.items() if verdict.right)


@pytest.mark.parametrize(
    "completion",
    [
        "B",
        "(B)",
        "B.",
        "b",
        "(b)",
        "**B**",
        "[B]",
        "Option B",
        "answer: B",
        "The answer is B",
        "The answer is (B).",
        "the correct answer is option B.",
        r"\boxed{B}",
        r"\boxed{\text{(B)}}",
        r"So the answer is $\text{B}$.",
        "**Answer:** B",
        "Answer:\n\nB",
        "B) seventy",
        "B: it is less",
        "B\nbecause 7 tens",
        "I think B is right",
        "The answer is B because A is too much",
        r"\emph{seventy}",
        "A number of ways. B fits",
        "The answer is (b), I say",
    ],
)
def test_the_usual_forms_of_a_letter(completion: str) -> None:
    assert picked(completion) == "B"


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("49", "C"),
        ("$49$.", "C"),
        ("The answer is 49.", "C"),
        ("Seven Hundred", "A"),
        ("A cat", "D"),
        (r"\boxed{49}", "C"),
    ],
)
def test_the_text_of_an_option(completion: str, letter: str) -> None:
    assert picked(completion) == letter
    assert GRADER.grade(letter, completion, CHOICES).right  # as a gold answer, too


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "...",
        "BCD",
        "E",
        "The answer is E",
        "A and B",
        "The answer is A or B",
        "answer: A. answer: B",
        "A, B",
        "The answer is not B",
        "It is not B",
        "B isn't it",
        "A. seven hundred\nB. seventy",
        "A cat sat",
        "48",
        "the answer is clear",
        r"\boxed{}",
        r"\boxed{A, B}",
        r"\boxed{E} B",
        "Consider B. The answer is E",
        r"\boxed{B",
    ],
)
def test_no_option_or_more_than_one_is_unparsed(completion: str) -> None:
    assert picked(completion) == "?"


@pytest.mark.parametrize("answer", ["", "E", "eight", "2", "A or B", "Vitamin B", None])
def test_a_gold_answer_that_is_no_option_is_refused_and_never_right(answer: str | None) -> None:
    assert GRADER.accepts(answer, CHOICES) is not None
    for completion in ("A", "B", answer or ""):
        assert not GRADER.grade(completion, answer or "", CHOICES).right


def test_equal_options_are_ambiguous_and_letters_go_before_texts() -> None:
    assert picked("same", ["same", "Same.", "other"]) == "?"
    assert picked("A", ["B", "A"]) == "A"
    assert GRADER.accepts("B", None) is None
    assert picked("The answer is C", None) == "C"


@given(st.text(max_size=200), st.lists(st.text(max_size=8), max_size=5), st.text(max_size=5))
def test_any_text_gets_a_verdict(completion: str, choices: list[str], answer: str) -> None:
    verdict = GRADER.grade(completion, answer, choices or None)
    assert verdict.parsed or not verdict.right
    if GRADER.accepts(answer, choices or None):
        assert not verdict.parsed


@pytest.mark.parametrize(
    "unit", ["A", "A ", "(", "A or ", "answer is ", "answer: A\n", "\\boxed{", "*", " ", "A. "]
)
def test_hostile_text_takes_bounded_time(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    GRADER.grade(text, "B", CHOICES)
    assert time.process_time() - start < 1.0


@pytest.mark.skipif(not MATH.exists(), reason="shared data is not here")
def test_every_option_of_tal_is_told_from_the_others() -> None:
    ambiguous = 0
    for line in gzip.decompress(MATH.read_bytes()).splitlines():
        row = json.loads(line)
        options, gold = list(row["options"].values()), row["answer"]
        assert GRADER.accepts(gold, options) is None
        for letter, text in row["options"].items():
            for form in ("@", "(@)", "The answer is @.", "\\boxed{@}", f"The answer is @) {text}"):
                assert GRADER.grade(form.replace("@", letter), gold, options) == (letter == gold, True)
            verdict = GRADER.grade(text, gold, options)
            assert verdict.right is (letter == gold and verdict.parsed)
            ambiguous += not verdict.parsed
    assert ambiguous < 20
