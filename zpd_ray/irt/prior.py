"""Prior distributions of the explanatory model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt import checks

Array = NDArray[np.float64]

SIGMA_LOWEST, SIGMA_HIGHEST = 0.01, 50.0  # logits


@dataclass(frozen=True)
class Prior:
    """Independent priors: theta and gamma normal, log sigma normal. sd = inf is no prior, the default.

    theta_mean, theta_sd: scalars or (n_respondents,). gamma_mean, gamma_sd: scalars or (n_covariates,).
    sigma_median in logits, 0.01 to 50; sigma_log_sd = 0 fixes sigma at sigma_median.
    """

    theta_mean: float | Array = 0.0
    theta_sd: float | Array = np.inf
    gamma_mean: float | Array = 0.0
    gamma_sd: float | Array = np.inf
    sigma_median: float = 0.5
    sigma_log_sd: float = np.inf


def prior_arrays(prior: Prior, n_respondents: int, n_covariates: int) -> tuple[Array, Array]:
    """Prior means and precisions of (theta, gamma, log sigma)."""
    if not (0.0 < prior.sigma_median < np.inf and prior.sigma_log_sd >= 0.0):
        raise ValueError(
            f"Prior: sigma_median must be > 0 and finite, sigma_log_sd >= 0, got {prior.sigma_median}, "
            f"{prior.sigma_log_sd}."
        )
    if not SIGMA_LOWEST <= prior.sigma_median <= SIGMA_HIGHEST:
        raise ValueError(
            f"Prior: sigma_median must lie between {SIGMA_LOWEST} and {SIGMA_HIGHEST} logits, got "
            f"{prior.sigma_median}; a residual below that is none, and one above decides every response."
        )
    means, sds = [], []
    for name, size in (("theta", n_respondents), ("gamma", n_covariates)):
        means.append(checks.vector(f"Prior.{name}_mean", getattr(prior, f"{name}_mean"), size))
        sd = np.asarray(getattr(prior, f"{name}_sd"), np.float64)
        if sd.shape not in ((), (size,)):
            raise ValueError(f"Prior: {name}_sd must be a number or have shape ({size},), got {sd.shape}.")
        sd = np.broadcast_to(sd, (size,))
        if not (sd > 0.0).all():
            raise ValueError(f"Prior: {name}_sd must be > 0 (inf: no prior), got {sd.min()}.")
        sds.append(sd)
    means.append(np.array([np.log(prior.sigma_median)]))
    sds.append(np.array([prior.sigma_log_sd if prior.sigma_log_sd > 0.0 else np.inf]))
    return np.concatenate(means), np.concatenate(sds) ** -2.0
