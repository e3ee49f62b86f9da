"""What is checked before a run begins, without Ray."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.pipeline.conftest import simulated_values
from zpd_ray.config_file import to_toml, validate
from zpd_ray.errors import ZpdError
from zpd_ray.rundir.begin import LAYOUT, check_run, record
from zpd_ray.rundir.layout import CONFIG, MANIFEST
from zpd_ray.rundir.records import load_events
from zpd_ray.rundir.run import Run


def test_a_directory_that_was_begun_is_opened_again(tmp_path: Path) -> None:
    run = check_run(validate(simulated_values(tmp_path, n=1)))
    record(run)
    assert check_run(run.config).store.read_json(MANIFEST)["layout"] == LAYOUT


@pytest.mark.parametrize(
    "manifest", [None, {"seed": 0, "versions": {"zpd-ray": "0.1.0"}}, {"layout": LAYOUT - 1}]
)
def test_a_directory_of_another_layout_is_refused_with_a_sentence(
    tmp_path: Path, manifest: dict[str, object] | None
) -> None:
    """Version 0.1 wrote no layout into its manifest."""
    config = validate(simulated_values(tmp_path, n=1))
    store = check_run(config).store
    store.write_bytes(CONFIG, to_toml(config).encode())
    if manifest is not None:
        store.write_json(MANIFEST, manifest)
    told = rf"was written by another version of zpd-ray \(layout \d, this one reads layout {LAYOUT}\); finish"
    with pytest.raises(ZpdError, match=told):
        check_run(config)


CHANGES = [
    ("train.epochs=2", "selection.json", True),
    ("train.epochs=2", "metrics.json", False),  # the stage was closed without training
    ("train.method=lora", "metrics.json", False),
    ("measure.grader=numeric", None, False),  # other rows would be items
    ("train.turns=all", None, False),  # items would have other tokens
    ("ability.sigma=1.0", "measured.json", True),
    ("ability.sigma=1.0", "fit.json", False),
    ("select.replay=0.1", "fit.json", True),
    ("select.replay=0.1", "selection.json", False),
    ("select.method=random", "fit.json", True),
    ("select.method=zpd_static", "fit.json", True),  # it needs nothing that was not measured
    ("select.method=ifd", "measured.json", False),
    ("select.reference_model=other", "measured.json", True),  # nothing in use asks it
    ("stages=5", "metrics.json", True),
    ("stages=1", "metrics.json", False),
    ("seed=7", "measured.json", False),
    ("pool.items_per_part=7", "measured.json", False),
]


@pytest.mark.parametrize(("change", "last", "allowed"), CHANGES)
def test_what_nothing_finished_was_made_with_may_change(
    tmp_path: Path, change: str, last: str | None, allowed: bool
) -> None:
    """``last``: the last closing file of stage 0 that is there."""
    values = simulated_values(tmp_path, n=1, stages=2)
    run = check_run(validate(values))
    record(run)
    for name in ("measured.json", "fit.json", "selection.json", "train.json", "metrics.json"):
        if last is None:
            break
        run.store.write_json(f"stages/00/{name}", {})
        if name == last:
            break
    key, _, text = change.partition("=")
    *sections, name = key.split(".")
    section = values
    for part in sections:
        section = section.setdefault(part, {})
    section[name] = tomllib.loads(f"x = {text}" if text[0].isdigit() or text == "true" else f"x = '{text}'")[
        "x"
    ]
    changed = validate(values)
    if not allowed:
        with pytest.raises(ZpdError, match=rf"belongs to another config: {key}: .*take these back"):
            check_run(changed)
        return
    record(Run(changed, run.store))
    assert check_run(changed).config == changed  # bound to it from now on
    assert load_events(run.store)[-1].details["changed"][0].startswith(f"{key}: ")


def test_a_change_that_does_not_fit_is_refused_before_it_is_recorded(tmp_path: Path) -> None:
    values = simulated_values(tmp_path, n=1)
    record(check_run(validate(values)))
    with pytest.raises(ZpdError, match="the simulated engine has no weights to train"):
        check_run(validate(values | {"train": {"method": "lora"}}))
