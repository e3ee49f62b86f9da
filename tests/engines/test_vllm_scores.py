"""What we put in place of vLLM's own: the same lists."""

from __future__ import annotations

from typing import Any

import pytest
import ray
import torch

from tests.engines.real_vllm import needs_vllm

pytestmark = needs_vllm


def bulk_and_vllms_own(width: int) -> list[Any]:
    """The containers that vLLM and we make of a prompt that comes in two chunks; in another process."""
    from vllm.logprobs import FlatLogprobs
    from vllm.v1.engine.logprobs import LogprobsProcessor, create_prompt_logprobs
    from vllm.v1.outputs import LogprobsTensors

    from zpd_ray.engines.vllm.scores import append_in_bulk

    append_in_bulk()
    ours = LogprobsProcessor._update_prompt_logprobs
    append_in_bulk()  # a second engine
    assert LogprobsProcessor._update_prompt_logprobs is ours
    own = ours.__wrapped__
    made: list[Any] = []
    for update in (own, ours):
        flat = create_prompt_logprobs(True)
        processor = LogprobsProcessor(None, None, flat, None, None, width - 1)
        for seed, n in ((0, 5), (1, 3)):
            draw = torch.Generator().manual_seed(seed)
            ids, logp = (torch.rand((n, width), generator=draw) for _ in range(2))
            ranks = torch.randint(1, 9, (n,), generator=draw)
            update(processor, LogprobsTensors((1000 * ids).int(), logp, ranks))
        assert isinstance(flat, FlatLogprobs)
        assert len(flat) == 9  # nothing is known of the first token
        made.append(vars(flat))
    return made


@pytest.mark.parametrize("width", [1, 2, 4])
def test_lists_made_in_bulk_are_those_of_vllm(local_ray: None, width: int) -> None:
    own, ours = ray.get(ray.remote(num_cpus=0)(bulk_and_vllms_own).remote(width))
    assert own == ours
    assert len(own["ranks"]) == 8 * width
