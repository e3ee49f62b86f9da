"""The commands for jobs: help whose example the parser takes, and what is refused without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_cli import invoke
from zpd_ray.cli import jobs as cli_jobs

COMMANDS = ("submit", "status", "logs", "stop")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example_that_the_parser_takes(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = invoke(command, "--help")
    assert code == 0
    example = text.partition("Example: ")[2].split(" ╭")[0].split(" Arguments")[0].strip()
    assert example.startswith(f"zpd-ray {command} ")
    done: list[object] = []
    monkeypatch.setattr(cli_jobs, "exit_code", lambda work: done.append(work) or 0)
    words = example.removeprefix("zpd-ray ").split()
    known = next((i for i, word in enumerate(words) if word.startswith(("╭", "─"))), len(words))
    assert invoke(*words[:known])[0] == 0
    assert len(done) == 1


def test_the_help_of_submit_says_what_is_shipped_and_what_ctrl_c_does() -> None:
    text = invoke("submit", "--help")[1]
    for told in ("resolved config alone", "--working-dir", "installed on the nodes", "Ctrl-C leaves the job"):
        assert told in text


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--env", "ZPD_NOT_SET"), "--env ZPD_NOT_SET: no such variable"),
        (("--env", "TOKEN=hunter2"), "--env takes the name of a variable, got a value for TOKEN"),
        (("--address", "ray://127.0.0.1:10001"), "expected that of the dashboard, http://HEAD:8265"),
        (("--set", "output=s3://key:hunter2@bucket/run"), "output is a URI of s3 with credentials in it"),
    ],
)
def test_what_is_refused_before_a_cluster_is_asked(tmp_path: Path, more: tuple[str, ...], told: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'output = "out"\n[pool]\npath = "p.jsonl"\n[model]\npath = "m"\n[select]\nbudget = { items = 1 }\n'
    )
    code, text = invoke("submit", str(path), *more)
    assert code == 2
    assert told in text
    assert "hunter2" not in text
