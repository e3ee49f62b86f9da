"""The answer that a grader reads: equal answers alike, none where the completion is unparsed."""

from __future__ import annotations

import pytest

from zpd_ray.graders import load

OPTIONS = ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("grader", "completions", "answer"),
    [
        ("numeric", ["#### 1,234", r"so it is \boxed{1234}", "1.234 thousand"], "1234"),
        ("numeric", ["0.5", "1/2", "50%"], "0.5"),
        ("numeric", ["1/3"], "0.333333"),
        ("numeric", [f"1{'0' * 390}.5"], "1.00000e+390"),
        ("numeric", ["", "no idea", "12/2/2020"], None),
        ("exact", ["Paris.", " paris"], "paris"),
        ("exact", ["", " "], None),
        ("choice", ["The answer is (B)", "green", "b"], "B"),
        ("choice", ["A or B", ""], None),
    ],
)
def test_equal_answers_are_read_alike(grader: str, completions: list[str], answer: str | None) -> None:
    for completion in completions:
        assert load(grader).answer_of(completion, OPTIONS) == answer  # type: ignore[attr-defined]
        assert load(grader).grade(completion, "1" if grader == "numeric" else "A", OPTIONS).parsed is (
            answer is not None
        )
