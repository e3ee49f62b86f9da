"""Where text becomes ids, and where the response begins."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from tests import tiny
from zpd_ray.engines import tokens

PLAIN = tiny.build_tokenizer()
CHAT = tiny.build_tokenizer(chat=True)
BOS = tiny.build_tokenizer(bos=True)
EOS, START, END = (PLAIN.convert_tokens_to_ids(token) for token in ("<eos>", "<|start|>", "<|end|>"))


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Characters, and the token "= 4", which merges a prompt that ends in "=" with a response " 4"."""
    characters = ["<eos>", *sorted(set("1+2= 43 yes")), "= ", "= 4"]
    core = Tokenizer(models.BPE({c: i for i, c in enumerate(characters)}, [("=", " "), ("= ", "4")]))
    core.pre_tokenizer = pre_tokenizers.Split("\x00", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")


@pytest.mark.parametrize("tokenizer", [PLAIN, CHAT, BOS], ids=["plain", "chat", "bos"])
@settings(max_examples=60, deadline=None)
@given(question=st.text(max_size=40), response=st.text(min_size=1, max_size=40))
def test_any_text_comes_back_and_prompts_are_those_of_generation(
    tokenizer: PreTrainedTokenizerFast, question: str, response: str
) -> None:
    encoded = tokens.encode(tokenizer, [ask(question)], [response], "\n")
    prompts, _ = tokens.encode_prompts(tokenizer, [ask(question)], "\n")
    assert encoded.error == [None]
    assert encoded.prompt_ids == prompts
    assert encoded.response_ids[0][-1] == tokens.end_id(tokenizer)
    assert tokenizer.decode(encoded.response_ids[0][:-1]) == response


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(max_size=60), max_size=5))
def test_truncation_and_padding_that_a_tokenizer_was_saved_with_are_not_used(texts: list[str]) -> None:
    saved = tiny.build_tokenizer()
    saved.backend_tokenizer.enable_truncation(4)
    saved.backend_tokenizer.enable_padding(length=8)
    found = tokens.encode_prompts(saved, [ask(text) for text in texts], "\n")
    assert found == tokens.encode_prompts(PLAIN, [ask(text) for text in texts], "\n")
    assert found[0] == [PLAIN(f"{text}\n", add_special_tokens=False).input_ids for text in texts]


def test_a_tokenizer_in_plain_python_does_as_well() -> None:
    tokenizer = ByT5Tokenizer()  # bytes, three ids up; end-of-text is 1
    encoded = tokens.encode(tokenizer, [ask("2+2"), ask("?")], ["4", "né"], "=")
    assert encoded.prompt_ids == [[b + 3 for b in b"2+2="], [b + 3 for b in b"?="]]
    assert encoded.response_ids == [[ord("4") + 3, 1], [*(b + 3 for b in "né".encode()), 1]]
    assert tokens.encode(tokenizer, [], [], "=").prompt_ids == []


def test_boundary_stays_where_the_tokenizer_merges_across_it() -> None:
    tokenizer = merging_tokenizer()
    assert tokenizer("1+3= 4").input_ids[-1] == tokenizer.convert_tokens_to_ids("= 4")
    encoded = tokens.encode(tokenizer, [ask("1+3="), ask("1+3=")], [" 4", "4"], "")
    assert tokenizer.convert_ids_to_tokens(encoded.prompt_ids[0]) == list("1+3=")
    assert tokenizer.convert_ids_to_tokens(encoded.response_ids[0]) == [" ", "4", "<eos>"]
    assert tokenizer.convert_ids_to_tokens(encoded.response_ids[1]) == ["4", "<eos>"]


def test_byte_level_merge_across_the_boundary() -> None:
    tokenizer = tiny.build_tokenizer(["\n\n and \n\n or \n\n"] * 5)
    assert len(tokenizer("\n\n").input_ids) == 1
    encoded = tokens.encode(tokenizer, [ask("Q")], ["\nA"], "\n")
    assert tokenizer.decode(encoded.prompt_ids[0]) == "Q\n"
    assert tokenizer.decode(encoded.response_ids[0][:-1]) == "\nA"


def test_chat_template_frames_the_prompt_and_says_how_an_answer_ends() -> None:
    encoded = tokens.encode(CHAT, [[{"role": "system", "content": ""}, *ask("x")]], ["yes"], "unused")
    expected = "<|start|>system\n<|end|>\n<|start|>user\nx<|end|>\n<|start|>assistant\n"
    assert CHAT.decode(encoded.prompt_ids[0]) == expected
    assert encoded.response_ids[0][-1] == END
    assert tokens.stop_ids(CHAT) == {END, EOS}


def test_a_template_that_leaves_out_an_answer_does_not_say_how_it_ends() -> None:
    tokenizer = tiny.build_tokenizer(chat=True)
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ message['content'] }}", "")
    assert tokens.end_id(tokenizer) == tokenizer.eos_token_id


def test_a_template_that_prints_the_day_gives_the_same_prompt_every_day() -> None:
    tokenizer = tiny.build_tokenizer(chat=True)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}"
    assert tokens.prompt_texts(tokenizer, [ask("x")], "\n")[0] == ["26 Jul 2024 x"]


def test_template_that_refuses_a_row_fails_that_row_alone() -> None:
    rows = [ask("one"), [{"role": "tool", "content": "two"}], ask("three")]
    encoded = tokens.encode(CHAT, rows, ["1", "2", "3"], "\n")
    alone = tokens.encode(CHAT, [rows[2]], ["3"], "\n")
    assert [error is None for error in encoded.error] == [True, False, True]
    assert "unknown role tool" in str(encoded.error[1])
    assert encoded.prompt_ids[1] == encoded.response_ids[1] == []
    assert (encoded.prompt_ids[2], encoded.response_ids[2]) == (alone.prompt_ids[0], alone.response_ids[0])


def test_empty_system_prompt_leaves_no_trace_without_a_template() -> None:
    with_system = [{"role": "system", "content": ""}, *ask("x")]
    assert tokens.prompt_texts(PLAIN, [with_system, ask("x")], "\n")[0] == ["x\n", "x\n"]
    two = [{"role": "system", "content": "Be brief."}, *ask("x")]
    assert tokens.prompt_texts(PLAIN, [two], "\n")[0] == ["Be brief.\n\nx\n"]


def test_end_of_text_is_appended_once_and_refused_inside() -> None:
    encoded = tokens.encode(PLAIN, [ask("q")] * 3, ["yes", "yes<eos>", "yes<eos>no"], "\n")
    assert encoded.response_ids[0] == encoded.response_ids[1]
    assert encoded.response_ids[0].count(EOS) == 1
    assert "end-of-text" in str(encoded.error[2])


def test_special_tokens_in_a_question_are_read_as_the_tokenizer_reads_them() -> None:
    encoded = tokens.encode(PLAIN, [ask("a <eos> b")], ["yes"], "\n")
    assert encoded.error == [None]
    assert encoded.prompt_ids[0].count(EOS) == 1


def test_begin_of_text_comes_once_and_only_without_a_template() -> None:
    bos = BOS.bos_token_id
    encoded = tokens.encode(BOS, [ask("q")], ["yes"], "\n")
    assert encoded.prompt_ids[0][0] == bos
    assert (encoded.prompt_ids[0] + encoded.response_ids[0]).count(bos) == 1
    assert tokens.leading_ids(tiny.build_tokenizer(chat=True, bos=True)) == []


def test_rows_without_tokens_say_so() -> None:
    encoded = tokens.encode(PLAIN, [ask("q"), ask("q"), ask("")], ["", None, "yes"], "")
    assert [str(error).split(";")[0] for error in encoded.error] == [
        "the response has no tokens",
        "the response has no tokens",
        "the prompt has no tokens",
    ]
    assert tokens.encode(PLAIN, [], [], "\n").error == []


def test_arrow_columns_and_lists_are_alike(make_items: Callable[..., pa.Table]) -> None:
    items = make_items()
    by_arrow = tokens.encode(PLAIN, items["messages"], items["response"], "\n")
    by_list = tokens.encode(PLAIN, items["messages"].to_pylist(), items["response"].to_pylist(), "\n")
    assert by_arrow == by_list
