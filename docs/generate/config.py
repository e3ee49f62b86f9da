"""Every key of the config: type, default and meaning, from the pydantic models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from generate.markdown import code, prose, table
from zpd_ray.compare.file import Comparison
from zpd_ray.config import Config

HEAD = ("key", "type", "default", "meaning")
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}
WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}


def sections() -> str:
    """A heading and a table for each section of the file, sections inside sections after their own."""
    return "\n".join(f"## {title}\n\n{told}" for title, told in _sections("", Config))


def comparison() -> str:
    """The same of the file that ``zpd-ray compare`` takes."""
    return "\n".join(f"### {title}\n\n{told}" for title, told in _sections("", Comparison))


def keys() -> dict[str, FieldInfo]:
    """Every key by its full name, as in ``select.budget.items``."""
    return dict(_keys("", Config))


def _keys(prefix: str, model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        if (inner := _section(field)) is not None:
            yield from _keys(f"{prefix}{name}.", inner)


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def _sections(name: str, model: type[BaseModel], told: str | None = None) -> Iterator[tuple[str, str]]:
    """Title and text of a section and of those inside; told: what it is, if its class does not say it."""
    properties = model.model_json_schema()["properties"]
    inner = {key: kind for key, field in model.model_fields.items() if (kind := _section(field))}
    rows = [
        (code(f"{name}.{key}" if name else key), _type(properties[key]), _default(field), _meaning(field))
        for key, field in model.model_fields.items()
        if key not in inner
    ]
    title = code(f"[{name}]") if name else "Top of the file"
    yield title, f"{prose(told or model.__doc__ or '')}\n\n{table(HEAD, rows)}"
    for key, kind in inner.items():
        yield from _sections(f"{name}.{key}" if name else key, kind, model.model_fields[key].description)


def _meaning(field: FieldInfo) -> str:
    return prose(field.description or "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    return "" if value is None else code(json.dumps(value).replace("{", "{ ").replace("}", " }"))


def _type(schema: Any) -> str:
    """What may be written there, in words."""
    if not schema or schema is True:
        return "value"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"] if each.get("type") != "null")
    if "enum" in schema:
        return ", ".join(code(json.dumps(each)) for each in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}s"
    if schema["type"] == "object":
        return f"table of {_type(schema['additionalProperties'])}s"
    bounds = [words.format(f"{schema[key]:g}") for key, words in BOUNDS.items() if key in schema]
    return ", ".join([WORDS[schema["type"]], *bounds])
