"""A tiny model that half knows how to add, and prompts of graded difficulty for it: made in a minute.

A prompt is a number of one to six digits and a digit to add, "4738+6=", and the answer is the sum, its last
digit first, "4474". The base model has seen many short numbers and few long ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<eos>", "<unk>"]
PAD, EOS, UNK = range(len(SPECIAL))
LEVELS = (1, 2, 3, 4, 5, 6)  # digits of the number
SEEN = (0.3, 0.3, 0.2, 0.12, 0.06, 0.02)  # shares of the levels in what the base model is trained on
ASKED = (0.2, 0.15, 0.1, 0.1, 0.15, 0.3)  # and among the prompts of reinforcement learning
WRONG = 0.15  # of the prompts' answers
LONGEST = 8  # tokens of an answer with its end


@dataclass(frozen=True)
class Prompts:
    """n prompts. answer: as the checker has it; level: digits. Lists (n,)."""

    prompt: list[str]
    answer: list[str]
    level: list[int]


def make_prompts(rng: np.random.Generator, n: int, shares: tuple[float, ...], wrong: float = 0.0) -> Prompts:
    """Prompts of the levels in these shares; a share ``wrong`` has the answer of another sum."""
    levels = rng.choice(LEVELS, n, p=shares)
    numbers, digits = rng.integers(10 ** (levels - 1), 10**levels), rng.integers(1, 10, n)
    sums = numbers + digits + np.where(rng.random(n) < wrong, rng.integers(1, 9, n), 0)
    prompts = [f"{x}+{y}=" for x, y in zip(numbers, digits, strict=True)]
    answers = [str(total)[::-1] for total in sums]
    return Prompts(prompts, answers, levels.tolist())


def correct(completions: list[str], answer: list[str], **_: object) -> list[float]:
    """The checker, as a reward function of TRL's: 1 where the whole sum is right."""
    return [float(text.strip() == right) for text, right in zip(completions, answer, strict=True)]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token a character."""
    words = {word: i for i, word in enumerate([*SPECIAL, *"0123456789+="])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=SPECIAL[UNK]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[PAD], eos_token=SPECIAL[EOS], unk_token=SPECIAL[UNK],
        padding_side="left", clean_up_tokenization_spaces=False,
    )  # fmt: skip


def make_base(seed: int, steps: int, batch: int = 128) -> LlamaForCausalLM:
    """A model of 0.1 million parameters after ``steps`` steps of supervised training."""
    torch.manual_seed(seed)
    rng, tokenizer = np.random.default_rng([seed, 0]), make_tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=192, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=32, pad_token_id=PAD, eos_token_id=EOS,
            bos_token_id=None,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        supervised_loss(model, tokenizer, make_prompts(rng, batch, SEEN)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval()


def supervised_loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Prompts) -> Tensor:
    """Mean NLL of the answers and their ends."""
    texts = [f"{p}{a}" for p, a in zip(rows.prompt, rows.answer, strict=True)]
    ids = tokenizer(texts, return_tensors="pt", padding=True).input_ids
    ids = functional.pad(ids, (0, 1), value=EOS)
    answers = torch.tensor([len(a) for a in rows.answer])[:, None]
    place = torch.arange(ids.shape[1], 0, -1)  # from the end, which is 1
    labels = ids.masked_fill(place > answers + 1, -100)
    return model(input_ids=ids, attention_mask=(ids != PAD).long(), labels=labels).loss


@torch.no_grad()
def accuracy(model: LlamaForCausalLM, rows: Prompts) -> np.ndarray:
    """Whether each is right by greedy decoding: bool (n,)."""
    tokenizer = make_tokenizer()
    batch = tokenizer(rows.prompt, return_tensors="pt", padding=True)
    ids = model.eval().generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        max_new_tokens=LONGEST,
        do_sample=False,
    )
    texts = tokenizer.batch_decode(ids[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
    return np.array(correct(texts, rows.answer)) == 1.0
