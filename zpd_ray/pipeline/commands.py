"""What each command of ``zpd-ray`` does: open the run, start Ray, take the steps, tell what came out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ray
from ray.exceptions import RayError

from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.opening import open_run
from zpd_ray.pipeline import steps
from zpd_ray.pipeline.cluster.failures import user_error
from zpd_ray.pipeline.cluster.metrics import Metrics
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.run import run, take
from zpd_ray.pipeline.train.adopt import check_open, check_result
from zpd_ray.report import summary
from zpd_ray.report.live import Look
from zpd_ray.report.live.drawing import below
from zpd_ray.report.step import draw, ingested, taken
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.layout import BASE, CONFIG, EVALUATE, METRICS, TRAIN
from zpd_ray.rundir.lock import locked
from zpd_ray.rundir.progress import Recorder
from zpd_ray.terminal import doing, note, say, show
from zpd_ray.tracking.telling import tracked


def perform(command: str, config: Config) -> None:
    """Run a command to its end; ZpdError with one sentence when the user can do something about a failure."""
    carry_out(command, *open_run(config))


def carry_out(command: str, opened: Run, told: list[str], result: Path | None = None) -> None:
    """The same for a run that was opened (``opening.open_run``), with what is to be said of it.

    result: directory with a model that was trained elsewhere, which ``train`` takes in place of training.
    """
    config = opened.config
    if result is None and command not in ("run", "ingest", *(step.name for step in opened.steps)):
        raise ZpdError(f"this run has no step {command}: train.method = 'none'; expected 'lora' or 'full'")
    if result is not None:
        check_result(opened, result)
    with locked(opened.store):
        if result is not None:
            check_open(opened, result)
        if command == "run" and _is_finished(opened):
            say(f"the run in {opened.store.root} is finished")
            with tracked(opened):  # what they miss of it, or all where they are new
                _show_summary(opened)
            return
        for line in told:
            say(line)
        if not ray.is_initialized() and config.cluster.address == "local":
            say("starting Ray")
        with Recorder(opened.store, command) as recorder, tracked(opened):
            try:
                with Session(opened) as session, recorder.heard_by(_shown(opened.store)):
                    _perform(command, session, result)
                    doing("ending")
            except (RayError, ZpdError) as error:
                raise user_error(error) or error from None


def _shown(store: Store) -> Callable[[], None]:
    """What shows how far the run is, for whoever watches it through Ray or on this screen."""
    look, metrics = Look(store.uri), Metrics()

    def show_now() -> None:
        live = look.now()
        metrics.tell(live)
        note(below(live))

    return show_now


def _perform(command: str, session: Session, result: Path | None) -> None:
    if command == "run":
        run(session)
        _show_summary(session.run)
        return
    steps.ingest_pool(session)
    if command == "ingest":
        show(ingested(session.run), draw)
        return
    stage = session.run.first_open_stage()
    for step in session.run.steps:  # a step builds on the ones before it
        if step == TRAIN and result is not None:
            steps.adopt(session, stage, result)
        else:
            take(session, step, stage)
        if step.name == command:
            if step == EVALUATE:
                steps.report(session, stage)
            show(taken(session.run, step, stage), draw)
            break


def _show_summary(run: Run) -> None:
    show(summary.summary(run), summary.draw)


def _is_finished(run: Run) -> bool:
    begun = run.store.exists(CONFIG) and run.store.exists(f"{BASE}/{METRICS}")
    return begun and run.finished(run.config.stages - 1, EVALUATE)
