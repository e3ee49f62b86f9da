"""Item parameters of the Rasch, 1PL, 2PL and 3PL models."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from zpd_ray.irt import checks
from zpd_ray.irt.matrix import mml, score_curves
from zpd_ray.irt.matrix.cml import fit_conditional
from zpd_ray.irt.matrix.item_fit import CONVENTIONS, ItemFit, ModelName, report, scatter, with_extremes
from zpd_ray.irt.matrix.mml import Model, Responses
from zpd_ray.irt.newton import maximise
from zpd_ray.irt.pool.design import column_sums
from zpd_ray.irt.work import PATIENCE, Work

Array = NDArray[np.float64]

MAX_PARAMETERS = 2000  # of one fit: its Hessian is kept whole, and a step costs the cube of their number
STEPS_TIMES_PARAMETERS = 20_000  # Newton's steps end there, so that a fit without a maximum ends too
STEEPEST = (
    25.0  # slope on a standard normal ability: it orders the respondents without error, and has no maximum
)


def fit(
    responses: ArrayLike,
    model: ModelName = "2pl",
    freq: ArrayLike | None = None,
    guess: ArrayLike | None = None,
    estimator: Literal["mml", "cml"] = "mml",
    *,
    trials: ArrayLike | None = None,
    guess_prior: tuple[float, float] = (5.0, 17.0),
    max_parameters: int = MAX_PARAMETERS,
    patience: float = PATIENCE,
) -> ItemFit:
    """Estimate item parameters.

    responses: (n_respondents, n_items) of 0, 1 and NaN (-1 in integer arrays); with `trials` of that shape,
    counts of successes, trials = 0 where missing. freq: (n_respondents,) how often each row occurred. guess:
    floor c, a scalar or (n_items,); for model "3pl" without it, c is estimated with a Beta(guess_prior)
    prior. estimator "cml" (Rasch only) conditions on the raw scores and assumes no distribution of theta.
    max_parameters: more are refused, since time grows with their cube (1,000 items of the 2PL: about 3 s) and
    memory with their square; Rasch models with complete single responses have no such limit. patience:
    seconds that it may take with 3 million responses or fewer, as of `fit_explanatory`; not of "cml".

    Raises ValueError for values that are not responses, shapes that do not match, respondents or items
    without responses, disconnected designs, and items that are all extreme.
    """
    s, k = checks.binary(responses) if trials is None else checks.counts(responses, trials)
    if model not in CONVENTIONS or model == "cml":
        raise ValueError(f"model must be 'rasch', '1pl', '2pl' or '3pl', got {model!r}.")
    if estimator not in ("mml", "cml"):
        raise ValueError(f"estimator must be 'mml' or 'cml', got {estimator!r}.")
    weights = checks.frequencies(freq, s.shape[0])
    if (weights == 0).any():
        s, k, weights = s[weights > 0], k[weights > 0], weights[weights > 0]
    checks.answered(k > 0)
    if estimator == "cml":
        if model != "rasch" or guess is not None:
            raise ValueError(
                "estimator 'cml' exists for model 'rasch' without guessing; use estimator='mml'."
            )
        return _conditional(s, k, weights, max_parameters, binary=trials is None)
    c = checks.floor(guess, s.shape[1])
    free_floor = model == "3pl" and guess is None
    work = Work.for_matrix(s.shape[0], s.shape[1], patience)
    return _marginal(s, k, weights, model, c, guess_prior if free_floor else None, max_parameters, work)


def _marginal(
    s: checks.Numbers,
    k: checks.Numbers,
    weights: Array,
    name: ModelName,
    c: Array,
    floor_prior: tuple[float, float] | None,
    max_parameters: int,
    work: Work,
) -> ItemFit:
    flags = _item_flags(s, k)
    inner = np.flatnonzero(flags == "")
    if inner.size == 0:
        raise ValueError(
            "every item is all right or all wrong: no difficulty can be estimated; add responses."
        )
    common = name in ("rasch", "1pl")
    scored = common and not c.any() and bool((k == 1).all())
    data, classes, multiplicity = _reduce(s, k, weights, inner, scored)
    shape = Model(data.n_items, common, c[inner] if not scored else np.zeros(data.n_items), floor_prior)
    size = shape.n_items * (1 if common else 2 + shape.free_floor)
    _affordable(name, shape.n_items, size, max_parameters)
    start = _start(shape, data)
    tables = score_curves.pays(shape, data, start)
    likelihood = score_curves.objective if tables else partial(mml.objective, work=work)
    steps = int(np.clip(STEPS_TIMES_PARAMETERS // size, 5, 50))
    slopes = slice(shape.n_items, None if common else 2 * shape.n_items)
    top = maximise(
        lambda phi, deep: likelihood(shape, data, phi, deep),
        start,
        max_iterations=steps,
        outside=lambda phi: bool(np.abs(phi[slopes]).max() > STEEPEST),
        work=work,
    )
    fitted = report(name, shape, top, classes, multiplicity, data)
    everything = scatter(fitted, inner, flags, c)
    if inner.size < flags.size:
        everything = with_extremes(everything, s, k, weights, flags)
    return replace(everything, n_respondents=int(weights.sum()))


def _affordable(name: str, n_items: int, size: int, most: int) -> None:
    if size > most:
        raise ValueError(
            f"model {name!r} with {n_items} items has {size} parameters, more than max_parameters = {most}; "
            "fit a part of the items, use model='rasch' with complete single responses, or fit_explanatory "
            "(random items); or raise max_parameters: time grows with its cube."
        )


def _item_flags(s: checks.Numbers, k: checks.Numbers) -> NDArray[np.str_]:
    total, possible = column_sums(s), column_sums(k)
    return np.where(total == possible, "all_right", np.where(total == 0, "all_wrong", ""))


def _reduce(
    s: checks.Numbers, k: checks.Numbers, weights: Array, inner: NDArray[np.intp], scored: bool
) -> tuple[Responses, NDArray[np.intp], Array]:
    """Sufficient statistics: scores and classes of items with one total, or distinct rows of responses.

    Also the class of each inner item, and the number of items in each class.
    """
    whole = inner.size == s.shape[1]
    s, k = (s, k) if whole else (s[:, inner], k[:, inner])
    if scored:
        score = s.sum(axis=1, dtype=np.int64)
        by_score = np.bincount(score, weights=weights).astype(np.float64)
        rows = np.flatnonzero(by_score)
        totals, classes, size = _totals(s, weights)
        data = Responses(None, size, by_score[rows], rows.astype(float), totals * size)
        return data, classes, size
    if inner.size <= 20 and int(k.max()) == 1:
        code = (s + 2 * k).astype(np.int64) @ 4 ** np.arange(inner.size)
        _, first, group = np.unique(code, return_index=True, return_inverse=True)
        weights = np.bincount(group.reshape(-1), weights=weights).astype(np.float64)
        s, k = s[first], k[first]
    right, tried = s.astype(np.float64), k.astype(np.float64)
    same = bool((tried == tried[0]).all())
    data = Responses(right, tried[0] if same else tried, weights, right.sum(axis=1), weights @ right)
    return data, np.arange(inner.size), np.ones(inner.size)


def _totals(s: checks.Numbers, weights: Array) -> tuple[Array, NDArray[np.intp], Array]:
    """Distinct item totals in ascending order, which of them each item has, and how many items have each."""
    if (weights != 1.0).any():
        totals, classes, size = np.unique(weights @ s, return_inverse=True, return_counts=True)
        return totals, classes.reshape(-1), size.astype(np.float64)
    total = column_sums(s).astype(np.int64)
    size = np.bincount(total)
    return (
        np.flatnonzero(size).astype(np.float64),
        (np.cumsum(size > 0) - 1)[total],
        size[size > 0].astype(float),
    )


def _start(model: Model, data: Responses) -> Array:
    """Intercepts from the share of right answers, slope 1."""
    possible = data.freq.sum() * data.trials if data.trials.ndim == 1 else data.freq @ data.trials
    c = np.full(model.n_items, 0.1) if model.free_floor else model.c
    p = np.clip((data.totals + 0.5) / (possible + 1.0), c + 0.05 * (1.0 - c), None)
    d = 1.2 * logit(np.clip((p - c) / (1.0 - c), 0.001, 0.999))
    if model.common_slope:
        return np.append(d, 1.0)
    prior = model.floor_prior
    parts = [d, np.ones(model.n_items)]
    if prior is not None:
        parts.append(np.full(model.n_items, logit(prior[0] / sum(prior))))
    return np.concatenate(parts)


def _conditional(
    s: checks.Numbers, k: checks.Numbers, weights: Array, max_parameters: int, *, binary: bool
) -> ItemFit:
    if not binary:
        raise ValueError(
            "estimator 'cml' takes single responses, not counts of rollouts; use estimator='mml'."
        )
    flags = _item_flags(s, k)
    inner = np.flatnonzero(flags == "")
    _affordable("rasch (cml)", inner.size, inner.size, max_parameters)
    b, covariance, top = fit_conditional(s[:, inner], k[:, inner], weights)
    one = np.ones(inner.size)
    fitted = ItemFit(
        model="rasch",
        estimator="cml",
        a=one,
        b=b,
        c=0.0 * one,
        se_a=0.0 * one,
        se_b=np.sqrt(np.diag(covariance)),
        theta_sd=float("nan"),
        se_theta_sd=float("nan"),
        loglik=top.value,
        grad_norm=top.grad_norm,
        converged=top.converged,
        convention=CONVENTIONS["cml"],
        flags=() if top.converged else ("not_converged",),
        item_flags=(),
        n_parameters=inner.size - 1,
        n_respondents=int(weights.sum()),
    )
    everything = scatter(fitted, inner, flags, np.zeros(flags.size))
    return with_extremes(everything, s, k, weights, flags) if inner.size < flags.size else everything
