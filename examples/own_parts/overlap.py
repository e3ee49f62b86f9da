"""A grader: F1 of the words of completion and gold answer, as in SQuAD (arXiv 1606.05250)."""

from collections import Counter


def words(completion: str, answer: str) -> float:
    """From 0 to 1: the harmonic mean of precision and recall; 1 where both are the same words."""
    given, gold = Counter(completion.lower().split()), Counter(answer.lower().split())
    total = given.total() + gold.total()
    return 2 * (given & gold).total() / total if total else 1.0
