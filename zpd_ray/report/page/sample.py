"""A few items of each kind, drawn by a seeded hash of their ids, with their texts."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from zpd_ray.matching import zone_of
from zpd_ray.report.page.judging import Integers, Judged
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import POOL
from zpd_ray.selection.keys import Keys, shuffled, sort_key

SELECTED, REPLAY, MISSED = "selected", "selected for replay", "just missed"
MASTERED, OUT_OF_REACH = "mastered", "out of reach"
KINDS = (SELECTED, REPLAY, MISSED, MASTERED, OUT_OF_REACH)
TEXTS = ("prompt", "response", "answer", "completion")
Place = tuple[int, str, int]  # key of the draw, part, row


@dataclass(frozen=True)
class Shown:
    """An item on the page: numbers on the scale of its stage's fit, texts cut (``cut``)."""

    stage: int
    kind: str
    reason: str
    item_id: str
    group: str
    b: float
    b_sd: float
    p: float
    score: float | None
    nll: float
    successes: int
    rollouts: int
    texts: dict[str, str]


class Sample:
    """Of each kind the items of a stage with the smallest keys, whatever the order of the parts."""

    def __init__(self, stage: int, seats: int) -> None:
        self.stage, self.seats = stage, seats
        self._kept: dict[str, list[tuple[Place, dict[str, Any]]]] = {kind: [] for kind in KINDS}

    def add(self, run: Run, part: str, judged: Judged, chosen: dict[str, Integers], group: Integers) -> None:
        """Look at a part."""
        keys = shuffled(judged.ids, run.config.seed, self.stage, "report")
        reasons = {int(row): reason for reason, rows in chosen.items() for row in rows}
        taken = np.zeros(len(keys), dtype=bool)
        taken[list(reasons)] = True
        replay = chosen.get("replay", np.zeros(0, dtype=np.int64))
        zone = np.setdiff1d(np.flatnonzero(taken), replay)
        self._offer(SELECTED, part, keys, zone, judged, reasons)
        self._offer(REPLAY, part, keys, replay, judged, reasons)
        left = ~taken & ~judged.failed & (judged.integers("rollouts") > 0)
        s, k = judged.integers("successes"), judged.integers("rollouts")
        mastered = left & (judged.p >= run.config.select.mastered_p) & (s == k)
        beyond = left & (judged.p < zone_of(run.config.select.target_p)[0]) & (s == 0)
        self._offer(MASTERED, part, keys, np.flatnonzero(mastered), judged, reasons)
        self._offer(OUT_OF_REACH, part, keys, np.flatnonzero(beyond), judged, reasons)
        if judged.score is not None and chosen:
            self._offer_missed(run, part, judged, taken)

    def _offer_missed(self, run: Run, part: str, judged: Judged, taken: np.ndarray) -> None:
        """The best of those that were not taken and might have been."""
        score = np.asarray(judged.score)
        away = taken | judged.failed | np.isnan(score)
        if not run.config.select.allow_trained:
            away |= judged.trained
        keys = sort_key(np.where(away, 0.0, score), judged.order)
        self._offer(MISSED, part, keys, np.flatnonzero(~away), judged, {})

    def _offer(
        self, kind: str, part: str, keys: Keys, rows: Integers, judged: Judged, reasons: dict[int, str]
    ) -> None:
        kept = self._kept[kind]
        if len(kept) == self.seats:  # most parts have nothing to add
            rows = rows[keys[rows] <= np.uint64(kept[-1][0][0])]
        first = rows[np.argsort(keys[rows], kind="stable")[: self.seats]]
        new = [
            ((int(keys[row]), part, int(row)), _numbers(judged, int(row), reasons.get(int(row), "")))
            for row in first
        ]
        self._kept[kind] = heapq.nsmallest(self.seats, [*kept, *new], key=lambda each: each[0])

    def rows(self) -> list[tuple[str, Place, dict[str, Any]]]:
        """Kind, place and numbers of what was drawn, in order of kind and key."""
        return [(kind, place, numbers) for kind in KINDS for place, numbers in self._kept[kind]]


def _numbers(judged: Judged, row: int, reason: str) -> dict[str, Any]:
    measured = judged.measured.slice(row, 1).to_pylist()[0]
    return {
        "reason": reason,
        "item_id": measured["item_id"],
        "b": float(judged.b[row]),
        "b_sd": float(judged.b_sd[row]),
        "p": float(judged.p[row]),
        "score": None if judged.score is None else float(judged.score[row]),
        "nll": float(measured["nll"]),
        "successes": int(measured["successes"]),
        "rollouts": int(measured["rollouts"]),
        "completion": measured["completion"],
    }


def shown(run: Run, samples: list[Sample], text_bytes: int) -> list[Shown]:
    """What was drawn, with its texts: each part is read once, and one at a time.

    text_bytes: that each text may take on the page.
    """
    drawn = [(sample.stage, *row) for sample in samples for row in sample.rows()]
    by_part: dict[str, list[int]] = {}
    for number, (_, _, (_, part, _), _) in enumerate(drawn):
        by_part.setdefault(part, []).append(number)
    found: dict[int, Shown] = {}
    for part, numbers in sorted(by_part.items()):
        rows = [drawn[number][2][2] for number in numbers]
        columns = ["messages", "response", "response_more", "answer", "group"]
        items = run.store.read_table(f"{POOL}/{part}", columns).take(rows).to_pylist()
        for number, item in zip(numbers, items, strict=True):
            stage, kind, _, known = drawn[number]
            found[number] = _shown(stage, kind, dict(known), item, text_bytes)
    return [found[number] for number in range(len(drawn))]


def _shown(stage: int, kind: str, known: dict[str, Any], item: dict[str, Any], text_bytes: int) -> Shown:
    turns = [message["content"] or "" for message in item["messages"]]
    told = {
        "prompt": "\n\n".join(turns),
        "response": item["response"] or item["response_more"],
        "answer": item["answer"],
        "completion": known.pop("completion"),
    }
    texts = {name: cut(text, text_bytes) for name, text in told.items() if text}
    known["item_id"] = cut(known["item_id"], text_bytes)
    return Shown(stage=stage, kind=kind, group=cut(item["group"] or "", 200), texts=texts, **known)


def cut(text: str, size: int) -> str:
    """The start of a text, at most ``size`` bytes of it on the page, escaped; what is left out is told."""
    whole, text = len(text), text[:size]
    sizes = np.cumsum([len(escape(character).encode(errors="replace")) for character in text], dtype=np.int64)
    kept = int(np.searchsorted(sizes, size, side="right"))
    return text[:kept] if kept >= whole else f"{text[:kept]} [... {whole:,} characters]"
