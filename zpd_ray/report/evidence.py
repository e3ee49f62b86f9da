"""How far the measurements of an item speak for a wrong reference, and against one that is merely hard.

The score is a sum of three log odds, in nats. What an item did after it was trained on counts nowhere.

- *unexpected*: log of P(its responses | right by luck alone) over P(its responses | the last fit), by the
  ability of every stage and the difficulty that its NLL at stage 0 lets expect, the residual integrated out.
  This is the likelihood ratio of appropriateness measurement (Levine & Drasgow 1988, Psychometrika 53(2)), of
  items in place of persons; that nobody gets wrongly annotated items right is the feasibility of Rodriguez et
  al. 2021 (ACL, "Evaluation Examples Are Not Equally Informative").
- *sure*: (v - u) sqrt(m). v: nats per missed token, which is one of the reference that is not the model's
  first choice; u: the usual v, its median over the pool; m: how many are missed; v and m are means over
  stages. Where the model is sure of another token, its nats are the margin between the two, whose mean over
  the course of training tells wrong labels from hard ones (AUM: Pleiss et al. 2020, arXiv 2001.10528). m
  tokens are put together as m independent scores are (Stouffer et al. 1949, The American Soldier). 0 where
  an engine does not count first choices.
- *agreed*: log of m / (k - m + 1) where m of the last k responses give the same wrong answer: the share of
  the majority is taken for its probability to be right (self-consistency: Wang et al. 2023, arXiv
  2203.11171). 0 where the grader tells no answers, or none was read.

That the three count alike, and the form of the last one, are ours. docs/results.md says how well it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import xlogy

from zpd_ray.calibration import Fit
from zpd_ray.difficulty import guess_floor
from zpd_ray.irt.quadrature import HERMITE_NODES, HERMITE_WEIGHTS
from zpd_ray.matching import probability
from zpd_ray.rundir import Run
from zpd_ray.rundir.judging import group_ahead, read_measured
from zpd_ray.rundir.layout import ANSWERS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LUCK = 0.01  # P(right | wrong reference) where an answer cannot be guessed
TINY = 1e-300
BINS_PER_NAT, BINS = 20, 2000  # up to 100 nats


@dataclass(frozen=True)
class Evidence:
    """What is known of the n items of a part; arrays of shape (n,).

    asked, right: responses, and how many are right; expected: how many should be, by the fit; unexpected,
    sure, agreed: nats, as above; per_missed: v; given: of the last ``of`` responses give the same wrong
    ``answer`` (strings, null).
    """

    asked: Integers
    right: Integers
    expected: Floats
    unexpected: Floats
    sure: Floats
    agreed: Floats
    per_missed: Floats
    given: Integers
    of: Integers
    answer: pa.Array

    @property
    def score(self) -> Floats:
        """Nats; -inf where nothing is odd: as many right as expected, or never asked."""
        return np.where(self.right < self.expected, self.unexpected + self.sure + self.agreed, -np.inf)


@dataclass(frozen=True)
class _Asked:
    """Of a part at a stage: what it answered there before it was trained on; arrays of shape (n,).

    theta: ability on each item's group. missed: reference tokens that are not the first choice; per_missed:
    nats for each; both NaN where they are not known, or it was trained on before. table: all that was
    measured.
    """

    theta: Floats
    right: Integers
    asked: Integers
    missed: Floats
    per_missed: Floats
    table: pa.Table


def usual(run: Run, fits: list[Fit], parts: list[str]) -> float:
    """Median over the parts of nats per missed token, of items that miss any, to 1 / BINS_PER_NAT."""
    counts = np.zeros(BINS, dtype=np.int64)
    for part in parts:
        missed, per_missed = _missed_tokens([_asked(run, fit, fits[-1], part) for fit in fits])
        bins = (per_missed[missed > 0] * BINS_PER_NAT).astype(np.int64)
        counts += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)
    return (float(np.searchsorted(np.cumsum(counts), counts.sum() / 2)) + 0.5) / BINS_PER_NAT


def evidence(run: Run, fits: list[Fit], part: str, usual: float) -> Evidence:
    """Of every item of a part, from the stages that ``fits`` are of, the first one's first.

    usual: nats per missed token, as the function of that name tells of the pool.
    """
    stages = [_asked(run, fit, fits[-1], part) for fit in fits]
    first, ability = fits[0].calibration, fits[-1].ability
    nll = stages[0].table["nll"]
    begun = pc.is_valid(nll).to_numpy()  # else nothing tells how hard an item is
    nll = pc.fill_null(nll, 1.0).to_numpy().astype(np.float64)
    b = ability.gamma * (first.z(nll) - first.origin)
    own = ":" in run.config.measure.grader  # is not imported to look at a run, and cannot be guessed
    guess = np.zeros(len(b)) if own else guess_floor(run.options(part, len(b)))
    expected, unexpected = _surprise(stages, b, ability.sigma, guess)
    given, of, answer = _agreement(stages)
    agreed = np.where(given > 0, np.log(np.maximum(given, 1) / (of - given + 1)), 0.0)
    missed, per_missed = _missed_tokens(stages)
    return Evidence(
        asked=np.sum([stage.asked for stage in stages], axis=0),
        right=np.sum([stage.right for stage in stages], axis=0),
        expected=np.where(begun, expected, 0.0),
        unexpected=unexpected,
        sure=(per_missed - usual) * np.sqrt(missed),
        agreed=agreed,
        per_missed=per_missed,
        given=given,
        of=of,
        answer=answer,
    )


def _asked(run: Run, fit: Fit, last: Fit, part: str) -> _Asked:
    table = read_measured(run, fit.stage, ANSWERS, part)
    nll = pc.fill_null(table["nll"], np.nan).to_numpy().astype(np.float64)
    counts = ~run.trained_before(fit.stage, part, table.num_rows) & np.isfinite(nll)
    right, asked = (np.where(counts, _integers(table, name), 0) for name in ("successes", "rollouts"))
    tokens, first = _integers(table, "n_tokens"), _integers(table, "n_greedy")
    told = counts & pc.is_valid(table["n_greedy"]).to_numpy()
    missed = np.where(told, tokens - first, np.nan)
    per_missed = nll * tokens / np.maximum(missed, 1.0)
    theta, ahead = np.full(len(nll), last.ability.at(fit.stage).theta), group_ahead(run, fit, part)
    return _Asked(theta if ahead is None else theta + ahead, right, asked, missed, per_missed, table)


def _missed_tokens(stages: list[_Asked]) -> tuple[Floats, Floats]:
    """Mean over stages of how many tokens of each item are missed, and of nats for each; 0 of none."""
    known = np.maximum(np.sum([np.isfinite(stage.missed) for stage in stages], axis=0), 1)
    missed = np.nansum([stage.missed for stage in stages], axis=0) / known
    return missed, np.nansum([stage.per_missed for stage in stages], axis=0) / known


def _integers(table: pa.Table, column: str) -> Integers:
    return np.asarray(pc.fill_null(table[column], 0).to_numpy(), dtype=np.int64)


def _surprise(stages: list[_Asked], b: Floats, sigma: float, guess: Floats) -> tuple[Floats, Floats]:
    """Right responses that are expected, and log P(responses | luck) - log P(responses | the fit)."""
    expected, likelihood = np.zeros(len(b)), np.zeros(len(b))
    for node, weight in zip(HERMITE_NODES, HERMITE_WEIGHTS, strict=True):
        loglik = np.zeros(len(b))
        for stage in stages:
            p = probability(stage.theta, b + sigma * node, guess)
            expected += weight * stage.asked * p
            loglik += _loglik(stage, p)
        likelihood += weight * np.exp(loglik)
    luck = np.maximum(guess, LUCK)
    by_luck = np.sum([_loglik(stage, luck) for stage in stages], axis=0)
    return expected, by_luck - np.log(np.maximum(likelihood, TINY))


def _loglik(stage: _Asked, p: Floats) -> Floats:
    wrong = stage.asked - stage.right
    return np.asarray(xlogy(stage.right, p) + xlogy(wrong, np.maximum(1.0 - p, TINY)))


def _agreement(stages: list[_Asked]) -> tuple[Integers, Integers, pa.Array]:
    """Of the last stage that asked an item: how many gave the same wrong answer, of how many, and which."""
    n = len(stages[0].asked)
    given, of = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    answer: Any = pa.nulls(n, pa.string())
    for stage in stages:
        if "n_other" not in stage.table.column_names:  # of a run by an earlier version
            continue
        now = stage.asked > 0
        given = np.where(now, _integers(stage.table, "n_other"), given)
        of = np.where(now, stage.asked, of)
        answer = pc.if_else(pa.array(now), stage.table["other_answer"].combine_chunks(), answer)
    return given, of, answer
