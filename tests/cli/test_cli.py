"""The command line: help, version, exit codes."""

from __future__ import annotations

import json
import os
import shutil
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

ROOT = Path(__file__).parents[2]
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


def test_help_lists_the_exit_codes() -> None:
    text = invoke("--help")[1].partition("Exit codes:")[2]
    for told in ("0 done", "2 something to mend", "130 ended by Ctrl-C", "143 ended by SIGTERM"):
        assert told in text


@pytest.mark.parametrize("command", [*COMMANDS, "check", "compare", "init", "status"])
def test_every_command_that_has_a_result_takes_quiet_and_json(command: str) -> None:
    text = invoke(command, "--help")[1]
    assert "--quiet" in text
    assert "--json" in text


def test_an_error_with_json(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("stages = 1\n")
    for command in (*COMMANDS, "check"):
        done = CliRunner().invoke(cli.app, [command, str(path), "--json", "--quiet"])
        assert done.exit_code == 2
        error = json.loads(done.stdout)
        assert error.keys() == {"error"}
        assert done.stderr == f"zpd-ray: {error['error']}\n"
    done = CliRunner().invoke(cli.app, ["run", str(path)])  # what was asked for ends with the command
    assert done.stdout == ""


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


COMPLETING = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_zpd_ray_completion {command}
printf '%s\\n' "${{COMPREPLY[@]}}"
complete -p zpd-ray
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``zpd-ray`` as an installed script would be."""
    script = tmp_path_factory.mktemp("bin") / "zpd-ray"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from zpd_ray.cli import main; main()"
    script.write_text(f"#!{sys.executable}\n{code}\n")
    script.chmod(0o755)
    return script


def shown(command: Path, shell: str) -> str:
    """The script that completes for a shell; not for the one that the tests were started from."""
    env = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    arguments = [command, "--show-completion", shell]
    return subprocess.run(arguments, env=env, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_and_answers(command: Path, shell: str) -> None:
    """ "Shell bash not supported" was said where typer was told to add no completion."""
    script = shown(command, shell)
    assert f"_ZPD_RAY_COMPLETE=complete_{shell}" in script
    env = {
        **os.environ,
        "_ZPD_RAY_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "zpd-ray ru",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "zpd-ray ru",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run([command], env=env, capture_output=True, text=True, check=True, timeout=60)
    assert "run" in done.stdout
    assert "ingest" not in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "replies"),
    [("zpd-ray ev", ["evaluate"]), ("zpd-ray run --js", ["--json"]), ("zpd-ray run ex", [])],
)
def test_bash_completes_commands_and_options_and_leaves_files_to_itself(
    command: Path, tmp_path: Path, words: str, replies: list[str]
) -> None:
    script = tmp_path / "completion.sh"
    script.write_text(shown(command, "bash"))
    code = COMPLETING.format(script=script, words=words, command=command)
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    *told, how = done.stdout.splitlines()
    assert list(filter(None, told)) == replies
    assert "-o default" in how  # where nothing is replied, bash completes files


def test_completion_is_installed_for_the_shell_of_the_user(command: Path, tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    arguments = [command, "--install-completion", "bash"]
    subprocess.run(arguments, env=env, capture_output=True, check=True, timeout=60)
    installed = tmp_path / ".bash_completions" / "zpd-ray.sh"
    assert str(installed) in (tmp_path / ".bashrc").read_text()
    assert installed.read_text().strip() == shown(command, "bash").strip()
