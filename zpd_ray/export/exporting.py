"""Export: the selected items of a run into a directory, which appears whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zpd_ray.errors import ZpdError
from zpd_ray.export import load
from zpd_ray.export.rows import EXTRA, PASS_RATE, SCORES, SelectedRows
from zpd_ray.rundir import Run
from zpd_ray.rundir.records import load_selection
from zpd_ray.rundir.selected import check_selected, selected_stages, selection_directory
from zpd_ray.terminal import results


@dataclass(frozen=True)
class Exported:
    """What was written: items, of which stages, where, as what. hint: how to load it, or ""."""

    items: int
    stages: tuple[int, ...]
    into: str
    to: str
    hint: str


def draw(done: Exported) -> None:
    """The same for people."""
    told = ", ".join(map(str, done.stages))
    lines = [f"{done.items} items of stage {told} in {done.into}, for {done.to}", *filter(None, [done.hint])]
    results.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def export_selection(
    run: Run,
    to: str,
    into: str,
    stage: int | None = None,
    method: str | None = None,
    scores: bool = False,
    extra: bool = False,
) -> Exported:
    """Write what was selected at a stage (None: at all that have selected) in the format ``to``.

    method: None takes the one that is trained on. scores, extra: carry the columns ``rows.SCORES``, and what
    the items' own rows held beside them. Raises ZpdError for a directory that holds something, a stage or
    method that has nothing selected, and rows that the format cannot hold.
    """
    format, place, method = load(to), _checked(into), method or run.methods[0]
    if stage is not None:
        check_selected(run, stage, method)
    stages = tuple(selected_stages(run, method)) if stage is None else (stage,)
    carried = (SCORES if scores else ()) + (EXTRA if extra else ())
    rated = PASS_RATE in (*carried, *format.needs)
    with _appearing(place) as directory:
        format.write(SelectedRows(run, stages, method, rated, carried, place), directory)
    directories = (selection_directory(run, t, method) for t in stages)
    items = sum(load_selection(run.store, directory).selected for directory in directories)
    return Exported(items, stages, into, to, format.hint.format(into=place))


def _checked(into: str) -> Path:
    """The directory to write, absolute. Raises ZpdError for a URI, a file, or a directory with content."""
    if "://" in into:
        raise ZpdError(f"--into takes a local directory, got {into}; export into one and copy it from there")
    place = Path(into).expanduser().absolute()
    if place.exists() and not place.is_dir():
        raise ZpdError(f"--into {into} is a file; expected a new or an empty directory")
    found = sorted(entry.name for entry in place.iterdir()) if place.exists() else []
    if found:
        raise ZpdError(
            f"--into {into} is not empty (it holds {', '.join(found[:3])}{', ...' if found[3:] else ''}); "
            "nothing is overwritten; give a new or an empty directory"
        )
    return place


@contextmanager
def _appearing(place: Path) -> Iterator[Path]:
    """An empty directory beside ``place``, which takes its name when all is written and is gone otherwise."""
    beside = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        beside.mkdir(parents=True)
        yield beside
        beside.rename(place)  # an empty directory of that name gives way
    except OSError as problem:
        raise ZpdError(
            f"cannot export into {place}: {problem}; expected a run that can be read, and a place with free "
            "space and permission to write"
        ) from problem
    finally:
        shutil.rmtree(beside, ignore_errors=True)
