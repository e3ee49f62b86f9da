"""TOML in and out, --set on top, relative paths, what differs between two configs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zpd_ray.config import Budget, Config
from zpd_ray.config_file import differences, load_config, to_toml, validate
from zpd_ray.errors import ZpdError

TEXT = """
output = "runs/one"
seed = 4
[pool]
path = "data/*.jsonl"
[evaluation]
path = ["eval.jsonl", "/data/more.parquet", "s3://bucket/eval"]
[model]
path = "org/name"
[select]
budget = { fraction = 0.1 }
"""


@pytest.fixture
def run_toml(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(TEXT)
    return path


def load(path: Path, *overrides: str) -> Config:
    return load_config(str(path), overrides)


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ZpdError) as refused:
        load(path, *overrides)
    return str(refused.value)


def test_relative_paths_are_seen_from_the_file(
    run_toml: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    config = load(run_toml)
    here = run_toml.parent
    assert config.output == str(here / "runs/one")
    assert config.pool.path == str(here / "data/*.jsonl")
    assert config.evaluation is not None
    assert config.evaluation.path == [str(here / "eval.jsonl"), "/data/more.parquet", "s3://bucket/eval"]


def test_a_file_given_by_a_relative_path_means_the_same(
    run_toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_toml.parent)
    assert load(Path("run.toml")) == load(run_toml)


def test_a_model_is_a_directory_where_there_is_one_and_a_hub_id_elsewhere(run_toml: Path) -> None:
    assert load(run_toml).model.path == "org/name"
    (run_toml.parent / "org/name").mkdir(parents=True)
    assert load(run_toml).model.path == str(run_toml.parent / "org/name")
    missing = load(run_toml, "model.path=./not-there").model.path
    assert Path(missing) == run_toml.parent / "not-there"


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("stages=5", "", "stages", 5),
        ("train.learning_rate=2e-3", "train", "learning_rate", 2e-3),
        ("train.epochs = 7", "train", "epochs", 7),
        ("train.method=full", "train", "method", "full"),
        ('train.method="full"', "train", "method", "full"),
        ("select.allow_trained=true", "select", "allow_trained", True),
        ("model.separator=", "model", "separator", ""),
        ('model.separator="\\n\\n"', "model", "separator", "\n\n"),
        ("measure.grader=my.module:grade=x", "measure", "grader", "my.module:grade=x"),
        ('pool.columns={prompt="question"}', "pool", "columns", {"prompt": "question"}),
        ("pool.columns.prompt=question", "pool", "columns", {"prompt": "question"}),
    ],
)
def test_set_takes_precedence_and_needs_no_quotes(
    run_toml: Path, override: str, section: str, key: str, value: Any
) -> None:
    config = load(run_toml, override)
    assert getattr(getattr(config, section) if section else config, key) == value


def test_later_overrides_win_and_lists_are_toml(run_toml: Path) -> None:
    config = load(run_toml, "stages=5", "stages=6", 'train.lora.targets=["q_proj", "v_proj"]')
    assert config.stages == 6
    assert config.train.lora.targets == ["q_proj", "v_proj"]


@pytest.mark.parametrize("value", ["2026", "1e3", "2026-11-21", "true"])
def test_text_that_looks_like_another_type_needs_quotes_and_is_refused_without(
    run_toml: Path, value: str
) -> None:
    assert Path(load(run_toml, f'output="{value}"').output).name == value
    assert "output: input should be a valid string, got " in refusal(run_toml, f"output={value}")


@pytest.mark.parametrize(("unit", "amount"), [("items", 40), ("tokens", 900), ("fraction", 0.5)])
def test_a_budget_on_the_command_line_replaces_that_of_the_file(
    run_toml: Path, unit: str, amount: float
) -> None:
    assert load(run_toml, f"select.budget.{unit}={amount}").select.budget == Budget(**{unit: amount})


def test_the_last_of_two_budgets_on_the_command_line_counts(run_toml: Path) -> None:
    config = load(run_toml, "select.budget.items=40", "select.budget.tokens=900")
    assert config.select.budget == Budget(tokens=900)


@pytest.mark.parametrize("override", ["stages", "", "=3", " =3"])
def test_an_override_without_key_or_value_says_what_is_expected(run_toml: Path, override: str) -> None:
    message = refusal(run_toml, override)
    assert repr(override) in message
    assert "expected section.key=value" in message


def test_an_override_below_a_value_is_refused(run_toml: Path) -> None:
    assert "seed is a value, not a section" in refusal(run_toml, "seed.x=3")


def test_an_override_of_an_unknown_key_names_the_nearest(run_toml: Path) -> None:
    assert "unknown key train.epoch; did you mean train.epochs?" in refusal(run_toml, "train.epoch=3")
    assert "unknown key trian; did you mean train?" in refusal(run_toml, "trian.epochs=3")


@pytest.mark.parametrize("setting", ["output", "pool.path", "evaluation.path"])
@pytest.mark.parametrize("uri", ["s3://key:hunter2@bucket/x", "s3://bucket/x?secret_key=hunter2"])
def test_credentials_in_a_uri_are_refused_and_not_shown(run_toml: Path, setting: str, uri: str) -> None:
    with pytest.raises(ZpdError, match=rf"{setting} is a URI of s3 with credentials in it") as refused:
        load_config(str(run_toml), [f"{setting}={uri}"])
    assert "hunter2" not in str(refused.value)


def test_credentials_in_one_of_several_paths_are_refused(run_toml: Path) -> None:
    with pytest.raises(ZpdError, match=r"pool\.path is a URI"):
        load_config(str(run_toml), ['pool.path=["a.jsonl", "s3://key:hunter2@bucket/x"]'])


def test_a_file_that_is_not_there_or_is_a_directory_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        message = refusal(path)
        assert message.startswith(f"cannot read the config {path}")
        assert "give the path of a TOML file" in message


def test_a_file_that_is_no_toml_or_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("output = runs/one\n")
    assert f"{path} is not valid TOML" in refusal(path)
    path.write_bytes(b"output = '\xff\xfe'\n")
    assert f"cannot read the config {path}" in refusal(path)


def test_toml_round_trip(run_toml: Path) -> None:
    config = load(run_toml, 'pool.columns={prompt="q", response="a"}', "model.max_length=77")
    assert validate(tomllib.loads(to_toml(config))) == config


SECTIONS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**63 - 1),
        "model": st.fixed_dictionaries({"path": st.text(min_size=1), "separator": st.text()}),
        "pool": st.fixed_dictionaries({"path": st.lists(st.text(min_size=1), min_size=1)}),
        "train": st.fixed_dictionaries(
            {"learning_rate": st.floats(1e-300, 1e3), "lora": st.just({"targets": ["x"]})}
        ),
        "select": st.fixed_dictionaries(
            {"budget": st.fixed_dictionaries({"fraction": st.floats(1e-9, 1.0)})}
        ),
    }
)


@given(SECTIONS)
@settings(max_examples=60, deadline=None)
def test_toml_round_trip_keeps_every_text_and_the_bits_of_every_number(sections: dict[str, Any]) -> None:
    config = validate({"output": "out", **sections})
    assert validate(tomllib.loads(to_toml(config))) == config


def test_the_resolved_file_holds_the_defaults(run_toml: Path) -> None:
    written = tomllib.loads(to_toml(load(run_toml)))
    assert written["train"]["schedule"] == "cosine"
    assert written["ability"]["sigma"] == 0.5


def test_equal_configs_do_not_differ(run_toml: Path) -> None:
    assert differences(load(run_toml), load(run_toml)) == []


def test_differences_are_told_by_key_with_both_values(run_toml: Path) -> None:
    changed = differences(load(run_toml), load(run_toml, "train.epochs=2", "select.budget.items=9", "seed=5"))
    assert changed == [
        "seed: 4 -> 5",
        "select.budget.fraction: 0.1 -> None",
        "select.budget.items: None -> 9",
        "train.epochs: 1 -> 2",
    ]


def test_a_section_that_comes_or_goes_is_a_difference(run_toml: Path) -> None:
    old = load(run_toml)
    assert differences(old, old.model_copy(update={"evaluation": None}))
    mapped = load(run_toml, "pool.columns.prompt=q")
    assert any("prompt" in line for line in differences(old, mapped))


def test_resources_and_place_are_no_difference(run_toml: Path) -> None:
    changes = ("cluster.actors=9", "output=elsewhere", "measure.patience=9", "train.rehearse=false")
    assert differences(load(run_toml), load(run_toml, *changes)) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "pool is missing; add it to the config or give --set pool.path=..."),
        ("", "select is missing; add it to the config or give --set select.budget.fraction=..."),
        ("pool = 'x.jsonl'", "pool is a section with keys (allow_damaged, columns, format, items_per_part"),
        ("pool = 'x.jsonl'", "got 'x.jsonl'; give pool.path = ..."),
        (
            "[select]\nbudget = 5",
            "select.budget is a section with keys (fraction, items, tokens), got 5; give",
        ),
    ],
)
def test_a_missing_section_is_told_with_a_key_that_sets_it(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ZpdError) as refused:
        load_config(str(file))
    assert told in str(refused.value)


@pytest.mark.parametrize(("given", "local"), [("models/bsae", True), ("a/b/c", True), ("org/name", False)])
def test_a_misspelt_directory_is_not_taken_for_a_hub_id(tmp_path: Path, given: str, local: bool) -> None:
    (tmp_path / "models/base").mkdir(parents=True)
    file = tmp_path / "run.toml"
    file.write_text(
        f'output = "out"\npool = {{ path = "x" }}\nmodel = {{ path = "{given}" }}\n'
        "select = { budget = { items = 1 } }\n"
    )
    assert load_config(str(file)).model.path == (str(tmp_path / given) if local else given)


def test_a_proxy_and_a_reference_are_found_as_the_model_is(tmp_path: Path) -> None:
    (tmp_path / "models/small").mkdir(parents=True)
    file = tmp_path / "run.toml"
    file.write_text(
        'output = "out"\npool = { path = "x" }\nmodel = { path = "org/name" }\n'
        '[select]\nbudget = { items = 1 }\nproxy = "models/small"\nreference_model = "org/other"\n'
    )
    select = load_config(str(file)).select
    assert (select.proxy, select.reference_model) == (str(tmp_path / "models/small"), "org/other")
