"""Loss on response tokens only."""

from __future__ import annotations

from typing import cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from zpd_ray.engines.logprobs import Finish, chunk_rows, find_finish
from zpd_ray.training.collate import IGNORED


class ResponseLoss(nn.Module):
    """A causal language model as training sees it: a batch in, the summed NLL of its labels out.

    A vocabulary of 49,000 makes logits the largest tensor of a step, several times over. Here the decoder
    runs over the batch, the hidden states that predict a label are gathered, and the head is applied to a
    chunk of them at a time, whose logits are computed again in the backward pass rather than kept (Chen et
    al. 2016, arXiv 1604.06174). What the model does to its head's output is found as in scoring
    (``engines.logprobs.find_finish``); where that is not known, all logits are computed, in its own forward.
    """

    def __init__(self, net: nn.Module, known: tuple[Finish | None] | None = None) -> None:
        """net: a causal language model of transformers, or one in peft's LoRA; it stays as it is.

        known: what the model does to its head's output, where ``net`` has no weights to find it by.
        """
        super().__init__()
        self.net = net
        self.finish = _finish_of(net) if known is None else known[0]

    @property
    def model(self) -> PreTrainedModel:
        """The model of transformers itself; peft has put its layers into it."""
        return inner(self.net)

    def forward(self, input_ids: Tensor, labels: Tensor, **layout: Tensor) -> Tensor:
        """Nats, a float32 scalar with gradient. Tensors as of ``collate`` or ``pack``.

        layout: what the model is told of padding and items, attention_mask or position_ids.
        """
        target = labels[:, 1:]
        predicts = target != IGNORED
        if self.finish is None:
            logits = self.net(input_ids=input_ids, use_cache=False, **layout).logits
            return _nll(logits[:, :-1][predicts].float(), target[predicts])
        model = self.model
        decoded = model.base_model(input_ids=input_ids, use_cache=False, **layout)
        states, wanted = decoded.last_hidden_state[:, :-1][predicts], target[predicts]
        chunk = chunk_rows(model, states.device.type)
        if len(states) <= chunk:
            return self._nll_of(states, wanted)
        parts = [
            checkpoint(self._nll_of, *part, use_reentrant=False, preserve_rng_state=False)
            for part in zip(states.split(chunk), wanted.split(chunk), strict=True)
        ]
        return torch.stack(parts).sum()

    def _nll_of(self, states: Tensor, wanted: Tensor) -> Tensor:
        assert self.finish is not None
        return _nll(self.finish(self.model.get_output_embeddings()(states).float()), wanted)


def _nll(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.cross_entropy(logits, wanted, reduction="sum")


def inner(net: nn.Module) -> PreTrainedModel:
    """The model of transformers itself; peft has put its layers into it."""
    return cast(PreTrainedModel, net.get_base_model() if isinstance(net, PeftModel) else net)


def _finish_of(net: nn.Module) -> Finish | None:
    model = inner(net)
    if not isinstance(model, PreTrainedModel):
        return None
    training = model.training
    model.eval()  # dropout would make two passes differ
    finish = find_finish(model)
    model.train(training)
    return finish
