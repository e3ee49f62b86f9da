"""The command line: help, version, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from click import Context
from typer.testing import CliRunner

from zpd_ray import __version__
from zpd_ray.cli import app as cli
from zpd_ray.cli.options import exit_code
from zpd_ray.errors import ZpdError

COMMANDS = ("run", "ingest", "measure", "fit", "select", "train", "evaluate")


def invoke(*arguments: str) -> tuple[int, str]:
    """Exit code and output in one line, without the frames that rich draws."""
    result = CliRunner().invoke(
        cli.app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    )
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def test_the_commands_are_those_of_the_issue() -> None:
    group = typer.main.get_command(cli.app)
    assert set(COMMANDS) <= set(group.list_commands(Context(group)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example_that_the_parser_takes(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = invoke(command, "--help")
    assert code == 0
    assert f"Example: zpd-ray {command} " in text
    example = text.partition("Example: zpd-ray ")[2].partition(".toml")
    arguments = [*f"{example[0]}.toml".split()]
    rest = example[2].split()
    if rest[:1] == ["--set"]:
        arguments += rest[:2]
    taken: list[tuple[str, Path, list[str] | None]] = []
    monkeypatch.setattr(cli, "_step", lambda *given: taken.append(given))
    assert invoke(*arguments)[0] == 0
    assert [given[0] for given in taken] == [command]


def test_help_lists_the_commands() -> None:
    code, text = invoke("--help")
    assert code == 0
    assert all(f" {command} " in text for command in COMMANDS)


def test_no_arguments_show_the_help() -> None:
    assert "Usage" in invoke()[1]


def test_version() -> None:
    assert invoke("--version") == (0, __version__)


@pytest.mark.parametrize(
    "arguments",
    [("rnu", "run.toml"), ("run",), ("run", "a.toml", "b.toml"), ("run", "a.toml", "--sett", "x=1")],
)
def test_wrong_usage_has_exit_code_two(arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments)[0] == 2


def _raises(error: BaseException) -> None:
    raise error


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: None) == 0
    assert exit_code(lambda: _raises(ZpdError("what, got, expected, do this"))) == 2
    assert capsys.readouterr().err == "zpd-ray: what, got, expected, do this\n"
    assert exit_code(lambda: _raises(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "zpd-ray: interrupted\n"


def test_a_fault_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 // 0)


def test_overrides_and_path_reach_the_config(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("stages = 1\n")
    code, text = invoke("run", str(path), "--set", "stagse=2", "--set", "train.epoch=3")
    assert code == 2
    assert "unknown key stagse; did you mean stages?" in text
    assert "unknown key train.epoch; did you mean train.epochs?" in text


def test_the_installed_command_answers() -> None:
    command = Path(sys.executable).with_name("zpd-ray")
    if not command.exists():
        pytest.skip("the package is not installed beside this Python")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == __version__
