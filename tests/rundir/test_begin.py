"""What is checked before a run begins, without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.conftest import simulated_values
from zpd_ray.config_file import to_toml, validate
from zpd_ray.errors import ZpdError
from zpd_ray.rundir.begin import check_run, record
from zpd_ray.rundir.layout import CONFIG, MANIFEST


def test_a_directory_that_was_begun_is_opened_again(tmp_path: Path) -> None:
    run = check_run(validate(simulated_values(tmp_path, n=1)))
    record(run)
    assert check_run(run.config).store.read_json(MANIFEST)["layout"] == 2


@pytest.mark.parametrize("manifest", [None, {"seed": 0, "versions": {"zpd-ray": "0.1.0"}}, {"layout": 3}])
def test_a_directory_of_another_layout_is_refused_with_a_sentence(
    tmp_path: Path, manifest: dict[str, object] | None
) -> None:
    """Version 0.1 wrote no layout into its manifest."""
    config = validate(simulated_values(tmp_path, n=1))
    store = check_run(config).store
    store.write_bytes(CONFIG, to_toml(config).encode())
    if manifest is not None:
        store.write_json(MANIFEST, manifest)
    told = r"was written by another version of zpd-ray \(layout \d, this one reads layout 2\); finish it with"
    with pytest.raises(ZpdError, match=told):
        check_run(config)
