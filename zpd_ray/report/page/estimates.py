"""What the page estimates itself, from sums: intervals of shares, and ability by group of items."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import xlog1py, xlogy

from zpd_ray import irt
from zpd_ray.calibration import Fit
from zpd_ray.difficulty import guess_floor, log_nll_of_bin
from zpd_ray.irt.quadrature import HERMITE_NODES, HERMITE_WEIGHTS
from zpd_ray.matching import probability
from zpd_ray.report.page.judging import Floats

Z = 1.96  # of a normal, for 95 %
GROUP_SD = 2.0  # logits, prior sd of a group's own theta: finite where all is right, or all wrong
THETAS = np.linspace(-8.0, 8.0, 81)  # logits from the common theta at which a group's likelihood is taken


def wilson(share: float, n: float) -> tuple[float, float]:
    """95 % interval of a share of ``n`` independent answers (Wilson 1927, JASA 22, 209); (0, 1) of none."""
    if n <= 0:
        return 0.0, 1.0
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * np.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


class Bin(NamedTuple):
    """Items whose p, expected from the NLL alone, falls between two tenths."""

    items: int
    responses: int
    right: int
    predicted: float  # mean over responses
    observed: float  # share right
    low: float
    high: float


def calibration(outcomes: Floats) -> list[Bin]:
    """Bins with responses in them, of ``Tally.outcomes``.

    Rollouts of an item resemble each other: the interval is that of as many independent answers as carry the
    same information (the variance of a ratio over clusters; Kish 1965, "Survey Sampling").
    """
    found = []
    for items, pk, k, s, ss, sk, kk in outcomes:
        if k > 0:
            share = s / k
            between = max(ss - 2 * share * sk + share * share * kk, 0.0)
            effect = between / (k * share * (1 - share)) if 0 < share < 1 else kk / k
            low, high = wilson(share, k / max(effect, 1.0))
            found.append(Bin(int(items), int(k), int(s), pk / k, share, low, high))
    return found


class GroupTheta(NamedTuple):
    """Ability on the items of one group, logits, and how many such items and responses it rests on."""

    theta: float
    se: float
    items: int
    responses: int
    share: float  # right


def group_thetas(answers: irt.Counts, last: Fit, first: Fit, theta: float) -> dict[int, GroupTheta]:
    """Ability by group at a stage: ``theta``, the common one, and how far the group's own lies from it.

    answers: ``Tally.answers`` of the stage. Difficulties follow from the NLL of stage 0, their spread
    integrated out, as for the common theta (zpd_ray.ability); a group's posterior mode is compared with the
    mode for all groups together, since items that were selected are missing from both. se: by curvature,
    gamma and sigma given.
    """
    scale = first.calibration
    z = (log_nll_of_bin(answers["nll_bin"]) - scale.location) / scale.scale
    b = last.ability.gamma * (z - scale.origin)
    logliks = _logliks(answers, b, last.ability.sigma, theta)
    common, _ = _maximum(logliks.sum(axis=0) - 0.5 * (THETAS / GROUP_SD) ** 2)
    prior, found = -0.5 * ((THETAS - common) / GROUP_SD) ** 2, {}
    for group in np.unique(answers["group"]):
        own = answers["group"] == group
        freq, s, k = answers.freq[own], answers["successes"][own], answers["trials"][own]
        if freq @ k:
            at, se = _maximum(logliks[own].sum(axis=0) + prior)
            share = float(freq @ s / (freq @ k))
            found[int(group)] = GroupTheta(theta + at - common, se, int(freq.sum()), int(freq @ k), share)
    return found


def told_by_fit(
    own: dict[int, GroupTheta], names: list[str], fit: Fit, theta: float
) -> dict[int, GroupTheta]:
    """The same with theta and se of the stage's ``fit`` where it tells groups apart: p and score go by them.

    theta: the common one. Groups that are not among ``names`` are no group of the fit, and stay.
    """
    told = {} if fit.groups is None else {at.group or "": at for at in fit.groups.standings}
    found = dict(own)
    for number, name in enumerate(names):
        at = told.get(name, told.get(""))
        if number in own and at is not None and at.se is not None:
            moved = theta - fit.ability.theta  # to the scale of the last fit
            found[number] = own[number]._replace(theta=at.theta + moved, se=at.se)
    return found


def _logliks(answers: irt.Counts, b: Floats, sigma: float, theta: float) -> Floats:
    """Log-likelihood of each cell at theta + ``THETAS``: (cells, len(THETAS))."""
    guess = guess_floor(answers["options"])
    s, k = answers["successes"], answers["trials"]
    found = np.empty((len(b), len(THETAS)))
    for column, away in enumerate(THETAS):
        p = np.stack([probability(theta + away, b + sigma * node, guess) for node in HERMITE_NODES])
        likelihood = np.exp(xlogy(s, p) + xlog1py(k - s, -p))
        found[:, column] = answers.freq * np.log(np.maximum(HERMITE_WEIGHTS @ likelihood, 1e-300))
    return found


def _maximum(loglik: Floats) -> tuple[float, float]:
    """Where a log-posterior over ``THETAS`` is largest, by a parabola through three points, and its sd."""
    at = int(np.clip(np.argmax(loglik), 1, len(THETAS) - 2))
    before, here, after = loglik[at - 1 : at + 2]
    step, curvature = THETAS[1] - THETAS[0], before - 2 * here + after
    return float(THETAS[at] + step * 0.5 * (before - after) / curvature), float(step / np.sqrt(-curvature))
