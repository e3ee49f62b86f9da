"""Suspects are the items whose references are wrong, whatever they are dealt into, and say why."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from scipy.integrate import quad
from scipy.special import expit

from tests.cli.test_cli import invoke
from zpd_ray import schema
from zpd_ray.ability import count_history
from zpd_ray.calibration import Statistics, fit_stage
from zpd_ray.config import Config
from zpd_ray.errors import ZpdError
from zpd_ray.report.evidence import evidence, usual
from zpd_ray.report.suspects import suspects
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.begin import record
from zpd_ray.rundir.layout import POOL, StageFiles
from zpd_ray.rundir.records import load_fit, save_fit

N, STAGES, ROLLOUTS, TOKENS = 1000, 3, 4, 10
RNG = np.random.default_rng(5)
B = RNG.normal(size=N)
NLL = np.exp(0.5 * B + 0.2 * RNG.normal(size=N))  # says nothing of whether a reference is wrong
WRONG = RNG.random(N) < 0.1
RIGHT = np.stack([np.where(WRONG, 0, RNG.binomial(ROLLOUTS, expit(t - B))) for t in range(STAGES)])
TRAINED = np.flatnonzero(WRONG)[:3]  # by stage 0; they are right from then on
RIGHT[1:, TRAINED] = ROLLOUTS
FAILED = 7  # could not be measured


def measured(stage: int, rows: np.ndarray, told: bool) -> pa.Table:
    """What ``answers`` found of these items. told: first choices are counted, and wrong answers kept."""
    n, right, failed = len(rows), RIGHT[stage, rows], rows == FAILED
    missed = np.where(WRONG[rows], 1, 3)
    columns = {
        "item_id": [f"q{i}" for i in rows],
        "nll": pa.array(NLL[rows], pa.float32(), mask=failed),
        "n_tokens": np.full(n, TOKENS),
        "n_greedy": TOKENS - missed if told else [None] * n,
        "successes": right * ~failed,
        "rollouts": ROLLOUTS * ~failed,
        "credit": right,
        "unparsed": np.zeros(n),
        "other_answer": ["42" if told and s < ROLLOUTS else None for s in right],
        "n_other": np.where(WRONG[rows], 3, 1) * told,
        **{name: [None] * n for name in ("completion", "own", "own_tokens")},
        "error": [None] * n,
    }
    return pa.table(
        [pa.array(columns[f.name], f.type, from_pandas=False) for f in schema.MEASUREMENT],
        schema=schema.MEASUREMENT,
    )


def items(rows: np.ndarray) -> pa.Table:
    told = [
        {"item_id": f"q{i}", "messages": [{"role": "user", "content": f"[bold] {i}"}], "group": f"g{i % 2}"}
        for i in rows
    ]
    return pa.Table.from_pylist(told, schema=schema.ITEM)


Make = Callable[..., Run]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """``make(parts=3, told=True)``: a run directory of these items, dealt into parts."""

    def run_of(parts: int = 3, told: bool = False) -> Run:
        config = Config.model_validate(
            {
                "output": str(tmp_path_factory.mktemp("run")),
                "stages": STAGES,
                "pool": {"path": "unused"},
                "model": {"path": "unused"},
                "measure": {"grader": "numeric", "rollouts": ROLLOUTS},
                "select": {"budget": {"items": 1}},
            }
        )
        run = Run(config, Store(config.output))
        for number, rows in enumerate(np.array_split(np.arange(N), parts)):
            part = f"part-{number:06d}.parquet"
            run.store.write_table(f"{POOL}/{part}", items(rows))
            for stage in range(STAGES):
                files = StageFiles(stage)
                run.store.write_table(f"{files.measurements()}/{part}", measured(stage, rows, told))
                chosen = np.flatnonzero(np.isin(rows, TRAINED)) if stage == 0 else []
                run.store.write_table(
                    f"{files.selection()}/chosen/{part}", pa.table({"row": pa.array(chosen, pa.int64())})
                )
        fit(run)
        record(run)
        return run

    return run_of


def fit(run: Run) -> None:
    """Of every stage, by what was answered before training."""
    kept = np.flatnonzero(np.arange(N) != FAILED)
    previous, none, trained = None, np.zeros(len(kept), dtype=np.int64), np.isin(kept, TRAINED)
    for stage in range(STAGES):
        asked = [np.where(trained & (t > 0), 0, ROLLOUTS) for t in range(stage + 1)]
        answers = {t: (RIGHT[t, kept] * (k > 0), k) for t, k in enumerate(asked)}
        history = count_history(NLL[kept], none, trained & (stage > 0), answers)
        told = Statistics.of(NLL[kept], none, RIGHT[stage, kept], asked[0], history)
        previous = fit_stage(told, run.config.ability, stage, previous)
        save_fit(run.store, previous)


def average_precision(order: list[int]) -> float:
    hits = WRONG[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].sum() / WRONG.sum())


def ids(run: Run, top: int = N, group: str | None = None) -> list[int]:
    return [int(each.item["item_id"][1:]) for each in suspects(run, top, group).rows]


@pytest.fixture(scope="module")
def run(make: Make) -> Run:
    return make()


def test_wrong_references_come_first_by_responses_alone(run: Run) -> None:
    by_nll = np.argsort(-NLL).tolist()
    assert average_precision(by_nll) < 0.2
    assert average_precision(ids(run)) > 0.95


def test_missed_tokens_tell_them_where_the_nll_does_not(make: Make) -> None:
    made = make(told=True)
    fits = [load_fit(made.store, stage) for stage in range(STAGES)]
    sure = np.concatenate(
        [
            evidence(made, fits, part, usual(made, fits, made.store.names(POOL))).sure
            for part in made.store.names(POOL)
        ]
    )
    assert average_precision(np.argsort(-sure).tolist()) > 0.3


def test_parts_and_the_length_of_the_list_change_nothing(run: Run, make: Make) -> None:
    whole = suspects(run, 50).rows
    assert [each.score for each in whole] == sorted((each.score for each in whole), reverse=True)
    assert suspects(run, 7).rows == whole[:7]
    assert [(each.item["item_id"], each.score) for each in suspects(make(parts=1), 50).rows] == [
        (each.item["item_id"], each.score) for each in whole
    ]


def test_the_likelihood_ratio_is_that_of_a_plain_integral(run: Run) -> None:
    fits = [load_fit(run.store, stage) for stage in range(STAGES)]
    found, last = evidence(run, fits, run.store.names(POOL)[0], 1.0), fits[-1].ability
    for row in (0, 1, 2, *TRAINED[:1]):
        stages = range(1) if row in TRAINED else range(STAGES)
        assert found.asked[row] == ROLLOUTS * len(stages)
        b = last.gamma * (fits[0].calibration.z(NLL[row]) - fits[0].calibration.origin)

        def likelihood(e: float, row: int = row, b: float = float(b), stages: range = stages) -> float:
            p = [expit(last.stages[t].theta - b - last.sigma * e) for t in stages]
            each = [
                x ** RIGHT[t, row] * (1 - x) ** (ROLLOUTS - RIGHT[t, row])
                for t, x in zip(stages, p, strict=True)
            ]
            return math.prod(each) * math.exp(-e * e / 2) / math.sqrt(2 * math.pi)

        right = sum(RIGHT[t, row] for t in stages)
        luck = right * math.log(0.01) + (found.asked[row] - right) * math.log(0.99)
        assert found.unexpected[row] == pytest.approx(
            luck - math.log(quad(likelihood, -10, 10)[0]), rel=1e-4, abs=1e-3
        )


def test_the_evidence_is_told_in_words(make: Make) -> None:
    made = make(told=True)
    first, common = (
        suspects(made, 1).rows[0],
        usual(made, [load_fit(made.store, t) for t in range(STAGES)], made.store.names(POOL)),
    )
    nats = NLL[int(first.item["item_id"][1:])] * TOKENS
    assert first.per_missed == pytest.approx(nats)
    assert (first.right, first.given, first.of, first.answer) == (0, 3, ROLLOUTS, "42")
    assert first.agreed == pytest.approx(math.log(3 / 2))
    assert first.why == (
        f"wrong 12 of 12 where {first.expected:.1f} right were expected; 3 of 4 responses answer '42'; "
        f"{nats:.1f} nats per missed token where {common:.1f} are usual"
    )


def test_a_group_is_listed_by_itself(run: Run) -> None:
    assert ids(run, group="g1") == [i for i in ids(run) if i % 2]
    with pytest.raises(ZpdError, match=r"no item of the pool has the group 'g2'; .* lists groups"):
        suspects(run, 1, "g2")


def test_what_could_not_be_measured_is_no_suspect(run: Run) -> None:
    listed = ids(run)
    assert len(listed) > N // 4
    assert FAILED not in listed


def test_the_command(run: Run) -> None:
    root = run.store.root
    code, text = invoke("suspects", root, "--top", "2")
    assert code == 0, text
    assert f"of {N} items have fewer right responses than expected, over 3 stages" in text
    assert "[bold] " in text
    assert "wrong 12 of 12 where" in text
    assert "2 shown (--top)" in text
    rows = json.loads(invoke("suspects", root, "--top", "1", "--group", "g1", "--json")[1])["rows"]
    assert [row["item"]["group"] for row in rows] == ["g1"]
    code, text = invoke("suspects", root, "--group", "g2")
    assert (code, "no item of the pool has the group 'g2'" in text) == (2, True)
