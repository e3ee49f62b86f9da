"""The page that a run writes after a stage, and what it says where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.conftest import perform_in
from zpd_ray.errors import ZpdError
from zpd_ray.report.apart import write_apart
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.layout import LOCK
from zpd_ray.rundir.records import load_events


def test_a_run_whose_page_cannot_be_written_says_so_and_goes_on(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out/report.html").mkdir(parents=True)  # nothing can be written there
    (tmp_path / "out" / LOCK).touch()
    _, store = perform_in(tmp_path, n=120, stages=1, report=True)
    assert "report" not in {event.step for event in load_events(store)}
    told = " ".join(capsys.readouterr().err.split())
    assert f"warning: stage 0: the report could not be written: cannot write {store.root}/report.html" in told
    assert f"the run goes on, and `zpd-ray report {store.root}` tries again" in told
    assert store.exists("stages/00/metrics.json")


def test_what_takes_too_long_is_given_up(taken: Run) -> None:
    with pytest.raises(ZpdError, match=r"took longer than 0\.01 s"):
        write_apart(taken.store, seconds=0.01)
    assert not taken.store.exists("report.html")


def test_why_there_is_no_page_is_in_the_sentence(tmp_path: Path) -> None:
    with pytest.raises(ZpdError, match=f"could not be written: {tmp_path} holds no run"):
        write_apart(Store(str(tmp_path)))
