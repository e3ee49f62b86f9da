"""The other end of ``graders.apart``: ``python -m zpd_ray.graders.child READ WRITE NAME PATIENCE``."""

from __future__ import annotations

import faulthandler
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from zpd_ray import graders
from zpd_ray.errors import ZpdError
from zpd_ray.graders.apart import READY
from zpd_ray.graders.base import Grader, grade_item

MORE_SECONDS = 10.0  # beyond the patience of the process that asks, in which it has ended this one


def main(read: int, write: int, name: str, patience: float) -> None:
    """Grade what comes, line by line, until the other end closes."""
    for fd in (read, write):
        os.set_inheritable(fd, False)  # what a grader starts would hold the pipes open
    with os.fdopen(read, encoding="utf-8") as asked, os.fdopen(write, "w", encoding="utf-8") as answers:
        try:
            with _bounded(patience):
                grader = graders.load(name)
            _say(answers, READY)
            for line in asked:
                message = json.loads(line)
                for completion in message["completions"]:
                    with _bounded(patience):
                        verdict = _verdict(name, grader, completion, message["item"])
                    _say(answers, {"verdict": verdict})
        except ZpdError as error:
            _say(answers, {"error": str(error)})


@contextmanager
def _bounded(patience: float) -> Iterator[None]:
    """Ends this process where a block hangs: also one that lets no other thread of Python run, and where
    nobody is left who would end it."""
    faulthandler.dump_traceback_later(patience + MORE_SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _verdict(name: str, grader: Grader, completion: str, item: dict[str, Any]) -> list[float]:
    try:
        right, parsed = grade_item(grader, completion, item)
    except ZpdError:
        raise
    except Exception as error:
        raise ZpdError(
            f"the grader {name} raised {type(error).__name__}: {error}, on the completion "
            f"{completion[:200]!r} of item {item['item_id']!r}"
        ) from error
    if not (math.isfinite(right) and 0 <= right <= 1):
        raise ZpdError(f"the grader {name} gave the share {right!r}; expected one from 0 to 1")
    return [float(right), bool(parsed)]


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
