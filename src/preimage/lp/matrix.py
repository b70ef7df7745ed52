"""The weight matrix of a layer as the compiled kernel takes it: scaled, both ways round, padded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from preimage.lp.compiled import compiled, compiled_finite, entry
from preimage.lp.normal import fill
from preimage.lp.room import row_stride

Array = NDArray[np.float64]

_ROUNDS = 2
# What a pair of listed entries costs beside one of a tile; a list pays below a density of 8 %
# (1.1 to 1.6 times as fast at 5 %, 784 x 60 to 2000 x 400).
_PAIR = 150.0


class Matrix(NamedTuple):
    """A weight matrix scaled by powers of two: ``columns[a, j] = w_ja * row_j * column_a``.

    Attributes:
        columns: (k, n padded to 8), the scaled transpose; padding is 0.
        table: (n padded to 8, stride), the scaled matrix itself; padding is 0.
        row: (n padded to 8,).
        column: (k,).
        filled: (n padded to 8,), 1 where a row has an entry, else 0.
        first: As ``Rows.first``.
        place: As ``Rows.place``.
    """

    columns: Array
    table: Array
    row: Array
    column: Array
    filled: Array
    first: NDArray[np.int64]
    place: NDArray[np.int64]


@register_jitable
def room_for_matrix(n: int, k: int, entries: int) -> Matrix:
    """An unset scaled matrix; ``entries`` is their number if they are to be listed, else 0."""
    m = (n + 7) // 8 * 8
    # Columns that are a power of two apart would share few places in the first-level cache.
    m += 8 if m % 128 == 0 and m > 0 else 0
    return Matrix(
        np.zeros((k, m)),
        np.zeros((m, row_stride(k))),
        np.ones(m),
        np.ones(k),
        np.zeros(m),
        np.zeros(m + 1 if entries > 0 else 0, dtype=np.int64),
        np.zeros(entries, dtype=np.int64),
    )


@compiled
def power(value: float) -> float:
    """The power of two nearest to ``value`` in the logarithm; 1 for 0."""
    return float(2.0 ** np.round(np.log2(value))) if value > 0.0 else 1.0


@compiled
def _list_entries(weight: Array, first: NDArray[np.int64], place: NDArray[np.int64]) -> None:
    """Where the entries of ``weight`` (n, k) are that are not 0, row by row."""
    seen = 0
    for j in range(len(weight)):
        first[j] = seen
        for a in range(weight.shape[1]):
            if weight[j, a] != 0.0:
                place[seen] = a
                seen += 1
    for j in range(len(weight), len(first)):
        first[j] = seen


def entries_worth_listing(weight: Array) -> int:
    """How many entries of ``weight`` (n, k) are not 0, if so few that a list pays."""
    in_row = np.count_nonzero(weight, axis=1)
    n, k = weight.shape
    return int(in_row.sum()) if _PAIR * (in_row.astype(float) ** 2).sum() < n * k**2 else 0


@compiled_finite
def equilibrate_into(weight: Array, matrix: Matrix) -> None:
    """Scale ``weight`` (n, k) so that rows and columns have their largest entry near 1."""
    n, k = weight.shape
    columns, row, column = matrix.columns, matrix.row, matrix.column
    for j in range(n):
        for a in range(k):
            columns[a, j] = weight[j, a]
    fill(column, 1.0)
    for _ in range(_ROUNDS):
        fill(row, 0.0)
        for a in range(k):
            for j in range(n):
                row[j] = max(row[j], abs(columns[a, j]) * column[a])
        for j in range(len(row)):
            row[j] = 1.0 / row[j] if row[j] > 0.0 else 1.0
        for a in range(k):
            peak = 0.0
            for j in range(n):
                peak = max(peak, abs(columns[a, j]) * row[j])
            column[a] = 1.0 / peak if peak > 0.0 else 1.0
    for j in range(len(row)):
        row[j] = power(row[j])
    for j in range(n):
        matrix.filled[j] = 0.0
        for a in range(k):
            matrix.filled[j] = 1.0 if weight[j, a] != 0.0 else matrix.filled[j]
    for a in range(k):
        column[a] = power(column[a])
        for j in range(n):
            columns[a, j] *= row[j] * column[a]
    for j in range(n):
        for a in range(k):
            matrix.table[j, a] = weight[j, a] * row[j] * column[a]
    if len(matrix.first) > 0:
        _list_entries(weight, matrix.first, matrix.place)


@entry
def equilibrate(weight: Array, matrix: Matrix) -> None:
    """Scale ``weight`` (n, k) so that rows and columns have their largest entry near 1."""
    equilibrate_into(weight, matrix)
