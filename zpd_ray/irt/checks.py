"""Checks of the input, each a ValueError that names the place and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Numbers = NDArray[Any]  # integers or floats


def matrix(name: str, value: ArrayLike) -> Numbers:
    """A two-dimensional array of numbers."""
    if np.ma.isMaskedArray(value) and np.ma.getmaskarray(value).any():
        raise ValueError(
            f"{name} is a masked array, whose mask would be lost; mark missing responses by NaN: "
            "x.astype(float).filled(numpy.nan), or by trials = 0."
        )
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name} has rows of different lengths; fill the missing responses with NaN (or trials = 0)."
        ) from None
    if array.dtype == bool:
        array = array.view(np.int8)
    if array.ndim != 2 or not (
        np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    ):
        raise ValueError(
            f"{name} must be a numeric array of shape (n_respondents, n_items), got {array.dtype} of shape "
            f"{array.shape}; one respondent is a single row: x[None, :]."
        )
    if array.size == 0:
        raise ValueError(
            f"{name} is empty, of shape {array.shape}; give one respondent and one item at least."
        )
    return array


def counts(successes: ArrayLike, trials: ArrayLike) -> tuple[Numbers, Numbers]:
    """Successes and trials: one shape, whole numbers, 0 <= successes <= trials."""
    s, k = matrix("successes", successes), matrix("trials", trials)
    if s.shape != k.shape:
        raise ValueError(
            f"successes has shape {s.shape} and trials {k.shape}; both must be (n_respondents, n_items)."
        )
    for name, array in (("successes", s), ("trials", k)):
        if np.issubdtype(array.dtype, np.floating):
            refuse(
                name,
                array,
                ~np.isfinite(array) | (array != np.floor(array)),
                "counts are whole numbers; mark a missing response by trials = 0",
            )
        if array.min() < 0:
            refuse(name, array, array < 0, "counts are not negative; mark a missing response by trials = 0")
    if (s > k).any():
        refuse("successes", s, s > k, "more successes than trials; check the order of the arguments")
    return s, k


def refuse(name: str, array: Numbers, bad: NDArray[np.bool_], remedy: str) -> None:
    """Raise for the first bad element of a matrix, if there is one."""
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name}[{row}, {column}] = {array[row, column]} ({int(bad.sum())} such values): {remedy}."
        )


def vector(name: str, value: ArrayLike, size: int, *, low: float = -np.inf, high: float = np.inf) -> Array:
    """A finite float vector of `size` numbers in [low, high]; a scalar is repeated."""
    array = np.asarray(value, np.float64)
    if array.ndim == 0:
        array = np.full(size, float(array))
    if array.shape != (size,):
        raise ValueError(f"{name} must be a number or have shape ({size},), got shape {array.shape}.")
    bad = np.flatnonzero(~np.isfinite(array) | (array < low) | (array > high))
    if bad.size:
        raise ValueError(f"{name}[{bad[0]}] = {array[bad[0]]} is outside [{low}, {high}].")
    return array


def floor(guess: ArrayLike | None, size: int) -> Array:
    """Guessing floors (n_items,) in [0, 1)."""
    return np.zeros(size) if guess is None else vector("guess", guess, size, low=0.0, high=0.999)


def frequencies(freq: ArrayLike | None, size: int) -> Array:
    """Positive whole weights (n,)."""
    if freq is None:
        return np.ones(size)
    weights = vector("freq", freq, size, low=0.0)
    bad = np.flatnonzero(weights != np.floor(weights))
    if bad.size or not weights.any():
        raise ValueError("freq must hold whole numbers, not all zero: how often each row or column occurred.")
    return weights


def answered(observed: NDArray[np.bool_]) -> None:
    """Every respondent and every item has a response, and the design hangs together."""
    for axis, what in ((1, "respondent"), (0, "item")):
        empty = np.flatnonzero(~observed.any(axis=axis))
        if empty.size:
            raise ValueError(
                f"{what} {empty[0]} has no response ({empty.size} such); drop it before the fit"
                + (" and take its difficulty from posterior_difficulty (trials = 0)." if axis == 0 else ".")
            )
    rows = observed if observed.shape[0] <= observed.shape[1] else observed.T
    linked = _component(rows)
    if not linked.all():
        what = "respondent" if rows is observed else "item"
        inside, outside = np.flatnonzero(linked)[0], np.flatnonzero(~linked)[0]
        raise ValueError(
            f"the design is disconnected: no chain of responses links {what} {inside} with {what} {outside} "
            f"({int(linked.sum())} of {linked.size} are linked to the first); their scales cannot be "
            f"compared: "
            "add common items, or fit the parts apart."
        )


def _component(rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows that share a column with the first row, directly or through others."""
    inside = np.zeros(rows.shape[0], bool)
    inside[0] = True
    reached = rows[0].copy()
    while True:
        new = np.zeros_like(inside)
        for row in np.flatnonzero(~inside):
            if (rows[row] & reached).any():
                new[row] = True
                reached |= rows[row]
        if not new.any():
            return inside
        inside |= new


def binary(responses: ArrayLike) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Successes and trials (int8, 0 or 1) of a response matrix of 0, 1 and NaN, or 0, 1 and -1."""
    array = matrix("responses", responses)
    if np.issubdtype(array.dtype, np.floating):
        missing = np.isnan(array)
        right = array == 1
    else:
        missing = array == -1
        right = array == 1
    bad = ~(missing | right | (array == 0))
    refuse(
        "responses",
        array,
        bad,
        "0 (wrong), 1 (right) and NaN, or -1 in integer arrays (missing), are known; "
        "recode it, or pass counts of rollouts with trials=",
    )
    return right.view(np.int8), (~missing).view(np.int8)


def covariates(value: ArrayLike, n_items: int) -> Array:
    x = np.asarray(value, np.float64)
    if x.ndim != 2 or x.shape[0] != n_items:
        raise ValueError(
            f"covariates must have shape (n_items, n_covariates) = ({n_items}, ...), got {x.shape}; "
            "without covariates pass numpy.zeros((n_items, 0))."
        )
    if not np.isfinite(x).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise ValueError(f"covariates[{row}, {column}] = {x[row, column]}; impute it, or drop the item.")
    return x


def identified(x: Array, freq: Array, precision: Array) -> None:
    """Slopes without a prior need covariates that vary, and none that is a combination of the others."""
    free = np.flatnonzero(precision == 0.0)
    centred = x[:, free] - freq @ x[:, free] / freq.sum()
    spread = np.sqrt(freq @ centred**2 / freq.sum())
    size = np.sqrt(freq @ x[:, free] ** 2 / freq.sum())
    constant = free[spread <= 1e-10 * np.maximum(size, 1e-300)]
    if constant.size:
        raise ValueError(
            f"covariate {constant[0]} is constant over the items, so its slope cannot be told from theta; "
            f"drop it "
            "or give its slope a prior (Prior(gamma_sd=...))."
        )
    gram = (centred / spread * freq[:, None]).T @ (centred / spread) / freq.sum()
    values, vectors = np.linalg.eigh(gram)
    if values.size and values[0] < 1e-9:
        involved = free[np.abs(vectors[:, 0]) > 1e-4].tolist()
        raise ValueError(
            f"covariates {involved} are linearly dependent, so their slopes are not determined; drop one "
            f"(a full "
            "set of dummies needs a reference level) or give them a prior (Prior(gamma_sd=...))."
        )
