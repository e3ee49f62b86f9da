"""Which keys of a run's config may change when it is resumed: those that nothing finished was made with."""

from __future__ import annotations

from collections.abc import Callable

from zpd_ray.config import Config
from zpd_ray.config_file import SELECT_MEASURES, SELECT_MODELS, differences
from zpd_ray.rundir.layout import (
    BASE,
    EVALUATE,
    FIT,
    MEASURE,
    METRICS,
    RAY_TRAIN,
    SELECT,
    TRAIN,
    StageFiles,
)
from zpd_ray.rundir.run import Run

# Ray Train names checkpoints by their time (its list of them is checkpoint_manager_snapshot.json).
CHECKPOINT = "checkpoint_2"


def refused(run: Run, before: Config) -> list[str]:
    """Keys that differ from ``before``, the config that the directory was made with, and may not."""
    old = Run(before, run.store)
    return [told for told in differences(before, run.config) if not _may(told.partition(":")[0], run, old)]


def _may(key: str, run: Run, old: Run) -> bool:
    section = key.partition(".")[0]
    # Which rows of the pool are items, and how many tokens they have, hangs on these.
    if key in ("measure.grader", "train.turns"):
        return False
    if key == "stages":
        return _stages_may(run, old)
    if key in ("select.method", "select.beside") and not set(run.measures) <= set(old.measures):
        return not run.store.exists(StageFiles(0).closing(MEASURE))
    name = key.partition(".")[2]
    if section == "select" and name.partition(".")[0] in SELECT_MEASURES and name not in SELECT_MODELS:
        return name.partition(".")[0] not in old.measures or not _measured(old)
    if section == "select" and name in SELECT_MODELS:  # nothing was measured with a model that had no name
        return getattr(old.config.select, name) is None or not _measured(old)
    return section in USED and not USED[section](old)


def _stages_may(run: Run, old: Run) -> bool:
    """More stages change nothing of those before, unless the learning rate falls over the whole run."""
    train = run.config.train
    steady = train.schedule == "constant" and train.warmup == 0
    own = steady or train.schedule_over == "stage" or not run.trains
    return run.config.stages > old.config.stages and (own or not _trained(old))


def _measured(run: Run) -> bool:
    directories = (f"{BASE}/evaluation", StageFiles(0).measurements())
    return run.store.exists(f"{BASE}/{METRICS}") or any(run.store.names(name) for name in directories)


def _trained(run: Run) -> bool:
    """A step of training was kept, or the next stage was begun without."""
    checkpoints = [name for name in run.store.entries(RAY_TRAIN) if name.startswith(CHECKPOINT)]
    later = run.store.names(StageFiles(0).evaluation) or run.finished(0, EVALUATE)
    return run.finished(0, TRAIN) or bool(checkpoints) or bool(later)


# By section of the config: whether something that was made with it is there.
USED: dict[str, Callable[[Run], bool]] = {
    "measure": _measured,
    "ability": lambda run: run.finished(0, FIT),
    "select": lambda run: run.finished(0, SELECT),
    "train": _trained,
}
