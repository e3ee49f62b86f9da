"""What a config refuses, and what it says then."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from zpd_ray.config import Budget, Config
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError


def values(**sections: Any) -> dict[str, Any]:
    """The least that a config must say, with sections on top."""
    base: dict[str, Any] = {
        "output": "out",
        "pool": {"path": "pool.jsonl"},
        "model": {"path": "model"},
        "select": {"budget": {"fraction": 0.1}},
    }
    for name, section in sections.items():
        base[name] = base.get(name, {}) | section if isinstance(section, dict) else section
    return base


def refusal(**sections: Any) -> str:
    with pytest.raises(ZpdError) as refused:
        validate(values(**sections))
    return str(refused.value)


def test_the_least_config_is_complete() -> None:
    config = validate(values())
    assert config.stages == 3
    assert config.select.budget == Budget(fraction=0.1)
    assert config.train.result == "adapter"
    assert validate(values(train={"method": "full"})).train.result == "model"


@pytest.mark.parametrize("name", ["output", "pool", "model", "select"])
def test_what_must_be_given_is_named_when_it_is_not(name: str) -> None:
    given = values()
    del given[name]
    with pytest.raises(ZpdError, match=rf"{name} is missing; add it to the config or give --set {name}"):
        validate(given)


@pytest.mark.parametrize(
    ("sections", "wrong", "nearest"),
    [
        ({"stagse": 3}, "stagse", "stages"),
        ({"train": {"learning_rat": 0.1}}, "train.learning_rat", "train.learning_rate"),
        ({"train": {"lora": {"rnak": 4}}}, "train.lora.rnak", "train.lora.rank"),
        ({"select": {"budget": {"fracton": 0.1}}}, "select.budget.fracton", "select.budget.fraction"),
        ({"evaluation": {"path": "x", "shap": "auto"}}, "evaluation.shap", "evaluation.shape"),
        ({"engine": {"simulated": {"tetha": 1.0}}}, "engine.simulated.tetha", "engine.simulated.theta"),
        ({"pool": {"items_per_parts": 5}}, "pool.items_per_parts", "pool.items_per_part"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(
    sections: dict[str, Any], wrong: str, nearest: str
) -> None:
    assert f"unknown key {wrong}; did you mean {nearest}?" in refusal(**sections)


def test_an_unknown_key_near_to_none_is_refused_with_all_there_are() -> None:
    message = refusal(measure={"zzz": 1})
    known = (
        "candidates, grader, max_failed_share, max_new_tokens, max_unparsed_share, patience, probes, "
        "rollouts, scope, temperature, theta_se"
    )
    assert f"unknown key measure.zzz; known: {known}" in message


def test_every_problem_is_told_at_once() -> None:
    message = refusal(stages="many", train={"epochs": 0}, select={"metod": "zpd"})
    assert "stages: " in message
    assert "train.epochs: " in message
    assert "select.metod" in message


@pytest.mark.parametrize(
    ("sections", "key", "got"),
    [
        ({"stages": "three"}, "stages", "'three'"),
        ({"stages": 2.5}, "stages", "2.5"),
        ({"pool": {"path": 3}}, "pool.path", "3"),
        ({"pool": "pool.jsonl"}, "pool", "'pool.jsonl'"),
        ({"train": {"learning_rate": "fast"}}, "train.learning_rate", "'fast'"),
        ({"train": {"lora": {"targets": "q_proj"}}}, "train.lora.targets", "'q_proj'"),
        ({"select": {"allow_trained": "perhaps"}}, "select.allow_trained", "'perhaps'"),
        ({"pool": {"columns": {"promt": "text"}}}, "pool.columns.promt", "'promt'"),
    ],
)
def test_a_wrong_type_names_key_and_value(sections: dict[str, Any], key: str, got: str) -> None:
    message = refusal(**sections)
    assert message.startswith(key)
    assert f"got {got}" in message


@pytest.mark.parametrize(
    ("sections", "key", "expected"),
    [
        ({"ability": {"calibration": "rasch"}}, "ability.calibration", "'explanatory' or 'feedback'"),
        ({"train": {"schedule": "cosin"}}, "train.schedule", "'cosine', 'linear' or 'constant'"),
        ({"train": {"method": "qlora"}}, "train.method", "'lora', 'full' or 'none'"),
        ({"pool": {"shape": "alpacca"}}, "pool.shape", "'alpaca'"),
        ({"pool": {"format": "xml"}}, "pool.format", "'parquet'"),
    ],
)
def test_an_unknown_choice_lists_the_known_ones(sections: dict[str, Any], key: str, expected: str) -> None:
    message = refusal(**sections)
    assert message.startswith(f"{key}: ")
    assert expected in message


@pytest.mark.parametrize(
    "sections",
    [
        {"stages": 0},
        {"seed": -1},
        {"pool": {"max_bad_share": 1.1}},
        {"pool": {"items_per_part": 0}},
        {"model": {"max_length": 0}},
        {"engine": {"batch_tokens": 0}},
        {"measure": {"rollouts": 0}},
        {"measure": {"temperature": 0}},
        {"measure": {"max_failed_share": -0.1}},
        {"ability": {"sigma": 0}},
        {"ability": {"theta_sd": -1}},
        {"ability": {"theta_sd": math.nan}},
        {"ability": {"feedback_strength": -0.1}},
        {"select": {"replay": 1.0}},
        {"select": {"mastered_p": 0.5}},
        {"select": {"target_p": 0.0}},
        {"select": {"target_p": 1.0}},
        {"train": {"learning_rate": 0}},
        {"train": {"warmup": 1.5}},
        {"train": {"weight_decay": -1}},
        {"train": {"max_grad_norm": 0}},
        {"train": {"lora": {"rank": 0}}},
        {"train": {"lora": {"dropout": 1.0}}},
        {"train": {"lora": {"targets": []}}},
        {"cluster": {"actors": 0}},
        {"cluster": {"cpus_per_actor": 0}},
        {"cluster": {"gpus_per_actor": -1}},
    ],
)
def test_values_out_of_range_are_refused_by_key(sections: dict[str, Any]) -> None:
    (section, content), *_ = sections.items()
    key = section
    while isinstance(content, dict):
        (name, content), *_ = content.items()
        key = f"{key}.{name}"
    message = refusal(**sections)
    assert message.startswith((f"{key}: input should be ", f"{key}: list should have at least 1 item"))
    assert f"got {content!r}" in message


@pytest.mark.parametrize("budget", [{"fraction": 0.0}, {"fraction": 1.5}, {"items": 0}, {"tokens": -3}])
def test_a_budget_of_nothing_or_of_more_than_all_is_refused(budget: dict[str, float]) -> None:
    (name, value), *_ = budget.items()
    message = refusal(select={"budget": budget})
    assert message.startswith(f"select.budget.{name}: input should be ")
    assert f"got {value}" in message


@pytest.mark.parametrize("budget", [{}, {"items": 5, "fraction": 0.1}, {"items": 5, "tokens": 7}])
def test_a_budget_is_exactly_one_of_three(budget: dict[str, float]) -> None:
    message = refusal(select={"budget": budget})
    assert message.startswith("select.budget: a budget is one of fraction, items, tokens; got ")
    assert all(name in message.partition("got ")[2] for name in budget)


@pytest.mark.parametrize("scope", ["zone", "probe"])
def test_rounds_and_nodes_of_two_kinds_are_refused_together(scope: str) -> None:
    told = refusal(measure={"scope": scope}, cluster={"placement": "split"})
    assert f"measure.scope = '{scope}' follows ability by probes" in told
    assert "or cluster.placement = 'shared'" in told
    validate(values(measure={"scope": scope}))


def test_a_batch_divides_among_the_workers() -> None:
    message = refusal(train={"batch_size": 32, "workers": 3})
    assert "train.batch_size = 32 does not divide among train.workers = 3; make it a multiple" in message
    assert validate(values(train={"batch_size": 33, "workers": 3}))


def test_a_config_cannot_be_changed_once_made() -> None:
    config = validate(values())
    with pytest.raises(ValidationError):
        config.train.epochs = 5  # type: ignore[misc]


def test_every_value_of_the_defaults_passes_its_own_checks() -> None:
    config = validate(values())
    assert Config.model_validate(config.model_dump(exclude_none=True)) == config


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"offload": True}, "train.sharding = 'none' makes no shares; expected train.sharding = 'fsdp'"),
        ({"sharding": "fsdp"}, "among train.workers, which is 1; expected 2 or more"),
        (
            {"sharding": "fsdp", "workers": 2, "function": "my:loop"},
            "loads its own; leave train.sharding",
        ),
        ({"sharding": "ddp"}, "'none' or 'fsdp'"),
        ({"packing": True, "function": "my:loop"}, "makes its own; leave train.packing out"),
    ],
)
def test_what_the_loop_that_trains_would_not_do_is_refused(train: dict[str, Any], told: str) -> None:
    assert told in refusal(train=train)
