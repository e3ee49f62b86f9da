"""What each command of ``zpd-ray`` does: open the run, start Ray, take the steps, tell what came out."""

from __future__ import annotations

from collections.abc import Callable

import ray
from ray.exceptions import RayError

from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.machine import resolve
from zpd_ray.pipeline import run as steps
from zpd_ray.pipeline.cluster.failures import user_error
from zpd_ray.pipeline.cluster.session import ray_session
from zpd_ray.report.summary import print_summary
from zpd_ray.rundir.begin import check_run, locked
from zpd_ray.rundir.store import Store

StageStep = Callable[[Config, Store, int], None]

# Commands that are one step of the next open stage, and the file of the stage that they build on.
STAGE_STEPS: dict[str, tuple[StageStep, str]] = {
    "measure": (steps.measure_step, ""),
    "fit": (steps.fit_step, "measured.json"),
    "select": (steps.select_step, "fit.json"),
    "train": (steps.train_steps, "selection.json"),
    "evaluate": (steps.evaluate_step, "train.json"),
}
WRITER = {"measured.json": "measure", "fit.json": "fit", "selection.json": "select", "train.json": "train"}


def perform(command: str, config: Config) -> None:
    """Run a command to its end; ZpdError with one sentence when the user can do something about a failure."""
    config = resolve(config, own_ray=not ray.is_initialized())
    store = check_run(config)
    with ray_session(config), locked(store):
        try:
            _perform(command, config, store)
        except (RayError, ZpdError) as error:
            raise user_error(error) or error from None


def _perform(command: str, config: Config, store: Store) -> None:
    if command == "run":
        steps.run(config, store)
        print_summary(config, store)
        return
    steps.ingest_step(config, store)
    if command == "ingest":
        return
    stage = steps.first_open_stage(config, store)
    step, needs = STAGE_STEPS[command]
    if needs == "train.json" and config.train.method == "none":
        needs = "selection.json"
    file = f"{steps.stage_directory(stage)}/{needs}"
    if needs and not store.exists(file):
        raise ZpdError(
            f"{command} of stage {stage} needs {file}, which is not there; run "
            f"`zpd-ray {WRITER[needs]}` first"
        )
    step(config, store, stage)
