"""A run that begins with what another run of the same seed has read and measured of the base model."""

from __future__ import annotations

from zpd_ray.rundir import Run
from zpd_ray.rundir.begin import record
from zpd_ray.rundir.layout import BASE, CONFIG, EVALUATION, EVENTS, FIT, MEASURE, POOL, StageFiles

QUARANTINE = "quarantine"


def begin_from(before: Run, run: Run) -> None:
    """Pool, evaluation set, the base model's accuracy and stage 0 as ``before`` has them; then it is begun.

    The measurement of stage 0 is taken as far as it goes: measures that the run needs and ``before`` lacks
    are left for the run to make. Events come along, so that a run's costs are those of a run by itself.
    Nothing is done to a run that has begun; what a killed attempt has left is taken anew.
    """
    if run.store.exists(CONFIG):
        return
    ours, theirs, files = run.store, before.store, StageFiles(0)
    for directory in (POOL, EVALUATION, QUARANTINE, BASE, *map(files.measurements, run.measures)):
        ours.take_from(theirs, directory)
    for name in (f"{POOL}.json", f"{EVALUATION}.json", files.closing(FIT), EVENTS):
        ours.write_bytes(name, theirs.read_bytes(name))
    measured = theirs.read_json(files.closing(MEASURE))
    if set(run.measures) <= measured.keys():
        totals = {name: measured[name] for name in run.measures}
        ours.write_json(files.closing(MEASURE), totals)
    record(run)
