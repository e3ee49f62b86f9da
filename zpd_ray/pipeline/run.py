"""The stage loop: measure, fit, select, train, evaluate, and again, because the model has moved.

Every step leaves a file that proves it finished (``rundir/layout.py``). Finished steps are passed over, so
that running again resumes. How each is done: ``steps.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from zpd_ray.pipeline import steps
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.rundir.layout import EVALUATE, FIT, MEASURE, SELECT, TRAIN, Step

WORK: dict[Step, Callable[[Session, int], steps.Details]] = {
    MEASURE: steps.measure,  #   pool, model of the stage          ->  NLL and responses of every item
    FIT: steps.fit,  #           these, earlier responses          ->  ability, calibration of difficulty
    SELECT: steps.select,  #     these, budget                     ->  the items to train on
    TRAIN: steps.train,  #       selected items, model             ->  the model of the next stage
    EVALUATE: steps.evaluate,  # evaluation set, the next model    ->  accuracy; closes the stage
}


def run(session: Session) -> None:
    """All stages of a run, from where an earlier attempt stopped."""
    steps.ingest_pool(session)  # source files -> items, quarantine
    steps.rehearse_training(session)  # longest items, base model -> a training step that works
    steps.evaluate_base(session)  # evaluation set, base model -> accuracy
    if session.run.overlaps:
        run_overlapped(session)
        return
    for stage in range(session.run.config.stages):
        for step in session.run.steps:
            take(session, step, stage)
        steps.report(session, stage)  # all stages so far -> a page for people


def take(session: Session, step: Step, stage: int) -> None:
    """Take a step, unless its closing file is there."""
    if not session.run.finished(stage, step):
        with steps.timed(session, step.name, stage) as details:
            details |= WORK[step](session, stage)


def _close(session: Session, stage: int) -> None:
    take(session, EVALUATE, stage)
    steps.report(session, stage)


def run_overlapped(session: Session) -> None:
    """All stages on nodes of two kinds: while a stage trains, the next one is measured, fitted and selected.

    The model that is measured is then one stage behind the one that trains.
    """
    trainer = ThreadPoolExecutor(1)
    try:
        training: Future[None] | None = None
        for stage in range(session.run.config.stages):
            for step in (MEASURE, FIT, SELECT):
                take(session, step, stage)
            finish = steps.begin_training(session, stage)
            if training is not None:
                training.result()
            training = trainer.submit(finish)
            if stage:
                _close(session, stage - 1)
        if training is not None:
            training.result()
        _close(session, session.run.config.stages - 1)
    finally:
        trainer.shutdown(wait=False)  # the end of the session ends what is under way
