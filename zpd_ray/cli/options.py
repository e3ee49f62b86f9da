"""What all commands share: their arguments, and how they end."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from zpd_ray.errors import ZpdError

INTERRUPTED = 130  # as a shell tells of SIGINT

ConfigFile = Annotated[Path, typer.Argument(help="TOML file that describes the run", metavar="RUN.TOML")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="override one value of the config; may be repeated"
    ),
]


def _while(name: str) -> Callable[[typer.Context, bool], bool]:
    """A callback: where its option is given, the command runs within ``terminal.NAME()``."""

    def callback(context: typer.Context, asked: bool) -> bool:
        if asked:
            from zpd_ray import terminal  # rich's drawing: not for --help

            manager: AbstractContextManager[None] = getattr(terminal, name)()
            context.with_resource(manager)
        return asked

    return callback


# A command takes these two and need not look at them: ``zpd_ray.terminal`` knows.
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        callback=_while("quietly"),
        help="results, warnings and errors alone: no progress, no notes",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_while("in_json"),
        help='the result as one line of JSON on stdout, or {"error": "..."}',
    ),
]


def before_ray() -> None:
    """Ray warns of more processes than cores, also where most of them wait, as ours do.

    It reads what it is not to say when it is imported.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker processes have been started on node")


def exit_code(work: Callable[[], int | None]) -> int:
    """Do it; its own exit code, or that of the error, which is told in one sentence."""
    try:
        return work() or 0
    except ZpdError as error:
        from zpd_ray.terminal import show_error

        show_error(str(error))
        return 2
    except KeyboardInterrupt:
        typer.echo("zpd-ray: interrupted", err=True)
        return INTERRUPTED
