"""What each command of ``zpd-ray`` does: open the run, start Ray, take the steps, tell what came out."""

from __future__ import annotations

import ray
from ray.exceptions import RayError

from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.machine import resolve
from zpd_ray.pipeline import steps
from zpd_ray.pipeline.cluster.failures import user_error
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.run import run, take
from zpd_ray.preview import announce
from zpd_ray.report.summary import print_summary
from zpd_ray.rundir import Run
from zpd_ray.rundir.begin import check_run, locked
from zpd_ray.rundir.layout import BASE, CONFIG, EVALUATE, MEASURE, METRICS, POOL, StageFiles
from zpd_ray.terminal import say


def perform(command: str, config: Config) -> None:
    """Run a command to its end; ZpdError with one sentence when the user can do something about a failure.

    Everything that needs no Ray is checked before it starts: config, inputs, the lock on the run directory.
    """
    config, taken = resolve(config, own_ray=not ray.is_initialized())
    opened = check_run(config)
    with locked(opened.store):
        if command == "run" and _is_finished(opened):
            say(f"the run in {opened.store.root} is finished")
            print_summary(opened)
            return
        fresh = not opened.store.exists(f"{POOL}.json")
        for told in filter(None, (*(announce(config) if fresh else ()), taken, _where_it_stopped(opened))):
            say(told)
        if not ray.is_initialized() and config.cluster.address == "local":
            say("starting Ray")
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
    if command != "ingest" and command not in [step.name for step in session.run.steps]:
        raise ZpdError(f"this run has no step {command}: train.method = 'none'; expected 'lora' or 'full'")
    steps.ingest_pool(session)
    if command == "ingest":
        return
    stage = session.run.first_open_stage()
    for step in session.run.steps:  # a step builds on the ones before it
        take(session, step, stage)
        if step.name == command:
            break


def _is_finished(run: Run) -> bool:
    begun = run.store.exists(CONFIG) and run.store.exists(f"{BASE}/{METRICS}")
    return begun and run.finished(run.config.stages - 1, EVALUATE)


def _where_it_stopped(run: Run) -> str:
    """Where an earlier attempt has stopped, in a sentence; "" for a new run."""
    if not run.store.exists(CONFIG):
        return ""
    stage = run.first_open_stage()
    done = [step.name for step in run.steps if run.finished(stage, step)]
    told = [f"finished {', '.join(done)}"] if done else []
    measured = len(run.store.names(StageFiles(stage).measurements()))
    if MEASURE.name not in done and measured:
        told.append(f"measured {measured} of {len(run.store.names(POOL))} parts")
    return f"resuming stage {stage}{': ' if told else ''}{', '.join(told)}"
