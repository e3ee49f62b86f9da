"""Sections ``pool``, ``evaluation`` and ``model``: what there is before a run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from zpd_ray.config.section import Count, NonEmpty, Section, Share


class SourceConfig(Section):
    """Where samples come from and how their columns are read."""

    path: str | list[str] = Field(
        description="file, glob, directory or URI, or a list of them; of a dataset of the hub "
        "hf://datasets/ORG/NAME@REVISION?config=CONFIG&split=SPLIT, all but ORG/NAME optional"
    )
    format: Literal["auto", "jsonl", "parquet", "csv", "arrow", "hf"] = Field(
        "auto", description="of the files; auto goes by the extension"
    )
    shape: Literal["auto", "prompt_response", "question_answer", "messages", "alpaca", "sharegpt"] = Field(
        "auto", description="of the rows; auto goes by the names of their columns"
    )
    columns: dict[
        Literal["item_id", "prompt", "messages", "response", "answer", "choices", "group", "tools"], str
    ] = Field(default_factory=dict, description="item field = column of the source; overrides the shape")
    reference: Literal["answer", "none", "prompt"] | None = Field(
        None,
        description="where rows hold no solution beside the gold answer: 'answer' trains on the answers "
        "alone, 'none' never trains on them; and their NLL says how hard an item is; 'prompt' reads prompts "
        "alone, whose own NLL takes that place, for a grader that judges completions",
    )
    max_bad_share: Share = Field(0.05, description="stop when more than this share of the rows is bad")
    allow_damaged: bool = Field(False, description="take what comes before the damage of a damaged file")

    @model_validator(mode="after")
    def _paths_are_there(self) -> SourceConfig:
        if not self.paths or not all(self.paths):  # "" would be the directory of the config
            raise ValueError(f"path = {self.path!r} names no place; give a file, glob, directory or URI")
        return self

    @model_validator(mode="after")
    def _reads_no_response(self) -> SourceConfig:
        if self.prompts_alone and "response" in self.columns:
            raise ValueError(
                f"reference = 'prompt' reads no responses, and columns maps response = "
                f"{self.columns['response']!r}; leave one of them out"
            )
        return self

    @property
    def prompts_alone(self) -> bool:
        """Whether rows are read as a prompt and nothing else, but for a gold answer where there is one."""
        return self.reference == "prompt"

    @property
    def paths(self) -> list[str]:
        """One or several, as a list."""
        return [self.path] if isinstance(self.path, str) else self.path


class PoolConfig(SourceConfig):
    """The pool that samples are selected from."""

    items_per_part: Count = Field(2000, description="items in one unit of work: a parquet file of the pool")


class ModelConfig(Section):
    """The base model."""

    path: NonEmpty = Field(description="directory, path or URI, or hub id")
    max_length: Count | None = Field(
        None, description="tokens of prompt + response; left out: as many as the model takes"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="of the weights while they score; auto: as stored, on a CPU float32 unless they are "
        "stored in bfloat16 and it computes in that (AMX, AVX512-BF16; not on a cluster that is joined), and "
        "then so for the models that select names",
    )
    separator: str = Field("\n", description="between prompt and response when there is no chat template")
