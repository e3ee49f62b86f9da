"""Pools of prompts alone, and pools that are taken for such."""

from __future__ import annotations

from typing import Any

from tests.bad_inputs.cases import Desk, case, rows

PROMPTS = "Prompts alone"
ALONE: list[dict[str, Any]] = [{"prompt": row["prompt"]} for row in rows(40)]


def _alone(desk: Desk) -> None:
    """A sound run on prompts alone, with a grader that judges completions."""
    desk.pool(ALONE)
    desk.set("pool", reference="prompt")
    desk.set("measure", grader="tests.bad_inputs.graders:any_words")


VALUES: list[tuple[str, str, dict[str, Any]]] = [
    ("built-in training on references", "train", {"method": "lora"}),
    ("training on all turns", "train", {"turns": "all"}),
    ("a budget of tokens", "select", {"budget": {"tokens": 100}}),
    ("a column of responses", "pool", {"columns": {"response": "prompt"}}),
    ("NLL taken for difficulty", "ability", {"calibration": "feedback"}),
    ("`none` for the evaluation set", "evaluation", {"path": "pool.jsonl", "reference": "none"}),
    ("`greedy_match`, which has nothing to match", "measure", {"grader": "greedy_match"}),
    ("`likelihood` of no reference", "measure", {"grader": "likelihood"}),
    ("`numeric` without gold answers", "measure", {"grader": "numeric"}),
    ("a method that goes by the reference's NLL", "select", {"method": "ppl_high"}),
    ("a method that follows it over the stages", "select", {"method": "delta_loss"}),
    ("a method that measures references", "select", {"method": "ifd"}),
    ("a method that rates responses, beside", "select", {"beside": ["judge"]}),
]


def _value(did: str, section: str, values: dict[str, Any]) -> None:
    @case(PROMPTS, did)
    def spoilt(desk: Desk) -> None:
        _alone(desk)
        desk.set(section, **values)


for entry in VALUES:
    _value(*entry)


@case(PROMPTS, "a response column that is mistyped, and no word of prompts alone")
def mistyped(desk: Desk) -> None:
    desk.pool([{"prompt": row["prompt"], "respnse": row["response"]} for row in rows(40)])


@case(PROMPTS, "no column that is known to hold a prompt")
def no_prompt(desk: Desk) -> None:
    _alone(desk)
    desk.pool([{"text": row["prompt"]} for row in rows(40)])


@case(PROMPTS, "`init` of prompts alone")
def init_prompts(desk: Desk) -> None:
    desk.pool(ALONE)
    pool, config = desk.directory / "pool.jsonl", desk.directory / "new.toml"
    desk.alone, desk.command = True, ("init", str(pool), str(config))


def _row(did: str, row: dict[str, Any]) -> None:
    @case(PROMPTS, did)
    def spoilt(desk: Desk) -> None:
        _alone(desk)
        desk.model()
        desk.pool([*ALONE[1:], row])
        desk.command = ("check",)


SAID = {"role": "assistant", "content": "5"}
_row("a blank prompt", {"prompt": "  "})
_row("a conversation that ends with a response", {"messages": [{"role": "user", "content": "2 + 3?"}, SAID]})
_row("nothing that the user says", {"messages": [{"role": "tool", "content": "5"}]})
_row("a prompt of one token, which nothing predicts", {"prompt": "?"})
_row("a prompt that leaves no room for a response", {"prompt": "word " * 600})
_row("a response beside the prompt", {"prompt": "2 + 3?", "response": "It is 5."})
