"""One part without Ray: what an engine cannot answer is an error of its own row."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tests.measures.silent import Silent
from tests.pipeline.conftest import simulated_values
from zpd_ray import schema
from zpd_ray.config_file import validate
from zpd_ray.engines import Completions, ModelRef
from zpd_ray.engines.simulated import SimulatedEngine
from zpd_ray.measures import count
from zpd_ray.measures.answers import Answers

N, ROLLOUTS = 50, 4
REFUSED = 7  # a row


class RefusingEngine(SimulatedEngine):
    """Refuses one prompt, as an engine does whose context the prompt and its completion exceed."""

    def generate(self, items: pa.Table, rollouts: int, stage: int) -> Completions:
        """Without that prompt's rollouts."""
        completions = super().generate(items, rollouts, stage)
        completions.texts[REFUSED], completions.error[REFUSED] = [], "too long"
        return completions


@pytest.mark.parametrize("already", [False, True], ids=["scored", "not scored either"])
def test_a_refused_prompt_is_an_error_of_its_row_alone(tmp_path: Path, already: bool) -> None:
    measuring = {"grader": "numeric", "rollouts": ROLLOUTS}
    config = validate(simulated_values(tmp_path, n=1, measure=measuring))
    tokens = [0 if already and i == REFUSED else 20 for i in range(N)]
    values = {"response": ["#### 42"] * N, "answer": ["42"] * N, "response_tokens": tokens}
    rows = {"item_id": [f"item-{i}" for i in range(N)]} | values
    items = pa.table([rows.get(f.name, [None] * N) for f in schema.ITEM], schema=schema.ITEM)
    answers, reference = Answers(config), ModelRef("unused", stage=0)

    refused = answers.measure(RefusingEngine(config, reference), items, 0)
    answered = answers.measure(SimulatedEngine(config, reference), items, 0)

    others = [i for i in range(N) if i != REFUSED]
    assert refused.take(others).equals(answered.take(others))
    row = refused.slice(REFUSED, 1).to_pylist()[0]
    reason = "the response has no tokens" if already else "prompt refused: too long"
    empty = {"n_tokens": 0, "successes": 0, "rollouts": 0, "unparsed": 0}
    assert {key: row[key] for key in ("nll", "error", *empty)} == {"nll": None, "error": reason} | empty
    counted = count(refused)
    assert (counted["failed"], counted["responses"]) == (1, ROLLOUTS * (N - 1))


def never(completion: str, answer: str) -> bool:
    """A grader of the user's."""
    return False


class Answering(SimulatedEngine):
    """Says the same to every prompt."""

    SAID = ("the answer is 7", "#### 42", "7.0", "I do not know", "8")

    def generate(self, items: pa.Table, rollouts: int, stage: int) -> Completions:
        return Completions([list(self.SAID)] * items.num_rows, [None] * items.num_rows)


@pytest.mark.parametrize(
    ("grader", "answer", "other"),
    [
        ("numeric", "42", ("7", 2)),
        ("numeric", "7", ("42", 1)),  # of equally many the first in order
        ("exact", "8", ("#### 42", 1)),
        ("tests.measures.test_answers:never", "42", (None, 0)),  # nobody asks it for answers
    ],
)
def test_the_wrong_answer_that_most_responses_gave_is_kept(
    tmp_path: Path, grader: str, answer: str, other: tuple[str | None, int]
) -> None:
    config = validate(simulated_values(tmp_path, n=1, measure={"grader": grader, "rollouts": 5}))
    values = {"item_id": ["q"], "response": ["#### 42"], "answer": [answer], "response_tokens": [20]}
    items = pa.table([values.get(f.name, [None]) for f in schema.ITEM], schema=schema.ITEM)
    row = Answers(config).measure(Answering(config, ModelRef("unused")), items, 0).to_pylist()[0]
    assert (row["other_answer"], row["n_other"]) == other


def test_a_few_responses_are_kept_to_be_looked_at(tmp_path: Path) -> None:
    config = validate(simulated_values(tmp_path, n=1, measure={"grader": "numeric", "rollouts": 2}))
    values = {"response": ["#### 42"] * N, "answer": ["42"] * N, "response_tokens": [20] * N}
    rows = {"item_id": [f"item-{i}" for i in range(N)]} | values
    items = pa.table([rows.get(f.name, [None] * N) for f in schema.ITEM], schema=schema.ITEM)
    reference = ModelRef("unused", stage=0)
    silent, plain = (
        Answers(config).measure(engine(config, reference), items, 0) for engine in (Silent, SimulatedEngine)
    )
    assert [i for i, text in enumerate(plain["completion"].to_pylist()) if text is not None][:3] == [0, 1, 2]
    assert plain["completion"].null_count >= N - 4
    counted = count(silent)
    assert (counted["unparsed"], counted["responses"]) == (2 * N, 2 * N)
    assert counted["unparsed_example"] == "Let us think"
    assert count(plain)["unparsed_example"] == ""
