"""What a job takes along: the resolved config, and the user's code where it is asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zpd_ray.config import Config
from zpd_ray.config_file import SELECT_MODELS, places, to_toml
from zpd_ray.errors import ZpdError
from zpd_ray.machine import left_out

CONFIG = "run.toml"
IGNORE_FILES = (".gitignore", ".rayignore")


@contextmanager
def package(config: Config, code: Path | None) -> Iterator[str]:
    """A directory for Ray to ship: ``run.toml`` of this run beside links to what ``code`` holds.

    Links, so that Ray itself applies .gitignore and .rayignore files, and nothing is written into ``code``.
    """
    with tempfile.TemporaryDirectory(prefix="zpd-ray-") as directory:
        target = Path(directory)
        if code is not None:
            _link(code, target)
        # What the user left open stays open: the job takes it from the run directory that it resumes.
        shipped = to_toml(for_cluster(config), without=left_out(config.cluster))
        (target / CONFIG).write_text(shipped, encoding="utf-8")
        try:
            yield directory
        except OSError as problem:
            raise ZpdError(
                f"cannot pack {code or 'the config'}: {problem}; mend it, or name it in the .gitignore"
            ) from None


def for_cluster(config: Config) -> Config:
    """The same run, inside a Ray cluster."""
    return config.model_copy(update={"cluster": config.cluster.model_copy(update={"address": "auto"})})


def _link(code: Path, target: Path) -> None:
    if not code.is_dir():
        raise ZpdError(f"--working-dir got {str(code)!r}, which is no directory; give the one with your code")
    for entry in code.resolve().iterdir():
        if entry.name in IGNORE_FILES and entry.is_file():
            # Our config goes along whatever the user's repository ignores.
            text = entry.read_text(encoding="utf-8", errors="surrogateescape")
            kept = f"{text}\n!/{CONFIG}\n"
            (target / entry.name).write_text(kept, encoding="utf-8", errors="surrogateescape")
        elif entry.name != CONFIG:
            (target / entry.name).symlink_to(entry)


def variables(names: Sequence[str]) -> dict[str, str]:
    """The variables of the environment that the job is given. Raises ZpdError for one that is not set."""
    for name in names:
        if "=" in name:
            raise ZpdError(
                f"--env takes the name of a variable, got a value for {name.partition('=')[0]}; set it in "
                "the environment and give --env NAME: what stands on a command line is no secret"
            )
        if name not in os.environ:
            raise ZpdError(f"--env {name}: no such variable in this environment; export it first")
    return {name: os.environ[name] for name in names}


def local_paths(config: Config) -> list[str]:
    """Keys of the config whose path is a file path: every node has to see it."""
    keys = {key for key, path in places(config) if "://" not in path}
    if os.path.isabs(config.model.path):  # else it is a hub id
        keys.add("model.path")
    keys |= {f"select.{key}" for key in SELECT_MODELS if os.path.isabs(getattr(config.select, key) or "")}
    if os.path.isabs(config.select.judge.model or ""):
        keys.add("select.judge.model")
    return sorted(keys)
