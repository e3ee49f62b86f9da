"""Everything that can be done for a command before Ray is imported: a mistake is told within a second."""

from __future__ import annotations

import sys

from zpd_ray.config import Config
from zpd_ray.machine import resolve
from zpd_ray.preview import announce
from zpd_ray.rundir import Run
from zpd_ray.rundir.begin import check_layout, check_run
from zpd_ray.rundir.layout import CONFIG, MEASURE, POOL, StageFiles
from zpd_ray.rundir.store import Store
from zpd_ray.tracking import check as check_trackers


def open_run(config: Config) -> tuple[Run, list[str]]:
    """The run of a config, checked, and what to say before work starts; writes nothing.

    Raises ZpdError for whatever is wrong with config, inputs or directory.
    """
    run, taken = check(config)
    seen = [] if run.store.exists(f"{POOL}.json") else list(announce(run.config))
    return run, [line for line in (*seen, taken, _where_it_stopped(run)) if line]


def check(config: Config) -> tuple[Run, str]:
    """The run of a config as it would be made here, and what of the machine it would take, in a sentence.

    Raises ZpdError for whatever is wrong with config or directory.
    """
    store = Store(config.output)
    if store.exists(CONFIG):
        check_layout(store)  # before anything is read from it
    check_trackers(config)
    config, taken = resolve(config, own_ray=not _joins_a_ray())
    return check_run(config), taken


def _joins_a_ray() -> bool:
    """Whether this process has a Ray already, as a program that calls us may."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _where_it_stopped(run: Run) -> str:
    """Where an earlier attempt has stopped, in a sentence; "" for a new run."""
    if not run.store.exists(CONFIG):
        return ""
    stage = run.first_open_stage()
    done = [step.name for step in run.steps if run.finished(stage, step)]
    told = [f"finished {', '.join(done)}"] if done else []
    measured = len(run.store.names(StageFiles(stage).measurements()))
    if MEASURE.name not in done and measured and not run.in_rounds(stage):
        told.append(f"measured {measured} of {len(run.store.names(POOL))} parts")
    return f"resuming stage {stage}{': ' if told else ''}{', '.join(told)}"
