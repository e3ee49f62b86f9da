"""LLaMA-Factory and axolotl read what is exported for them with their own code, where they are installed.

Both pin other versions of what we need, so that neither is among our test packages: docs/howto/own-trainer.md
says how to run this beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.pipeline.conftest import table_of
from tests.taken import row as source_row
from zpd_ray.export.exporting import export_selection
from zpd_ray.rundir import Run

pytestmark = pytest.mark.nightly
MASKED = -100


@pytest.fixture
def wanted(taken: Run) -> list[str]:
    """The references of what stage 0 has selected."""
    ids = table_of(taken.store, "stages/00/selected")["item_id"].to_pylist()
    return sorted(source_row(int(item[1:]))["response"] for item in ids)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.build_model(tmp_path / "model", layers=1, chat=True)


def learned(tokenizer: Any, rows: Iterable[dict[str, list[int]]]) -> list[str]:
    """The decoded labels of each row, sorted, without the ends of turns."""
    texts = [
        tokenizer.decode([label for label in row["labels"] if label != MASKED], skip_special_tokens=True)
        for row in rows
    ]
    return sorted(text.strip() for text in texts)


def test_llama_factory_trains_on_the_references(
    taken: Run, wanted: list[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    reason = "LLaMA-Factory is not installed, or not what its data loader needs"
    data = pytest.importorskip("llamafactory.data", reason=reason, exc_type=ImportError)
    hparams = pytest.importorskip("llamafactory.hparams", reason=reason, exc_type=ImportError)
    from transformers import AutoTokenizer, Seq2SeqTrainingArguments

    export_selection(taken, "llama-factory", str(tmp_path / "out"), 0, None, scores=True, extra=True)
    asked = hparams.DataArguments(
        template="default", dataset="zpd_ray", dataset_dir=str(tmp_path / "out"), mask_history=True
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    module = data.get_dataset(
        data.get_template_and_fix_tokenizer(tokenizer, asked),
        hparams.ModelArguments(model_name_or_path=str(model), cache_dir=str(tmp_path / "cache")),
        asked,
        Seq2SeqTrainingArguments(output_dir=str(tmp_path / "trained"), use_cpu=True, report_to="none"),
        stage="sft",
        tokenizer=tokenizer,
    )
    assert learned(tokenizer, module["train_dataset"]) == wanted


def test_axolotl_trains_on_the_references(taken: Run, wanted: list[str], model: Path, tmp_path: Path) -> None:
    reason = "axolotl is not installed, or not what its chat_template strategy needs"
    strategies = pytest.importorskip("axolotl.prompt_strategies", reason=reason, exc_type=ImportError)
    dicts = pytest.importorskip("axolotl.utils.dict", reason=reason, exc_type=ImportError)
    import datasets
    import yaml
    from transformers import AutoTokenizer

    export_selection(taken, "axolotl", str(tmp_path / "out"), 0, None, scores=True, extra=True)
    (entry,) = yaml.safe_load((tmp_path / "out/axolotl.yaml").read_text())["datasets"]
    tokenizer = AutoTokenizer.from_pretrained(model)
    config = dicts.DictDefault(sequence_len=512, train_on_inputs=False, datasets=[entry])
    strategy = strategies.load(entry["type"], tokenizer, config, dicts.DictDefault(entry))
    assert strategy is not None, reason
    rows = datasets.load_dataset(
        entry["ds_type"], data_files=entry["path"], split="train", cache_dir=str(tmp_path / "cache")
    )
    assert learned(tokenizer, map(strategy.tokenize_prompt, rows)) == wanted
