"""Every case as a row of docs/bad_inputs.md: what was done, and what was said.

``python -m tests.bad_inputs.table`` writes the page anew.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from typer.testing import CliRunner

from tests import tiny
from tests.bad_inputs import config, prompts, runs, sources
from tests.bad_inputs.cases import CASES, Case, Desk
from zpd_ray.cli import app

PAGE = Path(__file__).resolve().parents[2] / "docs/bad_inputs.md"
GROUPS = (
    *(config.CONFIG, config.LINE),
    *(sources.PLACE, sources.FILE, sources.ROW),
    prompts.PROMPTS,
    *(runs.MODEL, runs.OUTPUT, runs.BUDGET, runs.WORK),
)
TRACEBACK = "a traceback:"
HEAD = """# What is said when something is wrong

Every row is made by a test (`tests/bad_inputs`): something in a small sound run is spoilt, the command is
given, and what it says is what stands here. Each ends with exit code 2, apart from single bad rows, which
`zpd-ray check` shows and a run puts aside in `quarantine/`. `DIR` stands for the directory of the run.
"""


class Outcome(NamedTuple):
    """Exit code, what is said of the fault on one line, and files that are new in the run directory."""

    code: int
    said: str
    written: list[Path]


def outcome(case: Case, directory: Path, model: Path) -> Outcome:
    """What becomes of a case in a fresh directory."""
    desk = Desk(directory, model)
    case.do(desk)
    arguments, before = desk.arguments(), set((directory / "out").rglob("*"))
    result = CliRunner().invoke(app.app, arguments)
    written = sorted(set((directory / "out").rglob("*")) - before)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return Outcome(1, f"{TRACEBACK} {result.exception!r}", written)
    told = _error(result.stderr) if result.exit_code else _noted(result.stdout)
    return Outcome(result.exit_code, _tidy(" ".join(told), directory), written)


def _error(output: str) -> list[str]:
    """Its last line, or what typer puts into a box."""
    lines = [line.strip(" │") for line in output.splitlines()]
    boxed = [line for line in lines if line and line[0] not in "╭╰"]
    return boxed[1:] if boxed[0].startswith("Usage") else boxed[-1:]


def _noted(output: str) -> list[str]:
    lines = (line.strip() for line in output.splitlines())
    return [line for line in lines if line.startswith(("quarantine:", "note:"))]


def _tidy(text: str, directory: Path) -> str:
    """Without what differs from machine to machine."""
    text = text.replace(f"{directory}/", "DIR/").replace(str(directory), "DIR").strip(" │")
    text = re.sub(r"/tmp/ray/[^\s;]+|/[^ ]*/session_[^\s;]+", "LOG", text)
    return text.replace("|", "\\|").replace("<", "&lt;")


def page(rows: dict[Case, str]) -> str:
    """The whole page."""
    parts = [HEAD]
    for group in GROUPS:
        cases = [case for case in CASES if case.group == group]
        parts.append(f"\n## {group}\n\n| done | said |\n|---|---|\n")
        parts += [f"| {case.did} | {rows[case]} |\n" for case in cases]
    return "".join(parts)


def main() -> None:
    """Write the page; a Ray is started for the cases that need one."""
    import ray

    from zpd_ray.config import ClusterConfig
    from zpd_ray.pipeline.cluster.session import start

    start(ClusterConfig(), cpus=2)
    with tempfile.TemporaryDirectory() as base:
        model = tiny.build_model(Path(base) / "model", layers=1)
        rows = {}
        for number, case in enumerate(CASES):
            directory = Path(base) / str(number)
            directory.mkdir()
            code, rows[case], _ = outcome(case, directory, model)
            print(code, case.did, "->", rows[case], file=sys.stderr, flush=True)
    PAGE.write_text(page(rows))
    ray.shutdown()


if __name__ == "__main__":
    main()
