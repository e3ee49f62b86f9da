"""Writes data/pool.jsonl: questions of four options, of which the text holds some."""

import json
import random
from pathlib import Path

WORDS = ["amber", "basalt", "copper", "diamond", "emerald", "flint", "garnet", "hematite", "iron", "jade"]


def row(number: int, rng: random.Random) -> dict[str, object]:
    """The right option is in the text of half of the questions, a wrong one in that of a third."""
    options = [" ".join(rng.choices(WORDS, k=rng.randint(2, 4))) for _ in range(4)]
    hints = [option for option, share in zip(options, (0.5, 0.3), strict=False) if rng.random() < share]
    text = " ".join([*rng.sample(WORDS, 3), *hints, *rng.sample(WORDS, 3)])
    shown = rng.sample(options, 4)
    return {"prompt": f"{number}: {text}", "response": options[0], "answer": options[0], "choices": shown}


def main() -> None:
    """The same file every time."""
    rng, file = random.Random(0), Path(__file__).parent / "data/pool.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row(number, rng)) + "\n" for number in range(400)))


if __name__ == "__main__":
    main()
