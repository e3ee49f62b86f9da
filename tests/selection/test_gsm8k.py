"""Every method on 200 items of GSM8K against a plain computation, one sample at a time.

Scores come as they do in a run: an engine measures, files hold what came of it, a fit judges.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit

from tests import tiny
from tests.measures.test_judge import NEW, PlainJudge, fond_of_digits
from tests.selection.test_in_context import PlainInContext, plain_utilities
from tests.selection.test_literature import Plain
from zpd_ray import measures, schema
from zpd_ray.ability import count_history
from zpd_ray.calibration import Fit, Statistics, fit_stage
from zpd_ray.config import Config, JudgeConfig
from zpd_ray.engines import ModelRef
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.hashing import item_keys
from zpd_ray.measures.judge import rating_in
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.judging import judge, last_measured, selection_order
from zpd_ray.rundir.layout import ANSWERS, POOL, StageFiles
from zpd_ray.selection import METHODS, load

GSM8K = Path(__file__).resolve().parents[3] / "shared/data/gsm8k/train.jsonl.gz"
N = 200
TARGET_P, LOW = 0.6, -1.5
TYPICAL = 11.06  # nats per token, of a tiny model of random weights
IN_CONTEXT = {"demonstrations": 2, "queries": 2}  # in 2,048 positions
JUDGE = {"prompt": "{prompt}\n{response} How good?", "lowest": -1e6, "highest": 1e6}
PART = "part-000000.parquet"

pytestmark = [
    pytest.mark.nightly,  # the same on 20 short items: test_literature.py
    pytest.mark.skipif(not GSM8K.exists(), reason="GSM8K is not here (../shared/data/gsm8k)"),
]


@dataclass(frozen=True)
class Item:
    """What transformers alone tell of an item. total: summed NLL of its response after the prompt, nats, and
    tokens: how many, by model; alone: mean NLL of the response without the prompt; utility: as a
    demonstration; rating: by a judge, NaN for none."""

    total: dict[str, float]
    tokens: dict[str, int]
    alone: dict[str, float]
    utility: float = math.nan
    rating: float = math.nan

    def nll(self, model: str = "model") -> float:
        """Nats per token."""
        return self.total[model] / self.tokens[model]


@dataclass(frozen=True)
class Measured:
    """The same 200 items by the product and plainly. right: of so many rollouts, of each item."""

    run: Run
    fit: Fit
    items: list[Item]
    right: list[int]
    rollouts: int

    def scores(self, name: str) -> np.ndarray:
        """By the method ``name``, as selection has them; of stage 1 where it compares stages."""
        stage = int(getattr(load(name), "compares", False))
        known = last_measured(self.run, stage, ANSWERS, PART)
        order = selection_order(self.run, stage, item_keys(known.answers["item_id"]))
        fit = replace(self.fit, stage=stage)
        return judge(self.run, fit, name, PART, known, order)["score"].to_numpy()


def pairs() -> list[tuple[str, str]]:
    with gzip.open(GSM8K, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, N)]
    return [(row["question"], row["answer"]) for row in rows]


def pool() -> pa.Table:
    rows = [
        {"item_id": f"{i}", "messages": [{"role": "user", "content": x}], "response": y, "response_tokens": 1}
        for i, (x, y) in enumerate(pairs())
    ]
    return pa.Table.from_pylist(rows, schema=schema.ITEM)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run's model, a narrower proxy, and a reference with another tokenizer."""
    torch.set_num_threads(1)
    place, sizes = tmp_path_factory.mktemp, {"layers": 1, "max_length": 2048}
    return {
        "model": tiny.build_model(place("model"), **sizes),
        "proxy": tiny.build_model(place("proxy"), heads=1, seed=1, **sizes),
        "judge": fond_of_digits(tiny.build_model(place("judge"), seed=4, **sizes)),
        "later": tiny.build_model(place("later"), seed=3, **sizes),  # that of stage 1
        "reference": tiny.build_model(place("reference"), seed=2, texts=("to and fro",), vocab=300, **sizes),
    }


@pytest.fixture(scope="module")
def items(paths: dict[str, Path]) -> list[Item]:
    """By transformers, one forward pass at a time."""
    models = {name: Plain(path) for name, path in paths.items() if name != "judge"}
    plain, all_pairs = PlainInContext(paths["model"]), pairs()

    def right(before: list[tuple[str, str]], j: int) -> float:
        return 1 / (1 + plain.nll(before, *all_pairs[j]))

    utilities = plain_utilities(plain, all_pairs, right, **IN_CONTEXT)
    found = [asked(models, x, y) for x, y in all_pairs]
    ratings = plain_ratings(PlainJudge(paths["judge"]), all_pairs)
    return [replace(item, utility=u, rating=r) for item, u, r in zip(found, utilities, ratings, strict=True)]


def plain_ratings(judge: PlainJudge, pairs: list[tuple[str, str]]) -> list[float]:
    ratings = (rating_in(judge.answer(f"{x}\n{y} How good?\n"), JudgeConfig(**JUDGE)) for x, y in pairs)
    return [math.nan if rating is None else rating for rating in ratings]


def asked(models: dict[str, Plain], x: str, y: str) -> Item:
    found = {name: model.nll(x, y) for name, model in models.items()}
    total, tokens = ({name: pair[at] for name, pair in found.items()} for at in (0, 1))
    return Item(total, tokens, {name: models[name].mean(None, y) for name in ("model", "proxy")})


@pytest.fixture(scope="module")
def run(paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All measures by an engine, as a scoring actor takes them, in a run directory."""
    select = {"budget": {"items": 1}, "target_p": TARGET_P, "window_low": LOW, "in_context": IN_CONTEXT}
    select["judge"] = {**JUDGE, "model": str(paths["judge"])}
    config = Config.model_validate(
        {
            "output": str(tmp_path_factory.mktemp("run")),
            "pool": {"path": "unused"},
            "model": {"path": str(paths["model"])},
            "measure": {"grader": "tests.selection.soft:Soft", "max_new_tokens": NEW},
            "select": {**select, "proxy": str(paths["proxy"]), "reference_model": str(paths["reference"])},
        }
    )
    run, table = Run(config, Store(config.output)), pool()
    run.store.write_table(f"{POOL}/{PART}", table)
    for name in measures.MEASURES:
        take(run, name, 0, ModelRef(config.model.path))
    take(run, ANSWERS, 1, ModelRef(str(paths["later"])))
    return run


def take(run: Run, name: str, stage: int, model: ModelRef) -> None:
    measure = measures.load(name, run.config)
    engine = TransformersEngine(run.config, measure.model(model))
    found = measures.rows_of(name, measure, engine, pool(), stage)
    run.store.write_table(f"{StageFiles(stage).measurements(name)}/{PART}", found)


@pytest.fixture(scope="module", params=[1, 4], ids=["normal residual", "residual by the data"])
def measured(request: pytest.FixtureRequest, run: Run, items: list[Item]) -> Measured:
    """With responses that are made up: a model of random weights has none right."""
    rollouts, rng = request.param, np.random.default_rng(0)
    p = [expit(-60 * math.log(item.nll() / TYPICAL)) for item in items]
    right = rng.binomial(rollouts, p).tolist()
    answers = f"{StageFiles(0).measurements(ANSWERS)}/{PART}"
    run.store.write_table(answers, answered(run.store.read_table(answers), right, rollouts))
    fit = fitted(run)
    assert bool(fit.calibration.residual_nodes) == (rollouts > 1)
    return Measured(run, fit, items, right, rollouts)


def answered(table: pa.Table, right: list[int], rollouts: int) -> pa.Table:
    """What the engine measured, with these responses."""
    for name, values in (("successes", right), ("rollouts", [rollouts] * N)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, pa.int32()))
    return table


def fitted(run: Run) -> Fit:
    """Other tests hold it to the truth; here it is taken as it is."""
    answers = last_measured(run, 0, ANSWERS, PART).answers
    nll, options = answers["nll"].to_numpy().astype(np.float64), np.zeros(N, dtype=np.int64)
    s, k = (answers[name].to_numpy().astype(np.int64) for name in ("successes", "rollouts"))
    history = count_history(nll, options, np.zeros(N, dtype=bool), {0: (s, k)})
    return fit_stage(Statistics.of(nll, options, s, k, history), run.config.ability, 0, None)


class Posterior:
    """Of one item's difficulty, by the fit's theta, slope and residual: mean and sd of b, logits, and zpd."""

    def __init__(self, fit: Fit, item: Item, right: int, rollouts: int) -> None:
        of, self.theta = fit.calibration, fit.ability.theta
        z = (math.log(item.nll()) - of.location) / of.scale
        self.centre = of.gamma * (z - of.origin) + of.shift
        self.right, self.wrong = right, rollouts - right
        self.nodes, self.weights, self.sigma = of.residual_nodes, of.residual_weights, of.sigma
        self.aim = self.theta - math.log(TARGET_P / (1 - TARGET_P))
        total = self.over(lambda b: 1.0)
        self.b = self.over(lambda b: b) / total
        self.sd = math.sqrt(self.over(lambda b: (b - self.b) ** 2) / total)
        self.zpd = self.over(self.value) / total if self.nodes else self.by_normal()

    def value(self, b: float) -> float:
        p = 1 / (1 + math.exp(b - self.aim))
        return p * (1 - p)

    def by_normal(self) -> float:
        """The posterior taken as N(b, sd^2), as ``matching.zpd_score`` says."""
        return integral(lambda b: self.value(b) * density(b, self.b, self.sd), self.b, self.sd)

    def over(self, of: Callable[[float], float]) -> float:
        """The integral of a function of b, weighted by prior and likelihood of the responses."""

        def weighted(b: float) -> float:
            p = 1 / (1 + math.exp(b - self.theta))
            return of(b) * p**self.right * (1 - p) ** self.wrong

        if self.nodes:
            pairs = zip(self.nodes, self.weights, strict=True)
            return sum(weight * weighted(self.centre + node) for node, weight in pairs)
        prior = (self.centre, self.sigma)
        return integral(lambda b: weighted(b) * density(b, *prior), *prior)


def density(b: float, mean: float, sd: float) -> float:
    return math.exp(-(((b - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))


def integral(of: Callable[[float], float], mean: float, sd: float) -> float:
    return float(quad(of, mean - 12 * sd, mean + 12 * sd, epsabs=1e-12, epsrel=1e-10, limit=200)[0])


Plainly = Callable[[Item, Posterior, Fit], float]  # NaN: not to be selected


def up_to(limit: float, value: float) -> float:
    return value if value <= limit else math.nan


def window(item: Item, posterior: Posterior, fit: Fit) -> float:
    low, high = fit.ability.theta + LOW, fit.ability.theta
    return 1.0 if low <= posterior.b <= high else math.nan


PLAINLY: dict[str, Plainly] = {
    "ppl_high": lambda item, *_: math.exp(item.nll()),
    "ppl_low": lambda item, *_: -math.exp(item.nll()),
    "ppl_middle": lambda item, _, fit: -abs(math.log(item.nll()) - fit.calibration.location),
    "ifd": lambda item, *_: up_to(1.0, item.nll() / item.alone["model"]),
    "superfiltering": lambda item, *_: up_to(
        np.nextafter(1, 0), math.exp(item.nll("proxy")) / math.exp(item.alone["proxy"])
    ),
    "rho": lambda item, *_: (item.total["model"] - item.total["reference"]) / item.tokens["model"],
    "data_whisperer": lambda item, *_: item.utility,
    "judge": lambda item, *_: item.rating,
    "delta_loss": lambda item, *_: item.nll() - item.nll("later"),
    "difficulty_window": window,
    "target_difficulty": lambda _, posterior, fit: -abs(posterior.b - posterior.aim),
    "zpd": lambda _, posterior, fit: posterior.zpd,
    "zpd_static": lambda _, posterior, fit: posterior.zpd,
}
SMALL = {"data_whisperer"}  # some 0.04
BLIND = {"random", "full"}  # they look at nothing
DRAWN = {"zpd_sampled"}  # by the score of zpd (test_methods.py)


def test_all_methods_are_here() -> None:
    assert set(METHODS) == set(PLAINLY) | BLIND | DRAWN


@pytest.mark.parametrize("name", PLAINLY)
def test_the_score_is_that_of_a_plain_computation(name: str, measured: Measured) -> None:
    fit = measured.fit
    told = [
        PLAINLY[name](item, Posterior(fit, item, right, measured.rollouts), fit)
        for item, right in zip(measured.items, measured.right, strict=True)
    ]
    expected, score = np.array(told), measured.scores(name)
    kept = ~np.isnan(expected)
    assert kept.sum() >= N // 10, "too few are left to compare"
    np.testing.assert_array_equal(np.isnan(score), ~kept)
    rtol = 1e-4 if name.startswith("ppl") or name in SMALL else 0  # perplexities here are some 60,000
    np.testing.assert_allclose(score[kept], expected[kept], rtol=rtol, atol=0 if name in SMALL else 1e-4)
