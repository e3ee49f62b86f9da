"""Graders with a fault each."""

from __future__ import annotations

import os
import time

from zpd_ray.graders import UNPARSED, Verdict
from zpd_ray.graders.base import CompletionGrader


def raises(completion: str, answer: str) -> bool:
    raise KeyError("gold")


def text(completion: str, answer: str) -> str:
    return "right"


def two(completion: str, answer: str) -> int:
    return 2


def leaves(completion: str, answer: str) -> bool:
    os._exit(3)


def hangs(completion: str, answer: str) -> bool:
    time.sleep(3600)
    return True


def any_words(completion: str) -> bool:
    return bool(completion.split())


class Silent(CompletionGrader):
    def accepts(self, answer: str | None, choices: list[str] | None) -> str | None:
        return None

    def grade(self, completion: str, answer: str, choices: list[str] | None) -> Verdict:
        return UNPARSED
