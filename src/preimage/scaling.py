"""The units of a weight matrix: factors of its rows and columns, found once for each matrix.

Solvers work with absolute tolerances, and HiGHS drops small matrix entries without a word: with
weights of 1e-10 it returns a wrong point as optimal. Every backend of ``lp`` therefore gets the
matrix ``row w column``, with factors that are powers of two, so that scaling itself rounds nothing,
and gives its answers back through the same factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from preimage.matrix import Array, Flags

# Rows and columns whose largest entries, and 1, differ by less than this need no least squares.
_SPREAD = 2.0**10
_MOST_ROUNDS = 100
# In powers of two: when the factors have settled, and how large they may be.
_SETTLED = 0.1
_FARTHEST = 400.0
# Smaller entries, where the largest are near 1, are beyond all solvers, and so are their squares.
_SMALLEST = 1e-100
# What a pair of listed entries costs beside one of a dense Gram matrix.
_PAIR = 150.0
# Entries of the scaled matrix's rows that are padding: see ``row_stride`` of the kernel.
_LINE = 8


@dataclass(frozen=True, eq=False)
class Scaled:
    """A matrix and its units.

    Sizes of rows and columns are such that ``|w_ja| <= row_size_j column_size_a``. A row of zeros
    has the size 0: it has no unit, and the value 0 without any rounding.
    """

    weight: Any  # (n, k), dense or CSR, or (batch, n, k)
    row: Array  # (n,) or (batch, n) factors, powers of two; 1 for a row of zeros
    column: Array  # (k,) or (batch, k), likewise
    row_size: Array  # of the shapes of the factors
    column_size: Array

    @cached_property
    def table(self) -> Array:
        """(n + 1, stride) or (batch, n + 1, stride): ``row w column``, padded by zeros."""
        weight = self.weight.toarray() if scipy.sparse.issparse(self.weight) else self.weight
        *many, n, k = weight.shape
        stride = _LINE * (2 * (k // (2 * _LINE) + 1) | 1)
        # At a cache line, where NumPy's own arrays do not start: products take 5 to 9 % less time.
        shape = (*many, n + 1, stride)
        entries = np.zeros(int(np.prod(shape)) + _LINE)
        first = -(entries.ctypes.data // entries.itemsize) % _LINE
        table = entries[first : len(entries) - _LINE + first].reshape(shape)
        np.multiply(weight, self.row[..., :, None], out=table[..., :n, :k])
        table[..., :n, :k] *= self.column[..., None, :]
        return table

    @cached_property
    def entries(self) -> tuple[NDArray[np.int32] | None, NDArray[np.int32] | None]:
        """Where each row's entries start, and their columns, if so few that a list pays."""
        if self.weight.ndim == 3:
            return None, None
        n, k = self.weight.shape
        present = self.table[:, :k] != 0
        in_row = present.sum(axis=1)
        if _PAIR * (in_row.astype(np.float64) ** 2).sum() >= n * k**2:
            return None, None
        first = np.concatenate([[0], np.cumsum(in_row)]).astype(np.int32)
        return first, np.nonzero(present)[1].astype(np.int32)

    @cached_property
    def usable(self) -> bool:
        """Whether the numbers compare in the new units: none overflows, vanishes or nearly does."""
        weight, scaled = self.weight, self.table
        if scipy.sparse.issparse(weight):
            weight, scaled = weight.data, multiplied(weight, self.row, self.column).data
        scaled = np.abs(scaled)
        comparable = (scaled > _SMALLEST) & (scaled < 1 / _SMALLEST)
        return bool(
            np.isfinite(weight).all() and np.count_nonzero(comparable) == np.count_nonzero(weight)
        )


def scale(weight: Any) -> Scaled:
    """Find factors that bring the largest entry of every row and column near 1.

    The largest entry gives no unit where rows differ by 1e12: one entry then speaks for the whole
    column. There the factors r and c are first those that make

        sum over w_ja != 0 of  (log2 |w_ja| + log2 r_j + log2 c_a)^2

    smallest, which undo any scaling of rows and columns (Curtis and Reid 1972).
    """
    magnitude = abs(weight)
    in_row, in_column = largest(magnitude, -1), largest(magnitude, -2)
    row, column = np.ones_like(in_row), np.ones_like(in_column)
    odd = _odd(in_row) | _odd(in_column)
    for sample in np.argwhere(odd):
        at = tuple(sample)
        row[at], column[at] = _curtis_reid(magnitude[at] if at else magnitude)
    if odd.any():
        magnitude = multiplied(magnitude, row, column)
        in_column = largest(magnitude, -2)
    row_size = largest(multiplied(magnitude, None, 1.0 / _positive(in_column)), -1)
    # Two rounds of largest entries; the second row factor is that of columns near 1.
    more_column = np.ones_like(column)
    for _ in range(2):
        more_row = 1.0 / _positive(largest(multiplied(magnitude, None, more_column), -1))
        more_column = 1.0 / _positive(largest(multiplied(magnitude, more_row, None), -2))
    return Scaled(
        weight,
        row * power_of_two(more_row),
        column * power_of_two(more_column),
        row_size / row,
        in_column / column,
    )


def power_of_two(values: Array | float) -> Array:
    """The power of two nearest to each value in the logarithm; 1 for 0."""
    return np.asarray(np.exp2(np.round(np.log2(_positive(values)))))


def _positive(values: Array | float) -> Array:
    return np.where(np.greater(values, 0), values, 1.0)


def largest(magnitude: Any, axis: int) -> Array:
    """Of each row (axis -1) or column (axis -2) of a matrix of numbers that are at least 0."""
    if scipy.sparse.issparse(magnitude):
        if 0 in magnitude.shape:
            return np.zeros(magnitude.shape[0 if axis == -1 else 1])
        return np.asarray(magnitude.max(axis=axis % 2).toarray(), dtype=np.float64).ravel()
    return np.asarray(magnitude.max(axis=axis, initial=0.0))


def multiplied(matrix: Any, row: Array | None, column: Array | None) -> Any:
    """``row w column``, dense or CSR as it came; None for factors of 1."""
    if scipy.sparse.issparse(matrix):
        found = matrix if row is None else scipy.sparse.diags_array(row) @ matrix
        return scipy.sparse.csr_array(
            found if column is None else found @ scipy.sparse.diags_array(column)
        )
    found = matrix if row is None else matrix * row[..., :, None]
    return found if column is None else found * column[..., None, :]


def _odd(peak: Array) -> Flags:
    """Whether the nonzero ones among (..., n) numbers lie far from each other or from 1, (...)."""
    least = np.where(peak > 0, peak, 1.0).min(axis=-1, initial=1.0)
    return np.asarray(least * _SPREAD < peak.max(axis=-1, initial=1.0))


def _curtis_reid(magnitude: Any) -> tuple[Array, Array]:
    """Factors of the rows and columns of one (n, k) matrix, by alternating least squares."""
    (n, k), entries = magnitude.shape, scipy.sparse.coo_array(magnitude)
    present = entries.data > 0
    j, a, log = entries.row[present], entries.col[present], np.log2(entries.data[present])
    in_row, in_column = (np.maximum(np.bincount(i, minlength=m), 1) for i, m in ((j, n), (a, k)))
    row, column = np.zeros(n), np.zeros(k)
    for _ in range(_MOST_ROUNDS):
        row = -np.bincount(j, log + column[a], n) / in_row
        before, column = column, -np.bincount(a, log + row[j], k) / in_column
        if np.abs(column - before).max(initial=0.0) < _SETTLED:
            break
    row, column = (np.exp2(np.round(np.clip(p, -_FARTHEST, _FARTHEST))) for p in (row, column))
    return row, column
