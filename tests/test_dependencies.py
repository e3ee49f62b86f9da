"""What the package imports is what it declares, and the other way round."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def imported(directory: Path) -> dict[str, str]:
    """Top-level modules from elsewhere that the files import, and one importing file of each."""
    found: dict[str, str] = {}
    for path in sorted(directory.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            found |= {name.partition(".")[0]: str(path.relative_to(ROOT)) for name in names}
    own = {*sys.stdlib_module_names, directory.name}
    return {name: path for name, path in found.items() if name not in own}


def declared() -> tuple[set[str], dict[str, set[str]]]:
    """Import names of the dependencies, and of each extra's: here a package's name with _ for -."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~; ]", each)[0].replace("-", "_") for each in requirements}

    extras = {extra: names(each) for extra, each in project["optional-dependencies"].items()}
    return names(project["dependencies"]), extras


def test_every_import_is_declared_and_every_dependency_is_imported() -> None:
    dependencies, extras = declared()
    used, own = (
        imported(ROOT / "zpd_ray"),
        ("vllm", "diverse", "tensorboard", "mlflow", "wandb", "object-store"),
    )
    known = dependencies.union(*(extras[extra] for extra in own))
    known = {IMPORTED_AS.get(name, name) for name in known}
    assert {name: path for name, path in used.items() if name not in known} == {}
    assert known <= used.keys()


IMPORTED_AS = {"vl_convert_python": "vl_convert", "mlflow_skinny": "mlflow"}
