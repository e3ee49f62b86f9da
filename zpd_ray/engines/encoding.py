"""What every engine does around its forward passes: items to token ids, and token scores to results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from zpd_ray.engines import model_files, tokens
from zpd_ray.engines.base import Scores
from zpd_ray.engines.tokens import Ids
from zpd_ray.errors import ZpdError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from zpd_ray.config import Config


@dataclass(frozen=True)
class Rows:
    """References as n rows of token ids; a row with an error is not computed.

    ids: prompt + response; prompt, response: int32 (n,), their lengths in tokens; error: the reason, or None.
    learnt: int32 (n,), tokens of the response that are trained on; trained: which, bool (response,) of each
    row; None: all of them.
    """

    ids: list[Ids]
    prompt: np.ndarray
    response: np.ndarray
    error: list[str | None]
    learnt: np.ndarray
    trained: list[np.ndarray] | None = None

    def means(self, scores: TokenScores, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``row_means`` of the tokens of some rows that are trained on; scores: of all of their response."""
        if self.trained is not None:
            learnt = np.concatenate([self.trained[i] for i in part])
            scores = TokenScores(scores.logp[learnt], scores.greedy[learnt])
        return row_means(scores, self.learnt[part])


@dataclass(frozen=True)
class Prompts:
    """Prompts as n rows of token ids; limits: int64 (n,), the most new tokens of each."""

    ids: list[Ids]
    limits: np.ndarray
    error: list[str | None]


@dataclass(frozen=True)
class TokenScores:
    """Per response token of a batch, row after row: float32 log p in nats, and bool first choice."""

    logp: np.ndarray
    greedy: np.ndarray


class Encoder:
    """The tokenizer of a model, with the lengths and the ids that the model takes."""

    def __init__(self, config: Config, base: str) -> None:
        """``base``: directory or hub id. Raises ZpdError when there is no tokenizer."""
        self.config = config
        self.tokenizer: PreTrainedTokenizerBase = model_files.load_tokenizer(base)
        model = config.model.model_copy(update={"path": base})
        self.max_length = model_files.max_length(model, self.tokenizer)
        self.vocabulary = int(model_files.text_config(base).vocab_size)
        self.stops = tokens.stop_ids(self.tokenizer) | model_files.generation_stops(base)

    def rows(self, items: pa.Table) -> Rows:
        """Rows of the references; one that is too long or has foreign ids gets an error."""
        encoded = tokens.encode_items(self.tokenizer, items, self.config)
        ids = [p + r for p, r in zip(encoded.prompt_ids, encoded.response_ids, strict=True)]
        response = np.array([len(r) for r in encoded.response_ids], dtype=np.int32)
        trained = None
        if encoded.trained is not None:
            trained = [np.array(row, dtype=bool) for row in encoded.trained]
        return Rows(
            ids,
            np.array([len(p) for p in encoded.prompt_ids], dtype=np.int32),
            response,
            [why or self._misfit(row) for why, row in zip(encoded.error, ids, strict=True)],
            response if trained is None else np.array([row.sum() for row in trained], dtype=np.int32),
            trained,
        )

    def prompts(self, items: pa.Table) -> Prompts:
        """Prompts to complete; one that leaves no room for a new token gets an error."""
        ids, error = tokens.encode_prompts(
            self.tokenizer, items["messages"], self.config.model.separator, items["tools"]
        )
        length = np.array([len(row) for row in ids], dtype=np.int64)
        limits = np.minimum(self.config.measure.max_new_tokens, self.max_length - length)
        error = [
            why or self._full(row, room) or self._foreign(row)
            for why, row, room in zip(error, ids, limits.tolist(), strict=True)
        ]
        return Prompts(ids, limits, error)

    def texts(self, ids: list[Ids]) -> list[str]:
        """Completions as text, special tokens left out."""
        decoded: Any = self.tokenizer.batch_decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return list(decoded)

    def _full(self, row: Ids, room: int) -> str | None:
        if not row:
            return "the prompt has no tokens"
        if room < 1:
            return f"{len(row)} tokens of prompt and none of a response; the model takes {self.max_length}"
        return None

    def _misfit(self, row: Ids) -> str | None:
        if len(row) > self.max_length:
            return f"{len(row)} tokens of prompt and response; the model takes {self.max_length}"
        return self._foreign(row)

    def _foreign(self, row: Ids) -> str | None:
        if max(row, default=0) >= self.vocabulary:
            return f"token id {max(row)} is outside the model's {self.vocabulary} embeddings"
        return None


def row_means(scores: TokenScores, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean NLL (float32, nats per token) and count of first choices (int32) of rows of these lengths."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    total = np.add.reduceat(scores.logp.astype(np.float64), starts)
    n_greedy = np.add.reduceat(scores.greedy.astype(np.int64), starts)
    return (-total / lengths).astype(np.float32), n_greedy.astype(np.int32)


def to_scores(rows: Rows, nll: np.ndarray, n_greedy: np.ndarray, dtype: str) -> Scores:
    """Scores of ``rows``, in which a non-finite NLL is an error of its row.

    Raises ZpdError when all of several rows are non-finite: the model is broken.
    """
    scored = [i for i, why in enumerate(rows.error) if why is None]
    bad = {i for i in scored if not np.isfinite(nll[i])}
    if len(bad) == len(scored) > 1:
        raise ZpdError(
            f"all {len(bad)} NLLs are non-finite in {dtype}; the weights or the adapter are broken, or "
            "float16 overflows: check them, or set model.dtype = 'float32'"
        )
    error = ["non-finite NLL" if i in bad else why for i, why in enumerate(rows.error)]
    failed = np.array([why is not None for why in error], dtype=bool)
    return Scores(
        np.where(failed, np.nan, nll).astype(np.float32),
        np.where(failed, 0, rows.learnt).astype(np.int32),
        np.where(failed, 0, n_greedy).astype(np.int32),
        error,
    )
