"""Ability by group of items (a skill, a domain): how far it lies from the common theta, and shrunk to it.

Of one stage, by its own responses and NLLs: a group's theta says how much better its items are answered than
their NLLs let expect. Groups are told apart by a table of names that stage 0 decides, so that items are
counted by the number of their group, in integers that add over parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zpd_ray import irt
from zpd_ray.irt.pool.explanatory import ExplanatoryFit

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST = 100  # groups that are told apart; the items of all others count together, as one more
FEWEST = 20  # items of a group from which it is told apart, among those whose history is followed
WIDTH = 0.125  # logits, and sd of log NLL: cells that differ by less are one
# Flags of a fit that says nothing which groups could differ in.
NO_GROUND = {"responses_all_or_nothing", "not_converged", "weakly_identified"}


@dataclass(frozen=True)
class GroupStanding:
    """Ability on the items of a group, logits, on the scale of the fit that says so.

    group: None for all other items together, with a group or without. theta: on its items. se: given the
    common theta and the sd between groups; None where groups are not told apart. items: never trained on,
    that it rests on. size: such items at stage 0, by which groups count in the common theta.
    """

    group: str | None
    theta: float
    se: float | None
    items: int
    size: int


@dataclass(frozen=True)
class Profile:
    """Ability by group at a stage. tau: sd between groups, logits; 0 where responses tell no difference, and
    all stand at the common theta. standings: in the order of the table of groups, the others last."""

    tau: float
    standings: list[GroupStanding]

    @property
    def names(self) -> list[str]:
        """The table of groups."""
        return [at.group for at in self.standings if at.group is not None]

    @property
    def sizes(self) -> Integers:
        """Of the groups, the others last: (n_groups,)."""
        return np.array([at.size for at in self.standings], dtype=np.int64)

    def __str__(self) -> str:
        if self.tau == 0.0:
            return "responses do not tell groups apart: one theta for all"
        low, *_, high = sorted(self.standings, key=lambda at: at.theta)
        ends = " to ".join(f"{at.theta:.2f} ({at.group or 'other items'})" for at in (low, high))
        return f"theta by group from {ends}, sd between groups {self.tau:.2f}"

    def ahead(self, theta: float, numbers: Integers) -> Floats:
        """Logits by which each item's group is above the common ``theta``; numbers of groups (n,) -> (n,)."""
        return np.array([at.theta - theta for at in self.standings])[numbers]


class Groups(NamedTuple):
    """`estimate`: theta the common one, on the scale of the fit: the mean over the groups, by their sizes.
    ahead (n_groups,) logits of each group above it; se, items, sizes (n_groups,); tau the sd between groups;
    gamma, sigma of difficulties beside them; settled: whether their maximum was reached."""

    theta: float
    ahead: Floats
    se: Floats | None
    items: Integers
    sizes: Integers
    tau: float
    gamma: float
    sigma: float
    settled: bool = True

    def profile(self, theta: float, names: list[str]) -> Profile:
        """Where the groups stand around ``theta``."""
        se = [None] * self.items.size if self.se is None else self.se.tolist()
        thetas, items, sizes = (each.tolist() for each in (theta + self.ahead, self.items, self.sizes))
        found = zip([*names, None], thetas, se, items, sizes, strict=True)
        return Profile(self.tau, [GroupStanding(*of) for of in found])


def frequent(counts: Mapping[str, int]) -> list[str]:
    """Which groups are told apart: at most ``MOST``, the largest first, ties by name; "" is no group."""
    large = [name for name, count in counts.items() if name and count >= FEWEST]
    return sorted(large, key=lambda name: (-counts[name], name))[:MOST]


def without_groups(answers: irt.Counts) -> irt.Counts:
    """The same items, counted without their groups; the very same counts where they have none."""
    columns = {name: values for name, values in answers.columns.items() if name != "group"}
    if len(columns) == len(answers.columns):
        return answers
    return irt.Counts.merge([irt.Counts(columns, answers.freq)])


def estimate(
    fit: ExplanatoryFit,
    answers: irt.Counts,
    z: Floats,
    guess: Floats,
    n_groups: int,
    prior: irt.Prior | None = None,
    sizes: Integers | None = None,
) -> Groups:
    """Abilities of ``n_groups`` groups from a fit of all items together (irt.group_abilities).

    answers: cells by ``group`` (0 .. n_groups - 1), ``successes`` and ``trials``; z (the fit's covariate) and
    guess: (n_cells,); prior: that of the fit. sizes: (n_groups,) of an earlier stage; None: those of the
    answers. Where the responses are of one kind, or tell no difference, all stand at the fit's theta. A group
    that nobody answered stands at the common one.

    The common theta is not the fit's: where a stage measures some of the pool, those are items near each
    group's own ability, difficulty goes with the group, and a fit without groups mistakes one for the other.
    """
    items = np.bincount(answers["group"], answers.freq, n_groups).astype(np.int64)
    theta, gamma, sigma = float(fit.theta[0]), float(fit.gamma[0]), float(fit.sigma)
    sizes = items if sizes is None else sizes
    same = Groups(theta, np.zeros(n_groups), None, items, sizes, 0.0, gamma, sigma)
    right, asked = answers.freq @ answers["successes"], answers.freq @ answers["trials"]
    if (items > 0).sum() < 2 or not 0 < right < asked or NO_GROUND & set(fit.flags):
        return same
    cells, at, floor = _merged(answers, z - fit.origin[0], guess, gamma)
    found = irt.group_abilities(
        fit,
        cells["successes"][None, :],
        cells["trials"][None, :],
        (fit.origin[0] + at)[:, None],
        cells["group"],
        floor,
        freq=cells.freq,
        prior=prior,
    )
    if "no_group_differences" in found.flags:
        return same
    weight = sizes[found.groups] / max(1, sizes[found.groups].sum())
    common = float(weight @ found.theta[0])
    ahead, se = np.zeros(n_groups), np.full(n_groups, found.tau)
    ahead[found.groups], se[found.groups] = found.theta[0] - common, found.se[0]
    settled = "not_converged" not in found.flags
    return Groups(common, ahead, se, items, sizes, found.tau, float(found.gamma[0]), found.sigma, settled)


def _merged(
    answers: irt.Counts, away: Floats, guess: Floats, gamma: float
) -> tuple[irt.Counts, Floats, Floats]:
    """Cells by group, successes and trials, few whatever the pool; where in z each is, and its floor."""
    width = WIDTH / max(1.0, abs(gamma))
    floors, floor = np.unique(guess, return_inverse=True)
    columns = {name: answers[name] for name in ("group", "successes", "trials")}
    columns |= {"place": np.round(away / width).astype(np.int64), "floor": floor.astype(np.int64)}
    cells = irt.Counts.merge([irt.Counts(columns, answers.freq)])
    return cells, width * cells["place"].astype(np.float64), floors[cells["floor"]]
