"""What the files of a model say: its tokenizer, the tokens it takes, those it knows and those it stops at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpd_ray.engines.remote import at_hand
from zpd_ray.errors import ZpdError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from zpd_ray.config import ModelConfig

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")  # one class: its names before and since 5.0
UNLIMITED = 2**31 - 1


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Tokenizer of a model directory, URI or hub id; never runs code that comes with the model.

    Raises ZpdError when there is none, saying what is there.
    """
    path = at_hand(path)
    directory = Path(path)
    if directory.is_dir():
        _require_vocabulary(directory)
    elif directory.is_absolute() or path.startswith(".") or path.count("/") > 1:
        raise ZpdError(
            f"model directory {path} does not exist; give model.path a directory, the URI of one, or a hub id"
        )
    try:
        if _is_plain(directory):
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(path, trust_remote_code=False)
        from transformers import AutoTokenizer

        # Where mistral_common is installed (vLLM brings it) transformers would take another tokenizer.
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, mistral_format=False)
    except Exception as error:  # the hub, json and tokenizer libraries each raise their own
        raise ZpdError(
            f"cannot load a tokenizer from {path!r} ({first_line(error)}); expected a directory with "
            "tokenizer.json beside the weights, or the id of a model that this machine can download"
        ) from error


def _is_plain(directory: Path) -> bool:
    """Whether ``AutoTokenizer`` would take tokenizer.json as it is: it takes 5 s to import, with torch.

    So it is for Llama 3 and its like, whose class is the general one; other model types have exceptions.
    """
    own, model = _json(directory / "tokenizer_config.json"), _json(directory / "config.json")
    plain = own.get("tokenizer_class") in PLAIN_CLASSES and "auto_map" not in own
    return plain and model.get("model_type") == "llama" and (directory / "tokenizer.json").exists()


def _json(file: Path) -> dict[str, Any]:
    """What a file says, nothing where it is not there or no object: who needs it says so."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def max_length(model: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of prompt + response that the model takes: the config's, else what model and tokenizer state.

    Raises ZpdError when the config asks for more positions than the model has.
    """
    positions = _positions(model.path)
    if model.max_length is None:
        return min(positions, int(min(tokenizer.model_max_length, UNLIMITED)))
    if model.max_length > positions:
        raise ZpdError(
            f"model.max_length = {model.max_length} is more than the {positions} positions of {model.path}; "
            "lower it, or leave it out to use them all"
        )
    return model.max_length


def generation_stops(path: str) -> set[int]:
    """Further ids at which the generation config of a model stops, as that of Llama 3 does.

    ``path``: directory or hub id. Raises ZpdError when a directory has one that cannot be read.
    """
    from transformers import GenerationConfig

    path = at_hand(path)
    here = Path(path).is_dir()
    if here and not (Path(path) / "generation_config.json").exists():
        return set()
    try:
        ids = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError as error:
        if here:
            raise ZpdError(f"cannot read generation_config.json in {path}: {first_line(error)}") from None
        return set()  # a model of the hub that has none
    return set(ids) if isinstance(ids, list) else {ids} - {None}


def text_config(path: str) -> Any:
    """The text part of a model's config; ZpdError when there is none that transformers knows."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(at_hand(path), trust_remote_code=False).get_text_config()
    except Exception as error:  # the hub, json and config classes each raise their own
        raise ZpdError(
            f"cannot read the model's config of {path!r} ({first_line(error)}); expected config.json beside "
            "the weights, of an architecture that transformers knows"
        ) from error


def stored_dtype(path: str) -> str | None:
    """The type that config.json says the weights are stored in; None where it does not, or is not here."""
    told = _json(Path(at_hand(path)) / "config.json")
    own = told.get("text_config")
    for each in (own if isinstance(own, dict) else {}, told):
        found = each.get("dtype", each.get("torch_dtype"))
        if isinstance(found, str):
            return found
    return None


def vocabulary_of(path: str) -> int:
    """Number of tokens that a model has a row of logits for."""
    if stated := _stated(path, "vocab_size"):
        return stated
    return int(getattr(text_config(path), "vocab_size", UNLIMITED))


def _stated(path: str, name: str) -> int | None:
    """A number that config.json itself states; None where only transformers can tell, or may not know it.

    Every process of an ingest would else wait for ``AutoConfig``, which imports torch: 4 s.
    """
    import transformers

    told = _json(Path(at_hand(path)) / "config.json")
    value, kind = told.get(name), str(told.get("model_type", "")).replace("-", "_")
    known = kind.isidentifier() and Path(transformers.__path__[0], "models", kind).is_dir()
    return value if known and "text_config" not in told and isinstance(value, int) and value > 0 else None


def _positions(path: str) -> int:
    if stated := _stated(path, "max_position_embeddings"):
        return stated
    return int(getattr(text_config(path), "max_position_embeddings", None) or UNLIMITED)


def _require_vocabulary(directory: Path) -> None:
    names = sorted(entry.name for entry in directory.iterdir())
    if not any(name in VOCABULARIES or name.endswith(".tiktoken") for name in names):
        raise ZpdError(
            f"no tokenizer in {directory}, which holds {', '.join(names) or 'nothing'}; expected "
            "tokenizer.json beside the weights: write it there with tokenizer.save_pretrained(directory)"
        )
