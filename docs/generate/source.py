"""Comments and docstrings, read from source files that are not imported for it."""

from __future__ import annotations

import ast
import io
import tokenize
from importlib.util import find_spec
from pathlib import Path


def source_of(module: str) -> str:
    """The text of a module that is found, not imported: some import torch."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    return Path(spec.origin).read_text(encoding="utf-8")


def first_sentence(path: str, whole: bool = False) -> str:
    """The first paragraph of the docstring of ``package.module:Class``; whole: of its module."""
    module, _, name = path.partition(":")
    tree = ast.parse(source_of(module))
    kinds = (ast.ClassDef, ast.FunctionDef)
    found = tree if whole else next(n for n in tree.body if isinstance(n, kinds) and n.name == name)
    return " ".join((ast.get_docstring(found) or "").partition("\n\n")[0].split())


def column_comments(text: str) -> dict[str, dict[str, str]]:
    """Of every schema in a source text, by the name it is assigned to, the comment on each column.

    A column is written as ``("name", pa.type())``; its comment stands beside it, or in lines above it.
    """
    comments = _comments(text)
    alone = {line for line in comments if text.splitlines()[line - 1].lstrip().startswith("#")}
    found: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("pa.schema("):
            columns = [each for each in ast.walk(node.value) if isinstance(each, ast.Tuple)]
            found[ast.unparse(node.targets[0])] = dict(_comment(each, comments, alone) for each in columns)
    return found


def _comment(column: ast.Tuple, comments: dict[int, str], alone: set[int]) -> tuple[str, str]:
    first = column.lineno
    while first - 1 in alone:
        first -= 1
    told = " ".join(comments[line] for line in range(first, column.end_lineno + 1) if line in comments)
    return ast.unparse(column.elts[0]).strip("'"), told


def _comments(text: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
