"""How many of the wrong references of a pool `zpd-ray suspects` finds, against "the highest NLL first".

    zpd-ray run examples/quickstart/run.toml
    python benchmarks/suspects.py runs/quickstart --truth truth=wrong_reference

--truth names a column of the pool and the value that it has where the reference is wrong; no run reads such a
column. Precision is told among the first 50, the first n / 4 and the first n, n being the number of wrong
references: there it is the recall, too. Average precision is the area under the curve of both.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from zpd_ray.report.evidence import evidence, usual
from zpd_ray.rundir import Run
from zpd_ray.rundir.begin import recorded_run
from zpd_ray.rundir.judging import read_measured
from zpd_ray.rundir.layout import ANSWERS, FIT, POOL
from zpd_ray.rundir.records import load_fit

Floats = NDArray[np.float64]


def scores(run: Run) -> dict[str, Floats]:
    """By rule a score of every item of the pool, the larger the more suspect."""
    fits = [load_fit(run.store, t) for t in range(run.config.stages) if run.finished(t, FIT)]
    found: dict[str, list[Floats]] = {}
    common = usual(run, fits, run.store.names(POOL))
    for part in run.store.names(POOL):
        of = evidence(run, fits, part, common)
        nll = np.stack([nlls(run, fit.stage, part) for fit in fits])
        told = {
            "suspects": of.score,
            "of these, missed tokens alone": of.sure,
            "of these, responses alone": of.unexpected,
            "of these, agreement alone": of.agreed,
            "highest NLL at stage 0": nll[0],
            "highest NLL at the last stage": nll[-1],
            "highest mean NLL": nll.mean(axis=0),
        }
        for rule, values in told.items():
            found.setdefault(rule, []).append(values)
    return {rule: np.concatenate(values) for rule, values in found.items()}


def nlls(run: Run, stage: int, part: str) -> Floats:
    """Nats per token, 0 of items without."""
    column = read_measured(run, stage, ANSWERS, part, ["item_id", "nll"])["nll"]
    return np.asarray(pc.fill_null(column, 0.0).to_numpy(), dtype=np.float64)


def wrong_references(run: Run, column: str, value: str) -> NDArray[np.bool_]:
    """By what the rows of the source hold beside the item: (n,) over the pool."""
    extra = [
        text
        for part in run.store.names(POOL)
        for text in run.store.read_table(f"{POOL}/{part}", ["extra"])["extra"].to_pylist()
    ]
    return np.array([str(json.loads(text)[column]) == value for text in extra])


def row(rule: str, score: Floats, wrong: NDArray[np.bool_]) -> str:
    """A line of the table."""
    hits, n = wrong[np.argsort(-score, kind="stable")], int(wrong.sum())
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    cells = [precision[at - 1] for at in (50, n // 4, n)]
    told = " | ".join(f"{value:.2f}" for value in [*cells, precision[hits].mean()])
    return f"| {rule} | {told} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument("--truth", required=True, metavar="COLUMN=VALUE")
    args = parser.parse_args()
    run = recorded_run(args.run)
    wrong = wrong_references(run, *args.truth.split("=", 1))
    if wrong.sum() < 4:
        parser.error(f"{wrong.sum()} of {len(wrong)} items have {args.truth}; expected some")
    print(f"{wrong.sum()} of {len(wrong)} references are wrong; by chance {wrong.mean():.2f} everywhere\n")
    print("| rule | first 50 | first n / 4 | first n | average precision |\n|---|---|---|---|---|")
    for rule, score in scores(run).items():
        print(row(rule, score, wrong))


if __name__ == "__main__":
    main()
