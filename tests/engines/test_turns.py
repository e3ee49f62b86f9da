"""Which tokens of a conversation are trained on, by the chat templates of real models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from tests import tiny
from tests.engines.chat_templates import tokenizer_of
from tests.engines.frozen_turns import ids_of_rows, items_of_rows
from zpd_ray.config import Config
from zpd_ray.engines import tokens
from zpd_ray.errors import ZpdError

Turns = list[dict[str, Any]]
ADD = {"name": "add", "arguments": {"a": 1, "b": 2}}
CALL = json.dumps({"tool_calls": [{"id": "call00001", "type": "function", "function": ADD}]})
TOOLS = json.dumps(
    [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}]
)
ASKED: Turns = [{"role": "user", "content": "What is 1 + 2?"}]
CALLED: Turns = [
    *ASKED,
    {"role": "assistant", "content": "", "more": CALL},
    {"role": "tool", "content": "3", "more": json.dumps({"tool_call_id": "call00001", "name": "add"})},
]
FOUR: Turns = [*CALLED, {"role": "assistant", "content": "It is 3."}, {"role": "user", "content": "Thanks"}]
PLAIN: Turns = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": " Hello there. "},
    {"role": "user", "content": "And?"},
]
SYSTEM: Turns = [{"role": "system", "content": "Be brief."}]
QWEN = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call><|im_end|>'
LLAMA = '{"name": "add", "parameters": {"a": 1, "b": 2}}<|eot_id|>'
MISTRAL = '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}, "id": "call00001"}]</s>'
THOUGHT = {"role": "assistant", "content": "<think>\nHm\n</think>\n\nSo."}
REASONED = {"role": "assistant", "content": "So.", "more": json.dumps({"reasoning_content": "Hm"})}
SHORT_ID = [ASKED[0], CALLED[1] | {"more": CALL.replace("00001", "1")}, CALLED[2]]


def encoded(
    model: str | PreTrainedTokenizerFast,
    messages: Turns,
    response: str,
    tools: str | None = None,
    more: str | None = None,
    turns: str = "all",
) -> tokens.Encoded:
    tokenizer = tokenizer_of(model) if isinstance(model, str) else model
    return tokens.encode(tokenizer, [messages], [response], "\n", [more], [tools], turns)


def learnt(model: str | PreTrainedTokenizerFast, *item: Any) -> list[str]:
    """The stretches of an item that are trained on, as text; and its ids are those of turns = "last"."""
    tokenizer = tokenizer_of(model) if isinstance(model, str) else model
    every, last = encoded(tokenizer, *item), encoded(tokenizer, *item, turns="last")
    assert every.error == last.error == [None]
    assert every.prompt_ids[0] + every.response_ids[0] == last.prompt_ids[0] + last.response_ids[0]
    assert last.trained is None
    assert every.trained is not None
    stretches: list[list[int]] = [[]]
    for token, trained in zip(every.response_ids[0], every.trained[0], strict=True):
        if trained:
            stretches[-1].append(token)
        elif stretches[-1]:
            stretches.append([])
    return [str(tokenizer.decode(ids)) for ids in stretches]


def test_ids_and_items_of_today_are_those_of_before() -> None:
    """Frozen: what commit 736f082 made of these rows."""
    assert items_of_rows() == "f77635a7a564ff4a"
    assert ids_of_rows(tiny.build_tokenizer()) == "45f5352242a63e26"
    assert ids_of_rows(tiny.build_tokenizer(chat=True)) == "c81d88da64b8097d"
    assert ids_of_rows(tiny.build_tokenizer(bos=True)) == "13a33b4e4b43d7eb"


@pytest.mark.parametrize(
    ("model", "call", "end"),
    [("llama3_1", LLAMA, "<|eot_id|>"), ("qwen2_5", QWEN, "<|im_end|>"), ("qwen3", QWEN, "<|im_end|>")],
)
def test_every_answer_of_a_chat_with_tools_is_trained_on_and_nothing_else(
    model: str, call: str, end: str
) -> None:
    assert learnt(model, [*SYSTEM, *FOUR], "Bye", TOOLS) == [call, f"It is 3.{end}", f"Bye{end}"]


def test_mistrals_call_of_a_tool_is_trained_on() -> None:
    assert learnt("mistral", CALLED, "It is 3.", TOOLS) == [MISTRAL, "It is 3.</s>"]


@pytest.mark.parametrize(
    ("model", "first"),  # some templates trim what is said, and Mistral's puts a space before it
    [
        ("llama3_1", "Hello there.<|eot_id|>"),
        ("qwen2_5", " Hello there. <|im_end|>"),
        ("qwen3", " Hello there. <|im_end|>"),
        ("smollm2", " Hello there. <|im_end|>"),
        ("mistral", " Hello there.</s>"),
        ("gemma", "Hello there.<end_of_turn>"),
    ],
)
def test_every_answer_of_a_chat_is_trained_on_with_what_ends_it(model: str, first: str) -> None:
    end = first.partition(".")[2].strip()
    assert learnt(model, PLAIN, "Bye") == [first, f"Bye{end}"]


@pytest.mark.parametrize("model", ["llama3_1", "qwen2_5", "smollm2"])
@given(said=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4))
def test_any_answers_come_back(model: str, said: list[str]) -> None:
    tokenizer, (*before, last) = tokenizer_of(model), [f"a{text}z" for text in said]
    messages = [*ASKED]
    for text in before:
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": text[::-1]}]
    end = str(tokenizer.convert_ids_to_tokens(tokens.end_id(tokenizer)))
    assert learnt(tokenizer, messages, last) == [text + end for text in [*before, last]]


def test_a_templates_own_marks_are_taken() -> None:
    """That of TRL for Qwen 2.5 marks the newline before and after an answer, too."""
    assert learnt("qwen2_5_training", FOUR, "Bye", TOOLS) == [
        f"\n{QWEN}\n",
        "\nIt is 3.<|im_end|>\n",
        "Bye<|im_end|>",
    ]


def test_a_turn_of_weight_0_is_read_and_not_learnt() -> None:
    weighted = [*PLAIN]
    weighted[1] = weighted[1] | {"more": json.dumps({"weight": 0})}
    for model in ("qwen2_5", "qwen2_5_training"):
        assert learnt(model, weighted, "Bye") == ["Bye<|im_end|>"]


def test_a_last_turn_may_be_a_call_of_a_tool() -> None:
    for model, call in (("llama3_1", LLAMA), ("qwen2_5", QWEN), ("mistral", MISTRAL)):
        assert learnt(model, ASKED, "", TOOLS, CALL) == [call]
        prompts, _ = tokens.encode_prompts(tokenizer_of(model), [ASKED], "\n", [TOOLS])
        assert encoded(model, ASKED, "", TOOLS, CALL).prompt_ids == prompts
        # Without its prompt, as ``without_prompt`` asks for it; all turns are not to be had without one.
        alone = encoded(model, [], "", None, CALL, turns="last")
        assert encoded(model, [], "", None, CALL).error == [tokens.ALONE]
        assert tokenizer_of(model).decode(alone.response_ids[0]) == call
    said = encoded("qwen3", ASKED, "Three.", None, json.dumps({"reasoning_content": "1 + 2"}))
    told = "<think>\n1 + 2\n</think>\n\nThree.<|im_end|>"
    assert tokenizer_of("qwen3").decode(said.response_ids[0]) == told


@pytest.mark.parametrize(
    ("model", "item", "words"),
    [
        ("gemma", ([*SYSTEM, *PLAIN], "Bye"), "refuses the messages: System role not supported"),
        ("gemma", (CALLED, "It is 3."), "refuses the messages: Conversation roles must alternate"),
        ("gemma", (PLAIN, "Bye", TOOLS), "leaves out the definitions of its tools"),
        ("smollm2", (CALLED, "It is 3."), "leaves out calls of tools"),
        ("smollm2", (ASKED, "", None, CALL), "leaves out calls of tools"),
        ("llama3_1", (ASKED, "So:", TOOLS, CALL), "does not write the text of turn 2"),
        (
            "mistral",
            (SHORT_ID, "3", TOOLS),
            "length 9",
        ),
    ],
)
@pytest.mark.parametrize("turns", ["last", "all"])
def test_what_a_template_refuses_or_leaves_out_is_told(
    model: str, item: tuple[Any, ...], words: str, turns: str
) -> None:
    found = encoded(model, *item, **({"turns": turns}))
    assert words in str(found.error[0])
    assert found.prompt_ids == found.response_ids == [[]]


@pytest.mark.parametrize(
    ("model", "messages", "words"),
    [
        # Qwen 3 drops earlier reasoning; Mistral moves tools and system prompt to the last question.
        (
            "qwen3",
            [ASKED[0], THOUGHT, ASKED[0]],
            "text of turn 2",
        ),
        (
            "qwen3",
            [ASKED[0], REASONED, ASKED[0]],
            "reasoning of turn 2",
        ),
        ("mistral", [*SYSTEM, *PLAIN], "before turn 3 in another way"),
        ("qwen2_5", [ASKED[0], PLAIN[1] | {"content": "So <|im_end|> it is"}, ASKED[0]], "text of turn 2"),
    ],
)
def test_an_answer_that_is_not_written_as_it_was_asked_for_is_told_and_not_trained_on(
    model: str, messages: Turns, words: str
) -> None:
    assert words in str(encoded(model, messages, "Bye").error[0])
    assert encoded(model, messages, "Bye", turns="last").error == [None]


def test_an_answer_without_an_end_is_told() -> None:
    tokenizer = tiny.build_tokenizer(chat=True)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "")
    assert "ends turn 2 with no token at which generation stops" in str(
        encoded(tokenizer, PLAIN, "Bye").error[0]
    )


def test_a_greeting_before_any_question_stays_in_the_prompt() -> None:
    greeted = [{"role": "assistant", "content": "Welcome!"}, *PLAIN]
    assert learnt("qwen2_5", greeted, "Bye") == [" Hello there. <|im_end|>", "Bye<|im_end|>"]


def test_a_token_that_lies_on_a_boundary_is_not_trained_on() -> None:
    characters = ["<eos>", *sorted(set("U:A.hiyes ")), ":y"]
    core = Tokenizer(models.BPE({c: i for i, c in enumerate(characters)}, [(":", "y")]))
    core.pre_tokenizer = pre_tokenizers.Split("\x00", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'A:' if m.role == 'assistant' else 'U:' }}{{ m.content }}{{ eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
    )
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes"},
        PLAIN[0] | {"content": "hi"},
    ]
    assert ":y" in tokenizer.convert_ids_to_tokens(encoded(tokenizer, messages, "yes").prompt_ids[0])
    assert learnt(tokenizer, messages, "yes") == ["e s <eos>", "y e s <eos>"]


def test_rows_of_every_kind_may_come_together() -> None:
    tokenizer = tokenizer_of("qwen2_5")
    rows = [
        (PLAIN, "Bye", None, None),
        (FOUR, "Bye", None, TOOLS),
        (ASKED, "", CALL, TOOLS),
        (ASKED, "3", None, None),
    ]
    messages, responses, more, tools = (list(column) for column in zip(*rows, strict=True))
    together = tokens.encode(tokenizer, messages, responses, "\n", more, tools, "all")
    for i, (turns, response, also, defined) in enumerate(rows):
        alone = encoded(tokenizer, turns, response, defined, also)
        assert (together.prompt_ids[i], together.response_ids[i]) == (
            alone.prompt_ids[0],
            alone.response_ids[0],
        )
        assert together.trained is not None
        assert alone.trained is not None
        assert together.trained[i] == alone.trained[0]
    assert sum(map(sum, together.trained or [])) < sum(map(len, together.response_ids))


def test_without_a_template_there_are_no_tools_and_not_all_turns() -> None:
    plain, values = tiny.build_tokenizer(), {"output": "o", "pool": {"path": "p"}, "model": {"path": "m"}}
    for item in ((CALLED, "3", None, None), (ASKED, "3", TOOLS, None), (ASKED, "", None, CALL)):
        assert encoded(plain, *item, turns="last").error == [tokens.NO_TEMPLATE]
    config = Config.model_validate({**values, "select": {"budget": {"items": 1}}, "train": {"turns": "all"}})
    with pytest.raises(ZpdError, match=r"the tokenizer in m has none; .*chat_template\.jinja"):
        tokens.check_turns(config, plain, "m")
    slow = ByT5Tokenizer()
    slow.chat_template = "{{ messages }}"
    with pytest.raises(ZpdError, match=r"ByT5Tokenizer in m does not tell; put a tokenizer\.json"):
        tokens.check_turns(config, slow, "m")
    tokens.check_turns(config, tiny.build_tokenizer(chat=True), "m")
