"""Names that the config takes, and the flags of a fit."""

from __future__ import annotations

from generate.markdown import code, prose, table
from generate.source import first_sentence
from zpd_ray.engines import ENGINES
from zpd_ray.export import FORMATS
from zpd_ray.graders import GRADERS
from zpd_ray.irt.flags import FLAGS
from zpd_ray.measures import MEASURES
from zpd_ray.selection import METHODS
from zpd_ray.tracking import TRACKERS

REGISTRIES = {
    "methods": METHODS,
    "measures": MEASURES,
    "graders": GRADERS,
    "engines": ENGINES,
    "trackers": TRACKERS,
    "exports": FORMATS,
}


def registry(kind: str) -> str:
    """A table of one kind's names; what shares a module with others is told by its own docstring."""
    paths = REGISTRIES[kind]
    modules = [path.partition(":")[0] for path in paths.values()]
    rows = [
        (code(name), prose(first_sentence(path, whole=modules.count(module) == 1)), code(_file(module)))
        for (name, path), module in zip(paths.items(), modules, strict=True)
    ]
    return table(("name", "what it is", "where it lives"), rows)


def _file(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def flags() -> str:
    """A table of flags."""
    return table(("flag", "what it means"), [(code(flag), prose(told)) for flag, told in FLAGS.items()])
