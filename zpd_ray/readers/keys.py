"""Keys of many items at once: the same bytes are hashed as row by row, made and cut in arrow's buffers.

What is hashed of a row stands in ``readers.items``. Here the texts of a block lie in one buffer, escaped and
joined by arrow; what is left for Python is one call of sha256 for each digest.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

# What JSON escapes, as json.encoder.encode_basestring does.
_SHORT = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f", "\b": "\\b"}
_ESCAPES = _SHORT | {chr(i): f"\\u{i:04x}" for i in range(32) if chr(i) not in _SHORT}
_PLAIN = bytes(i for i in range(256) if chr(i) not in _ESCAPES)
# str.lower and the white space of str.split, of ASCII.
_FOLDED = bytes(
    32 if chr(i).isspace() and i < 128 else ord(chr(i).lower()) if i < 128 else i for i in range(256)
)
_BETWEEN = b"\xff"  # no byte of UTF-8
_ID_BYTES, _DIGEST = 16, 32


class Keys(NamedTuple):
    """Of n items. item_id: the first 32 hex digits of the sha256; content_hash and prompt_key: (n,)."""

    item_id: pa.StringArray
    content_hash: Hashes
    prompt_key: Hashes


def keys_of(prompt: pa.StringArray, response: pa.StringArray, answer: pa.StringArray) -> Keys:
    """As ``items.to_items`` has them, of items whose prompt is one turn of the user's, without choices.

    prompt, response: no nulls. answer: nulls where there is none.
    """
    opening = '[[{"role":"user","content":"'
    texts = _joined(opening, escaped(prompt), '"}],"', escaped(response), '",null')
    tails = pc.fill_null(_joined(',"', escaped(answer), '"]'), ",null]")
    content, whole = _two_digests(_slices(texts), _slices(tails))
    return Keys(_hex(whole), _first_words(content), prompt_keys(prompt))


def escaped(texts: pa.StringArray) -> pa.StringArray:
    """As they stand between the quotes of a JSON string that is not escaped to ASCII; nulls stay."""
    # The backslash first: it is in what the others become.
    for character in sorted(_specials(texts), key=lambda one: one != "\\"):
        texts = pc.replace_substring(texts, character, _ESCAPES[character])
    return texts


def prompt_keys(prompts: pa.StringArray) -> Hashes:
    """uint64 (n,): ``prompt_key`` of one turn of the user's each, without choices. No nulls."""
    keys = np.zeros(len(prompts), np.uint64)
    ascii_only = pc.string_is_ascii(prompts)
    simple = ascii_only.to_numpy(zero_copy_only=False)
    if simple.any():
        keys[simple] = _first_words(
            b"".join([sha256(text).digest() for text in _folded(prompts.filter(ascii_only))])
        )
    others = prompts.filter(pc.invert(ascii_only)).to_pylist()
    if others:
        keys[~simple] = [prompt_key([text], None) for text in others]
    return keys


def prompt_key(turns: Iterable[str], choices: list[str] | None) -> int:
    """Of a prompt's turns but the system's, and its options in any order: the same task is the same key.

    Case and white space do not count.
    """
    told = "\n".join(map(_plain, turns))
    options = "\0".join(sorted(map(_plain, choices))) if choices else ""
    return int.from_bytes(sha256(f"{told}\0{options}".encode()).digest()[:8], "little")


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _folded(prompts: pa.StringArray) -> list[bytes]:
    """``_plain`` of prompts in ASCII, each with the byte that ends it: one buffer, cut between them."""
    text = _bytes_of(_joined(prompts.cast(pa.binary()), _BETWEEN)).translate(_FOLDED)
    data = np.frombuffer(text, np.uint8)
    space = data == ord(" ")
    twice = space[1:] & space[:-1]
    if twice.any():
        text = data[np.concatenate([[True], ~twice])].tobytes()
    return [row.strip(b" ") + b"\0" for row in text.split(_BETWEEN)[:-1]]


def _joined(*parts: pa.Array | str | bytes) -> pa.Array:
    """Row by row; null where a part is."""
    kind = next(part.type for part in parts if isinstance(part, pa.Array))
    scalars = [part if isinstance(part, pa.Array) else pa.scalar(part, kind) for part in parts]
    return pc.binary_join_element_wise(*scalars, pa.scalar("", kind))


def _specials(texts: pa.StringArray) -> set[str]:
    """Characters that are to be escaped, of those that are there."""
    return set(_bytes_of(texts).translate(None, _PLAIN).decode())


def _offsets(texts: pa.Array) -> NDArray[np.int32]:
    return np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]


def _bytes_of(texts: pa.Array) -> bytes:
    """All texts, one after the other."""
    if len(texts) == 0:
        return b""
    offsets, data = _offsets(texts), texts.buffers()[2]
    return data[int(offsets[0]) : int(offsets[-1])].to_pybytes() if data is not None else b""


def _slices(texts: pa.Array) -> list[bytes]:
    """Each text. Not as views: the garbage collector would look at every one of them."""
    if len(texts) == 0:
        return []
    whole = _bytes_of(texts)
    offsets = (_offsets(texts) - _offsets(texts)[0]).tolist()
    return [whole[start:end] for start, end in pairwise(offsets)]


def _two_digests(texts: list[bytes], tails: list[bytes]) -> tuple[bytes, bytes]:
    """sha256 of each text, and of the text with its tail: all digests joined."""
    states = list(map(sha256, texts))
    first = b"".join([state.digest() for state in states])
    for state, tail in zip(states, tails, strict=True):
        state.update(tail)
    return first, b"".join([state.digest() for state in states])


def _first_words(digests: bytes) -> Hashes:
    """The first 8 bytes of each digest, little-endian."""
    return np.frombuffer(digests, "<u8")[:: _DIGEST // 8].astype(np.uint64)


def _hex(digests: bytes) -> pa.StringArray:
    """The first 32 hex digits of each digest."""
    heads = np.frombuffer(digests, np.uint8).reshape(-1, _DIGEST)[:, :_ID_BYTES]
    offsets = np.arange(len(heads) + 1, dtype=np.int32) * (2 * _ID_BYTES)
    text = pa.py_buffer(heads.tobytes().hex().encode())
    return pa.StringArray.from_buffers(len(heads), pa.py_buffer(offsets), text)
