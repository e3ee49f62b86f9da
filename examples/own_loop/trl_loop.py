"""The same with TRL's trainer: `pip install trl`."""

from __future__ import annotations

import math
import tempfile

import torch
from datasets import IterableDataset
from plain_loop import BATCH_SIZE, LEARNING_RATE, load
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

import zpd_ray


def loop() -> None:
    """Runs once in every Ray Train worker and lives through all stages."""
    model = None
    for stage in zpd_ray.stages():
        model = model or load(stage.base, stage.adapter)
        with tempfile.TemporaryDirectory() as directory:
            trainer = SFTTrainer(
                model=model,
                args=SFTConfig(
                    output_dir=directory,
                    max_steps=math.ceil(stage.rows / BATCH_SIZE),
                    per_device_train_batch_size=BATCH_SIZE,
                    learning_rate=LEARNING_RATE,
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                    bf16=torch.cuda.is_available(),
                ),
                train_dataset=IterableDataset.from_generator(stage.iter_tokens),
                processing_class=AutoTokenizer.from_pretrained(stage.base),
            )
            result = trainer.train()
            if stage.rank == 0:
                model.save_pretrained(directory)  # trainer.save_model would leave a pickled file beside it
            stage.report(directory, {"loss": result.training_loss})
