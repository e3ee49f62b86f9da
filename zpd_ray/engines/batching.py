"""Which rows share a forward pass, and what happens when they do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def longest_first(lengths: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """int64 (n,): rows by falling length, ties by name, so that the order in which they come is no matter."""
    return np.lexsort((np.asarray(names, dtype=object), lengths))[::-1]


def plan(lengths: np.ndarray, names: Sequence[str], budget: int) -> list[np.ndarray]:
    """Batches of row indices, longest first, each of at most ``budget`` padded tokens (one row at least).

    lengths: int (n,), tokens; names: ids that break ties, so that the batches of a set of rows do not depend
    on the order in which they come.
    """
    order = longest_first(lengths, names)
    batches, start = [], 0
    while start < len(order):
        rows = max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def pad(rows: Sequence[Sequence[int]], fill: int, side: str) -> np.ndarray:
    """int64 (rows, longest): ids padded with ``fill`` on the left or on the right."""
    width = max(len(row) for row in rows)
    padded = np.full((len(rows), width), fill, dtype=np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[slice(width - len(row), None) if side == "left" else slice(len(row))] = row
    return padded


def in_halves(rows: np.ndarray, compute: Callable[[np.ndarray], None], fail: Callable[[int], None]) -> None:
    """Compute a batch; out of GPU memory, its halves, down to one row, which then fails by itself."""
    import torch  # which the driver, that asks an engine for its facts only, need not wait for

    pending = [rows]
    while pending:
        part = pending.pop()
        if _fits(part, compute):
            continue
        torch.cuda.empty_cache()
        if len(part) == 1:
            fail(int(part[0]))
        else:
            pending += [part[len(part) // 2 :], part[: len(part) // 2]]


def _fits(part: np.ndarray, compute: Callable[[np.ndarray], None]) -> bool:
    import torch

    # The caller goes on outside the handler: inside it the traceback would keep the tensors alive.
    try:
        compute(part)
    except torch.OutOfMemoryError:
        return False
    return True
