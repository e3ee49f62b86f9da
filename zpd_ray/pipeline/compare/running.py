"""Making the runs of a comparison, one after another in one Ray, each in a run directory of its own.

Another process with the same comparison takes other runs: a run that somebody works on is passed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import ray
from ray.exceptions import RayError

from zpd_ray.compare.cells import Cell
from zpd_ray.compare.plan import Plan
from zpd_ray.compare.sharing import begin_from
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline import steps
from zpd_ray.pipeline.cluster.failures import user_error
from zpd_ray.pipeline.cluster.resources import scoring_cpus, training_cpus
from zpd_ray.pipeline.cluster.session import Session, start, stop
from zpd_ray.pipeline.cluster.workers import Workers
from zpd_ray.pipeline.run import run as take_stages
from zpd_ray.pipeline.run import take
from zpd_ray.rundir import Run
from zpd_ray.rundir.begin import check_run
from zpd_ray.rundir.layout import FIT, MEASURE
from zpd_ray.rundir.lock import is_held, locked
from zpd_ray.rundir.progress import Recorder
from zpd_ray.terminal import doing, say, warn

WAIT_SECONDS = 3.0  # before a run that another process works on is looked at again

Failures = dict[Cell, str]  # why a run did not end, in a sentence


def make_runs(plan: Plan) -> Failures:
    """Make every run of the comparison that is not finished; those that did not end well, and why.

    The others go on without them. Raises ZpdError when the answers of stage 0 cannot be measured, on which
    all runs hang.
    """
    failed: Failures = {}
    first = next(plan.open_cells(), None)
    if first is None:
        return failed
    with _one_ray(plan, first), closing(Workers()) as workers:
        while cells := list(plan.open_cells(failed)):
            cell = next((cell for cell in cells if not _is_taken(plan, cell)), None)
            if cell is None:
                doing(f"waiting for {len(cells)} runs that other processes make")
                time.sleep(WAIT_SECONDS)
                continue
            say(f"run {plan.done + len(failed) + 1} of {plan.total}: {cell}")
            _make(plan, cell, workers, failed)
    return failed


@contextmanager
def _one_ray(plan: Plan, first: Cell) -> Iterator[None]:
    """A Ray for all runs, joined or started as a run by itself would."""
    if ray.is_initialized():
        yield
        return
    config = _run_of(plan, first).config
    say("starting Ray")
    start(config.cluster, scoring_cpus(config) + training_cpus(config))
    failed = True
    try:
        yield
        failed = False
    finally:
        stop(failed)


def _is_taken(plan: Plan, cell: Cell) -> bool:
    return is_held(_run_of(plan, cell).store) is True


def _run_of(plan: Plan, cell: Cell) -> Run:
    run = plan.run_of(cell)
    assert run is not None, f"{cell} is not open"
    return run


def _make(plan: Plan, cell: Cell, workers: Workers, failed: Failures) -> None:
    run = _run_of(plan, cell)
    answers, whole = plan.stage0_of(run)
    _measure_stage0(answers, workers)
    try:
        check_run(run.config)
        if whole.store.root != answers.store.root:
            _begin(answers, whole)
            _measure_stage0(whole, workers)
        _begin(whole, run)
        _work_on(run, workers, take_stages)
    except ZpdError as problem:
        if _is_taken(plan, cell):  # since it was looked at
            return
        failed[cell] = str(problem)
        warn(f"{cell} did not end: {problem}; the other runs go on, and the same command tries it again")


def _measure_stage0(run: Run, workers: Workers) -> None:
    """Stage 0 up to its fit, in a run directory that other runs begin with."""

    def work() -> None:
        if not (run.finished(0, MEASURE) and run.finished(0, FIT)):
            check_run(run.config)
            say(f"stage 0 of seed {run.config.seed}, for all runs: {', '.join(run.measures)}")
            _work_on(run, workers, _take_stage0)

    _when_free(run, work)


def _take_stage0(session: Session) -> None:
    steps.ingest_pool(session)
    if not session.run.finished(0, FIT):  # else it began with another run's, which has tried it
        steps.rehearse_training(session)
    steps.evaluate_base(session)
    for step in (MEASURE, FIT):
        take(session, step, 0)


def _begin(before: Run, run: Run) -> None:
    def work() -> None:
        with locked(run.store):
            begin_from(before, run)

    _when_free(run, work)


def _when_free(run: Run, work: Callable[[], None]) -> None:
    """Do it when no other process works on the run, and again where one was faster."""
    while True:
        while is_held(run.store):
            doing(f"waiting for another process that works on {run.store.root}")
            time.sleep(WAIT_SECONDS)
        try:
            work()
            return
        except ZpdError:
            if not is_held(run.store):
                raise


def _work_on(run: Run, workers: Workers, work: Callable[[Session], None]) -> None:
    """In a session of its own, with the workers of the run before; ``zpd-ray watch`` looks at it."""
    with locked(run.store), Recorder(run.store, "run"):
        try:
            with Session(run, workers) as session:
                work(session)
        except (RayError, ZpdError) as error:
            raise user_error(error) or error from None
