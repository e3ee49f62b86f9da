"""Reading a run's TOML file, with ``--set section.key=value`` on top; and telling two configs apart."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.uris import check_secrets

# What may change when a run is resumed: with what it is computed, and the limits at which it gives up.
FREE = (
    "cluster.address",
    "cluster.actors",
    "cluster.autoscaling",
    "cluster.score_nodes",
    "cluster.train_nodes",
    "output",
    "report",
    "track",
    "pool.allow_damaged",
    "evaluation.allow_damaged",
    "measure.patience",
    "select.judge.url",
    "select.judge.parallel",
    "train.rehearse",
    "measure.max_unparsed_share",
    "ability.allow_extreme",
    "pool.max_bad_share",
    "evaluation.max_bad_share",
    "measure.max_failed_share",
)

SELECT_MODELS = ("proxy", "reference_model")  # keys of ``select`` that name a model to measure with
SELECT_MEASURES = (*SELECT_MODELS, "in_context", "judge")  # and all that something is measured by

M = TypeVar("M", bound=BaseModel)

_YAML = re.compile(r"(?:\s*#.*\n|\s*\n|---.*\n)*\s*\w+:(?:\s|$)")


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """The config in a TOML file, overrides applied, relative paths taken from the file's directory.

    Raises ZpdError naming the key, what it got, and the nearest known key.
    """
    return placed(validate(read_values(path, overrides)), path)


def read_values(path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain values in a TOML file, overrides (``section.key=value``) applied. Raises ZpdError."""
    values = _read_toml(Path(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ZpdError(f"--set got {override!r}; expected section.key=value, as in --set train.epochs=2")
        set_value(values, key.strip(), _toml_value(text.strip()), f"--set {override}")
    return values


def set_value(values: dict[str, Any], key: str, value: Any, told: str) -> None:
    """Put a value at ``section.key``. Raises ZpdError, which begins with ``told``, where there is no section.

    A budget is one of fraction, items and tokens: the new one takes the old one's place.
    """
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ZpdError(f"{told}: {section} is a value, not a section")
    if name in ("fraction", "items", "tokens") and sections[-1:] == ["budget"]:
        values.clear()
    values[name] = value


def placed(config: Config, path: str) -> Config:
    """The config of a file with its relative paths taken from the file's directory."""
    return _with_absolute_paths(config, Path(path).resolve().parent)


def validate(values: dict[str, Any]) -> Config:
    """A Config from plain values; ZpdError with every problem in one sentence each."""
    config = checked(Config, values)
    tracked = ((f"track.{name}", target) for name, target in config.track.targets.items())
    for setting, uri in (*places(config), *tracked):
        check_secrets(setting, uri)
    return config


def checked(model: type[M], values: dict[str, Any]) -> M:
    """A config of another kind from plain values; raises ZpdError likewise."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ZpdError("; ".join(_explain(problem, model) for problem in error.errors())) from None


def to_toml(config: Config, without: Collection[str] = ()) -> str:
    """The config, defaults included, without some keys of ``cluster``."""
    values = config.model_dump(mode="json", exclude_none=True)
    values["cluster"] = {key: value for key, value in values["cluster"].items() if key not in without}
    return tomli_w.dumps(values)


def differences(old: Config, new: Config) -> list[str]:
    """Keys that change a run's result and differ, as ``key: old -> new``."""
    before, after = flat(old.model_dump()), flat(new.model_dump())
    return [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(FREE)
    ]


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a config by key, as in ``select.method``."""
    return dict(_flat(values))


def places(config: Config) -> list[tuple[str, str]]:
    """Paths and URIs of output, sources and judge, and URIs of models, each with the key that gives it."""
    found = [("output", config.output), *(("pool.path", path) for path in config.pool.paths)]
    models = {"model.path": config.model.path, "select.judge.model": config.select.judge.model}
    models |= {f"select.{key}": getattr(config.select, key) for key in SELECT_MODELS}
    found += [(key, path) for key, path in models.items() if path is not None and "://" in path]
    if config.select.judge.url is not None:
        found.append(("select.judge.url", config.select.judge.url))
    if config.evaluation is not None:
        found += [("evaluation.path", path) for path in config.evaluation.paths]
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise ZpdError(f"cannot read the config {path}: {problem}; give the path of a TOML file") from None
    except tomllib.TOMLDecodeError as problem:
        raise ZpdError(f"{path} is not valid TOML: {problem}; {_looks_like(path)}") from None


def _looks_like(path: Path) -> str:
    """What to do about a file that is not TOML."""
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("{"):
        return 'it looks like JSON: write [section] and key = "value" instead, as `zpd-ray init` does'
    if path.suffix in (".yaml", ".yml") or _YAML.match(text):
        return 'it looks like YAML: write [section] and key = "value" instead, as `zpd-ray init` does'
    return "text values need quotes"


def _toml_value(text: str) -> Any:
    """``text`` as TOML; what is no TOML value is text, so that quotes are not needed on a command line."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(problem: Any, root: type[BaseModel]) -> str:
    where = [str(step) for step in problem["loc"]]
    key = ".".join(where)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key}; {_nearest_key(root, where)}"
    if problem["type"] == "missing":
        return f"{key} is missing; add it to the config or give --set {_entry(root, where)}=..."
    if problem["type"] in ("model_type", "model_attributes_type"):
        keys = ", ".join(_keys_of(root, where))
        entry = _entry(root, where)
        return f"{key} is a section with keys ({keys}), got {problem['input']!r}; give {entry} = ..."
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message[0].lower()}{message[1:]}, got {problem['input']!r}"


def _nearest_key(root: type[BaseModel], where: list[str]) -> str:
    """What may have been meant by an unknown key: one nearby, or of that name in another section."""
    *sections, name = where
    known = _keys_of(root, sections)
    nearest = difflib.get_close_matches(name, known, n=1)
    if nearest:
        return f"did you mean {'.'.join([*sections, nearest[0]])}?"
    elsewhere = [section for section in _keys_of(root, []) if name in _keys_of(root, [section])]
    if elsewhere:
        return f"did you mean {' or '.join(f'{section}.{name}' for section in elsewhere)}?"
    return f"known: {', '.join(known)}"


def _entry(root: type[BaseModel], where: list[str]) -> str:
    """A key to set for what is missing: of a section, the one that it needs."""
    model = _section(root, where)
    if model is None:
        return ".".join(where)
    needed = [name for name, field in model.model_fields.items() if field.is_required()]
    return _entry(root, [*where, (needed or list(model.model_fields))[0]])


def _section(root: type[BaseModel], where: list[str]) -> Any:
    """The model of a section, or None for a key that is none."""
    model: Any = root
    for name in where:
        if name.isdecimal():  # a place in a list of sections
            continue
        annotation = model.model_fields[name].annotation
        options = [annotation, *get_args(annotation)]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if model is None:
            return None
    return model


def _keys_of(root: type[BaseModel], sections: list[str]) -> list[str]:
    """Known keys of a section; none of what is no section."""
    model = _section(root, sections)
    return sorted(model.model_fields) if model is not None else []


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _with_absolute_paths(config: Config, directory: Path) -> Config:
    """Paths of sources, of the output and of local models, seen from the config file's directory."""

    def place(path: str) -> str:
        return path if "://" in path else str(directory / os.path.expanduser(path))

    def source(section: Any) -> Any:
        paths = section.path
        moved = [place(p) for p in paths] if isinstance(paths, list) else place(paths)
        return section.model_copy(update={"path": moved})

    def model(path: str) -> str:
        if "://" in path:
            return path
        # A hub id looks like a relative path; what is no directory here is left for the hub.
        local = directory / os.path.expanduser(path)  # a ~user that is none stays as it is
        first, _, rest = path.partition("/")
        beside = "/" in rest or (bool(rest) and (directory / first).is_dir())  # of a misspelt directory
        return str(local) if local.exists() or beside or path.startswith((".", "/", "~")) else path

    track = config.track
    if track.tensorboard is not None:
        track = track.model_copy(update={"tensorboard": place(track.tensorboard)})
    others = {key: getattr(config.select, key) for key in SELECT_MODELS}
    judge = config.select.judge
    judge = judge if judge.model is None else judge.model_copy(update={"model": model(judge.model)})
    return config.model_copy(
        update={
            "output": place(config.output),
            "pool": source(config.pool),
            "evaluation": source(config.evaluation) if config.evaluation else None,
            "model": config.model.model_copy(update={"path": model(config.model.path)}),
            "select": config.select.model_copy(
                update={key: model(path) for key, path in others.items() if path is not None}
                | {"judge": judge}
            ),
            "track": track,
        }
    )
