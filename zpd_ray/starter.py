"""A commented config for data that somebody has: ``zpd-ray init``."""

from __future__ import annotations

import glob
import json
import os
from pathlib import Path

from zpd_ray.config import SourceConfig
from zpd_ray.errors import ZpdError
from zpd_ray.preview import first_rows
from zpd_ray.readers.columns import guess_columns, only_a_prompt, recognised_as, view_of
from zpd_ray.readers.sources import expand

TEMPLATE = """\
# A run of zpd-ray over {path}
#   zpd-ray check {config}    what the rows are taken for, and what the model would read
#   zpd-ray run {config}      all stages; running it again resumes
output = "runs/{name}"
stages = 3

[pool]
path = {path_json}
{columns}
[model]
path = {model}        # a directory with the model, or a hub id

[measure]
# Right or wrong: "greedy_match" and "likelihood" need no generation and no answers; "numeric", "exact" and
# "choice" compare the model's own response with the gold answer; "package.module:function" is yours.
grader = "greedy_match"

[select]
budget = {{ fraction = 0.05 }}   # of the pool, per stage; or {{ items = 1000 }}, or {{ tokens = 100000 }}

# [evaluation]                   # items that are never trained on: accuracy before and after each stage
# path = "evaluation.jsonl"
"""


def starter(data: str, model: str, config: str) -> tuple[str, str]:
    """The text of a config for ``data``, and what the rows were taken for.

    Raises ZpdError when nothing is there, or the rows make no known shape even with other names.
    """
    files = expand(data)
    rows = [row.value for _, some in first_rows(files) for row in some if row.value]
    if not rows:
        raise ZpdError(f"no row of {data} can be read as an object or a table's row; see `zpd-ray check`")
    source, columns = SourceConfig(path=data), {}
    shape = recognised_as(rows[0], source)
    if shape is None:
        columns = guess_columns(rows[0])
        source = SourceConfig(path=data, columns=columns)
        shape = recognised_as(rows[0], source)
    if shape is None:
        raise ZpdError(
            f"cannot tell prompt and response among the columns {', '.join(map(repr, rows[0]))} of {data}; "
            'write columns = { prompt = "...", response = "..." } below [pool]'
            f"{only_a_prompt(view_of(rows[0], source))}"
        )
    return _filled(data, model, config, columns), shape


def _from(config: str, place: str) -> str:
    """A path as a config in another directory has to name it; URIs and hub ids as they are."""
    directory = Path(config).parent
    local = "://" not in place and not Path(place).is_absolute()
    found = Path(place).exists() or bool(glob.glob(place, recursive=True))
    return os.path.relpath(place, directory) if local and found else place


def _filled(data: str, model: str, config: str, columns: dict[str, str]) -> str:
    data, model = (_from(config, place) for place in (data, model))
    mapped = ", ".join(f"{field} = {json.dumps(column)}" for field, column in columns.items())
    return TEMPLATE.format(
        path=data,
        path_json=json.dumps(data),
        config=config,
        name=Path(config).stem,
        columns=f"columns = {{ {mapped} }}\n"
        if mapped
        else '# columns = { prompt = "...", response = "..." }\n',
        model=json.dumps(model),
    )
