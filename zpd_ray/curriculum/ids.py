"""Prompts by their ids: which row each has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zpd_ray.errors import ZpdError
from zpd_ray.hashing import item_keys

Rows = NDArray[np.int64]


class ItemIds:
    """Ids of n prompts, strings or whole numbers; a number n stands for 0 .. n - 1.

    Strings are found by a hash of 64 bits, kept in order: 16 bytes a prompt, where a dict takes over 100.
    """

    def __init__(self, item_ids: int | Sequence[Any] | NDArray[Any]) -> None:
        """Raises ZpdError where there are none, or where one is there twice."""
        if isinstance(item_ids, (int, np.integer)):
            item_ids = np.arange(max(0, int(item_ids)))
        self.ids = _as_array(item_ids)
        if len(self.ids) == 0:
            raise ZpdError("item_ids is empty; expected one id or more, or the number of prompts")
        keys = _keys(self.ids)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        if len(twice := np.flatnonzero(self._keys[1:] == self._keys[:-1])):
            first = self.ids[self._order[twice[0]]]
            raise ZpdError(f"item_ids has {first!r} twice ({len(twice)} such); expected each prompt once")

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, item_ids: Sequence[Any] | NDArray[Any]) -> Rows:
        """The row of each id, int64 (n,); ZpdError names the first that is not there."""
        asked = _as_array(item_ids)
        if len(asked) == 0:
            return np.zeros(0, dtype=np.int64)
        if (asked.dtype == object) != (self.ids.dtype == object):
            ours, theirs = self.ids[0], asked[0]
            raise ZpdError(
                f"item_ids has {theirs!r}, and the curriculum ids like {ours!r}; expected one kind throughout"
            )
        keys = _keys(asked)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        if len(unknown := np.flatnonzero(self._keys[at] != keys)):
            raise ZpdError(
                f"item_ids has {asked[unknown[0]]!r} ({len(unknown)} such), unknown to the curriculum; "
                "expected ids that it was made with"
            )
        return self._order[at]

    def fingerprint(self) -> str:
        """The same for the same ids in the same order."""
        inverse = np.empty_like(self._keys)
        inverse[self._order] = self._keys
        return hashlib.blake2b(inverse.tobytes(), digest_size=16).hexdigest()


def _as_array(item_ids: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """int64, or object holding strings: (n,)."""
    array = item_ids if isinstance(item_ids, np.ndarray) else np.array(item_ids, dtype=object)
    if array.ndim != 1:
        raise ZpdError(f"item_ids has shape {array.shape}; expected one id per prompt, a flat list")
    if len(array) == 0 or isinstance(array[0], (int, np.integer)):
        return _whole(array)
    try:
        strings = pa.array(array, pa.large_string())
    except pa.ArrowException:
        strings = None
    if strings is None or strings.null_count:
        kinds = sorted({type(each).__name__ for each in array})
        raise ZpdError(f"item_ids holds {', '.join(kinds)}; expected strings alone, or whole numbers")
    return np.asarray(strings.to_numpy(zero_copy_only=False))


def _whole(array: NDArray[Any]) -> NDArray[Any]:
    told = "item_ids holds more than whole numbers; expected these alone, or strings"
    try:
        whole = array.astype(np.int64, casting="safe" if array.dtype != object else "unsafe")
    except (TypeError, ValueError, OverflowError):
        raise ZpdError(told) from None
    if (whole != array).any():  # 1.5 would have become 1
        raise ZpdError(told)
    return whole


def _keys(ids: NDArray[Any]) -> NDArray[np.uint64]:
    if ids.dtype == object:
        return item_keys(pa.array(ids, pa.large_string()))
    return ids.view(np.uint64)
