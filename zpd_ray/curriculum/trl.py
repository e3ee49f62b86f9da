"""TRL's GRPOTrainer fed by a curriculum: an endless stream of prompts, and a reward that reports back.

By what TRL publishes alone (checked against 1.16): ``train_dataset`` takes an IterableDataset, which the
trainer reads a generation batch at a time and repeats for each completion, and reward functions are given
every further column of the rows (https://huggingface.co/docs/trl/grpo_trainer).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from zpd_ray.curriculum.sampler import Curriculum
from zpd_ray.errors import ZpdError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

__all__ = ["observed", "stream"]

ROW = "curriculum_row"  # the column by which a reward function knows the prompt
Reward = Callable[..., list[float | None]]


def stream(curriculum: Curriculum, dataset: Dataset, batch: int) -> IterableDataset:
    """Rows of ``dataset`` without end, ``batch`` at a time as the curriculum draws them.

    curriculum: of the row numbers, ``Curriculum(len(dataset))``. batch: prompts of a generation batch,
    ``generation_batch_size // num_generations`` of the trainer's config, which must have ``shuffle_dataset =
    False`` and ``max_steps``. With several processes each draws the same, since each sees all rollouts.
    """
    from datasets import IterableDataset

    if ROW in dataset.column_names:
        raise ZpdError(
            f"the dataset has a column {ROW!r}, by which rewards find the prompt; expected another name"
        )

    def rows() -> Iterator[dict[str, Any]]:
        while True:
            for row in curriculum.next(batch).tolist():
                yield dataset[row] | {ROW: row}

    return IterableDataset.from_generator(rows)


def observed(curriculum: Curriculum, function: Reward, right_from: float = 1.0) -> Reward:
    """The same reward function, which tells the curriculum how many rollouts were right.

    right_from: the least reward of a right rollout. Rewards of None are not counted, nor are rows that are
    not from ``stream``, as in an evaluation.
    """

    @functools.wraps(function)
    def counted(**columns: Any) -> list[float | None]:
        rewards = function(**columns)
        if ROW in columns:
            told = [
                (row, r >= right_from) for row, r in zip(columns[ROW], rewards, strict=True) if r is not None
            ]
            _observe(curriculum, _of_all_processes(told))
        return rewards

    return counted


def _observe(curriculum: Curriculum, told: list[tuple[int, bool]]) -> None:
    rows, right = np.array(told, dtype=np.int64).reshape(-1, 2).T
    curriculum.observe(rows, right, np.ones(len(rows)))


def _of_all_processes(told: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    import torch.distributed as dist

    if not dist.is_initialized():
        return told
    gathered: list[list[tuple[int, bool]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, told)
    return [each for part in gathered for each in part]
