"""What a stage knows of the items of a part: for the page, recomputed from the fit.

Nothing of the user's is imported: to look at a run directory must not run the code that its config names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray.calibration import Fit
from zpd_ray.difficulty import guess_floor
from zpd_ray.hashing import item_keys
from zpd_ray.rundir import Run, judging
from zpd_ray.rundir.judging import last_measured, selection_order
from zpd_ray.rundir.layout import ANSWERS
from zpd_ray.selection import METHODS
from zpd_ray.selection.keys import Keys

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """The n items of a part at a stage; arrays of shape (n,), of a failed item without meaning.

    order: what breaks ties of scores. b, b_sd: difficulty given NLL and responses, logits, on the scale of
    the stage's fit. p: probability of a right answer at that b. expected: the same from the NLL alone, before
    any response is seen. score: None where the method is the user's own. trained: by an earlier stage. now:
    measured at this stage; the others are judged by what was last measured of them.
    """

    measured: pa.Table
    ids: Keys
    order: Keys
    now: Flags
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
    """b, p and score of every item of a part at the stage of ``fit``, by the code that selects."""
    last = last_measured(run, fit.stage, ANSWERS, part)
    measured = last.answers
    ids, n = item_keys(measured["item_id"]), measured.num_rows
    guess, order = guess_floor(_options(run, part, n)), selection_order(run, fit.stage, ids)
    known = run.config.select.method in METHODS
    name = run.config.select.method if known else "random"  # which needs nothing and changes no b
    told = judging.judge(run, fit, name, part, last, order, guess)
    b, b_sd, p, score = (told[column].to_numpy() for column in judging.JUDGED)
    nll = pc.fill_null(measured["nll"], 1.0).to_numpy().astype(np.float64)
    return Judged(
        measured=measured,
        ids=ids,
        order=order,
        now=last.stage == fit.stage,
        failed=pc.is_null(measured["nll"]).to_numpy(),
        trained=run.trained_before(fit.stage, part, n),
        guess=guess,
        b=b,
        b_sd=b_sd,
        p=p,
        expected=fit.calibration.expected(fit.ability.theta, nll, guess, judging.group_ahead(run, fit, part)),
        score=score if known else None,
    )


def _options(run: Run, part: str, n: int) -> Integers:
    """As ``Run.options``, without importing a grader of the user's: such responses are not guessable."""
    own = ":" in run.config.measure.grader
    return np.zeros(n, dtype=np.int64) if own else run.options(part, n)
