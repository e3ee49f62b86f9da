"""Log-probabilities of reference tokens from vLLM: what to ask a request for, and reading what comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from vllm import RequestOutput, SamplingParams

from zpd_ray.engines.encoding import Rows, TokenScores
from zpd_ray.engines.tokens import Ids
from zpd_ray.errors import ZpdError

# skip_clone: vLLM need not copy the parameters deeply for every request, nobody changes them.
ONE_PREFILL: dict[str, Any] = {
    "max_tokens": 1,
    "temperature": 0.0,
    "detokenize": False,
    "skip_clone": True,
}


def scoring_params(rows: Rows, response_only: bool) -> Callable[[int], SamplingParams]:
    """Parameters of the request for a row.

    response_only: logits of the response's positions alone, which takes version 2 of vLLM's runner; else of
    all positions, with the most likely token of each.
    """
    if not response_only:
        whole = SamplingParams(prompt_logprobs=1, flat_logprobs=True, **ONE_PREFILL)
        return lambda i: whole

    def response(i: int) -> SamplingParams:
        prompt = int(rows.prompt[i])
        targets = np.array(rows.ids[i][prompt:])[:, None]
        return SamplingParams(
            prompt_logprob_token_ids=targets, prompt_logprob_start=prompt - 1, **ONE_PREFILL
        )

    return response


def token_scores(outputs: list[RequestOutput], responses: list[Ids], response_only: bool) -> TokenScores:
    """Scores of the response tokens of each output, row after row.

    Raises ZpdError when vLLM speaks of other tokens than it was asked for: such reports exist, and a run on
    their numbers would be worthless.
    """
    return _response_scores(outputs, responses) if response_only else _prompt_scores(outputs, responses)


def _prompt_scores(outputs: list[RequestOutput], responses: list[Ids]) -> TokenScores:
    """A first choice is the token that vLLM names as the most likely one.

    Not a rank of 1: vLLM counts tied tokens as ranked before, and in bfloat16 ties at the top are common.
    """
    flat: list[Any] = [output.prompt_logprobs for output in outputs]
    pairs = [(each, len(each.logprobs) - 2 * len(ids)) for each, ids in zip(flat, responses, strict=True)]
    told = [each.token_ids[start::2] for each, start in pairs]
    if told != responses:
        wrong = next(i for i, (got, asked) in enumerate(zip(told, responses, strict=True)) if got != asked)
        raise ZpdError(
            f"vLLM gave log-probabilities of tokens {told[wrong][:8]}... where {responses[wrong][:8]}... "
            "were asked for; its numbers cannot be used: try engine.name = 'transformers', or another vLLM"
        )
    logp = [np.array(each.logprobs[start::2], dtype=np.float32) for each, start in pairs]
    first = [np.array(each.token_ids[start + 1 :: 2]) for each, start in pairs]
    return TokenScores(np.concatenate(logp), np.concatenate(first) == np.concatenate(told))


def _response_scores(outputs: list[RequestOutput], responses: list[Ids]) -> TokenScores:
    """vLLM names no tokens beside these numbers: their count is checked, and the prompt that it repeats."""
    rows = [output.prompt_token_id_logprobs for output in outputs]
    told = [
        (None if row is None else row.shape, list(output.prompt_token_ids or ())[-len(ids) :])
        for row, output, ids in zip(rows, outputs, responses, strict=True)
    ]
    asked: list[Any] = [((len(ids), 1), ids) for ids in responses]
    if told != asked:
        wrong = next(i for i, (got, wanted) in enumerate(zip(told, asked, strict=True)) if got != wanted)
        raise ZpdError(
            f"vLLM gave log-probabilities of shape {told[wrong][0]} for {told[wrong][1][:8]}... where "
            f"{asked[wrong][0]} for {asked[wrong][1][:8]}... were asked for; its numbers cannot be used: try "
            "engine.name = 'transformers', or another vLLM"
        )
    logp = np.concatenate([row[:, 0] for row in rows])
    return TokenScores(logp, np.zeros(len(logp), dtype=bool))
