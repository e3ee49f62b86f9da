"""When trackers are told, and that no tracker is worth a run."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.pipeline.conftest import perform_in, simulated_values
from tests.pipeline.processes import ROOT
from tests.taken import lines_of
from tests.test_imports import modules_after
from tests.tracking.conftest import MakeRun, reopen
from tests.tracking.trackers import GO_ON
from zpd_ray import tracking
from zpd_ray.config import Config
from zpd_ray.config.tracking import TrackConfig
from zpd_ray.config_file import differences, load_config, validate
from zpd_ray.errors import ZpdError
from zpd_ray.opening import open_run
from zpd_ray.pipeline.commands import perform
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import CONFIG, EVENTS, PROGRESS, TRACKING
from zpd_ray.rundir.store import Store
from zpd_ray.tracking import TRACKERS, check, telling
from zpd_ray.tracking.figures import closed
from zpd_ray.tracking.telling import Telling, tracked

LINES, BROKEN = "tests.tracking.trackers:Lines", "tests.tracking.trackers:Broken"


def names(file: Path) -> list[str]:
    """Of the steps that a tracker was told of."""
    return [line["name"] for line in lines_of(file) if "name" in line]


def test_a_run_tells_what_closes_and_a_resumed_one_what_is_missing(make_run: MakeRun, tmp_path: Path) -> None:
    run, file = make_run(own={LINES: str(tmp_path / "told")}), tmp_path / "told"
    back = [reopen(run, 1, name) for name in ("train.json", "metrics.json")]
    first = Telling(run)
    for put in back:
        first.tell()
        before = file.stat().st_size
        first.tell()  # nothing has closed since
        assert file.stat().st_size == before
        put()
    again = Telling(run)  # of another process: the first one was killed
    again.tell()
    again.close()
    assert names(file) == closed(run)
    opened = [line["opened"] for line in lines_of(file) if "opened" in line]
    assert opened == [run.store.read_json(TRACKING)["run"]] * 2
    assert lines_of(file)[-1] == {"closed": opened[0]}


def test_what_fails_is_told_once_and_tried_again_when_the_next_step_closes(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, down = tmp_path / "told", tmp_path / "told.down"
    run = make_run(own={BROKEN: str(tmp_path / "broken"), LINES: str(file)})
    back = [reopen(run, 1, name) for name in ("selection.json", "train.json", "metrics.json")]
    down.touch()
    telling = Telling(run)
    telling.tell()
    back[0]()
    telling.tell()
    said = capsys.readouterr().err
    assert said.count(f"the tracker {BROKEN} cannot be told how this run does: KeyError") == 1
    assert said.count(f"cannot be told how this run does: nobody answers at {file}; the run goes on") == 1
    assert not file.exists()
    down.unlink()
    telling.tell()  # it is there again, and nothing has closed
    assert not file.exists()
    back[1]()
    telling.tell()
    assert names(file) == closed(run)
    back[2]()
    telling.tell()
    assert names(file) == closed(run)
    assert capsys.readouterr().err == ""


def test_the_end_of_a_command_does_not_wait_for_a_tracker_that_hangs(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(telling, "PATIENCE", 0.2)
    with tracked(make_run(own={"tests.tracking.trackers:Stuck": str(tmp_path / "told")})):
        pass
    GO_ON.set()
    assert "trackers take longer than 0.2 s and are not waited for" in capsys.readouterr().err


def test_without_a_tracker_nothing_is_written(make_run: MakeRun) -> None:
    run = make_run()
    with tracked(run):
        pass
    assert not run.store.exists(TRACKING)


def test_the_results_of_a_run_do_not_depend_on_who_is_told(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does it end where a tracker fails; a finished run tells all to one that comes later."""
    own = {LINES: str(tmp_path / "lines"), BROKEN: str(tmp_path / "broken")}
    _, told = perform_in(tmp_path, n=400, output="told", track={"own": own})
    assert capsys.readouterr().err.count(f"the tracker {BROKEN} cannot be told") == 1
    config, alone = perform_in(tmp_path, n=400, output="alone")
    assert contents(told) == contents(alone)
    everything = closed(Run(config, alone))
    assert len(everything) == 7
    assert names(tmp_path / "lines") == everything
    later = with_trackers(config, own={LINES: str(tmp_path / "later")})
    perform("run", later)
    perform("run", later)
    assert names(tmp_path / "later") == everything


def contents(store: Store) -> dict[str, bytes]:
    """All files but those that tell of times, and of the config."""
    root = Path(store.root)
    changing = {PROGRESS, TRACKING, EVENTS, CONFIG}
    files = [path for path in root.rglob("*") if path.is_file() and path.name not in changing]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def with_trackers(config: Config, **track: Any) -> Config:
    return validate(config.model_dump(exclude_none=True) | {"track": track})


def test_trackers_may_change_when_a_run_is_resumed(tmp_path: Path) -> None:
    config = validate(simulated_values(tmp_path, n=20))
    assert differences(config, with_trackers(config, tensorboard="logs", own={LINES: "there"})) == []


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_library_is_refused_at_once_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    there = importlib.util.find_spec
    library = TRACKERS.load(name).needs
    monkeypatch.setattr(tracking, "find_spec", lambda module: None if module == library else there(module))
    config = validate(simulated_values(tmp_path, n=20, track={name: "somewhere"}))
    with pytest.raises(ZpdError, match=rf'needs the package {library}.*pip install "zpd-ray\[{name}\]"'):
        open_run(config)
    assert not Path(config.output).exists()


def test_each_tracker_has_its_key_and_its_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(TRACKERS) == TrackConfig.model_fields.keys() - {"own"}
    assert set(TRACKERS) <= project["optional-dependencies"].keys()


@pytest.mark.parametrize(
    ("track", "told"),
    [
        ({"mlflow": "http://me:sesame@host"}, "track.mlflow is a URI of http with credentials"),
        ({"own": {LINES: "http://host?token=sesame"}}, "is a URI of http with credentials"),
        ({"tensorboard": "s3://bucket/logs"}, "tensorboard = 's3://bucket/logs' is a URI"),
        ({"tensorbord": "logs"}, "unknown key track.tensorbord; did you mean track.tensorboard?"),
        ({"own": {"tests.tracking.trackers:Mute": ""}}, "is a class without log, close"),
        ({"own": {"lines": ""}}, "unknown tracker 'lines'"),
    ],
)
def test_what_cannot_be_a_tracker_is_refused_and_no_secret_is_shown(
    tmp_path: Path, track: dict[str, Any], told: str
) -> None:
    with pytest.raises(ZpdError, match=re.escape(told)) as refused:
        check(validate(simulated_values(tmp_path, n=20, track=track)))
    assert "sesame" not in str(refused.value)


def test_a_directory_is_taken_from_that_of_the_config(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    track = {"tensorboard": "logs", "mlflow": "sqlite:///mlflow.db", "wandb": "me/project"}
    file.write_text(tomli_w.dumps(simulated_values(tmp_path, n=20, track=track)))
    assert load_config(str(file)).track.targets == track | {"tensorboard": str(tmp_path / "logs")}


def test_no_library_is_imported_without_its_key() -> None:
    loaded = modules_after(
        "import zpd_ray.tracking.telling; zpd_ray.tracking.telling.TRACKERS.load('mlflow')"
    )
    assert not {"tensorboardX", "mlflow", "wandb", "ray", "torch"} & loaded
