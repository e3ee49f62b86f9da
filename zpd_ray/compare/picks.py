"""What a run has selected: of which groups, of which truth, how much in common with other runs."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from zpd_ray import selection
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import POOL, StageFiles
from zpd_ray.rundir.places import items_at
from zpd_ray.rundir.records import load_selection
from zpd_ray.rundir.selected import ranked


def by_group(run: Run) -> Counter[str]:
    """Selected items by group, over all stages."""
    counts: Counter[str] = Counter()
    for stage in range(run.config.stages):
        counts.update(load_selection(run.store, StageFiles(stage).selection()).groups)
    return counts


def by_truth(run: Run, column: str) -> Counter[str]:
    """Selected items by what a column of the pool's rows says of them; "" where a row has none."""
    counts: Counter[str] = Counter()
    for stage in range(run.config.stages):
        for places in ranked(run, stage):
            # Rows of the user's own, of any shape, which arrow would want to be alike.
            rows = items_at(run, stage, places, ["extra"])["extra"].to_pylist()
            counts.update(_told(json.loads(row or "{}").get(column)) for row in rows)
    return counts


def _told(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def notes(run: Run) -> list[str]:
    """What a reader must know of a run's selections: their warnings, and scores that are all the same."""
    found = []
    for stage in range(run.config.stages):
        found += load_selection(run.store, StageFiles(stage).selection()).warnings
        if not selection.is_blind(run.config.select.method) and _is_constant(run, stage):
            found.append("all items that were selected have the same score: which of them was drawn")
    return found


def _is_constant(run: Run, stage: int) -> bool:
    """Whether a stage has selected several items by score, all with the same."""
    lows, highs, count = [], [], 0
    for rows in ranked(run, stage):
        scores = rows["score"].to_numpy()[np.array(rows["reason"].to_pylist()) != "replay"]
        if len(scores):
            lows.append(scores.min())
            highs.append(scores.max())
            count += len(scores)
    return count > 1 and min(lows) == max(highs)


def counted(sentences: list[str]) -> dict[str, int]:
    """How often each was said, numbers aside; the first one's numbers stand."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for sentence in sentences:
        kind = re.sub(r"[\d.]+", "#", sentence)
        counts[first.setdefault(kind, sentence)] += 1
    return dict(counts)


def in_common(runs: list[Run]) -> NDArray[np.int64]:
    """Items that each two of some runs of the same pool have selected, over all stages: (runs, runs)."""
    total = np.zeros((len(runs), len(runs)), dtype=np.int64)
    for part in runs[0].store.names(POOL):
        size = runs[0].store.count_rows(f"{POOL}/{part}")
        chosen = np.zeros((len(runs), size), dtype=np.int64)
        for index, run in enumerate(runs):
            for stage in range(run.config.stages):
                chosen[index, run.chosen_rows(stage, part)] = 1
        total += chosen @ chosen.T
    return total
