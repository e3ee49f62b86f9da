"""An export format: a line of text per selected item."""

from pathlib import Path

from zpd_ray.export import Rows


def write(rows: Rows, directory: Path) -> None:
    """prompt, tab, reference; rows come a table at a time, the best first."""
    with open(directory / "train.tsv", "w", encoding="utf-8") as file:
        for table in rows:
            for prompt, completion in zip(
                table["prompt"].to_pylist(), table["completion"].to_pylist(), strict=True
            ):
                print(prompt[-1]["content"], completion[0]["content"], sep="\t", file=file)
