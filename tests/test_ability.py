"""Ability over stages on real data that nobody here made (../shared/data/g2p; its README says what it is)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.optimize import minimize
from scipy.special import log_expit, logsumexp

from benchmarks.replay_stages import replay
from zpd_ray.config import AbilityConfig

STAGES = Path(__file__).resolve().parent.parent.parent / "shared/data/g2p/stages.parquet"
needs_stages = pytest.mark.skipif(not STAGES.exists(), reason=f"{STAGES} is not there: real stages")


def plain_joint_fit(z: np.ndarray, right: np.ndarray) -> np.ndarray:
    """theta of each stage by maximum likelihood, straight from the model: 41 Hermite nodes, L-BFGS.

    z: (n,), centred; right: (n_stages, n) of 0 and 1. Items of one z (rounded) and pattern count together.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    log_weights = np.log(weights / weights.sum())
    cells, freq = np.unique(np.vstack([np.round(z, 2), right]), axis=1, return_counts=True)
    x, y = cells[0], cells[1:]

    def loss(phi: np.ndarray) -> float:
        *theta, gamma, log_sigma = phi
        b = gamma * x[:, None] + np.exp(log_sigma) * nodes
        loglik = sum(
            np.where(row[:, None] > 0, log_expit(t - b), log_expit(b - t))
            for t, row in zip(theta, y, strict=True)
        )
        return -float(freq @ logsumexp(loglik + log_weights, axis=1)) / freq.sum()

    found: Any = minimize(loss, [0.0] * len(y) + [1.0, 0.0], method="L-BFGS-B")
    return np.asarray(found.x[: len(y)])


@needs_stages
def test_a_model_that_gets_worse_and_recovers_is_seen_to() -> None:
    table = pq.read_table(STAGES)
    fit = replay(table, AbilityConfig())[-1]
    theta = np.array([standing.theta for standing in fit.ability.stages])
    se = np.array([standing.se for standing in fit.ability.stages])
    assert theta[1] < theta[0] - 2 * fit.ability.stages[1].gain_se
    assert theta[2] > theta[1] + 2 * se[2]
    right = [standing.right for standing in fit.ability.stages]
    np.testing.assert_allclose(right, [0.4374, 0.3865, 0.4175], atol=1e-4)  # its README
    for standing in fit.ability.stages:
        assert standing.expected == pytest.approx(standing.right, abs=0.006)

    never = table["trained_at"].to_numpy() < 0
    log_nll = np.log(table["nll_0"].to_numpy()[never].astype(np.float64))
    z = (log_nll - fit.calibration.location) / fit.calibration.scale
    joint = plain_joint_fit(z - z.mean(), np.stack([table[f"right_{t}"].to_numpy()[never] for t in range(3)]))
    assert np.abs((theta - joint) / se).max() < 2
