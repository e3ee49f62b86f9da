"""The commands that look at a run: their help teaches, and needs no library to be imported."""

from __future__ import annotations

import shlex

import pytest

from tests.cli.test_cli import invoke


@pytest.mark.parametrize("command", ["show", "why", "export"])
def test_every_help_has_an_example_that_the_parser_takes(command: str) -> None:
    code, text = invoke(command, "--help")
    assert code == 0
    example = text.partition("Example: zpd-ray ")[2].partition(" ╭")[0]
    arguments = shlex.split(example)
    assert arguments[:2] == [command, "runs/mine"]
    code, text = invoke(*arguments)
    assert code == 2
    assert "runs/mine holds no run" in text  # all else was taken
