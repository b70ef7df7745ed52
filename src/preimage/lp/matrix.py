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


class Matrix(NamedTuple):
    """A weight matrix scaled by powers of two: ``columns[a, j] = w_ja * row_j * column_a``.

    Attributes:
        columns: (k, n padded to 8), the scaled transpose; padding is 0.
        table: (n padded to 8, stride), the scaled matrix itself; padding is 0.
        row: (n padded to 8,).
        column: (k,).
        filled: (n padded to 8,), 1 where a row has an entry, else 0.
    """

    columns: Array
    table: Array
    row: Array
    column: Array
    filled: Array


@register_jitable
def room_for_matrix(n: int, k: int) -> Matrix:
    """An unset scaled matrix."""
    m = (n + 7) // 8 * 8
    # Columns that are a power of two apart would share few places in the first-level cache.
    m += 8 if m % 128 == 0 and m > 0 else 0
    return Matrix(
        np.zeros((k, m)), np.zeros((m, row_stride(k))), np.ones(m), np.ones(k), np.zeros(m)
    )


@compiled
def power(value: float) -> float:
    """The power of two nearest to ``value`` in the logarithm; 1 for 0."""
    return float(2.0 ** np.round(np.log2(value))) if value > 0.0 else 1.0


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


@entry
def equilibrate(weight: Array, matrix: Matrix) -> None:
    """Scale ``weight`` (n, k) so that rows and columns have their largest entry near 1."""
    equilibrate_into(weight, matrix)
