"""A user's grader with a bug: the run must stop, and not count wrong answers."""


def grade(completion: str, answer: str) -> bool:
    raise KeyError(answer)
