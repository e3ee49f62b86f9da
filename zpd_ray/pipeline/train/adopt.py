"""A model that was trained elsewhere becomes what a stage leaves, as if the stage had been trained here.

The directory is checked before anything starts, by names and shapes; its NLLs are measured by a Ray task with
the resources of a train worker, so that engines can be held to them as to those of the built-in trainer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from zpd_ray.config import Config
from zpd_ray.engines.adapters import check_adapter
from zpd_ray.engines.base import ModelRef
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.resources import train_nodes
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.train.controller import StageTask
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import ADOPTED, RAY_TRAIN, TRAIN, StageFiles
from zpd_ray.rundir.records import load_closing, load_selection
from zpd_ray.terminal import say, warn

# Files that are taken. Trainers leave more beside them: checkpoints, and pickles, which can run code.
TAKEN = (".json", ".safetensors", ".txt", ".model", ".jinja", ".tiktoken", ".md")


def check_result(run: Run, result: Path) -> None:
    """Raises ZpdError for a directory that cannot be a result of this run; starts and writes nothing."""
    method = run.config.train.method
    if method == "none":
        raise ZpdError("this run takes no --result: train.method = 'none'; expected 'lora' or 'full'")
    if not run.config.completes:
        raise ZpdError(
            f"this run takes no --result: with pool.reference = {run.config.pool.reference!r} its selection "
            "has no references to measure it by; expected pool.reference = 'answer', train.target = 'own', "
            "or a train.function that reports it"
        )
    if not result.is_dir():
        raise ZpdError(f"--result {result} is no directory; expected the one in which your trainer saved")
    if run.store.is_local and result.resolve().is_relative_to(Path(run.store.path()).resolve()):
        raise ZpdError(
            f"--result {result} lies inside the run directory {run.store.root}, whose files are the run's to "
            "replace; give a directory beside it"
        )
    (_check_adapter if method == "lora" else _check_model)(run.config, result)


def _check_adapter(config: Config, result: Path) -> None:
    check_adapter(result)
    from zpd_ray.training.fits import check_adapter_fits  # torch

    check_adapter_fits(config.model.path, result)
    if config.engine.name == "vllm":  # it is prepared for adapters of one kind when it starts
        from zpd_ray.engines.vllm.settings import check_served

        check_served(config, result)


def _check_model(config: Config, result: Path) -> None:
    names = sorted(file.name for file in result.iterdir())
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise ZpdError(
            f"no model in {result}, which holds {', '.join(names) or 'nothing'}; expected config.json, "
            "*.safetensors and the tokenizer, as save_pretrained leaves them (pickled weights are not read)"
        )
    from zpd_ray.training.fits import check_model_fits  # torch

    check_model_fits(config.model.path, result)


def check_open(run: Run, result: Path) -> None:
    """Raises ZpdError where the next stage is trained already, or this result is that of the one before."""
    stage = run.first_open_stage()
    if run.finished(stage, TRAIN):
        how = f"with {_origin_of(run, stage)['path']}" if run.adopted(stage) else "by this run"
        raise ZpdError(
            f"stage {stage} is trained already, {how}: --result {result} was not taken; go on with `zpd-ray "
            "evaluate` or `zpd-ray run`, or give another output to train it anew"
        )
    if stage and run.adopted(stage - 1) and _origin_of(run, stage - 1) == _origin(result):
        raise ZpdError(
            f"--result {result} has closed stage {stage - 1} already and has not changed since; expected a "
            f"model that was trained on what stage {stage} has selected, as `zpd-ray export` gives it"
        )


def _origin(result: Path) -> dict[str, Any]:
    """Where a result came from, and when its weights were last changed, nanoseconds since 1970."""
    weights = result.glob("*.safetensors")
    return {"path": str(result.resolve()), "changed_ns": max(file.stat().st_mtime_ns for file in weights)}


def _origin_of(run: Run, stage: int) -> dict[str, Any]:
    origin: dict[str, Any] = load_closing(run.store, stage, TRAIN)[ADOPTED]
    return origin


def adopt(session: Session, stage: int, result: Path) -> dict[str, Any]:
    """Close a selected stage with the model in ``result``; returns what is in its train.json.

    Leaves the adapter (or model), the canary and train.json in the stage's directory. Raises ZpdError, and
    leaves nothing, when the model cannot be loaded, or is the one that the stage began with.
    """
    run, files = session.run, StageFiles(stage)
    session.close_scorers()  # their GPUs may be those of the train worker
    kind = run.config.train.result
    say(f"stage {stage}: taking the {kind} in {result}")
    into, origin = f"{files.directory}/{kind}", _origin(result)
    try:
        taken = sorted(file.name for file in result.iterdir() if file.suffix in TAKEN and file.is_file())
        run.store.upload(str(result), into, taken)
        canary = _measured(run, stage, f"{run.store.root}/{into}")
    except BaseException:  # an interrupt, too
        run.store.remove(into)
        raise
    for leftover in (files.trainer, RAY_TRAIN):  # of a training of this stage that was broken off
        run.store.remove(leftover)
    run.store.write_table(files.canary, canary)
    closing = {"items": load_selection(run.store, files.selection()).selected, ADOPTED: origin}
    run.store.write_json(files.closing(TRAIN), closing)
    _tell(run, stage, canary)
    return closing


def _measured(run: Run, stage: int, path: str) -> pa.Table:
    """The canary, from a task with the resources of a train worker."""
    from zpd_ray.pipeline.train.canary import measured_canary  # torch

    config = run.config
    lora = config.train.method == "lora"
    result = ModelRef(config.model.path, path, stage + 1) if lora else ModelRef(path, None, stage + 1)
    cluster, items = config.cluster, load_selection(run.store, StageFiles(stage).selection()).selected
    task = StageTask(config, run.store, run.model(stage), StageFiles(stage).directory, items, [], [])
    remote = ray.remote(measured_canary).options(
        num_cpus=cluster.cpus_per_train_worker,
        num_gpus=cluster.gpus_per_train_worker,
        label_selector=train_nodes(cluster) or None,
    )
    canary: pa.Table = ray.get(remote.remote(task, result))
    return canary


def _tell(run: Run, stage: int, canary: pa.Table) -> None:
    before, after = (pc.mean(canary[name]).as_py() for name in ("nll_before", "nll_after"))
    say(
        f"stage {stage}: closed with it; mean NLL of the {canary.num_rows} longest selected responses "
        f"{before:.3f} -> {after:.3f}"
    )
    if after > before:
        on_top = ": an adapter counts on the base model, not on the adapter of the stage before"
        why = on_top if stage and run.config.train.method == "lora" else ""
        warn(f"stage {stage}: the mean NLL rose{why}")
