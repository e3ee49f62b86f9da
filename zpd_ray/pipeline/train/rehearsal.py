"""One real training step before anything is measured: what else only training would find, hours later."""

from __future__ import annotations

import resource
import time
from functools import partial
from itertools import chain, cycle, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.exceptions import OutOfMemoryError, RayError, WorkerCrashedError

from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.engines.model_files import load_tokenizer, max_length
from zpd_ray.engines.remote import with_weights
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.cluster.failures import user_error
from zpd_ray.pipeline.cluster.resources import train_nodes
from zpd_ray.pipeline.cluster.together import together
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import POOL, REHEARSAL
from zpd_ray.rundir.store import Store
from zpd_ray.terminal import say
from zpd_ray.training.allocator import VARIABLES

GIB = 2**30
DEATHS = (OutOfMemoryError, WorkerCrashedError)
SOMETHING = "?"  # that is said where an item has no reference
NO_MEMORY = ("out of memory", "allocate memory", "enough memory")  # of a GPU, and of torch on the CPU


def is_due(run: Run) -> bool:
    """Whether the run trains with our loop, as it has not been tried yet, nor done."""
    config, store = run.config, run.store
    if not run.trains or config.train.function or not config.train.rehearse:
        return False
    done = store.read_json(REHEARSAL)["settings"] if store.exists(REHEARSAL) else None
    return done != _settings(config)


def rehearse(run: Run) -> dict[str, Any]:
    """Train one step on the longest items, in a process like a train worker's; nothing of it is kept.

    Returns its rows, longest (tokens), step_seconds, and gib (memory at its peak), and writes them. Raises
    ZpdError when the step fails.
    """
    config = run.config
    say("trying one training step")
    items = longest_items(config, run.store, config.train.micro_batch_size)
    longest = int(pc.max(pc.add(items["prompt_tokens"], items["response_tokens"])).as_py())
    seen = try_step(config, items)
    told = {"rows": items.num_rows, "longest": longest, **seen}
    say(
        f"one training step on the {items.num_rows} longest items, of up to {longest} tokens: "
        f"{seen['step_seconds']:.1f} s, {seen['gib']:.2g} GiB at its peak"
    )
    run.store.write_json(REHEARSAL, {"settings": _settings(config)} | told)
    return told


def try_step(config: Config, items: pa.Table) -> dict[str, float]:
    """Train one step on ``items`` (schema.ITEM), in a process like a train worker's: step_seconds, gib.

    Raises ZpdError when the step fails.
    """
    longest = int(pc.max(pc.add(items["prompt_tokens"], items["response_tokens"])).as_py())
    try:
        seen = _tried_by_all(config, items) if config.train.sharding == "fsdp" else _tried(config, items)
    except DEATHS as death:
        raise _too_large(config, items.num_rows, longest, str(death).partition("\n")[0]) from None
    if "failure" in seen:
        raise _too_large(config, items.num_rows, longest, seen["failure"])
    return seen


def _tried(config: Config, items: pa.Table) -> dict[str, Any]:
    cluster = config.cluster
    # max_calls: the process ends, and its memory is free.
    remote = ray.remote(max_calls=1, max_retries=0)(_step).options(
        num_cpus=cluster.cpus_per_train_worker,
        num_gpus=cluster.gpus_per_train_worker,
        label_selector=train_nodes(cluster) or None,
        runtime_env={"env_vars": VARIABLES},  # else its memory would not be that of a train worker
    )
    seen: dict[str, Any] = ray.get(remote.remote(config, items))
    return seen


def _tried_by_all(config: Config, items: pa.Table) -> dict[str, Any]:
    """A model that is shared out is whole in none: all workers try, and the one that needs most is told."""
    told = together(config, _step, config, items, variables=VARIABLES, failed=lambda seen: "failure" in seen)
    errors = [each for each in told if isinstance(each, RayError)]
    seen = [each for each in told if not isinstance(each, RayError)]
    failures = [each for each in seen if "failure" in each]
    if errors and not failures:  # those that only lost the others come last
        raise min(errors, key=lambda e: (not isinstance(e, DEATHS), user_error(e) is None))
    return failures[0] if failures else {name: max(each[name] for each in seen) for name in seen[0]}


def longest_items(config: Config, store: Store, n: int) -> pa.Table:
    """The ``n`` items of the pool of which most tokens may be trained on, ties by place (schema.ITEM).

    response_tokens: how many; where responses of the model's own are, as many as it may generate.
    """
    own = config.train.target == "own"
    columns = ["prompt_tokens"] if own else ["prompt_tokens", "response_tokens"]
    rows = parts.total(store.names(POOL), partial(_longest_of, store, n, columns), partial(_first, n))
    items = pa.concat_tables(store.read_table(f"{POOL}/{name}").slice(row, 1) for _, name, row in rows)
    if not own:
        return items
    room = max_length(config.model, load_tokenizer(config.model.path)) - items["prompt_tokens"].to_numpy()
    longest = pa.array(np.minimum(config.measure.max_new_tokens, room), pa.int32())
    said = pc.coalesce(items["response"], pa.scalar(SOMETHING))
    for name, column in (("response_tokens", longest), ("response", said)):
        items = items.set_column(items.schema.get_field_index(name), name, column)
    return items


Long = tuple[int, str, int]  # minus its length, its part and row


def _longest_of(store: Store, n: int, columns: list[str], name: str) -> list[Long]:
    """Those items of a part where the sum of the columns is largest."""
    lengths = store.read_table(f"{POOL}/{name}", columns)
    total = np.sum([lengths[column].to_numpy() for column in columns], axis=0)
    order = np.argsort(-total, kind="stable")[:n]
    return [(-int(total[row]), name, int(row)) for row in order]


def _first(n: int, found: list[list[Long]]) -> list[Long]:
    return sorted(chain(*found))[:n]


def _settings(config: Config) -> dict[str, Any]:
    """What the step depends on."""
    alone = {"workers"} if config.train.sharding == "none" else set()
    train = config.train.model_dump(mode="json", exclude={"rehearse", *alone})
    cluster = config.cluster
    return {
        "train": train,
        "model": config.model.model_dump(mode="json"),
        "resources": [cluster.cpus_per_train_worker, cluster.gpus_per_train_worker],
    }


def _step(config: Config, items: pa.Table, worker: int = 0, meeting: str = "") -> dict[str, Any]:
    """meeting: where the workers meet among whom the model is shared out; empty: it is not."""
    import torch

    from zpd_ray.engines.tokens import encode_items
    from zpd_ray.training.packing import check_apart
    from zpd_ray.training.step import StageProgress, micro_batches, train_step

    torch.set_num_threads(max(1, int(config.cluster.cpus_per_train_worker)))
    on_gpu = config.cluster.gpus_per_train_worker > 0
    try:
        learner = _learner(config, torch.device("cuda:0" if on_gpu else "cpu"), worker, meeting)
        if config.train.packing:
            check_apart(learner.loss, learner.device)
        tokenizer = load_tokenizer(config.model.path)
        ids = encode_items(tokenizer, items, config)
        responses = ids.response_ids
        if config.train.target == "own":  # of the length that is tried: as long as a response may get
            lengths = zip(responses, items["response_tokens"].to_pylist(), strict=True)
            responses = [list(islice(cycle(row), length)) for row, length in lengths]
        started, progress = time.perf_counter(), StageProgress(0, 1)
        train_step(
            learner, progress, micro_batches(ids.prompt_ids, responses, items.num_rows, trained=ids.trained)
        )
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        return {"failure": str(error).partition("\n")[0]}
    if not np.isfinite(progress.counters["nll"]):
        raise ZpdError(
            f"a training step gives the loss {progress.counters['nll']}: look at train.lora (alpha, rank) "
            "and at the model's weights; train.rehearse = false goes on without this trial"
        )
    peak = torch.cuda.max_memory_allocated() if on_gpu else _peak_of_this_process()
    return {"step_seconds": round(time.perf_counter() - started, 3), "gib": round(peak / GIB, 3)}


def _learner(config: Config, device: Any, worker: int, meeting: str) -> Any:
    import torch.distributed as dist

    from zpd_ray.training.model import load_trainable
    from zpd_ray.training.peers import peers
    from zpd_ray.training.sharding import sharded_loss
    from zpd_ray.training.step import Workers, new_learner, sharded_learner

    model, count = ModelRef(with_weights(config.model.path)), config.train.workers
    if not meeting:
        return new_learner(config, load_trainable(config, model).to(device), Workers())
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=meeting, rank=worker, world_size=count)
    workers = peers(worker, count, device)
    return sharded_learner(config, sharded_loss(config, model, device), device, workers)


def _peak_of_this_process() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def _too_large(config: Config, rows: int, longest: int, reason: str) -> ZpdError:
    return ZpdError(
        f"a training step on the {rows} longest items, of up to {longest} tokens, failed: {reason}; lower "
        f"train.micro_batch_size (now {config.train.micro_batch_size}) or model.max_length, or set "
        "train.gradient_checkpointing = true, or train.sharding = 'fsdp' with several workers; "
        "train.rehearse = false goes on without this trial"
    )
