"""docs/api.md lists what is public, and what is public is documented, typed and light to import."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_imports import HEAVY

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def listed() -> dict[str, list[str]]:
    """Names by module, as the page has them."""
    sections = re.split(r"^## (\S+)\n", PAGE, flags=re.MULTILINE)[1:]
    rows = [re.findall(r"^\| (`[^|]*`) \|", text, flags=re.MULTILINE) for text in sections[1::2]]
    return {
        module: [name for row in each for name in re.findall(r"`(\w+)`", row)]
        for module, each in zip(sections[::2], rows, strict=True)
    }


MODULES = listed()
NAMES = [f"{module}:{name}" for module, names in MODULES.items() for name in names]


def found(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("module", MODULES)
def test_the_page_lists_what_the_module_exports(module: str) -> None:
    assert sorted(MODULES[module]) == sorted(importlib.import_module(module).__all__)
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_each_name_has_a_docstring_and_types(name: str) -> None:
    """Constants have neither: the page says what they are, and mypy what type."""
    thing = found(name)
    if not callable(thing):
        return
    assert thing.__doc__
    assert not re.match(rf"{getattr(thing, '__name__', '')}\(", thing.__doc__), "made by dataclass"
    for where, function in functions(thing):
        assert function.__doc__ or function.__name__ == "__init__", where
        for parameter in list(inspect.signature(function).parameters.values()):
            typed = parameter.annotation is not inspect.Parameter.empty
            assert typed or parameter.name in ("self", "cls"), f"{where}: {parameter}"
        assert "return" in function.__annotations__, where


def functions(thing: Any) -> Iterator[tuple[str, types.FunctionType]]:
    """The thing itself, or the public methods that its class defines."""
    if isinstance(thing, types.FunctionType):
        yield thing.__name__, thing
        return
    for name, member in vars(thing).items():
        function = getattr(member, "__func__", getattr(member, "fget", member))
        public = not name.startswith("_") or name == "__init__"
        if public and isinstance(function, types.FunctionType) and _written(function, thing):
            yield f"{thing.__name__}.{name}", function


def _written(function: types.FunctionType, thing: type) -> bool:
    """Whether it stands in the file of its class: not what dataclass, NamedTuple or Protocol has made."""
    return function.__code__.co_filename == inspect.getsourcefile(thing)


def test_importing_them_brings_neither_ray_nor_torch_nor_warnings() -> None:
    code = f"import {', '.join(MODULES)}, sys; print(*sorted({{n.partition('.')[0] for n in sys.modules}}))"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())


def test_the_page_is_not_empty() -> None:
    assert {"zpd_ray", "zpd_ray.irt", "zpd_ray.selection", "zpd_ray.engines"} <= MODULES.keys()
    assert all(MODULES.values())
