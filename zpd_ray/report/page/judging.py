"""What a stage knows of the items of a part: for the page, recomputed from the fit.

Nothing of the user's is imported: to look at a run directory must not run the code that its config names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray import selection
from zpd_ray.calibration import Fit
from zpd_ray.difficulty import guess_floor
from zpd_ray.hashing import item_keys
from zpd_ray.matching import probability
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import ANSWERS, POOL, StageFiles
from zpd_ray.selection import METHODS, Candidates
from zpd_ray.selection.keys import Keys, shuffled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

COLUMNS = ["item_id", "nll", "successes", "rollouts", "unparsed", "completion"]
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Judged:
    """The n items of a part at a stage; arrays of shape (n,), of a failed item without meaning.

    order: what breaks ties of scores. b, b_sd: difficulty given NLL and responses, logits, on the scale of
    the stage's fit. p: probability of a right answer at that b. expected: the same from the NLL alone, before
    any response is seen. score: None where the method is the user's own. trained: by an earlier stage.
    """

    measured: pa.Table
    ids: Keys
    order: Keys
    failed: Flags
    trained: Flags
    guess: Floats
    b: Floats
    b_sd: Floats
    p: Floats
    expected: Floats
    score: Floats | None

    def integers(self, column: str) -> Integers:
        """A column of counts: (n,)."""
        return np.asarray(pc.fill_null(self.measured[column], 0).to_numpy(), dtype=np.int64)


def judge(run: Run, fit: Fit, part: str) -> Judged:
    """b, p and score of every item of a part at the stage of ``fit``, as selection computed them."""
    measured = run.store.read_table(f"{StageFiles(fit.stage).measurements()}/{part}", COLUMNS)
    ids, n = item_keys(measured["item_id"]), measured.num_rows
    successes, rollouts = (measured[name].to_numpy().astype(np.int64) for name in ("successes", "rollouts"))
    nll = pc.fill_null(measured["nll"], 1.0).to_numpy().astype(np.float64)
    guess = guess_floor(_options(run, part, n))
    b, b_sd = fit.difficulty(nll, successes, rollouts, guess)
    p = probability(fit.ability.theta, b, guess)
    order = shuffled(ids, run.config.seed, fit.stage, "select")
    return Judged(
        measured=measured,
        ids=ids,
        order=order,
        failed=pc.is_null(measured["nll"]).to_numpy(),
        trained=run.trained_before(fit.stage, part, n),
        guess=guess,
        b=b,
        b_sd=b_sd,
        p=p,
        expected=_expected(fit, nll, guess),
        score=_score(run, Candidates(fit.ability.theta, order, b, b_sd, p, guess, {ANSWERS: measured})),
    )


def _expected(fit: Fit, nll: Floats, guess: Floats) -> Floats:
    """P(right) by the NLL alone, the spread of b around it integrated out: (n,)."""
    none = np.zeros(len(nll), dtype=np.int64)
    b, sd = fit.difficulty(nll, none, none, guess)
    nodes = zip(_NODES, _WEIGHTS, strict=True)
    return np.asarray(sum(w * probability(fit.ability.theta, b + sd * node, guess) for node, w in nodes))


def _score(run: Run, items: Candidates) -> Floats | None:
    name = run.config.select.method
    return selection.load(name).score(items, run.config.select) if name in METHODS else None


def _options(run: Run, part: str, n: int) -> Integers:
    """As ``Run.options``, without importing a grader of the user's: such responses are not guessable."""
    own = ":" in run.config.measure.grader
    return np.zeros(n, dtype=np.int64) if own else run.options(part, n)


def groups_of(run: Run, part: str) -> list[str]:
    """The group of each item of a part, "" where it has none."""
    column = run.store.read_table(f"{POOL}/{part}", ["group"])["group"]
    found: list[str] = pc.fill_null(column, "").to_pylist()
    return found
