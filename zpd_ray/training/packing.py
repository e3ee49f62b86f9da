"""Items that share a row, so that little of a batch is padding, and none of them sees another.

Kept apart by position ids that begin anew with each item: from them transformers makes an attention mask of a
block per item. That a model does so is tried (``check_apart``) and not believed.
"""

from __future__ import annotations

import inspect

import numpy as np
import torch
from torch import Tensor

from zpd_ray.errors import ZpdError
from zpd_ray.training.collate import IGNORED, labels_of
from zpd_ray.training.loss import ResponseLoss

APART = 1e-4  # relative; what is masked adds exactly 0, and another item's text moves an NLL by far more
TRIED = 12  # tokens of each item that is tried


def first_fit(lengths: list[int], room: int) -> list[list[int]]:
    """Which items share a row of ``room`` tokens, by first fit decreasing (Johnson 1973).

    Longer items first, ties by place; each goes into the first row where it fits. The items of a row, and
    rows by their first item, are in the order of the items. No item may be longer than ``room``.
    """
    rows: list[list[int]] = []
    left: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        row = next((r for r, free in enumerate(left) if free >= lengths[i]), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(room)
        rows[row].append(i)
        left[row] -= lengths[i]
    return sorted(sorted(row) for row in rows)


def pack(
    prompt_ids: list[list[int]],
    response_ids: list[list[int]],
    rows: list[list[int]],
    length: int,
    trained: list[list[bool]] | None = None,
) -> dict[str, Tensor]:
    """input_ids, position_ids and labels, int64 (len(rows), length): ``rows`` says who lies in which.

    trained: as of ``collate``, as labels are; an item's first token is IGNORED, too, which would be predicted
    from the item before. The padding at the end of a row goes on counting from its last item, which does not
    see it: as many positions are 0 as there are items.
    """
    ids = torch.zeros((len(rows), length), dtype=torch.int64)
    positions = torch.zeros_like(ids)
    labels, wanted = torch.full_like(ids, IGNORED), labels_of(response_ids, trained)
    for r, row in enumerate(rows):
        start = 0
        for i in row:
            prompt, response = prompt_ids[i], response_ids[i]
            end = start + len(prompt) + len(response)
            ids[r, start:end] = torch.tensor(prompt + response)
            labels[r, start + len(prompt) : end] = torch.tensor(wanted[i])
            labels[r, start] = IGNORED
            positions[r, start:] = torch.arange(length - start)
            start = end
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


@torch.no_grad()
def check_apart(loss: ResponseLoss, device: torch.device) -> None:
    """Try that an item's NLL is the same whatever lies before it in its row. Raises ZpdError where not."""
    model = loss.model
    expected = "train.packing needs a model that keeps the items of a row apart by their position_ids"
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        raise ZpdError(f"{expected}; {type(model).__name__} takes none: set train.packing = false")
    was_training = loss.net.training
    loss.net.eval()
    tried = [_second_of_two(loss, device, draw) for draw in (0, 1)]
    loss.net.train(was_training)
    if abs(tried[0] - tried[1]) > APART * abs(tried[0]):
        raise ZpdError(
            f"{expected}; in {type(model).__name__} the NLL of an item is {tried[0]:.6g} after one item and "
            f"{tried[1]:.6g} after another: set train.packing = false"
        )


def _second_of_two(loss: ResponseLoss, device: torch.device, draw: int) -> float:
    """The NLL (nats) of one and the same item, behind an item that depends on ``draw``."""
    vocabulary = int(loss.model.get_input_embeddings().weight.shape[0])
    item = np.random.default_rng(2).integers(vocabulary, size=TRIED).tolist()
    before = np.random.default_rng(draw).integers(vocabulary, size=TRIED).tolist()
    batch = pack([before, item[:1]], [[], item[1:]], [[0, 1]], 2 * TRIED)
    return float(loss(**{name: tensor.to(device) for name, tensor in batch.items()}))
