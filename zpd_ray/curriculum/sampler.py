"""A curriculum for reinforcement learning: which prompts to roll out next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zpd_ray.curriculum.filtering import Common, Floats, Normal, absorb
from zpd_ray.curriculum.ids import ItemIds, Rows
from zpd_ray.curriculum.scoring import expected_score
from zpd_ray.errors import ZpdError

# delta, what a prompt's own training makes it easier by: logits per time that it was asked.
PRACTICE_SD, PRACTICE_DRIFT = 0.3, 0.01
LEAST_SD = 1e-3  # logits; what is known better than that needs no curriculum


class Curriculum:
    """Draws prompts by expected p(1-p), the variance of a right-or-wrong reward; learns from the rollouts.

    Group-relative policy gradients are nothing where all rollouts of a prompt are right or all are wrong, and
    largest where p is one half. p of each prompt follows from the ability of the model, which moves, and the
    difficulty of the prompt: a response of one prompt says something of all. ``filtering`` has the equations.

    >>> curriculum = Curriculum(["a", "b", "c"], seed=1)
    >>> drawn = curriculum.next(2)
    >>> curriculum.observe(drawn, successes=[3, 0], rollouts=[8, 8])
    >>> len(curriculum.next(1))
    1

    The same seed and the same calls draw the same prompts. 50 bytes a prompt, and its id.
    """

    def __init__(
        self,
        item_ids: int | Sequence[Any] | NDArray[Any],
        difficulty: ArrayLike = 0.0,
        difficulty_sd: ArrayLike = 3.0,
        *,
        ability: float = 0.0,
        ability_sd: float = 3.0,
        ability_drift: float = 0.1,
        difficulty_drift: float = 0.1,
        explore: float = 0.1,
        seed: int = 0,
    ) -> None:
        """A belief before any rollout; logits throughout.

        item_ids: strings or whole numbers, each once; a number n stands for 0 .. n - 1. difficulty,
        difficulty_sd: mean and sd of b, of all or of each prompt (n,), such as ``b`` and ``b_sd`` of a run's
        selection; ability, ability_sd: of theta before the first rollout. ability_drift, difficulty_drift: sd
        of what theta and each b move in a training step: the larger, the sooner evidence fades. explore:
        share of what is drawn that is drawn at random from all the others. Raises ZpdError for what means
        nothing.
        """
        self._ids = ItemIds(item_ids)
        n = len(self._ids)
        _numbers("ability", ability, (), -np.inf)
        _numbers("ability_sd", ability_sd, (), LEAST_SD)
        _numbers("ability_drift", ability_drift, (), 0.0)
        _numbers("difficulty_drift", difficulty_drift, (), 0.0)
        _numbers("explore", explore, (), 0.0, 1.0)
        _numbers("seed", seed, (), 0)
        mean = _numbers("difficulty", difficulty, (n,), -np.inf)
        self._prior = Normal(mean, _numbers("difficulty_sd", difficulty_sd, (n,), LEAST_SD) ** 2)
        self._drift = np.diag([ability_drift**2, PRACTICE_DRIFT**2])
        self._difficulty_drift, self._explore, self._seed = difficulty_drift, explore, seed
        self._common = Common(np.array([ability, 0.0]), np.diag([ability_sd**2, PRACTICE_SD**2]))
        self._b = Normal(self._prior.mean.copy(), self._prior.var.copy())
        self._asked = np.zeros(n, dtype=bool)
        self._asked_at = np.zeros(n)  # the step at which a prompt was last observed
        self._out = np.zeros(n, dtype=bool)  # drawn, and not yet observed
        self._step, self._draws = 0.0, 0

    def next(self, n: int) -> NDArray[Any]:
        """Ids of n different prompts, the best first: (n,).

        Those of largest expected p(1-p), and a share ``explore`` drawn at random from the rest, so that what
        is unknown gets known. What was drawn and not yet observed is not drawn again, unless fewer than n are
        left: then all are free. Time grows with the pool (docs/results.md). Raises ZpdError where the pool
        has fewer.
        """
        if not 1 <= n <= len(self._ids):
            raise ZpdError(f"{n} prompts asked of a curriculum of {len(self._ids)}; expected 1 to as many")
        if len(self._ids) - np.count_nonzero(self._out) < n:
            self._out[:] = False
        chosen = self._choose(n, np.random.default_rng([self._seed, self._draws]))
        self._out[chosen] = True
        self._draws += 1
        return self._ids.ids[chosen]

    def observe(
        self,
        item_ids: Sequence[Any] | NDArray[Any],
        successes: ArrayLike,
        rollouts: ArrayLike,
        steps: float = 1.0,
    ) -> None:
        """Take in graded rollouts: successes right of rollouts, whole numbers (n,), for each id.

        An id may come several times: it is counted once, with all of its rollouts. rollouts = 0: the prompt
        was drawn and not used, and is free again. steps: training steps since the last call, 1 where it is
        called once a step, 0 for another part of the same step. Raises ZpdError for ids that are not there
        and counts that mean nothing.
        """
        rows = self._ids.rows(item_ids)
        s, k = _counts(successes, rollouts, len(rows))
        if not (np.isfinite(steps) and steps >= 0):
            raise ZpdError(f"steps is {steps}; expected the training steps since the last call, 0 or more")
        self._step += steps
        self._common = self._common._replace(cov=self._common.cov + steps * self._drift)
        self._out[rows] = False
        rows, place = np.unique(rows, return_inverse=True)
        right, all_of_them = (np.bincount(place, each, len(rows)).astype(np.float64) for each in (s, k))
        if (answered := all_of_them > 0).any():
            self._absorb(rows[answered], right[answered], all_of_them[answered])

    def score(self, item_ids: Sequence[Any] | NDArray[Any] | None = None) -> Floats:
        """Expected p(1-p) now, of these ids or of all: (n,), 0 to 1/4."""
        return self._score(slice(None) if item_ids is None else self._ids.rows(item_ids))

    def metrics(self) -> dict[str, float]:
        """Where the model stands, for a log: logits, and a share.

        ability, ability_sd: theta and its sd; practice: delta, what its own training makes a prompt easier by
        each time; asked: share of the prompts that were observed.
        """
        return {
            "ability": float(self._common.mean[0]),
            "ability_sd": float(np.sqrt(self._common.cov[0, 0])),
            "practice": float(self._common.mean[1]),
            "asked": float(self._asked.mean()),
        }

    def state_dict(self) -> dict[str, Any]:
        """All that was learnt: numpy arrays, numbers and a fingerprint of the ids, which are not in it."""
        return {
            "ids": self._ids.fingerprint(),
            "step": self._step,
            "draws": self._draws,
            "common_mean": self._common.mean.copy(),
            "common_cov": self._common.cov.copy(),
            "b": self._b.mean.copy(),
            "b_var": self._b.var.copy(),
            "asked": self._asked.copy(),
            "asked_at": self._asked_at.copy(),
            "out": self._out.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict`` of a curriculum of the same ids: the same is drawn as there.

        Raises ZpdError where the ids, or their order, are others, or where something is missing.
        """
        if missing := self.state_dict().keys() - state.keys():
            raise ZpdError(f"the state lacks {sorted(missing)}; expected what Curriculum.state_dict returned")
        if state["ids"] != self._ids.fingerprint():
            raise ZpdError(
                "the state is of other prompts; make the curriculum with the same ids in the same order"
            )
        self._step, self._draws = float(state["step"]), int(state["draws"])
        self._common = Common(_copy(state["common_mean"]), _copy(state["common_cov"]))
        self._b = Normal(_copy(state["b"]), _copy(state["b_var"]))
        self._asked_at = _copy(state["asked_at"])
        self._asked, self._out = (np.array(state[name], dtype=bool) for name in ("asked", "out"))

    def _choose(self, n: int, rng: np.random.Generator) -> Rows:
        """Rows of the n to draw, the best first, then those at random."""
        # The share is met on average also where n is one.
        n_explored = min(n, int(n * self._explore + rng.random()))
        lots = rng.random(len(self._ids))
        lots[self._out] = -1.0
        best = _largest(np.where(self._out, -1.0, self._score(slice(None))), lots, n - n_explored)
        lots[best] = -1.0
        return np.concatenate([best, _largest(lots, lots, n_explored)])

    def _absorb(self, rows: Rows, s: Floats, k: Floats) -> None:
        practised = self._asked[rows]
        before = Normal(self._b.mean[rows], self._variance(rows))
        self._common, b = absorb(self._common, before, practised, s, k)
        # From here on b is the difficulty that was met now: what practice has done is in it.
        self._b.mean[rows], self._b.var[rows] = b.mean - practised * self._common.mean[1], b.var
        self._asked[rows], self._asked_at[rows] = True, self._step

    def _score(self, rows: Rows | slice) -> Floats:
        able = self._common.of(self._asked[rows])
        return expected_score(able.mean - self._b.mean[rows], able.var + self._variance(rows))

    def _variance(self, rows: Rows | slice) -> Floats:
        """Of b now: it grows from when the prompt was asked, up to what it was before anything was known."""
        grown = self._b.var[rows] + self._difficulty_drift**2 * (self._step - self._asked_at[rows])
        return np.asarray(np.minimum(grown, self._prior.var[rows]))


def _largest(score: Floats, lots: Floats, n: int) -> Rows:
    """Rows of the n largest, the largest first; ties as the lots fall."""
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    least = np.partition(score, len(score) - n)[len(score) - n]
    rows = np.flatnonzero(score >= least)
    return rows[np.lexsort((lots[rows], score[rows]))[::-1]][:n]


def _numbers(name: str, value: ArrayLike, shape: tuple[int, ...], low: float, high: float = np.inf) -> Floats:
    """Finite numbers from low to high, of this shape; one stands for all."""
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in ((), shape):
        raise ZpdError(
            f"{name} has shape {array.shape}; expected a number" + (f", or {shape}" if shape else "")
        )
    bad = array[~((array >= low) & (array <= high) & np.isfinite(array))]
    if bad.size:
        raise ZpdError(f"{name} is {bad.flat[0]:g}; expected a finite number from {low:g} to {high:g}")
    return np.broadcast_to(array, shape)


def _counts(successes: ArrayLike, rollouts: ArrayLike, n: int) -> tuple[Floats, Floats]:
    s, k = np.asarray(successes, dtype=np.float64), np.asarray(rollouts, dtype=np.float64)
    if s.shape != (n,) or k.shape not in ((), (n,)):
        raise ZpdError(
            f"successes and rollouts have shapes {s.shape} and {k.shape} for {n} ids; expected one each"
        )
    k = np.broadcast_to(k, (n,))
    bad = np.flatnonzero(~((s >= 0) & (s <= k) & (s == np.floor(s)) & (k == np.floor(k)) & np.isfinite(k)))
    if len(bad):
        raise ZpdError(
            f"{s[bad[0]]:g} of {k[bad[0]]:g} rollouts right ({len(bad)} such); expected whole numbers, "
            "0 to rollouts: of a reward with shares, count a rollout right from a threshold on"
        )
    return s, k


def _copy(value: Any) -> Floats:
    return np.array(value, dtype=np.float64)
