"""What probes say of the items that are not measured again: how far items move, and what has drifted.

Probes are items that are never trained on and asked again at each stage. Their responses are compared with
what earlier stages predict of them at the ability of now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from zpd_ray import irt
from zpd_ray.irt.quadrature import HERMITE_WEIGHTS
from zpd_ray.movement import (
    Asked,
    Flags,
    Floats,
    Integers,
    Shift,
    estimate_moved,
    estimate_shift,
    p_at_nodes,
)

LEVEL = 0.01  # of all tests of a look together (Bonferroni)
# More probes are worth asking where a corrected p lies below, or where they would bring the standard error of
# a part's shift down to this: a drift of a logit is then four of them.
SUSPECT, SEEN_SE = 0.2, 0.25
BANDS = 5  # of predicted difficulty, with equal numbers of probes
FEWEST = 20  # probes of a part, and of all others, below which it is not tested
MOST = 5  # parts that are told to have drifted: more is no part, but the whole
ALL, GROUP, BAND = "all", "group", "band"


@dataclass(frozen=True)
class Drifted:
    """A part of the pool whose probes answer otherwise than predicted.

    kind: "all", "group" (``name``) or "band": predicted difficulties from ``low`` up to ``high``, logits,
    None where it is open. shift: how much harder than predicted on average, a part against the rest,
    logits; se: its standard error; p: two-sided, corrected for the number of tests, that it has not drifted.
    probes: asked of the part; items: of the part that were measured again for it. moved: sd in logits of what
    its items have moved besides, each on its own.
    """

    kind: str
    name: str
    low: float | None
    high: float | None
    shift: float
    se: float
    p: float
    probes: int
    items: int = 0
    moved: float = 0.0

    def __str__(self) -> str:
        if self.kind == GROUP:
            return f"group {self.name or '(none)'}"
        if self.kind == ALL:
            return "the pool"
        if self.low is None:
            return f"difficulty below {self.high:.2f}"
        return f"difficulty from {self.low:.2f}" + ("" if self.high is None else f" to {self.high:.2f}")

    @property
    def told(self) -> str:
        """A sentence."""
        side = "harder" if self.shift > 0 else "easier"
        return (
            f"{self} is {abs(self.shift):.2f} +- {self.se:.2f} logits {side} than predicted on average, "
            f"sd {self.moved:.2f} (p = {self.p:.2g}, {self.probes} probes), and is now predicted so"
            + (f"; {self.items} of its items were measured again" if self.items else "")
        )

    def holds(self, b: Floats, group: NDArray[np.str_]) -> Flags:
        """Which items belong to it, by predicted difficulty and group: bool (n,)."""
        if self.kind == GROUP:
            return np.asarray(group == self.name)
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        return (b >= low) & (b < high)


@dataclass(frozen=True)
class Probed:
    """What a stage learnt of its probes.

    asked: how many. moved: sd in logits of what items move on their own from one stage to the next.
    drifted: parts of the pool that have drifted, at ``LEVEL``. least_p: the smallest corrected p of the
    others. unsure: whether more probes would tell more of a drift.
    """

    asked: int
    moved: float
    least_p: float
    unsure: bool
    drifted: list[Drifted] = field(default_factory=list)

    def part(self, b: Floats, group: NDArray[np.str_]) -> Integers:
        """Which of ``drifted`` each item belongs to, by predicted difficulty and group; -1: to none. (n,)

        The first that holds it: each was found without the probes of those before. The pool is no part.
        """
        place = np.full(len(b), -1)
        for at, part in reversed([*enumerate(self.drifted)]):
            if part.kind != ALL:
                place[part.holds(b, group)] = at
        return place

    def drift(self, b: Floats, group: NDArray[np.str_]) -> tuple[Floats, Floats]:
        """Logits by which items are harder than predicted (b), and the variance of that: (n,) each.

        Of a part that has drifted its shift is known with an error, and its items have moved besides.
        """
        place = self.part(b, group)
        shift = np.array([*(part.shift for part in self.drifted), 0.0])[place]
        variance = np.array([*(part.se**2 + part.moved**2 for part in self.drifted), self.moved**2])[place]
        for whole in (part for part in self.drifted if part.kind == ALL):
            shift, variance = shift + whole.shift, variance + whole.se**2
        return shift, variance

    @staticmethod
    def from_json(values: dict[str, Any]) -> Probed:
        """The inverse of ``dataclasses.asdict``."""
        return Probed(**(values | {"drifted": [Drifted(**each) for each in values["drifted"]]}))


def look_at(asked: Asked, theta: float, theta_se: float, have: int) -> Probed:
    """How far items move, and what has drifted, by the probes' responses to a model of ability ``theta``.

    have: probes that there are, asked or not. Parts are found first, and the pool is what is left of it
    without them: a part that drifts far must not make all of it look drifted.
    """
    asked = asked.take(asked.rollouts > 0)
    edges = np.zeros(0)
    if len(asked.b):
        edges = np.asarray(np.quantile(asked.b, np.arange(1, BANDS) / BANDS), dtype=np.float64)
    tests = 1 + int((np.unique(asked.group, return_counts=True)[1] >= FEWEST).sum()) + BANDS
    all_parts = _of_parts(_moved(asked, theta), theta, theta_se, edges)
    unsure = any(_wants(part, len(asked.b), have) for part in all_parts)
    parts, left, least = _find(asked, theta, theta_se, edges, tests)
    rest, told = asked.take(left), list[Drifted]()
    whole, of_rest = _of_all(_moved(rest, theta), theta, theta_se), estimate_shift(rest, theta)
    p = min(1.0, tests * whole.p)
    if p < LEVEL:
        told.append(_drifted(replace(whole, p=p), of_rest, theta_se))
        rest = rest.shifted(of_rest.shift)
    else:
        least = min(least, p)
    # Against the rest, whether or not that is told: a part that has drifted has drawn theta along.
    now = asked.shifted(of_rest.shift)
    told += [_drifted(part, estimate_shift(now.take(rows), theta), of_rest.se) for part, rows in parts]
    return Probed(len(asked.b), estimate_moved(rest, theta), least, unsure or least < SUSPECT, told)


def _find(
    asked: Asked, theta: float, theta_se: float, edges: Floats, tests: int
) -> tuple[list[tuple[Drifted, Flags]], Flags, float]:
    """Parts that have drifted and their probes, the probes of no part, and the least p of the others.

    One by one, the clearest first, and its probes are left out of what the next is compared with: a drifting
    group must not make the others look drifted, nor the bands that it lies in, nor all items look moved.
    """
    found, left = list[tuple[Drifted, Flags]](), np.ones(len(asked.b), dtype=bool)
    while len(found) < MOST:
        parts = _of_parts(_moved(asked.take(left), theta), theta, theta_se, edges)
        tested = [part for part in parts if FEWEST <= part.probes <= left.sum() - FEWEST]
        best = min(tested, key=lambda part: part.p, default=None)
        p = 1.0 if best is None else min(1.0, tests * best.p)
        if best is None or p >= LEVEL:
            return found, left, p
        rows = left & best.holds(asked.b, asked.group)
        found.append((replace(best, p=p), rows))
        left = left & ~rows
    return found, left, 1.0


def _moved(asked: Asked, theta: float) -> Asked:
    """As predicted with what items move on their own."""
    return asked.widened(estimate_moved(asked, theta))


def _drifted(part: Drifted, shift: Shift, other_se: float) -> Drifted:
    """A part, with how far it has drifted by all that its probes say; other_se: of what it is compared with.

    The one-step estimate that found it is no measure: where p was predicted as .9999 and is .98, one step
    goes many logits too far.
    """
    return replace(part, shift=shift.shift, se=float(np.hypot(shift.se, other_se)), moved=shift.moved)


def _wants(part: Drifted, asked: int, have: int) -> bool:
    """Whether all probes together would show a drift of a logit that those asked so far may not."""
    grows = have / max(1, asked)
    return part.probes * grows >= FEWEST and part.se / np.sqrt(grows) <= SEEN_SE < part.se


def _of_all(asked: Asked, theta: float, theta_se: float) -> Drifted:
    """The one-step estimate of a common shift of all difficulties, theta's own error included."""
    s, k, c = asked.successes, asked.rollouts, asked.guess[:, None]
    p = p_at_nodes(asked, theta)
    mean, square = p @ HERMITE_WEIGHTS, p**2 @ HERMITE_WEIGHTS
    variance = k * (mean - square) + k**2 * (square - mean**2)
    slope = k * (((p - c) * (1.0 - p) / (1.0 - c)) @ HERMITE_WEIGHTS)
    precision = float((slope**2 / np.maximum(variance, 1e-12)).sum())
    if len(s) < FEWEST or precision <= 0:
        return Drifted(ALL, "", None, None, 0.0, float(theta_se), 1.0, len(s))
    shift = float((slope * (k * mean - s) / np.maximum(variance, 1e-12)).sum()) / precision
    se = float(np.sqrt(1.0 / precision + theta_se**2))
    return Drifted(ALL, "", None, None, shift, se, float(2.0 * ndtr(-abs(shift / se))), len(s))


def _of_parts(asked: Asked, theta: float, theta_se: float, edges: Floats) -> Iterator[Drifted]:
    """Each group and each band against the others; p not yet corrected."""
    band = np.searchsorted(edges, asked.b, side="right")
    for kind, labels in ((GROUP, asked.group), (BAND, band)):
        names, counts = np.unique(labels, return_counts=True)
        if len(names) < 2:
            continue
        told = irt.response_drift(*asked[:2], theta, theta_se, *asked[3:5], asked.guess, groups=labels).groups
        assert told is not None
        for at, count in enumerate(counts):
            shift, se, p = (float(values[at]) for values in (told.shift, told.se, told.p))
            yield Drifted(kind, *_place(kind, names[at], edges), shift, se, p, int(count))


def _place(kind: str, name: Any, edges: Floats) -> tuple[str, float | None, float | None]:
    if kind == GROUP:
        return str(name), None, None
    ends = [None, *edges.tolist(), None]
    return "", ends[name], ends[name + 1]
