"""Right responses of the model's own, of which one is kept to train on (train.target = "own").

Training on them is STaR's (Zelikman et al. 2022, arXiv 2203.14465) and rejection sampling's (RFT, Yuan et al.
2023, arXiv 2308.01825): here nothing is generated for it but what was measured anyway.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from zpd_ray.config import Config
from zpd_ray.graders import Verdict
from zpd_ray.hashing import item_keys, streams, uniforms
from zpd_ray.readers.lengths import token_lengths

KEPT = 106  # the stream of random numbers that draws one of an item's right responses


class Own(NamedTuple):
    """Of n items a right response, and its tokens with that which ends the text; None: none is kept."""

    text: list[str | None]
    tokens: list[int | None]

    @staticmethod
    def none(n: int) -> Own:
        """Of items of which nothing is kept."""
        return Own([None] * n, [None] * n)


def own_answers(
    config: Config, items: pa.Table, completions: list[list[str]], verdicts: list[list[Verdict]], stage: int
) -> Own:
    """One of the responses to each item that are right in full, drawn by (seed, stage, item).

    None where none is, and where it could not be trained on as it is: it spells out an end of turn, say.
    """
    draws = uniforms(streams(item_keys(items["item_id"]), config.seed, stage, KEPT))
    text: list[str | None] = []
    for texts, row, draw in zip(completions, verdicts, draws.tolist(), strict=True):
        right = [each for each, told in zip(texts, row, strict=True) if told.right >= 1 and each.strip()]
        text.append(right[int(draw * len(right))] if right else None)
    own = Own.none(items.num_rows)
    found = [i for i, each in enumerate(text) if each is not None]
    if found:
        given = items.take(found)
        for name, said in (("response", [text[i] for i in found]), ("response_more", [None] * len(found))):
            at = given.schema.get_field_index(name)
            given = given.set_column(at, name, pa.array(said, pa.string()))
        _, lengths, problems = token_lengths(config, given)
        for i, length, problem in zip(found, lengths, problems, strict=True):
            if problem is None:
                own.text[i], own.tokens[i] = text[i], length
    return own
