"""What all commands share: their arguments, and how they end."""

from __future__ import annotations

from collections.abc import Callable
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


def exit_code(work: Callable[[], int | None]) -> int:
    """Do it; its own exit code, or that of the error, which is told in one sentence."""
    try:
        return work() or 0
    except ZpdError as error:
        typer.echo(f"zpd-ray: {error}", err=True)
        return 2
    except KeyboardInterrupt:
        typer.echo("zpd-ray: interrupted", err=True)
        return INTERRUPTED
