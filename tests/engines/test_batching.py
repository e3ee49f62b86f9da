"""Batches by token budget."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from zpd_ray.engines.batching import in_halves, pad, plan


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    budget=st.integers(1, 200),
    seed=st.integers(0, 99),
)
def test_batches_cover_rows_once_within_budget_in_any_order(
    lengths: list[int], budget: int, seed: int
) -> None:
    names = [f"item-{i}" for i in range(len(lengths))]
    batches = plan(np.array(lengths), names, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    order = np.random.default_rng(seed).permutation(len(lengths))
    again = plan(np.array(lengths)[order], [names[i] for i in order], budget)
    assert [[names[order[i]] for i in batch] for batch in again] == [
        [names[i] for i in batch] for batch in batches
    ]


def test_no_rows_make_no_batches() -> None:
    assert plan(np.array([], dtype=np.int64), [], 10) == []


def test_padding_sides() -> None:
    assert pad([[1, 2], [3]], 0, "right").tolist() == [[1, 2], [3, 0]]
    assert pad([[1, 2], [3]], 0, "left").tolist() == [[1, 2], [0, 3]]


def test_out_of_memory_halves_down_to_the_row_at_fault() -> None:
    done: list[int] = []
    failed: list[int] = []

    def compute(part: np.ndarray) -> None:
        if len(part) > 2 or 7 in part:
            raise torch.OutOfMemoryError
        done.extend(part.tolist())

    in_halves(np.arange(5, 15), compute, failed.append)
    assert sorted(done) == [5, 6, *range(8, 15)]
    assert failed == [7]
