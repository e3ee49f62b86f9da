"""What each command of ``zpd-ray`` does: open the run, start Ray, take the steps, tell what came out."""

from __future__ import annotations

from itertools import pairwise

import ray
from ray.exceptions import RayError

from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.machine import resolve
from zpd_ray.pipeline import steps
from zpd_ray.pipeline.cluster.failures import user_error
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.run import run, take
from zpd_ray.report.summary import print_summary
from zpd_ray.rundir import Run
from zpd_ray.rundir.begin import check_run, locked
from zpd_ray.rundir.layout import STEPS, StageFiles, Step
from zpd_ray.terminal import say


def perform(command: str, config: Config) -> None:
    """Run a command to its end; ZpdError with one sentence when the user can do something about a failure.

    Everything that needs no Ray is checked before it starts: config, inputs, the lock on the run directory.
    """
    config, taken = resolve(config, own_ray=not ray.is_initialized())
    opened = check_run(config)
    with locked(opened.store):
        if taken:
            say(taken)
        try:
            with Session(opened) as session:
                _perform(command, session)
        except (RayError, ZpdError) as error:
            raise user_error(error) or error from None


def _perform(command: str, session: Session) -> None:
    if command == "run":
        run(session)
        print_summary(session.run)
        return
    steps.ingest_pool(session)
    if command == "ingest":
        return
    stage = session.run.first_open_stage()
    step = next(step for step in STEPS if step.name == command)
    _check_needs(session.run, step, stage)
    if step in session.run.steps:
        take(session, step, stage)


def _check_needs(run: Run, step: Step, stage: int) -> None:
    """A step builds on the one before it."""
    before = {later: earlier for earlier, later in pairwise(run.steps)}.get(step)
    if before is not None and not run.finished(stage, before):
        raise ZpdError(
            f"{step.name} of stage {stage} needs {StageFiles(stage).closing(before)}, which is not there; "
            f"run `zpd-ray {before.name}` first"
        )
