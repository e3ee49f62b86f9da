"""Where in the tokens of a prompt its demonstrations are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zpd_ray.engines.tokens import Ids, leading_ids
from zpd_ray.errors import ZpdError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]  # of characters or of tokens, the second not included


@dataclass(frozen=True)
class Shown:
    """A prompt as token ids. spans: where in them each demonstration is; ask: where what follows begins."""

    ids: Ids
    spans: list[Span]
    ask: int


def show(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], shown: Sequence[Sequence[Sequence[str]]]
) -> list[Shown | str]:
    """Prompts with the places of their demonstrations, or the reason why they were not found.

    texts: rendered prompts; shown: per prompt its demonstrations in order, each as the texts of its turns.
    Places are found in the text and taken over to the tokens by their offsets, whatever a template puts
    around and between turns. Raises ZpdError for a tokenizer that tells no offsets.
    """
    if not tokenizer.is_fast:
        raise ZpdError(
            f"the measure in_context needs to know which tokens a demonstration has, and the tokenizer "
            f"{type(tokenizer).__name__} does not tell; put a tokenizer.json beside the model"
        )
    lead = leading_ids(tokenizer)
    rows = tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [_placed(lead, row, text, each) for row, text, each in zip(rows, texts, shown, strict=True)]


def _placed(lead: Ids, row: Any, text: str, shown: Sequence[Sequence[str]]) -> Shown | str:
    places = find_spans(text, shown)
    if places is None:
        return "the chat template does not show the demonstrations as they are"
    starts, ends = np.array(row.offsets, dtype=np.int64).reshape(-1, 2).T
    inside = [np.flatnonzero((starts < end) & (ends > start)) for start, end in places]
    after = np.flatnonzero(starts >= places[-1][1])
    if not len(after) or not all(map(len, inside)):
        return "a demonstration, or what comes after it, has no tokens"
    spans = [(len(lead) + int(at[0]), len(lead) + int(at[-1]) + 1) for at in inside]
    return Shown([*lead, *row.ids], spans, len(lead) + int(after[0]))


def find_spans(text: str, shown: Sequence[Sequence[str]]) -> list[Span] | None:
    """Where each demonstration is in a text, from its first turn to its last; None where one is not found."""
    spans, at = [], 0
    for turns in shown:
        found = []
        for turn in filter(None, map(str.strip, turns)):
            at = text.find(turn, at)
            if at < 0:
                return None
            found.append(at)
            at += len(turn)
        if not found:
            return None
        spans.append((found[0], at))
    return spans
