"""Choice of probe items for adaptive measurement.

Each next item is drawn at random from the few most informative ones at the current ability (randomesque
exposure control, Kingsbury & Zara 1989, Applied Measurement in Education 2(4), 359-375), from the group
that is furthest behind its share, never twice in a session, and never past a limit of exposures over all
sessions.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from bisect import bisect_left

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zpd_ray.irt import checks
from zpd_ray.irt.models import information

Array = NDArray[np.float64]

SCAN = 32_768  # items scored at a time, so that they stay in the cache


class ProbeBank:
    """A bank of items to choose probes from.

    b, a, c: (n_items,) or scalars, logits. groups: (n_items,) labels to balance over. top: the number of most
    informative items drawn from; 1 for strict maximum information. max_exposures: sessions an item may be
    used in. seed: of the draws.

    >>> bank = ProbeBank(np.linspace(-3, 3, 601), top=1)
    >>> bank.next(0.004), bank.next(0.004)
    (300, 301)
    """

    def __init__(
        self,
        b: ArrayLike,
        a: ArrayLike = 1.0,
        c: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        top: int = 5,
        max_exposures: int | None = None,
        seed: int = 0,
    ) -> None:
        places = np.asarray(b, np.float64)
        if places.ndim != 1 or places.size == 0:
            raise ValueError(f"b must be a vector of one item at least, got shape {places.shape}.")
        n = places.size
        if top < 1 or (max_exposures is not None and max_exposures < 1):
            raise ValueError(f"top and max_exposures must be >= 1, got {top} and {max_exposures}.")
        self.b, self.a, self.c = checks.vector("b", places, n), checks.vector("a", a, n), checks.floor(c, n)
        labels = np.zeros(n, np.int64) if groups is None else np.asarray(groups)
        if labels.shape != (n,):
            raise ValueError(f"groups must have shape ({n},), got {labels.shape}.")
        self.exposures = np.zeros(n, np.int64)
        self._limit = max_exposures
        self._top = top
        self._random = random.Random(seed)
        _, member = np.unique(labels, return_inverse=True)
        build = _NearestShelf if not self.c.any() and np.ptp(self.a) == 0.0 else _ScannedShelf
        rows = np.argsort(member, kind="stable")
        parts = np.split(rows, np.cumsum(np.bincount(member))[:-1])
        self._shelves: list[_Shelf] = [build(self, part) for part in parts]
        self.new_session()

    def new_session(self) -> None:
        """Make all items available again that are under the limit of exposures."""
        free = np.ones(self.b.size, bool) if self._limit is None else self.exposures < self._limit
        self._taken = [0] * len(self._shelves)
        for shelf in self._shelves:
            shelf.open(free)

    def next(self, theta: float) -> int:
        """Index of the next item at ability theta, used up for this session.

        LookupError if none is left, ValueError for a theta that is not finite.
        """
        if not math.isfinite(theta):
            raise ValueError(f"theta must be a finite number of logits, got {theta}.")
        ranked = sorted(range(len(self._shelves)), key=self._behind) if len(self._shelves) > 1 else (0,)
        for index in ranked:
            shelf = self._shelves[index]
            best = shelf.best(theta, self._top)
            if best:
                item = best[self._random.randrange(len(best))] if len(best) > 1 else best[0]
                shelf.take(item)
                self._taken[index] += 1
                self.exposures[item] += 1
                return item
        raise LookupError(
            "no item is left in this session: new_session(), a larger bank, or more max_exposures."
        )

    def _behind(self, index: int) -> float:
        return (self._taken[index] + 1) / self._shelves[index].size

    def choose(self, theta: float, n: int) -> NDArray[np.intp]:
        """The next n items at one expected ability, as for a stage measured in one batch."""
        return np.array([self.next(theta) for _ in range(n)], np.intp)


def enough(se: float, target: float, n: int, *, minimum: int = 10) -> bool:
    """Stopping rule: the standard error has reached the target, after `minimum` items at least."""
    return n >= minimum and se <= target


class _Shelf(ABC):
    """Items of one group."""

    def __init__(self, bank: ProbeBank, rows: NDArray[np.intp]) -> None:
        self.size = rows.size

    @abstractmethod
    def open(self, free: NDArray[np.bool_]) -> None: ...

    @abstractmethod
    def best(self, theta: float, top: int) -> list[int]: ...

    @abstractmethod
    def take(self, item: int) -> None: ...


class _NearestShelf(_Shelf):
    """One slope, no guessing: the most informative items are the nearest, found by bisection."""

    def __init__(self, bank: ProbeBank, rows: NDArray[np.intp]) -> None:
        super().__init__(bank, rows)
        order = rows[np.argsort(bank.b[rows], kind="stable")]
        self._items: list[int] = order.tolist()
        self._b: list[float] = bank.b[order].tolist()
        self._order = order

    def open(self, free: NDArray[np.bool_]) -> None:
        # used[i] links to the next unused place on either side, found by following links and shortening them
        self._left: dict[int, int] = {}
        self._right: dict[int, int] = {}
        self._last: list[tuple[int, int]] = []
        for place in np.flatnonzero(~free[self._order]).tolist():
            self._left[place], self._right[place] = place - 1, place + 1

    def best(self, theta: float, top: int) -> list[int]:
        b, n = self._b, len(self._b)
        right = _follow(self._right, bisect_left(b, theta))
        left = _follow(self._left, right - 1) if right > 0 else -1
        while left >= 0 and left in self._left:
            left = _follow(self._left, left)
        found: list[tuple[int, int]] = []
        while len(found) < top and (left >= 0 or right < n):
            if right >= n or (left >= 0 and theta - b[left] <= b[right] - theta):
                found.append((self._items[left], left))
                left = _follow(self._left, left - 1)
            else:
                found.append((self._items[right], right))
                right = _follow(self._right, right + 1)
        self._last = found
        return [item for item, _ in found]

    def take(self, item: int) -> None:
        place = next(place for other, place in self._last if other == item)
        self._left[place], self._right[place] = place - 1, place + 1


def _follow(links: dict[int, int], place: int) -> int:
    """The first unused place from `place` on, links on the way set to point there."""
    if place not in links:
        return place
    start = place
    while place in links:
        place = links[place]
    while start != place:
        links[start], start = place, links[start]
    return place


class _ScannedShelf(_Shelf):
    """Slopes or floors differ: information of all items in single precision, the best ranked in double."""

    def __init__(self, bank: ProbeBank, rows: NDArray[np.intp]) -> None:
        super().__init__(bank, rows)
        self._rows = rows
        self._exact = bank.a[rows], bank.b[rows], bank.c[rows]
        a, b, c = self._exact
        self._reach = 40.0 / float(a.max()) - float(np.abs(b).max())
        self._slope = (-a).astype(np.float32)
        self._offset = (a * b).astype(np.float32)
        self._height = (a * a * (1.0 - c)).astype(np.float32)
        self._floor = c.astype(np.float32)

    def open(self, free: NDArray[np.bool_]) -> None:
        self._height_now = np.where(free[self._rows], self._height, np.float32(0.0))
        self._scratch = (
            np.empty(min(SCAN, self._rows.size), np.float32),
            np.empty(min(SCAN, self._rows.size), np.float32),
        )

    def best(self, theta: float, top: int) -> list[int]:
        if abs(theta) > self._reach:  # where single precision cannot tell items apart
            return self._ranked(theta, np.flatnonzero(self._height_now > 0), top)
        # I = a^2 (1-c) e / ((1 + e)^2 (1 + c e)), e = exp(-a (theta - b)): one exponential an item
        found, threshold = np.zeros(0, np.intp), np.float32(0.0)
        values = np.zeros(0, np.float32)
        extra = top + 8  # rounding may swap neighbours: a few more are ranked again in double precision
        for start in range(0, self._rows.size, SCAN):
            info = self._scan(np.float32(theta), slice(start, min(start + SCAN, self._rows.size)))
            if info.max() <= threshold:
                continue
            above = np.flatnonzero(info > threshold)
            found, values = np.append(found, above + start), np.append(values, info[above])
            if found.size > extra:
                keep = np.argpartition(-values, extra - 1)[:extra]
                found, values = found[keep], values[keep]
                threshold = values.min()
        return self._ranked(theta, found, top)

    def _ranked(self, theta: float, found: NDArray[np.intp], top: int) -> list[int]:
        a, b, c = (array[found] for array in self._exact)
        order = np.argsort(-information(theta, a, b, c), kind="stable")[:top]
        return [int(item) for item in self._rows[found[order]]]

    def _scan(self, theta: np.float32, cut: slice) -> NDArray[np.float32]:
        size = cut.stop - cut.start
        e, bottom = self._scratch[0][:size], self._scratch[1][:size]
        np.multiply(self._slope[cut], theta, out=e)
        e += self._offset[cut]
        np.clip(e, -40.0, 40.0, out=e)
        np.exp(e, out=e)
        np.multiply(self._floor[cut], e, out=bottom)
        bottom += 1.0
        bottom *= e + np.float32(2.0) + np.float32(1.0) / e
        np.divide(self._height_now[cut], bottom, out=bottom)
        return bottom

    def take(self, item: int) -> None:
        self._height_now[np.searchsorted(self._rows, item)] = 0.0
