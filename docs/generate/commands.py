"""Every command and option, from the command line itself."""

from __future__ import annotations

from typing import Any

from typer.main import get_command

from generate.markdown import code, table
from zpd_ray.cli.app import app


def commands() -> str:
    """A heading, the help, arguments and options of each command."""
    return "\n".join(f"## `zpd-ray {name}`\n\n{_command(each)}" for name, each in by_name().items())


def by_name() -> dict[str, Any]:
    """The commands (click's), by name."""
    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    return found


def _command(command: Any) -> str:
    told = command.help.replace("\b\n", "")
    given = [each for each in command.params if each.name != "help"]
    return f"{told}\n\n{table(('', 'values', 'default', 'meaning'), map(_row, given))}"


def _row(given: Any) -> tuple[str, str, str, str]:
    if given.param_type_name == "argument":
        name, values = code(given.metavar or given.name.upper()), ""
    else:
        names = [*given.opts, *given.secondary_opts]
        name, values = ", ".join(map(code, names)), code(given.metavar) if given.metavar else ""
    default = "**required**" if given.required else _default(given)
    return name, values, default, given.help or ""


def _default(given: Any) -> str:
    plain = given.default is not None and not isinstance(given.default, bool | list | tuple)
    return code(given.default) if plain else ""
