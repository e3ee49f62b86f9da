"""Opening a run directory: new, or an earlier run's, for one process at a time."""

from __future__ import annotations

import fcntl
import platform
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from zpd_ray import graders
from zpd_ray.config import Config
from zpd_ray.config_file import differences, to_toml, validate
from zpd_ray.engines.tokens import load_tokenizer, max_length
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.store import Store
from zpd_ray.readers.sources import expand

PACKAGES = ("zpd-ray", "ray", "torch", "transformers", "peft", "numpy", "scipy", "pyarrow")


@contextmanager
def open_run(config: Config) -> Iterator[Store]:
    """The store of a run, its config checked against what an earlier attempt recorded.

    Everything that can be checked before work starts is checked here, before anything is written.
    Raises ZpdError when the config differs from the recorded one, or another process has the run.
    """
    store = Store(config.output)
    recorded = store.exists("config.toml")
    if recorded:
        _check_same(config, store)
    else:
        check_inputs(config)
        store.write_json("manifest.json", _manifest(config))
        store.write_bytes("config.toml", to_toml(config).encode())
    with _locked(store):
        yield store


def check_inputs(config: Config) -> None:
    """Sources that are there, a grader that loads, a model with a tokenizer: ZpdError otherwise."""
    graders.load(config.measure.grader)
    for source in filter(None, (config.pool, config.evaluation)):
        expand(source.path, source.format)
    if config.engine.name != "simulated":
        max_length(config.model, load_tokenizer(config.model.path))


def _check_same(config: Config, store: Store) -> None:
    before = validate(tomllib.loads(store.read_bytes("config.toml").decode()))
    changed = differences(before, config)
    if changed:
        raise ZpdError(
            f"the run directory {store.root} belongs to another config: {'; '.join(changed)}; take these "
            "back to resume it, or give another output"
        )


def _manifest(config: Config) -> dict[str, object]:
    versions = {package: version(package) for package in PACKAGES}
    return {"seed": config.seed, "python": platform.python_version(), "versions": versions}


@contextmanager
def _locked(store: Store) -> Iterator[None]:
    """One process at a time, where the file system can say so; a killed process leaves no lock behind."""
    if not store.is_local:
        yield
        return
    with Path(store.path(".lock")).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ZpdError(
                f"another process is working on {store.root}; wait for it, or give another output"
            ) from None
        yield
