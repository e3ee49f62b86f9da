"""What probes say of the items that are not measured again: how far items move, and what has drifted.

Probes are items that are never trained on and asked again at each stage. Their responses are compared with
what earlier stages predict of them at the ability of now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, xlog1py, xlogy

from zpd_ray import irt
from zpd_ray.irt.quadrature import HERMITE_NODES, HERMITE_WEIGHTS
from zpd_ray.matching import probability

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEVEL = 0.01  # of all tests of a look together (Bonferroni)
# More probes are worth asking where a corrected p lies below, or where they would bring the standard error of
# a part's shift down to this: a drift of a logit is then four of them.
SUSPECT, SEEN_SE = 0.2, 0.25
BANDS = 5  # of predicted difficulty, with equal numbers of probes
FEWEST = 20  # probes of a part, and of all others, below which it is not tested
MOST = 5  # parts that are told to have drifted: more is no part, but the whole
MOVED_SD, MOVED_MAX = 1.0, 4.0  # of the half-normal prior of ``moved``, and its end; logits
ALL, GROUP, BAND = "all", "group", "band"


class Asked(NamedTuple):
    """n probes that were asked: responses, floor of guessing, difficulty as predicted, group. Arrays (n,).

    b, b_sd: mean and sd of the prediction before this stage, logits, on the scale of theta.
    """

    successes: Integers
    rollouts: Integers
    guess: Floats
    b: Floats
    b_sd: Floats
    group: NDArray[np.str_]

    def take(self, rows: Flags) -> Asked:
        """Those where ``rows``, bool (n,), is true."""
        s, k, guess, b, b_sd, group = self
        return Asked(s[rows], k[rows], guess[rows], b[rows], b_sd[rows], group[rows])


@dataclass(frozen=True)
class Drifted:
    """A part of the pool whose probes answer otherwise than predicted.

    kind: "all", "group" (``name``) or "band": predicted difficulties from ``low`` up to ``high``, logits,
    None where it is open. shift: how much harder than predicted, logits, against the other parts; se: its
    standard error; p: two-sided, corrected for the number of tests. probes: asked of the part; items: of the
    part that were measured again for it.
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
            f"{self} is {abs(self.shift):.2f} +- {self.se:.2f} logits {side} than predicted "
            f"(p = {self.p:.2g}, {self.probes} probes), and is now predicted so"
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

    def shift(self, b: Floats, group: NDArray[np.str_]) -> Floats:
        """Logits by which items are harder than predicted (b), by what has drifted: (n,)."""
        whole = sum(part.shift for part in self.drifted if part.kind == ALL)
        of_part = np.array([0.0 if part.kind == ALL else part.shift for part in self.drifted] + [0.0])
        return np.asarray(whole + of_part[self.part(b, group)])

    @staticmethod
    def from_json(values: dict[str, Any]) -> Probed:
        """The inverse of ``dataclasses.asdict``."""
        return Probed(**(values | {"drifted": [Drifted(**each) for each in values["drifted"]]}))


def look_at(asked: Asked, theta: float, theta_se: float, have: int) -> Probed:
    """How far items move, and what has drifted, by the probes' responses to a model of ability ``theta``.

    have: probes that there are, asked or not.
    Parts are found one by one, the clearest first, and its probes are left out of what the next is compared
    with: a drifting group must not make the others look drifted, nor the bands that it lies in.
    """
    asked = asked.take(asked.rollouts > 0)
    widened = _widened(asked, estimate_moved(asked, theta))
    edges = np.zeros(0)
    if len(asked.b):
        edges = np.asarray(np.quantile(asked.b, np.arange(1, BANDS) / BANDS), dtype=np.float64)
    sizes = np.unique(asked.group, return_counts=True)[1]
    tests = 1 + int((sizes >= FEWEST).sum()) + BANDS
    left, found = np.ones(len(asked.b), dtype=bool), list[Drifted]()
    whole = _of_all(widened, theta, theta_se)
    least = min(1.0, tests * whole.p)
    if least < LEVEL:
        found.append(replace(whole, p=least))
        least = 1.0
    unsure = any(_wants(part, len(asked.b), have) for part in _of_parts(widened, theta, theta_se, edges))
    while len(found) < MOST:
        parts = _of_parts(widened.take(left), theta, theta_se, edges)
        tested = [part for part in parts if FEWEST <= part.probes <= left.sum() - FEWEST]
        best = min(tested, key=lambda part: part.p, default=None)
        p = 1.0 if best is None else min(1.0, tests * best.p)
        if best is None or p >= LEVEL:
            least = min(least, p)
            break
        found.append(replace(best, p=p))
        left &= ~best.holds(asked.b, asked.group)
    moved = estimate_moved(asked.take(left), theta)
    return Probed(len(asked.b), moved, least, unsure or least < SUSPECT, found)


def _wants(part: Drifted, asked: int, have: int) -> bool:
    """Whether all probes together would show a drift of a logit that those asked so far may not."""
    grows = have / max(1, asked)
    return part.probes * grows >= FEWEST and part.se / np.sqrt(grows) <= SEEN_SE < part.se


def estimate_moved(asked: Asked, theta: float) -> float:
    """sd of what items move on their own, in logits, >= 0: by maximum posterior likelihood.

    s ~ Binomial(k, P(theta, b)), b ~ N(predicted b, its variance + moved^2), and a half-normal prior of sd
    ``MOVED_SD``, by 21-point Gauss-Hermite quadrature and Brent's method.
    """
    from scipy.optimize import minimize_scalar  # which takes time to import

    if len(asked.b) == 0:
        return 0.0
    s, k = asked.successes[:, None], asked.rollouts[:, None]

    def loss(moved: float) -> float:
        p = _p_at_nodes(_widened(asked, moved), theta, 0.0)
        likelihood = np.exp(xlogy(s, p) + xlog1py(k - s, -p)) @ HERMITE_WEIGHTS
        return float(0.5 * (moved / MOVED_SD) ** 2 - np.log(np.maximum(likelihood, 1e-300)).sum())

    found = minimize_scalar(loss, bounds=(0.0, MOVED_MAX), method="bounded", options={"xatol": 1e-4})
    return 0.0 if loss(0.0) <= found.fun + 1e-9 else float(found.x)


def _widened(asked: Asked, moved: float) -> Asked:
    return asked._replace(b_sd=np.sqrt(asked.b_sd**2 + moved**2))


def _p_at_nodes(asked: Asked, theta: float, theta_se: float) -> Floats:
    """P(right) at the quadrature nodes of theta - b: (n, 21)."""
    sd = np.sqrt(asked.b_sd**2 + theta_se**2)
    return probability(theta, asked.b[:, None] + sd[:, None] * HERMITE_NODES, asked.guess[:, None])


def _of_all(asked: Asked, theta: float, theta_se: float) -> Drifted:
    """The one-step estimate of a common shift of all difficulties, theta's own error included."""
    s, k, c = asked.successes, asked.rollouts, asked.guess[:, None]
    p = _p_at_nodes(asked, theta, 0.0)
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
