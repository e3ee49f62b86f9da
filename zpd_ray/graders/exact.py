"""The completion is the gold answer, form aside."""

from __future__ import annotations

from zpd_ray.graders.base import UNPARSED, CompletionGrader, Verdict
from zpd_ray.graders.text import fold

# Quotes and emphasis say nothing when they stand on both sides, nor do sentence ends. Brackets, signs, primes
# and "!" do: "(3, 5)" is not "[3, 5]", "-5" is not "5", "f'" is not "f", "5!" is not "5".
_AROUND = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`", "*": "*"}  # noqa: RUF001
_AFTER = ".,;:? "


class Exact(CompletionGrader):
    """Right when both are equal after Unicode NFKC (exponents kept apart), case folding, collapsing white
    space, and taking off quotes and emphasis around the text and ``.,;:?`` after it. Articles count: "the
    who" is not "who". The whole completion is compared, nothing is looked for in it.
    """

    def accepts(self, answer: str | None, choices: list[str] | None) -> str | None:
        """An answer with nothing in it cannot be matched."""
        return None if answer and normalise(answer) else f"expected some text, got {answer!r}"

    def grade(self, completion: str, answer: str, choices: list[str] | None) -> Verdict:
        """An empty completion is unparsed."""
        got, gold = normalise(completion), normalise(answer)
        return Verdict(right=got == gold, parsed=True) if got and gold else UNPARSED

    def answer_of(self, completion: str, choices: list[str] | None) -> str | None:
        """The completion in the form in which it is compared."""
        return normalise(completion) or None


def normalise(text: str) -> str:
    """The form in which texts are compared."""
    text = " ".join(fold(text).casefold().split())
    start, end = 0, len(text)
    while end > start:
        if text[end - 1] in _AFTER:
            end -= 1
        elif end - start > 1 and _AROUND.get(text[start]) == text[end - 1]:
            start, end = start + 1, end - 1
        else:
            break
    return text[start:end].strip()
