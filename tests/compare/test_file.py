"""The file of a comparison, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.processes import EXAMPLES
from zpd_ray.compare.configs import read_configs
from zpd_ray.compare.file import Comparison, load_comparison
from zpd_ray.errors import ZpdError

RUN = """
pool = { path = "pool.jsonl" }
evaluation = { path = "eval.jsonl" }
model = { path = "model" }
"""
COMPARE = """
run = "run.toml"
output = "out"
methods = ["random", "zpd", { name = "zpd with replay", method = "zpd", set = { "select.replay" = 0.25 } }]
budgets = [0.05, 0.1]
seeds = [0, 1]
tune.train.learning_rate = [1e-4, 1e-3]
"""


def written(directory: Path, run: str = RUN, compare: str = COMPARE) -> str:
    (directory / "run.toml").write_text(run)
    (directory / "compare.toml").write_text(compare)
    return str(directory / "compare.toml")


def loaded(path: str, *overrides: str) -> Comparison:
    comparison = load_comparison(path, list(overrides))
    read_configs(comparison)
    return comparison


def test_what_a_file_says(tmp_path: Path) -> None:
    comparison = loaded(written(tmp_path), "seeds=[3]")
    assert [each.name for each in comparison.contenders] == ["random", "zpd", "zpd with replay"]
    assert comparison.contenders[2].set == {"select.replay": 0.25}
    assert comparison.tune == {"train.learning_rate": [1e-4, 1e-3]}
    assert comparison.trial_seed == 4
    assert (comparison.run, comparison.output) == (str(tmp_path / "run.toml"), str(tmp_path / "out"))


def test_random_is_there_where_it_is_not_named(tmp_path: Path) -> None:
    comparison = loaded(written(tmp_path), 'methods=["zpd"]')
    assert [each.name for each in comparison.contenders] == ["random", "zpd"]


WRONG = {
    'methods=["zpd", "zpd"]': "methods has 'zpd' twice",
    'methods=["zpd", "zdp_static"]': "unknown selection method 'zdp_static'.*did you mean 'zpd_static'",
    'methods=[{ name = "random", method = "zpd" }]': "all are held against a random selection",
    'methods=[{ name = "a", method = "zpd", set = { "model.path" = "b" } }]': "sets model.path, and model",
    'methods=[{ name = "a", method = "zpd", set = { "select.method" = "b" } }]': "sets select.method",
    "methods=[]": "methods: ",
    'methods=["zpd", { name = "a b", method = "zpd" }, { name = "a-b", method = "zpd" }]': "'a-b' twice",
    'set={ "seed" = 1 }': "sets seed, and seed is the comparison's own",
    'methods=[{ name = "a", method = "zpd", set = { select = { method = "b" } } }]': "sets select.method",
    'set={ "stages" = "three" }': "stages: .*got 'three'",
    "tune=3": "tune: .*got 3",
    "seeds=[1, 1]": "seeds has 1 twice",
    "budgets=[0.05, 1.5]": "budgets.1: .*less than or equal to 1, got 1.5",
    'tune={ "train.learning_rate" = [] }': "tune.train.learning_rate has no value",
    'tune={ "measure.grader" = ["exact"] }': "tune sets measure.grader",
    "cost_of=rho": "cost_of = 'rho' is no method here",
    "cost_of=random": "cost_of = 'random' is no method here that selects by what is measured",
    "methods=zpd": "methods: .*valid list, got 'zpd'",
    "methods=[3]": "methods.0 is a section with keys .*got 3",
    "budgets=0.1": "budgets: .*valid list, got 0.1",
    "seed=3": "unknown key seed; did you mean seeds?",
    'set={ "train.lerning_rate" = 1 }': "did you mean train.learning_rate",
    'set={ "train.method" = "none" }': "train.method = 'none'",
}


@pytest.mark.parametrize("override", WRONG)
def test_what_is_wrong_is_told(tmp_path: Path, override: str) -> None:
    with pytest.raises(ZpdError, match=WRONG[override]):
        loaded(written(tmp_path), override)


def test_without_an_evaluation_set_there_is_nothing_to_compare_by(tmp_path: Path) -> None:
    run = RUN.replace('evaluation = { path = "eval.jsonl" }\n', "")
    with pytest.raises(ZpdError, match="has no evaluation set"):
        loaded(written(tmp_path, run))


@pytest.mark.parametrize("example", ["quickstart", "pronounce"])
def test_the_examples_load(example: str) -> None:
    comparison = loaded(str(EXAMPLES / example / "compare.toml"))
    assert comparison.contenders[0].name == "random"
    assert len(comparison.contenders) == 14
