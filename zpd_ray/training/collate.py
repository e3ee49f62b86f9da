"""Batches of padded token ids, with labels on response tokens only.

A file of its own: Ray Train's controller imports it with ``pipeline.train.stages``, and need not wait for the
packages that load a model (transformers, peft).
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = -100


def collate(
    prompt_ids: list[list[int]], response_ids: list[list[int]], trained: list[list[bool]] | None = None
) -> dict[str, Tensor]:
    """Right-padded batch: input_ids, attention_mask and labels, int64 (n, longest).

    Labels are the response tokens at their own positions, those that ``trained`` tells (None: all of them),
    and IGNORED elsewhere. The id of padding does not matter: it is masked and never a label.
    """
    lengths = [len(p) + len(r) for p, r in zip(prompt_ids, response_ids, strict=True)]
    shape = (len(lengths), max(lengths))
    ids = torch.zeros(shape, dtype=torch.int64)
    mask = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED, dtype=torch.int64)
    wanted = labels_of(response_ids, trained)
    for i, (prompt, response) in enumerate(zip(prompt_ids, response_ids, strict=True)):
        ids[i, : lengths[i]] = torch.tensor(prompt + response)
        mask[i, : lengths[i]] = 1
        labels[i, len(prompt) : lengths[i]] = torch.tensor(wanted[i])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def labels_of(response_ids: list[list[int]], trained: list[list[bool]] | None) -> list[list[int]]:
    """The ids of responses, IGNORED where they are not trained on; None: all are."""
    if trained is None:
        return response_ids
    return [
        [one if learnt else IGNORED for one, learnt in zip(*row, strict=True)]
        for row in zip(response_ids, trained, strict=True)
    ]
