"""Make the quickstart's world: a pool, an evaluation set and a tiny base model, from a seed.

The task is to translate four English words into a made-up language, word by word:

    translate river child stone lantern =   ->   tazo pemi lulo vika

The base model is trained from scratch on a corpus in which words differ in how often they occur.
It masters the 40 common words and knows the rarer ones, in four tiers, less and less. So the pool
holds what a pool does, and the column `truth`, which no pipeline reads, says which is which:

truth           | what it is                                                 | can it teach?
----------------|------------------------------------------------------------|----------------------
easy            | four common words                                          | no, it is known
learnable       | the rarest word of tier 1 to 4 (`level`), lower tiers      | yes, the lower levels
                | around it                                                  | first
out_of_reach    | `encode ...`: words picked by a hash of the prompt         | no, nothing transfers
wrong_reference | a translation with one or two words replaced               | it teaches errors

A sentence of a higher level contains words of the lower tiers, so it comes within reach as those
are learned: that is what lets the selection climb. The evaluation set holds easy and learnable
sentences, right references only, none of them in the pool. Same seed, same machine and same
number of threads: same files.

    python examples/quickstart/generate.py                     # writes examples/quickstart/data
    python examples/quickstart/generate.py /tmp/world --seed 3
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

COMMON_WORDS = """
water house child mother father friend hand eye head day night sun moon star tree stone fire road
river hill rain wind bread fish bird dog cat horse door table book song king ship snow field milk
salt gold cup
"""
RARER_WORDS = """
garden window candle bridge forest island market village summer winter letter mirror basket blanket
kettle ladder hammer needle pillow saddle feather pepper butter button
meadow harbor canyon desert valley glacier orchard stable cellar chimney lantern anchor compass
barrel bucket shovel pocket ribbon thimble wagon saucer pebble willow falcon
beacon cobbler dungeon ember fiddle goblet hamlet ivory jasmine kernel locket mantle nectar obelisk
parchment quarry rafter sickle tallow urchin vellum walnut yeoman zephyr
abacus bodkin cistern dirk epaulet firkin gimlet hauberk ingot jerkin kirtle lozenge mattock noggin
osprey palfrey quiver rowel sextant truncheon ullage verger wicket yarrow
"""
ENGLISH = (COMMON_WORDS + RARER_WORDS).split()
COMMON = len(COMMON_WORDS.split())
RARER = len(ENGLISH) - COMMON
TIERS = 4
TIER_SIZE = RARER // TIERS
LENGTH = 4  # words in a sentence
SPECIAL = ["<pad>", "<eos>", "<unk>", "translate", "encode", "="]
PAD, EOS, UNK, TRANSLATE, ENCODE, EQUALS = range(len(SPECIAL))

POOL_SHARES = {"easy": 0.40, "learnable": 0.32, "out_of_reach": 0.16, "wrong_reference": 0.12}
EVAL_SHARES = {"easy": 1 / 3, "learnable": 2 / 3}
GROUPS = {"easy": "easy", "learnable": "learnable", "out_of_reach": "too_hard"}

# The corpus of pre-training: how often the rarest and the least rare of the rarer words are seen,
# the share of wrong words (without it an untouched model is surer than any fine-tuned one, and
# every known item seems to get harder), and the share of `encode` lines.
EXPOSURES = (40.0, 4.0)
CORPUS_NOISE = 0.02
CORPUS_ENCODE = 0.1

Row = dict[str, str | int]


@dataclass(frozen=True)
class World:
    """The made-up language: `translation[i]` is the index in `foreign` of English word i."""

    foreign: list[str]
    translation: np.ndarray

    @property
    def vocabulary(self) -> list[str]:
        """Every token, the special ones first, then English, then the made-up language."""
        return SPECIAL + ENGLISH + self.foreign


def make_world(rng: np.random.Generator) -> World:
    """Make up one word for each English one, of two syllables, none of them English."""
    syllables = [c + v for c in "bdfgjklmnprstvz" for v in "aeiou"]
    words = [a + b for a in syllables for b in syllables if a + b not in ENGLISH]
    foreign = [str(w) for w in rng.choice(words, len(ENGLISH), replace=False)]
    return World(foreign, rng.permutation(len(ENGLISH)))


def tier_words(tier: int) -> np.ndarray:
    """Indices of the English words of a tier; tier 0 is the common words."""
    if tier == 0:
        return np.arange(COMMON)
    return COMMON + np.arange((tier - 1) * TIER_SIZE, tier * TIER_SIZE)


def draw_sentence(rng: np.random.Generator, level: int) -> np.ndarray:
    """Word indices, shape (LENGTH,): one of tier `level`, each other of a lower tier or common."""
    if level == 0:
        return rng.integers(0, COMMON, LENGTH)
    lower = np.where(rng.random(LENGTH - 1) < 0.5, rng.integers(0, level, LENGTH - 1), 0)
    words = [rng.choice(tier_words(int(tier))) for tier in [level, *lower]]
    return rng.permutation(words)


def hashed_words(world: World, prompt: str) -> np.ndarray:
    """The answer to an `encode` prompt: a rule with no pattern that a model could learn."""
    digest = hashlib.sha256(("".join(world.foreign) + prompt).encode()).digest()
    return world.translation[np.frombuffer(digest[: 2 * LENGTH], dtype="<u2") % COMMON]


def corrupt(rng: np.random.Generator, words: np.ndarray) -> np.ndarray:
    """Replace one or two words by other words of the language."""
    wrong = words.copy()
    for place in rng.choice(LENGTH, rng.integers(1, 3), replace=False):
        others = np.delete(np.arange(len(ENGLISH)), words[place])
        wrong[place] = rng.choice(others)
    return wrong


def make_row(world: World, rng: np.random.Generator, truth: str, level: int) -> Row:
    """One item: prompt, response, answer, group, and the two columns of truth."""
    sentence = draw_sentence(rng, level)
    verb = "encode" if truth == "out_of_reach" else "translate"
    prompt = " ".join([verb, *(ENGLISH[i] for i in sentence), "="])
    words = hashed_words(world, prompt) if truth == "out_of_reach" else world.translation[sentence]
    if truth == "wrong_reference":
        words = corrupt(rng, words)
    response = " ".join(world.foreign[i] for i in words)
    group = GROUPS.get(truth, "learnable" if level else "easy")
    return {
        "prompt": prompt, "response": response, "answer": response,
        "group": group, "truth": truth, "level": level,
    }  # fmt: skip


def draw_level(rng: np.random.Generator, truth: str) -> int:
    """A learnable item is of level 1 to 4, one with a wrong reference of any level."""
    lowest, highest = {"learnable": (1, TIERS), "wrong_reference": (0, TIERS)}.get(truth, (0, 0))
    return int(rng.integers(lowest, highest + 1))


def make_rows(
    world: World, rng: np.random.Generator, shares: dict[str, float], size: int, taken: set[str]
) -> list[Row]:
    """About `size` rows in random order, by shares of truth; no prompt twice, none in `taken`."""
    rows: list[Row] = []
    for truth, share in shares.items():
        wanted = len(rows) + round(share * size)
        while len(rows) < wanted:
            row = make_row(world, rng, truth, draw_level(rng, truth))
            if row["prompt"] not in taken:
                taken.add(str(row["prompt"]))
                rows.append(row)
    return [rows[i] for i in rng.permutation(len(rows))]


def draw_corpus(world: World, rng: np.random.Generator, lines: int) -> np.ndarray:
    """Token ids for pre-training, shape (lines, 2 * LENGTH + 3); the last LENGTH + 1 are response.

    Words are drawn independently: the common ones equally often, the rarer ones so that they are
    seen `EXPOSURES` times each, falling geometrically from the first to the last.
    """
    translated = lines * (1 - CORPUS_ENCODE) * LENGTH
    rarer = np.geomspace(*EXPOSURES, RARER) / translated
    common = np.full(COMMON, (1 - rarer.sum()) / COMMON)
    english = rng.choice(len(ENGLISH), size=(lines, LENGTH), p=np.concatenate([common, rarer]))
    encode = rng.random(lines) < CORPUS_ENCODE
    english[encode] = rng.integers(0, COMMON, (encode.sum(), LENGTH))
    foreign = world.translation[english]
    foreign[encode] = world.translation[rng.integers(0, COMMON, (encode.sum(), LENGTH))]
    noisy = rng.random(foreign.shape) < CORPUS_NOISE
    foreign[noisy] = rng.integers(0, len(ENGLISH), noisy.sum())
    verb = np.where(encode, ENCODE, TRANSLATE)[:, None]
    equals, eos = (np.full((lines, 1), token) for token in (EQUALS, EOS))
    first = len(SPECIAL)
    return np.concatenate([verb, first + english, equals, first + len(ENGLISH) + foreign, eos], axis=1)


def make_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """One token a word, split at blanks."""
    words = {word: i for i, word in enumerate(world.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=SPECIAL[UNK]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, clean_up_tokenization_spaces=False,
        pad_token=SPECIAL[PAD], eos_token=SPECIAL[EOS], unk_token=SPECIAL[UNK],
    )  # fmt: skip


def make_model(world: World) -> LlamaForCausalLM:
    """A causal model of 0.4 million parameters; heads of 32, the least that vLLM takes."""
    config = LlamaConfig(
        vocab_size=len(world.vocabulary), hidden_size=96, intermediate_size=256,
        num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=3,
        max_position_embeddings=64, tie_word_embeddings=False,
        pad_token_id=PAD, eos_token_id=EOS, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def warmup_cosine(steps: int, warmup: int = 50, least: float = 0.02) -> Callable[[int], float]:
    """Learning-rate factor by step: up over `warmup`, then a half cosine down to `least`."""

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / warmup) * max(least, (1 + math.cos(math.pi * step / steps)) / 2)

    return factor


def pretrain(model: LlamaForCausalLM, corpus: np.ndarray, batch: int) -> float:
    """Train on the corpus once, in order, loss on responses only; the last batch's loss, nats."""
    ids = torch.from_numpy(corpus)
    labels = ids.clone()
    labels[:, : LENGTH + 2] = -100
    steps = len(ids) // batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(steps))
    model.train()
    for rows in torch.arange(steps * batch).split(batch):
        loss = model(input_ids=ids[rows], labels=labels[rows]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    return loss.detach().item()


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def generate(out: Path, seed: int, items: int, eval_items: int, steps: int, batch: int = 128) -> None:
    """Write `pool.jsonl`, `eval.jsonl` and `model/` into `out`, and say what was made."""
    started = time.perf_counter()
    world_rng, item_rng, corpus_rng = np.random.default_rng(seed).spawn(3)
    torch.manual_seed(seed)
    world, taken = make_world(world_rng), set[str]()
    out.mkdir(parents=True, exist_ok=True)
    for name, shares, size in (("pool", POOL_SHARES, items), ("eval", EVAL_SHARES, eval_items)):
        rows = make_rows(world, item_rng, shares, size, taken)
        write_jsonl(out / f"{name}.jsonl", rows)
        print(f"{name}: {len(rows)} items in {out / name}.jsonl")
    model = make_model(world)
    loss = pretrain(model, draw_corpus(world, corpus_rng, steps * batch), batch)
    model.save_pretrained(out / "model")
    make_tokenizer(world).save_pretrained(out / "model")
    seconds = time.perf_counter() - started
    print(f"model: {model.num_parameters():,} parameters, last loss {loss:.3f}, in {out / 'model'}")
    print(f"seed {seed}, {seconds:.0f} s")


def main() -> None:
    """Read the command line and generate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    default = Path(__file__).resolve().parent / "data"
    parser.add_argument("out", nargs="?", type=Path, default=default, help="directory (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the language, the items and the model")
    parser.add_argument("--items", type=int, default=4000, help="size of the pool (default: %(default)s)")
    parser.add_argument("--eval-items", type=int, default=600, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=450, help="of pre-training (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    args = parser.parse_args()
    if min(args.items, args.eval_items, args.steps, args.threads) < 1:
        parser.error("--items, --eval-items, --steps and --threads must be 1 or more")
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()
    generate(args.out, args.seed, args.items, args.eval_items, args.steps)


if __name__ == "__main__":
    main()
