"""Tiny models for tests, built on the spot: a Llama with random weights and a byte-level BPE tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXTS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
    "How many clips did Natalia sell altogether in April and May?",
    "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of babysitting.",
    "The quick brown fox jumps over the lazy dog, 1 2 3 4 5 6 7 8 9 0.\n\nAnd then?\n",
)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
    "<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def build_tokenizer(
    texts: Sequence[str] = TEXTS, vocab: int = 512, chat: bool = False, bos: bool = False
) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on ``texts``, at most ``vocab`` tokens, with <eos>, <pad> and the chat marks.

    With ``bos`` it puts <bos> before every text, as Llama's does.
    """
    special = ["<pad>", "<eos>", "<bos>", "<|start|>", "<|end|>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", core.token_to_id("<bos>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", bos_token="<bos>" if bos else None
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_model(
    directory: str | Path,
    *,
    texts: Sequence[str] = TEXTS,
    vocab: int = 512,
    heads: int = 2,
    layers: int = 2,
    max_length: int = 512,
    chat: bool = False,
    bos: bool = False,
    seed: int = 0,
    sharpness: float = 20.0,
) -> Path:
    """A LlamaForCausalLM of width 32 * heads (head_dim 32) with its tokenizer, saved into ``directory``.

    vocab is the model's number of logits; the tokenizer may find fewer tokens in ``texts``. Random logits
    are nearly flat: ``sharpness`` scales the head's weights so that rounding decides no
    first choice.
    """
    tokenizer = build_tokenizer(texts, vocab, chat, bos)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32 * heads,
        intermediate_size=96 * heads,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=32,
        max_position_embeddings=max_length,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(sharpness)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return Path(directory)
