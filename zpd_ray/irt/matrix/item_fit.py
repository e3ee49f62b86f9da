"""What a fit of item parameters comes to: estimates, standard errors, and what they lack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zpd_ray.irt import checks
from zpd_ray.irt.matrix import mml
from zpd_ray.irt.matrix.extremes import posterior_of_extremes
from zpd_ray.irt.matrix.mml import Model, Responses
from zpd_ray.irt.newton import Maximum

Array = NDArray[np.float64]
ModelName = Literal["rasch", "1pl", "2pl", "3pl"]

WEAK = (
    20.0  # logits (slopes: per logit); a larger standard error says the data do not determine the parameter
)
SD_ZERO = 0.02  # logits
CONVENTIONS = {
    "rasch": "logits; a = 1; theta ~ N(0, theta_sd^2)",
    "1pl": "logits; one a for all items; theta ~ N(0, 1)",
    "2pl": "logits; theta ~ N(0, 1)",
    "3pl": "logits; theta ~ N(0, 1)",
    "cml": "logits; a = 1; the estimable b sum to 0",
}


@dataclass(frozen=True)
class ItemFit:
    """Result of `fit`: P(right) = c + (1 - c) sigmoid(a (theta - b)).

    a, b, c and standard errors: (n_items,), in logits; se_a is 0 where a is fixed. item_flags: (n_items,) "",
    "all_right", "all_wrong": the maximum likelihood b of such an item is infinite, b and se_b are its
    posterior mean and sd under a normal distribution with the mean and sd of the other items. loglik:
    marginal (conditional for cml), without binomial coefficients and priors. grad_norm: largest element of
    the gradient. flags: "not_converged", "negative_slope", "theta_sd_zero", "weakly_identified" (a
    standard error over 20 logits: perfectly ordered data, or too few), "guess_prior", and those of the items.
    """

    model: str
    estimator: str
    a: Array
    b: Array
    c: Array
    se_a: Array
    se_b: Array
    theta_sd: float
    se_theta_sd: float
    loglik: float
    grad_norm: float
    converged: bool
    convention: str
    flags: tuple[str, ...]
    item_flags: tuple[str, ...]
    n_parameters: int
    n_respondents: int


def report(
    name: ModelName,
    model: Model,
    top: Maximum,
    classes: NDArray[np.intp],
    multiplicity: Array,
    data: Responses,
) -> ItemFit:
    """Parameters of the inner items with standard errors (delta method for b = -d / a)."""
    n = model.n_items
    p = model.unpack(top.x)
    if model.common_slope:  # the sign of one slope is that of the ability scale, which is symmetric
        p = p._replace(a=np.abs(p.a))
        top = replace(top, x=np.append(top.x[:-1], p.a[0]), hessian=_mirror(top))
    covariance = top.covariance()
    var_d = np.diag(covariance)[:n] + _within(model, data, top.x, multiplicity)
    if model.common_slope:
        var_a, cov = np.full(n, covariance[-1, -1]), covariance[-1, :n]
    else:
        var_a, cov = np.diag(covariance)[n : 2 * n], np.diag(covariance[:n, n : 2 * n])
    rasch = name == "rasch"
    with np.errstate(divide="ignore", invalid="ignore"):  # a slope of 0 has no difficulty: flag theta_sd_zero
        b = -p.d if rasch else -p.d / p.a
        var_b = var_d if rasch else (var_d + 2.0 * b * cov + b * b * var_a) / p.a**2
    flags = [] if top.converged else ["not_converged"]
    flags += ["negative_slope"] if (p.a < 0.0).any() else []
    flags += ["theta_sd_zero"] if model.common_slope and abs(p.a[0]) < SD_ZERO else []
    if not (np.sqrt(np.append(var_b, var_a)) < WEAK).all():
        flags.append("weakly_identified")
    value = top.value
    if model.floor_prior is not None:
        value -= mml._floor_prior(model.floor_prior, p.c, np.zeros(3 * n), None)
        flags.append("guess_prior")
    one = np.ones(n)
    return ItemFit(
        model=name,
        estimator="mml",
        a=(one if rasch else p.a)[classes],
        b=b[classes],
        c=p.c[classes],
        se_a=(0.0 * one if rasch else np.sqrt(var_a))[classes],
        se_b=np.sqrt(var_b)[classes],
        theta_sd=float(p.a[0]) if rasch else 1.0,
        se_theta_sd=float(np.sqrt(var_a[0])) if rasch else 0.0,
        loglik=value,
        grad_norm=top.grad_norm,
        converged=top.converged,
        convention=CONVENTIONS[name],
        flags=tuple(flags),
        item_flags=(),
        n_parameters=classes.size * (1 if model.common_slope else 2 + model.free_floor) + model.common_slope,
        n_respondents=0,
    )


def _mirror(top: Maximum) -> Array:
    """The Hessian at the positive slope: its last row and column change sign with that parameter."""
    sign = np.append(np.ones(top.x.size - 1), 1.0 if top.x[-1] >= 0.0 else -1.0)
    return top.hessian * np.outer(sign, sign)


def _within(model: Model, data: Responses, phi: Array, multiplicity: Array) -> Array:
    """What the variance of one item adds to that of the mean of its class (items with the same total).

    Contrasts within a class are untouched by theta: their information is that of complete data, D, so that
    var(d_i) = var(class mean) + (1 - 1 / m) / D for a class of m.
    """
    if (multiplicity == 1.0).all():
        return np.zeros(model.n_items)
    curvature = np.zeros((6, model.n_items))
    p = model.unpack(phi)
    at, weights = mml._posterior(model, data, phi, p)
    for chunk, w, _ in weights:
        mml._add_gradient(model, chunk, w, at, p, np.zeros(2 * model.n_items), curvature)
    return (1.0 - 1.0 / multiplicity) * multiplicity / -curvature[0]


def scatter(fitted: ItemFit, inner: NDArray[np.intp], flags: NDArray[np.str_], c: Array) -> ItemFit:
    """Place the inner items among all, the others NaN."""

    def place(values: Array, other: Array | float) -> Array:
        full = np.array(np.broadcast_to(other, flags.shape), np.float64)
        full[inner] = values
        return full

    noted = (*fitted.flags, *sorted(set(flags.tolist()) - {""}))
    with np.errstate(divide="ignore"):  # a slope of 0: so is the mean
        middle = np.exp(np.mean(np.log(np.abs(fitted.a))))
    return replace(
        fitted,
        a=place(fitted.a, middle),
        b=place(fitted.b, np.nan),
        c=place(fitted.c, c),
        se_a=place(fitted.se_a, np.nan),
        se_b=place(fitted.se_b, np.nan),
        flags=noted,
        item_flags=tuple(flags.tolist()),
    )


def with_extremes(
    fitted: ItemFit, s: checks.Numbers, k: checks.Numbers, weights: Array, flags: NDArray[np.str_]
) -> ItemFit:
    mean, sd = posterior_of_extremes(fitted, s, k, weights, flags)
    b, se = fitted.b.copy(), fitted.se_b.copy()
    b[flags != ""], se[flags != ""] = mean, sd
    return replace(fitted, b=b, se_b=se)
