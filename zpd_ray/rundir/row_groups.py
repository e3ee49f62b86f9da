"""Single rows of a parquet file, without the rest of it: what is not needed is neither read nor decoded."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

# Rows in a group of a file of which single rows are read, too. Fewer: less is read beside the one row, but
# the footer, of which all is read first, grows by some 1.2 kB a group. CPU and bytes of a part of 100,000
# rows of 60 bytes, and of one of 20,000 rows of 2 kB, by rows in a group:
#                     128           512          1024          8192
#   all rows     405   141     126   110      92    54      56    40 ms
#   one row      5.9   1.7     1.9   2.4     1.4   2.5     5.0    14 ms
#                927   318     266   533     181   988     505  7670 kB
# All rows cost .7 us a row more at 512 than in one group; to score it takes a model a millisecond.
GROUP_ROWS = 512
GROUP_TOKENS = 1 << 18  # in fewer rows where they are long: about 1 MB
BYTES_AT_ONCE = 1 << 24  # of groups that are held while rows are picked from them; one may be larger


def rows_in_group(rows: int, tokens: int) -> int:
    """Into groups of how many a file of so many rows, with so many tokens in them, is best cut."""
    return max(1, min(GROUP_ROWS, GROUP_TOKENS * rows // max(1, tokens)))


def rows_of(file: pq.ParquetFile, rows: NDArray[np.int64], columns: list[str]) -> pa.Table:
    """These rows of a file, int64 (n,), in this order; one may be asked for more than once.

    Row groups without any of them are not read.
    """
    footer, groups = file.metadata, range(file.num_row_groups)
    sizes = np.array([footer.row_group(i).num_rows for i in groups], dtype=np.int64)
    order = np.argsort(rows, kind="stable")
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    ascending, found = rows[order], [file.schema_arrow.empty_table().select(columns)]
    group = np.searchsorted(np.cumsum(sizes), ascending, side="right")
    needed = np.unique(group)
    held = np.cumsum([footer.row_group(i).total_byte_size for i in needed.tolist()]) // BYTES_AT_ONCE
    for few in np.split(needed, np.flatnonzero(np.diff(held)) + 1) if len(needed) else []:
        mine = (group >= few[0]) & (group <= few[-1])
        # By one thread: a task of Ray's has one CPU.
        table = file.read_row_groups(few.tolist(), columns, use_threads=False).select(columns)
        found.append(table.take(_places(ascending[mine], group[mine], few, sizes)))
    return pa.concat_tables(found).take(back)


def _places(
    rows: NDArray[np.int64], group: NDArray[np.int64], few: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where rows of a file, each of a ``group``, lie in a table of a ``few`` of its groups: (n,)."""
    in_file, in_table = (np.cumsum(of) - of for of in (sizes, sizes[few]))
    at: NDArray[np.int64] = rows - in_file[group] + in_table[np.searchsorted(few, group)]
    return at
