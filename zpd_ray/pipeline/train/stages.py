"""What a train worker sees: ``for stage in zpd_ray.stages()``, and the batches of each stage.

    def loop() -> None:                                   # train.function = "my.module:loop"
        for stage in zpd_ray.stages():                    # waits until the next one is selected
            for batch in stage.iter_torch_batches(batch_size=8):
                loss = model(**batch).loss
                ...
            model.save_pretrained(directory)
            stage.report(directory, {"loss": float(loss)})

The loop runs once in every Ray Train worker and lives through all stages: model, optimiser and process group
stay up. When a worker dies, Ray Train starts the loop anew in all of them, and the first stage that it gets
is the one that was not finished.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.train
from ray.exceptions import RayError
from ray.train.torch import get_device
from torch import Tensor

from zpd_ray.config import TrainConfig
from zpd_ray.engines.adapters import check_adapter
from zpd_ray.engines.model_files import load_tokenizer
from zpd_ray.engines.tokens import Encoded, encode_items
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.failures import as_raised, user_error
from zpd_ray.pipeline.train.checkpoints import Checkpoints
from zpd_ray.pipeline.train.controller import CONTROLLER_VARIABLE, StageTask, find_controller
from zpd_ray.pipeline.train.lines import UNHEARD, Lines, lines_to
from zpd_ray.pipeline.train.shards import from_row, with_texts
from zpd_ray.rundir import Run
from zpd_ray.training.collate import IGNORED, collate, labels_of
from zpd_ray.user_code import load_function

TELL_SECONDS = 1.0  # between two reports within a batch


def stages() -> Iterator[Stage]:
    """The stages of the run, one after the other; blocks until the driver has selected the next.

    Raises ZpdError outside of a training job that zpd-ray started, and when the loop asks for a next stage
    before it has reported the one it has.
    """
    controller, context = _own_controller(), _own_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    yield from each_stage(partial(_next_task, controller, rank), rank, workers, lines_to(controller, rank))


def each_stage(
    next_task: Callable[[int], StageTask | None],
    rank: int,
    workers: int,
    lines: Lines = UNHEARD,
) -> Iterator[Stage]:
    """The stages that ``next_task`` gives for the turn of the one before (-1: none), until it gives None.

    Raises ZpdError when a stage was not reported.
    """
    after = -1
    while (task := next_task(after)) is not None:
        # Rank 0 may have died between closing a stage and asking for the next.
        if after < 0 and task.store.exists(f"{task.directory}/train.json"):
            after = task.turn
            continue
        stage = Stage(task, rank, workers, lines)
        yield stage
        stage._check_reported()
        after = task.turn


def _next_task(controller: Any, rank: int, after: int) -> StageTask | None:
    task: StageTask | None = ray.get(controller.next_stage.remote(rank, after))
    return task


def _own_controller() -> Any:
    name = os.environ.get(CONTROLLER_VARIABLE)
    if name is None or not ray.is_initialized():
        raise _outside()
    return find_controller(name)


def _own_context() -> Any:
    try:
        return ray.train.get_context()
    except RuntimeError:  # in a task or an actor that a train worker has started
        raise _outside() from None


def _outside() -> ZpdError:
    return ZpdError(
        "zpd_ray.stages() works inside of a training job that zpd-ray has started; name this function in "
        "the config, as train.function = 'my.module:loop', and start it with `zpd-ray run`"
    )


class Stage:
    """One stage in a train worker.

    number: of the stage, from 0. items: selected, over all workers. rows: of this worker, over all epochs.
    base, adapter: local paths of the model that the stage begins with; adapter is None for the base model
    itself and in full fine-tuning. train: the config's section.
    """

    def __init__(
        self,
        task: StageTask,
        rank: int,
        workers: int,
        lines: Lines,
    ) -> None:
        """For ``stages()``."""
        self.rank, self.workers = rank, workers
        self.task, self.number, self.items = task, task.model.stage, task.items
        self.rows = task.rows[rank]
        self.train: TrainConfig = task.config.train
        self._lines, self._reported = lines, False
        self._taken, self._told = 0, time.monotonic()
        self._copies = tempfile.TemporaryDirectory(prefix="zpd-ray-")  # where the run directory is remote
        model = task.store.fetched(task.model, self._copies.name)
        self.base, self.adapter = model.base, model.adapter
        mark = {"run": task.store.root, "stage": self.number}  # the job may have trained other runs' stages
        self._checkpoints = Checkpoints(mark, rank, Path(self._copies.name), lines)

    def iter_batches(self, batch_size: int, first: int = 0) -> Iterator[pa.Table]:
        """This worker's rows in training order, epoch after epoch: tables of at most ``batch_size`` rows.

        Columns: item_id, messages (list of role, content and more), response, response_more, tools, rank (by
        score, from 0). first: the row to begin with, where a checkpoint is gone on from; no text of those
        before it is read.
        """
        self._taken, run = first, Run(self.task.config, self.task.store)
        rows: Any = with_texts(run, self.number, from_row(self.task.shards[self.rank], first))
        for batch in rows.iter_batches(batch_size=batch_size, batch_format="pyarrow", prefetch_batches=1):
            yield batch
            self._taken += batch.num_rows
            self._tell(self._taken)

    def tell_rows(self, rows: int) -> None:
        """So many rows of the batch in hand are done: for the progress bar, in steps that take long."""
        if time.monotonic() - self._told > TELL_SECONDS:
            self._tell(self._taken + rows)

    def _tell(self, rows: int) -> None:
        if self.rank == 0:
            self._lines.report_rows(rows)
            self._told = time.monotonic()

    def iter_tokens(self) -> Iterator[dict[str, list[int]]]:
        """The same row by row as ``input_ids`` and ``labels``: for trainers that batch for themselves.

        The ids are those that were measured; labels are -100 where nothing is trained on. Raises ZpdError
        where items have no responses (``pool.reference`` is "none" or "prompt").
        """
        for ids in self._encoded(self.train.micro_batch_size):
            labels = labels_of(ids.response_ids, ids.trained)
            for prompt, response, learnt in zip(ids.prompt_ids, ids.response_ids, labels, strict=True):
                yield {"input_ids": prompt + response, "labels": [IGNORED] * len(prompt) + learnt}

    def iter_torch_batches(self, batch_size: int) -> Iterator[dict[str, Tensor]]:
        """The same as tensors on this worker's device, all int64 of shape (rows, longest).

        ``input_ids``, ``attention_mask`` and ``labels``: what a causal model of transformers takes. Every
        worker gets as many batches. Raises ZpdError as ``iter_tokens`` does.
        """
        device = get_device()
        for ids in self._encoded(batch_size):
            batch = collate(ids.prompt_ids, ids.response_ids, ids.trained)
            yield {name: tensor.to(device) for name, tensor in batch.items()}

    def _encoded(self, batch_size: int) -> Iterator[Encoded]:
        tokenizer = load_tokenizer(self.base)
        for rows in self.iter_batches(batch_size):
            ids = encode_items(tokenizer, rows, self.task.config)
            if flaw := next(filter(None, ids.error), None):  # else the loop would be given rows without ids
                raise self._nothing_to_learn(flaw)
            yield ids

    def _nothing_to_learn(self, flaw: str) -> ZpdError:
        if self.task.config.completes:
            return ZpdError(f"stage {self.number}: an item cannot be turned into tokens: {flaw}")
        reference = self.task.config.pool.reference
        return ZpdError(
            f"with pool.reference = {reference!r} the items of stage {self.number} have "
            "no responses, and so no tokens to train on; let the loop take stage.iter_batches, which gives "
            "prompts, or set train.target = 'own'"
        )

    def checkpoint(self) -> AbstractContextManager[Path | None]:
        """The files of the last checkpoint made inside this stage, of all workers; None where there is none.

        A checkpoint of an earlier stage is not given: that stage's result is in ``adapter`` or ``base``.
        """
        return self._checkpoints.last()

    def save_checkpoint(self, directory: str | Path | None, move: bool = False) -> None:
        """Keep the files in ``directory`` for an attempt that goes on from here; called by all workers.

        They are stored while training goes on; only when the checkpoint before is not stored yet does this
        wait for it. The directory may be changed or deleted at once: what is stored is a copy, or with
        ``move`` the directory itself, which is then gone. Any worker may give one, rank 0 alone or each its
        share, and None has nothing to keep. All files lie side by side in ``checkpoint()``. Raises ZpdError
        when another worker of the stage has handed in a file of the same name.
        """
        self._checkpoints.save(None if directory is None else Path(directory), move)

    def wait_for_checkpoints(self) -> None:
        """Until what ``save_checkpoint`` has taken is stored, of all workers. ``report`` does so, too."""
        self._checkpoints.wait()

    @property
    def may_be_preempted(self) -> bool:
        """Whether anybody could say so: not on a Ray of our own on this machine."""
        return self.task.config.cluster.address != "local"

    def preempted(self) -> bool:
        """Whether a worker's node is about to be taken away; asked by all workers at the same step.

        It stays true until the node goes, and the stage begins anew elsewhere from its last checkpoint: time
        to save one. All workers wait for one another and for an actor, a few milliseconds, so that one does
        not ask after every step that takes no longer. Always false on a Ray of our own on this machine.
        """
        if not self.may_be_preempted or ray.train.get_preemption_info() is None:
            return False
        if self.rank == 0:
            self._lines.report_preemption()
        return True

    def report(self, path: str | Path | None, metrics: dict[str, Any]) -> None:
        """Close the stage; called by every worker, of which rank 0's arguments count.

        path: local directory with the adapter (``train.method = "lora"``) or the whole model ("full"), as
        ``save_pretrained`` leaves it. It goes to the run directory, and the next stage is measured with it.
        metrics: into the stage's train.json. Waits for checkpoints that are not stored yet. Raises ZpdError
        when the directory holds no such thing.
        """
        self.wait_for_checkpoints()
        self._reported = True
        if self.rank != 0:
            return
        if path is None:
            raise ZpdError(
                f"stage {self.number}: rank 0 has to report the directory that it trained, got None"
            )
        _check_result(self.train.method, Path(path))
        self.task.store.upload(str(path), f"{self.task.directory}/{self.train.result}")
        known = {"items": self.items, "rows": sum(self.task.rows)}
        self.task.store.write_json(f"{self.task.directory}/train.json", known | metrics)

    def _check_reported(self) -> None:
        self._copies.cleanup()
        if not self._reported:
            raise ZpdError(
                f"the training loop left stage {self.number} without a word; expected every worker to call "
                "stage.report(directory, metrics) at the end of each stage"
            )


def _check_result(method: str, path: Path) -> None:
    if method == "lora":
        check_adapter(path)
        return
    found = sorted(file.name for file in path.glob("*"))
    if "config.json" not in found or not any(name.endswith(".safetensors") for name in found):
        raise ZpdError(
            f"stage.report got {path}, which holds {', '.join(found) or 'nothing'}; expected config.json, "
            "*.safetensors and the tokenizer, as save_pretrained leaves them"
        )


def serve(settings: dict[str, str]) -> None:
    """What each Ray Train worker runs: the loop, with what it says when it fails.

    settings: ``function``, the import path of the loop.
    """
    controller = _own_controller()
    if ray.train.get_context().get_world_rank() == 0:
        ray.get(controller.report_place.remote(ray.util.get_current_placement_group()))
    try:
        load_function("the training loop", settings["function"], "function()")()
    except Exception as error:
        if flaw := user_error(error):  # of the loop, or of a task that reads for it
            ray.get(controller.fail.remote(str(flaw)))
            raise
        told = as_raised(error)
        # Where there are several workers it may be the echo of another one's death.
        alone = ray.train.get_context().get_world_size() == 1 and not isinstance(error, RayError)
        ray.get((controller.fail if alone else controller.report_error).remote(told))
        raise
