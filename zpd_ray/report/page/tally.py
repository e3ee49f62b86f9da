"""Sums over the pool at one stage, part by part: neither their size nor their time grows with the pool."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from zpd_ray import irt
from zpd_ray.calibration import Fit
from zpd_ray.difficulty import bin_of
from zpd_ray.matching import zone_of
from zpd_ray.report.page.judging import Flags, Floats, Integers, Judged, judge
from zpd_ray.report.page.sample import Sample
from zpd_ray.rundir import Run
from zpd_ray.rundir.groups import group_names
from zpd_ray.rundir.layout import POOL, SELECT, StageFiles

BIN = 0.05  # logits, of the histogram of b
LIMIT = 60.0  # logits: what lies beyond counts in the last bin
BINS = int(2 * LIMIT / BIN)
SHARES = 10  # bins of predicted p
GROUPS = 7  # groups that are told apart; the others count together
# Items at most, about, and over all stages: those of some parts, to which items come by a hash of their ids.
LOOKED_AT, JUDGED = 100_000, 400_000


@dataclass
class Tally:
    """What the page shows of the pool, or of a sample of it, at a stage.

    pool, zone, replay: items by bin of b, int64 (BINS,), all and those selected. outcomes: by bin of the p
    expected from the NLL, float64 (SHARES, 7): items and sums of p k, k, s, s^2, s k, k^2 of items never
    trained on. answers: such items by group, NLL bin of stage 0, options, successes and trials.
    """

    fit: Fit
    pool: Integers = field(default_factory=lambda: np.zeros(BINS, np.int64))
    zone: Integers = field(default_factory=lambda: np.zeros(BINS, np.int64))
    replay: Integers = field(default_factory=lambda: np.zeros(BINS, np.int64))
    outcomes: Floats = field(default_factory=lambda: np.zeros((SHARES, 7)))
    answers: irt.Counts | None = None
    in_zone: int = 0  # measured items whose p lies in the zone, trained ones too
    failed: int = 0  # items that could not be measured

    @property
    def looked_at(self) -> int:
        """Items in all."""
        return int(self.pool.sum()) + self.failed

    def add(
        self,
        judged: Judged,
        chosen: dict[str, Integers],
        group: Integers,
        nll: Floats,
        zone: tuple[float, float],
    ) -> None:
        """A part. chosen: its rows by reason. group: number of each item's group. nll: at stage 0; NaN where
        it failed there. zone: of p."""
        measured = ~judged.failed
        bins = np.clip(np.floor((judged.b + LIMIT) / BIN), 0, BINS - 1).astype(np.int64)
        self.pool += np.bincount(bins[measured], minlength=BINS)
        for reason, rows in chosen.items():
            of = self.replay if reason == "replay" else self.zone
            of += np.bincount(bins[rows], minlength=BINS)
        self.in_zone += int((measured & (judged.p >= zone[0]) & (judged.p <= zone[1])).sum())
        self.failed += int(judged.failed.sum())
        fresh = measured & judged.now & ~judged.trained
        self._add_outcomes(judged, fresh & (judged.integers("rollouts") > 0))
        self._add_answers(judged, fresh & np.isfinite(nll), group, nll)

    def _add_outcomes(self, judged: Judged, rows: Flags) -> None:
        p = judged.expected[rows]
        s, k = (judged.integers(name)[rows].astype(np.float64) for name in ("successes", "rollouts"))
        share = np.minimum((p * SHARES).astype(np.int64), SHARES - 1)
        for column, values in enumerate((np.ones_like(p), p * k, k, s, s * s, s * k, k * k)):
            self.outcomes[:, column] += np.bincount(share, values, minlength=SHARES)

    def _add_answers(self, judged: Judged, rows: Flags, group: Integers, nll: Floats) -> None:
        options = np.divide(1.0, judged.guess, out=np.zeros_like(judged.guess), where=judged.guess > 0)
        counts = irt.Counts.of(
            group=group[rows],
            nll_bin=bin_of(nll[rows]),
            options=np.rint(options[rows]).astype(np.int64),
            successes=judged.integers("successes")[rows],
            trials=judged.integers("rollouts")[rows],
        )
        self.answers = counts if self.answers is None else irt.Counts.merge([self.answers, counts])


def take_stock(run: Run, fits: list[Fit], seats: int) -> tuple[list[str], list[Tally], list[Sample]]:
    """Names of the groups that are told apart, and of each stage its sums and its sample of items.

    Of all items, or of ``LOOKED_AT`` where the pool has more. seats: items of each kind in a sample.
    """
    parts = looked_at(run, len(fits))
    groups, zone = _groups(run, parts), zone_of(run.config.select.target_p)
    tallies, samples = [Tally(fit) for fit in fits], [Sample(fit.stage, seats) for fit in fits]
    for part in parts:
        names = {name: number for number, name in enumerate(groups)}
        group = np.array([names.get(name, len(groups)) for name in group_names(run, part)], dtype=np.int64)
        nll = np.zeros(0)
        for tally, sample in zip(tallies, samples, strict=True):
            judged = judge(run, tally.fit, part)
            if tally.fit.stage == 0:
                nll = judged.measured["nll"].to_numpy().astype(np.float64)
            selected = run.finished(tally.fit.stage, SELECT)
            chosen = _chosen(run, tally.fit.stage, part) if selected else {}
            tally.add(judged, chosen, group, nll, zone)
            sample.add(run, part, judged, chosen, group)
    return groups, tallies, samples


def looked_at(run: Run, stages: int) -> list[str]:
    """The parts whose items are looked at where so many stages are shown: the same at every stage."""
    most = min(LOOKED_AT, JUDGED // stages)
    parts, items = run.store.names(POOL), run.store.read_json(f"{POOL}.json")["items"]
    return parts[: max(1, len(parts) * most // max(most, items))]


def _groups(run: Run, parts: list[str]) -> list[str]:
    """The largest groups, by the first part: items come to parts by a hash of their id."""
    counts = Counter(group_names(run, parts[0]).tolist())
    return sorted(sorted(counts, key=lambda name: (-counts[name], name))[:GROUPS])


def _chosen(run: Run, stage: int, part: str) -> dict[str, Integers]:
    """Rows of a part that a stage has selected, by reason."""
    chosen: pa.Table = run.store.read_table(
        f"{StageFiles(stage).selection()}/chosen/{part}", ["reason", "row"]
    )
    rows, reasons = chosen["row"].to_numpy(), np.array(chosen["reason"].to_pylist(), dtype=object)
    return {reason: rows[reasons == reason] for reason in set(reasons)}
