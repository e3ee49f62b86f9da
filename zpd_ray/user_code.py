"""A function or class by its name, ``package.module:function``, also in a Python that is started for it."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from typing import Any

from zpd_ray.errors import ZpdError


def environment() -> dict[str, str]:
    """Variables for a Python that finds the modules which this one finds."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def load_function(what: str, name: str, signature: str) -> Callable[..., Any]:
    """The function, or class, of a name. what: the grader, say; signature: what is expected of it.

    Raises ZpdError when the name does not lead to something callable.
    """
    module_name, _, path = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")]):
        raise ZpdError(f"{what} {name!r} is no function name; expected 'package.module:function'")
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ZpdError(
            f"{what} {name!r} cannot be imported: {type(error).__name__}: {error}; "
            f"make {module_name} importable on every node, e.g. install it or put its directory on PYTHONPATH"
        ) from error
    try:
        function = reduce(getattr, path.split("."), module)
    except AttributeError as error:
        there = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        near = difflib.get_close_matches(path, there, n=3, cutoff=0.0)
        raise ZpdError(
            f"the module {module_name} has no {path!r}; the nearest are {', '.join(near) or 'none'}; "
            f"correct {name!r}"
        ) from error
    if not callable(function):
        raise ZpdError(f"{what} {name!r} is a {type(function).__name__}; expected {signature}")
    return function
