"""What an export format is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

Write = Callable[["Rows", Path], None]


class Rows(Protocol):
    """The selected items, a table at a time, in order of stage and rank; may be gone through again.

    Tables hold the columns of ``schema.SELECTED``, ``stage`` (int64) and, where it was asked for,
    ``pass_rate`` (float64: mean credit of the stage's responses, 0 to 1; null where there are none).
    carried: columns of theirs that the user wants beside the format's own; files: number of tables; place:
    where the files will lie in the end; all_turns: whether the run trains on earlier answers, too; have_more:
    whether some item of the pool defines tools, or has a turn that holds more than role and content;
    prompts_alone: whether the pool has no references (pool.reference is "prompt"), and need not have answers.
    """

    @property
    def carried(self) -> tuple[str, ...]:
        """Columns to carry."""

    @property
    def place(self) -> Path:
        """An absolute path, which need not be there yet."""

    @property
    def all_turns(self) -> bool:
        """Whether train.turns is "all"."""

    @property
    def have_more(self) -> bool:
        """What a format has to keep room for."""

    @property
    def prompts_alone(self) -> bool:
        """What a format may miss then."""

    @property
    def files(self) -> int:
        """Number of tables."""

    def __iter__(self) -> Iterator[pa.Table]:
        """A table per file of the selection, at most some 100,000 rows."""


class Format(Protocol):
    """Writes rows as one trainer reads them.

    needs: columns beside those of ``schema.SELECTED``: ``("pass_rate",)`` or none. hint: how to load what was
    written, with {into} for the directory; "" for nothing to say.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns to ask for."""

    @property
    def hint(self) -> str:
        """For who reads the command's output."""

    def write(self, rows: Rows, directory: Path) -> None:
        """Write all rows into an empty directory. Raises ZpdError for rows that the format cannot hold."""


class FunctionFormat:
    """A user's ``write(rows, directory)`` as a format; the function may have attributes needs and hint."""

    def __init__(self, function: Write) -> None:
        self.needs: tuple[str, ...] = tuple(getattr(function, "needs", ()))
        self.hint: str = getattr(function, "hint", "")
        self.write = function
