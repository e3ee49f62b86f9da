"""What users get wrong, one case each: what was done, and how to do it in a fresh directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

Do = Callable[["Desk"], None]


class Case(NamedTuple):
    """group: of the table; did: in words; do: prepares a directory; ray: whether a Ray is needed."""

    group: str
    did: str
    do: Do
    ray: bool


CASES: list[Case] = []


def case(group: str, did: str, ray: bool = False) -> Callable[[Do], Do]:
    """Enter a case into the table."""

    def enter(do: Do) -> Do:
        CASES.append(Case(group, did, do, ray))
        return do

    return enter


def rows(n: int, start: int = 0) -> list[dict[str, Any]]:
    """Sound rows, each with a solution and a gold answer."""
    return [
        {"prompt": f"question {i}", "response": f"so it is {i}", "answer": str(i)}
        for i in range(start, start + n)
    ]


@dataclass
class Desk:
    """A directory with a sound run in it, of which a case spoils something.

    values: of run.toml; text: instead of these; command: that is given, before the config and ``flags``.
    model_from: a sound model, to be copied by ``model()``.
    """

    directory: Path
    model_from: Path
    command: tuple[str, ...] = ("run",)
    flags: tuple[str, ...] = ()
    text: str | bytes | None = None
    alone: bool = False  # the command takes no config
    values: dict[str, Any] = field(
        default_factory=lambda: {
            "output": "out",
            "stages": 1,
            "pool": {"path": "pool.jsonl", "items_per_part": 100},
            "model": {"path": "unused"},
            "engine": {"name": "simulated"},
            "measure": {"grader": "exact"},
            "select": {"budget": {"fraction": 0.1}},
            "train": {"method": "none"},
        }
    )

    def __post_init__(self) -> None:
        self.pool(rows(40))

    def set(self, section: str, **values: Any) -> None:
        """Keys of a section of the config."""
        self.values[section] = self.values.get(section, {}) | values

    def file(self, name: str, content: str | bytes) -> Path:
        """A file in the directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def pool(self, content: list[Any], name: str = "pool.jsonl") -> Path:
        """A pool of these rows."""
        return self.file(name, "".join(json.dumps(row) + "\n" for row in content))

    def row(self, **changes: Any) -> None:
        """A pool of which one row is changed (None: a column is left out), and a check of it."""
        changed = {key: value for key, value in (rows(1)[0] | changes).items() if value is not None}
        self.pool([*rows(39, 1), changed])
        self.command = ("check",)

    def model(self, **config: Any) -> Path:
        """A copy of a sound model, named in the config; changes to its config.json."""
        import shutil

        target = self.directory / "model"
        shutil.copytree(self.model_from, target, dirs_exist_ok=True)
        self.set("model", path="model")
        self.set("engine", name="transformers")
        if config:
            file = target / "config.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | config))
        return target

    def arguments(self) -> list[str]:
        """Of the command line; writes the config."""
        if self.alone:
            return [*self.command, *self.flags]
        config = self.directory / "run.toml"
        if self.text is None:
            config.write_text(tomli_w.dumps(self.values))
        elif isinstance(self.text, bytes):
            config.write_bytes(self.text)
        else:
            config.write_text(self.text)
        return [*self.command, str(config), *self.flags]
