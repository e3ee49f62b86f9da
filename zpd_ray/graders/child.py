"""The other end of ``graders.apart``: ``python -m zpd_ray.graders.child READ WRITE NAME``."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any, TextIO

from zpd_ray import graders
from zpd_ray.errors import ZpdError
from zpd_ray.graders.apart import READY
from zpd_ray.graders.base import grade_item

LOOK_SECONDS = 1.0


def main(read: int, write: int, name: str) -> None:
    """Grade what comes, line by line, until the other end closes."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with os.fdopen(read, encoding="utf-8") as asked, os.fdopen(write, "w", encoding="utf-8") as answers:
        try:
            grader = graders.load(name)
            _say(answers, READY)
            for line in asked:
                message = json.loads(line)
                for completion in message["completions"]:
                    verdict = grade_item(grader, completion, message["item"])
                    _say(answers, {"verdict": [float(verdict.right), bool(verdict.parsed)]})
        except ZpdError as error:
            _say(answers, {"error": str(error)})


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _end_with(parent: int) -> None:
    """A grader that hangs must not outlive the process that asked."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
