"""The canary of a stage that was trained elsewhere, computed as the built-in trainer computes its own."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from zpd_ray.engines.base import ModelRef
from zpd_ray.engines.model_files import load_tokenizer
from zpd_ray.engines.tokens import encode_items
from zpd_ray.errors import ZpdError, first_line
from zpd_ray.pipeline.train.controller import StageTask
from zpd_ray.pipeline.train.loop import canary_items
from zpd_ray.training.model import load_trainable
from zpd_ray.training.step import Workers, item_nlls, new_learner


def measured_canary(task: StageTask, result: ModelRef) -> pa.Table:
    """The stage's canary items with ``nll_before`` and ``nll_after``, float64, nats per token.

    result: what the stage is to leave, in the run directory. For a process with the resources of a train
    worker. Raises ZpdError when it cannot be loaded, has an NLL that is no number, or has moved none.
    """
    items = canary_items(task)
    under = task.model.adapter is None and result.adapter is not None
    before = np.array(_nlls(task, result if under else task.model, items, without_adapter=under))
    after = np.array(_nlls(task, result, items))
    if not np.isfinite(after).all():
        worst = int(np.flatnonzero(~np.isfinite(after))[0])
        raise ZpdError(
            f"the NLL of item {items['item_id'][worst]} with the result is {after[worst]}; expected a finite "
            "number: its training has diverged, or its files are damaged"
        )
    if np.array_equal(before, after):
        raise ZpdError(
            f"the result gives each of {len(after)} selected items the very NLL that it had before; expected "
            "a model that was trained on what the stage has selected, not the one that it began with"
        )
    return items.append_column("nll_before", pa.array(before)).append_column("nll_after", pa.array(after))


def _nlls(task: StageTask, model: ModelRef, items: pa.Table, without_adapter: bool = False) -> list[float]:
    """NLL of each item; without_adapter: with the base of the model alone."""
    config, tokenizer = task.config, load_tokenizer(task.config.model.path)
    ids = encode_items(tokenizer, items, config)
    torch.set_num_threads(max(1, int(config.cluster.cpus_per_train_worker)))
    with tempfile.TemporaryDirectory(prefix="zpd-ray-") as copies:
        net = _load(task, task.store.fetched(model, copies))
        learner = new_learner(config, net, Workers())
        with net.disable_adapter() if without_adapter else nullcontext():
            return item_nlls(learner, ids.prompt_ids, ids.response_ids, ids.trained)


def _load(task: StageTask, model: ModelRef) -> Any:
    try:
        net = load_trainable(task.config, model)
    except ZpdError:
        raise
    except Exception as error:  # the hub, json, safetensors and model classes each raise their own
        raise ZpdError(
            f"cannot load {model.adapter or model.base} ({first_line(error)}); expected what train.method = "
            f"{task.config.train.method!r} trains, of the base model {task.config.model.path}"
        ) from error
    return net.to("cuda" if task.config.cluster.gpus_per_train_worker else "cpu")
