"""A rating of each item by a language model: one that the run's engine loads, or one behind a URL."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from zpd_ray import schema
from zpd_ray.config import Config, JudgeConfig
from zpd_ray.engines.base import Completions, Engine, ModelRef
from zpd_ray.errors import ZpdError
from zpd_ray.measures.base import Measure
from zpd_ray.measures.chat import complete_at

CHARACTERS = 300  # of what the judge said that are kept where there is no number in it
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w])")


class Judge(Measure):
    """Asks for one number an item, greedily. A rating that cannot be read is none: the item has no score."""

    needs_reference = True
    columns = pa.schema(
        [
            ("rating", pa.float32()),  # null where the judge gave no number between its lowest and highest
            ("rollouts", pa.int32()),  # answers that the judge gave: 1, or 0 where it could not be asked
            ("unparsed", pa.int32()),  # of these without a rating
            ("completion", pa.string()),  # the start of an answer without a rating; else null
            ("error", pa.string()),  # null when the judge has answered
        ]
    )

    def __init__(self, config: Config) -> None:
        """The judge is not asked before the first part."""
        super().__init__(config)
        self.how = config.select.judge

    def model(self, stage: ModelRef) -> ModelRef:
        """The judge, whatever the stage; of one behind a URL nothing is loaded, and the stage's stays.

        Raises ZpdError where the config names none.
        """
        if self.how.url is not None:
            return stage
        if self.how.model is None:
            raise ZpdError(
                "select.judge.model and select.judge.url are missing, and the method judge asks one of them; "
                'give a directory or hub id, as in judge = { model = "models/instruct" }, or the URL of an '
                "OpenAI-compatible server, or take another select.method"
            )
        return ModelRef(self.how.model)

    def measure(self, engine: Engine, items: pa.Table, stage: int) -> pa.Table:
        """Ratings; the same judge gives the same ones, as far as a server answers the same twice."""
        prompts = to_rate(items, self.how)
        if self.how.url is not None:
            said = complete_at(self.how, prompts, self.config.measure.max_new_tokens, self.beat)
        else:
            said = engine.generate(prompts, 1, stage)
        return self._table(said)

    def _table(self, said: Completions) -> pa.Table:
        texts = [row[0] if row else None for row in said.texts]
        ratings = [None if text is None else rating_in(text, self.how) for text in texts]
        asked = np.array([text is not None for text in texts], dtype=np.int32)
        silent = [text is not None and rating is None for text, rating in zip(texts, ratings, strict=True)]
        kept = [
            text[:CHARACTERS] if none and text else None for text, none in zip(texts, silent, strict=True)
        ]
        columns = [ratings, asked, np.array(silent, dtype=np.int32), kept, said.error]
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, self.columns, strict=True)]
        return pa.table(arrays, schema=self.columns)


def to_rate(items: pa.Table, how: JudgeConfig) -> pa.Table:
    """The items with the judge's question in place of their messages."""
    names = ("messages", "response", "response_more")
    rows = zip(*(items[name].to_pylist() for name in names), strict=True)
    messages = [
        [{"role": "user", "content": _filled(how.prompt, turns or [], text or more or "")}]
        for turns, text, more in rows
    ]
    asked = {"messages": pa.array(messages, schema.ITEM.field("messages").type)}
    asked["tools"] = pa.nulls(items.num_rows, pa.string())  # which the judge is not to call
    for name, column in asked.items():
        items = items.set_column(items.schema.get_field_index(name), name, column)
    return items


def _filled(question: str, turns: list[dict[str, str]], response: str) -> str:
    """The question with an item in it: what an item says about {response} is not filled in again.

    Of a turn that says nothing its tool calls are told, as JSON.
    """
    prompt = "\n\n".join(filter(None, (turn["content"] or turn.get("more") for turn in turns)))
    told = {"{prompt}": prompt, "{response}": response}
    return re.sub(r"\{prompt\}|\{response\}", lambda found: told[found[0]], question)


def rating_in(text: str, how: JudgeConfig) -> float | None:
    """The one number on the first line that is not empty; None where there is none, several, or one outside.

    "4/5" and "4 out of 5" are 4 where 5 is the highest.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    of = rf"\s*(?:/|out of)\s*{re.escape(f'{how.highest:g}')}(?!\w|\.\d)"
    found = NUMBER.findall(re.sub(of, " ", first, flags=re.IGNORECASE))
    if len(found) != 1:
        return None
    rating = float(found[0].replace(",", ""))
    return rating if how.lowest <= rating <= how.highest else None
