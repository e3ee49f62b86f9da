"""What TRL's SFTTrainer makes of data: the texts that it trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def learned(model: Path, rows: Any, scratch: Path) -> list[str]:
    """The decoded labels of each row, sorted: what is masked is left out, and the ends of turns.

    rows: a dataset of the datasets library.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=SFTConfig(output_dir=str(scratch), report_to="none", use_cpu=True, bf16=False),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    texts = []
    for batch in trainer.get_train_dataloader():
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            told = trainer.processing_class.decode(ids[labels != -100])
            texts.append(told.replace("<|end|>", "").replace("<eos>", "").strip())
    return sorted(texts)
