"""What the docs name exists: files, keys, commands, options, imports; their configs load."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from itertools import pairwise
from typing import Any

import pytest
from generate.commands import by_name
from generate.config import keys

from tests.docs.pages import Block, Page, blocks, calls, pages
from tests.pipeline.processes import ROOT
from zpd_ray.compare.file import Comparison
from zpd_ray.config_file import checked, validate

PAGES = pages()
LANGUAGES = {"bash", "python", "toml", "text", "math", "{toctree}"}
FOLDERS = {"zpd_ray", "tests", "docs", "benchmarks", "examples", "cluster", ".ci"}
# Rooms of the package, which docs/decisions.md names without it.
ROOMS = {path.name for path in (ROOT / "zpd_ray").iterdir() if path.is_dir()}
PATH = re.compile(r"(?<![\w/.$-])((?:[\w.-]+/)+[\w.-]*)")
KEY = re.compile(
    r"\b((?:pool|evaluation|model|engine|measure|ability|select|train|cluster)(?:\.[a-z_]+)+)\b(?![/(])"
)
FILES = (".json", ".jsonl", ".py", ".toml", ".md", ".parquet")
LEAST = {"output": "out", "pool": {"path": "p"}, "model": {"path": "m"}, "select": {"budget": {"items": 1}}}


def each_page(*wanted: Page) -> Any:
    return pytest.mark.parametrize("page", wanted or PAGES, ids=lambda page: page.name)


@each_page()
def test_every_block_says_what_it_is(page: Page) -> None:
    assert {block.language for block in page.blocks} <= LANGUAGES
    assert page.text.count("```") == 2 * len(page.blocks)


@each_page()
def test_named_files_exist(page: Page) -> None:
    """Whatever begins with a directory of the repository or of the package, in prose and in commands."""
    texts = [
        *page.code,
        *(block.text for block in page.blocks if block.language in ("bash", "python", "toml")),
    ]
    for found in (path for text in texts for path in PATH.findall(text)):
        first = found.partition("/")[0]
        if first in FOLDERS and not found.startswith(UNMADE):
            assert (ROOT / found).exists(), found
        elif first in ROOMS and found.endswith(".py"):
            assert (ROOT / "zpd_ray" / found).exists(), found


# What examples make when they run.
UNMADE = ("examples/quickstart/data", "examples/pronounce/data")


@each_page()
def test_named_keys_exist(page: Page) -> None:
    known = keys()
    named = {key for text in page.code for key in KEY.findall(text) if not key.endswith(FILES)}
    assert {key for key in named if key not in known and not key.startswith(NOT_KEYS)} == set()


# Attributes and fields of the same first name.
NOT_KEYS = ("ability.stages",)


@each_page()
def test_named_commands_and_options_exist(page: Page) -> None:
    inline = [text for text in page.code if text.startswith("zpd-ray ")]
    for words in (
        call
        for text in [*inline, *(b.text for b in page.blocks if b.language == "bash")]
        for call in calls(text)
    ):
        check_call(words)


def check_call(words: list[str]) -> None:
    """The command exists, and so do its options and the keys that it sets."""
    if words[0].startswith("-"):
        return
    if words[0].isupper():  # zpd-ray COMMAND
        return
    command = by_name()[words[0]]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert given <= known, words
    set_keys = {value.partition("=")[0] for option, value in pairwise(words) if option == "--set"}
    its_own = Comparison.model_fields if words[0] == "compare" else keys()
    assert set_keys - {"SECTION.KEY"} <= its_own.keys(), words


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block.page)
def test_configs_load(block: Block) -> None:
    """Each by itself, with what must be there where it is a piece."""
    given = tomllib.loads(block.text)
    if block.file == "compare.toml":
        checked(Comparison, given)
    else:
        validate(merged(LEAST, given))


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The second's values in place of the first's, section by section."""
    both = {
        key: merged(one[key], value) if isinstance(value, dict) and isinstance(one.get(key), dict) else value
        for key, value in other.items()
        if key != "budget"
    }
    return one | both | ({"budget": other["budget"]} if "budget" in other else {})


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.page)
def test_python_compiles_and_its_imports_resolve(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zpd_ray"):
            module = importlib.import_module(str(node.module))
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
