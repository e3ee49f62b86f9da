"""The pronunciation world's run in one process, without Ray: for figures about what stages measure.

    python examples/pronounce/generate.py WORLD --words 6000
    python benchmarks/one_process.py examples/pronounce/run.toml WORLD --set output=runs/one_process

Measures, fits and scores are those of a run, and what it writes is a run directory. Left out: reading (rows
are items as they are), evaluation, LoRA. All weights are trained, by AdamW and at one learning rate.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel

from zpd_ray import measures, schema
from zpd_ray.ability import count_history
from zpd_ray.calibration import Fit, Statistics, fit_stage
from zpd_ray.config_file import load_config
from zpd_ray.engines import ModelRef
from zpd_ray.engines.encoding import Rows
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.hashing import item_keys
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.begin import record
from zpd_ray.rundir.judging import judge, last_measured, selection_order
from zpd_ray.rundir.layout import ANSWERS, POOL, StageFiles
from zpd_ray.rundir.records import save_fit
from zpd_ray.selection.budget import resolve_budget
from zpd_ray.selection.keys import sort_key

PART = "part-000000.parquet"
LEARNING_RATE = 5e-4

Counts = tuple[NDArray[np.int64], NDArray[np.int64]]


def items(path: Path) -> pa.Table:
    """Rows with prompt and response as items; other columns are in ``extra``."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [
        {
            "item_id": str(number),
            "messages": [{"role": "user", "content": row.pop("prompt")}],
            "answer": row["response"],
            "response": row.pop("response"),
            "group": row.pop("length", None),
            "extra": json.dumps(row),
            "source_file": str(path),
            "source_row": number,
        }
        for number, row in enumerate(map(json.loads, lines))
    ]
    return pa.Table.from_pylist(rows, schema=schema.ITEM)


def fit(run: Run, stage: int, answers: dict[int, Counts], previous: Fit | None) -> Fit:
    """Of a stage, by what untrained items have answered so far."""
    first, now = (last_measured(run, t, ANSWERS, PART).answers for t in (0, stage))
    nll, nll_now = (table["nll"].to_numpy().astype(np.float64) for table in (first, now))
    trained, none = run.trained_before(stage, PART, len(nll)), np.zeros(len(nll), dtype=np.int64)
    history = count_history(nll, none, trained, answers)
    s, k = answers[stage]
    left = ~trained
    counts = Statistics.of(nll_now[left], none[left], s[left], k[left], history)
    found = fit_stage(counts, run.config.ability, stage, previous)
    save_fit(run.store, found)
    return found


def choose(run: Run, found: Fit) -> NDArray[np.int64]:
    """The best of the budget that no stage has trained on, by a plain sort."""
    known = last_measured(run, found.stage, ANSWERS, PART)
    order = selection_order(run, found.stage, item_keys(known.answers["item_id"]))
    score = judge(run, found, run.config.select.method, PART, known, order)["score"].to_numpy()
    keys = sort_key(score, order)
    keys[run.trained_before(found.stage, PART, len(keys))] = np.iinfo(np.uint64).max
    rows = np.argsort(keys)[: resolve_budget(run.config.select.budget, len(keys), 0).value]
    chosen = f"{StageFiles(found.stage).selection()}/chosen/{PART}"
    run.store.write_table(chosen, pa.table({"row": pa.array(rows, pa.int64())}))
    return rows


def train(model: PreTrainedModel, rows: Rows, epochs: int, batch: int, seed: int) -> None:
    """Loss on the responses alone."""
    rng, optimizer = np.random.default_rng(seed), torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for _ in range(epochs):
        for at in np.array_split(rng.permutation(len(rows.ids)), max(1, len(rows.ids) // batch)):
            width = max(len(rows.ids[i]) for i in at)
            ids, labels = torch.zeros((len(at), width), dtype=torch.long), torch.full((len(at), width), -100)
            for place, i in enumerate(at):
                whole = torch.tensor(rows.ids[i])
                ids[place, : len(whole)] = whole
                labels[place, rows.prompt[i] : len(whole)] = whole[rows.prompt[i] :]
            model(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def main() -> None:
    """All stages; a line of JSON for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("world", type=Path, help="directory with pool.jsonl and model/")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    places = [f"pool.path={args.world / 'pool.jsonl'}", f"model.path={args.world / 'model'}"]
    config = load_config(str(args.config), [*places, *args.overrides])
    run, pool = Run(config, Store(config.output)), items(args.world / "pool.jsonl")
    run.store.write_table(f"{POOL}/{PART}", pool)
    record(run)
    measure: Any = measures.load(ANSWERS, config)
    engine = TransformersEngine(config, ModelRef(config.model.path))
    answers: dict[int, Counts] = {}
    found, path = None, ""
    for stage in range(config.stages):
        table = measures.rows_of(ANSWERS, measure, engine, pool, stage)  # type: ignore[arg-type]
        run.store.write_table(f"{StageFiles(stage).measurements()}/{PART}", table)
        s, k = (table[name].to_numpy().astype(np.int64) for name in ("successes", "rollouts"))
        away = run.trained_before(stage, PART, len(s))
        answers[stage] = (np.where(away, 0, s), np.where(away, 0, k))
        found = fit(run, stage, answers, found)
        told = {"stage": stage, "right": s.sum() / k.sum(), "theta": found.ability.theta}
        print(json.dumps(told), flush=True, file=sys.stderr)
        rows = choose(run, found)
        model = AutoModelForCausalLM.from_pretrained(path or config.model.path).train()
        train(
            model, engine.encoder.rows(pool.take(rows)), config.train.epochs, config.train.batch_size, stage
        )
        path = run.store.path(f"{StageFiles(stage).directory}/model")
        model.save_pretrained(path)
        engine.follow(ModelRef(path, stage=stage + 1))


if __name__ == "__main__":
    main()
