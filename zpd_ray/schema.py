"""The columns of every table that crosses a hand-off: name, arrow type, unit.

A table is one parquet file per *part* of the pool. Parts are made once, at ingest; every later table of a
part has the same rows in the same order, so a join is a concatenation of columns.
"""

from __future__ import annotations

import pyarrow as pa

__all__ = ["ITEM", "MEASUREMENT", "QUARANTINE", "RANK", "SELECTED"]

MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        # what else a chat template knows of a turn (tool_calls, tool_call_id, name, reasoning_content,
        # weight), as a JSON object; null: nothing
        ("more", pa.string()),
    ]
)

ITEM = pa.schema(
    [
        ("item_id", pa.string()),  # the user's own, or the content hash
        ("messages", pa.list_(MESSAGE)),  # the prompt
        # the reference, a text; "" where it is nothing but tool calls; null: the item is a prompt alone
        ("response", pa.string()),
        ("response_more", pa.string()),  # what else its turn holds, as ``more`` of a message; nullable
        ("tools", pa.string()),  # definitions of the tools that may be called, as a JSON list, nullable
        ("answer", pa.string()),  # gold answer for the grader, nullable
        ("choices", pa.list_(pa.string())),  # option texts of a multiple-choice item, nullable
        ("group", pa.string()),  # skill or domain, nullable
        ("extra", pa.string()),  # what else the source's row holds, as a JSON object, nullable
        ("source_file", pa.string()),  # where the row came from
        ("source_row", pa.int64()),  # its place there, counted from 0
        # tokens that are read and not trained on: the prompt, with what the chat template adds
        ("prompt_tokens", pa.int32()),
        # tokens that are trained on: the response and what ends it; train.turns = "all": of earlier ones too;
        # 0 of a prompt alone
        ("response_tokens", pa.int32()),
    ]
)

QUARANTINE = pa.schema(
    [
        ("source_file", pa.string()),  # where the row came from
        ("source_row", pa.int64()),  # its place there, counted from 0
        ("reason", pa.string()),  # one of a few words, counted in the run's summary
        ("detail", pa.string()),  # what was got and what was expected
        ("content", pa.string()),  # the start of the row as text
    ]
)

MEASUREMENT = pa.schema(
    [
        ("item_id", pa.string()),  # of the item in this row of the part
        # mean over the response tokens (of a prompt alone: engines.asked), nats per token; null on error
        ("nll", pa.float32()),
        ("n_tokens", pa.int32()),  # tokens that it is the mean over
        ("n_greedy", pa.int32()),  # of these, how many were the first choice; null: not counted
        ("successes", pa.int32()),  # s: responses graded right; a share counts as 1 with that probability
        ("rollouts", pa.int32()),  # k: responses graded
        ("credit", pa.float32()),  # sum of the shares that were graded right: s, where no grader gives shares
        ("unparsed", pa.int32()),  # responses in which the grader found no answer (they count as wrong)
        # the wrong answer that most responses gave; null: none did, or the grader does not tell answers
        ("other_answer", pa.string()),
        ("n_other", pa.int32()),  # responses that gave it
        ("completion", pa.string()),  # the start of a response, of a few rows of each part; else null
        # a response that was graded right, where train.target = "own" trains on it; null: there is none
        ("own", pa.string()),
        ("own_tokens", pa.int32()),  # its length, with the end-of-text token
        ("error", pa.string()),  # null when the row was measured
    ]
)

STEP = pa.schema(
    [
        ("step", pa.int32()),  # of the stage, counted from 0
        ("loss", pa.float64()),  # mean over the response tokens of the step, nats per token, before it moves
        ("learning_rate", pa.float64()),  # of the step
        ("tokens", pa.int64()),  # response tokens in it, over all workers
    ]
)

# What selection adds to an item.
SELECTION = pa.schema(
    [
        ("rank", pa.int64()),  # 0 is the best score
        ("b", pa.float64()),  # posterior mean difficulty, logits
        ("b_sd", pa.float64()),  # its posterior standard deviation, logits
        ("p", pa.float64()),  # probability of a right answer at theta
        ("score", pa.float64()),  # by the selection method: the larger, the sooner selected
        # "zone"; "nearest" to a zone that holds fewer than the budget; "score" of a method that does not look
        # at the zone; "replay"
        ("reason", pa.string()),
    ]
)
# A file of a selection: in order of rank, where the chosen items lie. Their texts stay in the pool.
PLACE = pa.schema(
    [
        ("item_id", pa.string()),  # of the item
        ("part", pa.string()),  # file of ``pool/`` that holds it
        ("row", pa.int64()),  # its row there, counted from 0
        ("group", pa.string()),  # of the item, nullable
        ("prompt_tokens", pa.int32()),  # tokens that are read and not trained on
        # tokens that are trained on: of the reference, or of the model's own response
        ("response_tokens", pa.int32()),
        # whether a right response of the model's own is trained on (train.target = "own"), as the stage has
        # measured it last; else the reference
        ("own", pa.bool_()),
    ]
)
RANK = pa.schema([*PLACE, *SELECTION])

# What trainers of conversations take (TRL): they train on the completion, and mask the prompt.
PAIR = pa.schema(
    [
        ("prompt", pa.list_(MESSAGE)),  # the messages of the item
        # the reference response, as the assistant's one turn; empty where there is none to train on
        ("completion", pa.list_(MESSAGE)),
    ]
)
_PAIRED = ("item_id", "messages", "response", "response_more")
_REST = [column for column in ITEM if column.name not in _PAIRED]
SELECTED = pa.schema([ITEM.field("item_id"), *PAIR, *_REST, *SELECTION])
