"""What ``equations`` does for each sample, in compiled code; importing it imports Numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled, entry
from preimage.lp.matrix import Matrix, equilibrate, room_for_matrix
from preimage.lp.normal import (
    Rows,
    cholesky,
    fill,
    normal_matrix,
    solve_factored,
)
from preimage.lp.room import Scratch, new_scratch

Array = NDArray[np.float64]

# The smallest pivot, relative to its diagonal entry, that leaves no doubt about the rank. The
# condition number is then about 3e3 at most, and two refinements reach rounding error; one, above
# the second.
_SURE = 1e-7
_EASY = 1e-6


def prepare(weight: Array) -> Matrix:
    """The matrix (n, k) as the compiled code wants it: scaled, by columns."""
    n, k = weight.shape
    matrix = room_for_matrix(n, k, 0)
    equilibrate(np.require(weight, requirements=["C", "W"]), matrix)
    return matrix


@compiled
def _rows_of(matrix: Matrix) -> Rows:
    m, k, zero = len(matrix.row), len(matrix.column), np.zeros(len(matrix.row))
    return Rows(
        matrix.columns,
        matrix.table,
        np.arange(m),
        matrix.first,
        matrix.place,
        zero,
        zero,
        m,
        k,
        0,
        2 * m + 2 * k + 1,
        0,
    )


@compiled
def _factor(rows: Rows, work: Scratch) -> float:
    """Factor ``W' diag(work.weight) W``; its smallest pivot, relative to the diagonal entry."""
    normal_matrix(rows, work.weight, 0.0, work.picked, work.image, work.root, work.matrix)
    cholesky(work.matrix, work.diagonal, work.pivots)
    least = 1.0
    for a in range(rows.k):
        # 1 / pivot^2 is what was left of the diagonal entry; the pivot is 0 if that is nothing.
        pivot = work.diagonal[a] * work.pivots[a] ** 2
        least = min(least, 1.0 / pivot) if pivot > 0.0 else 0.0
    return least


@compiled
def _pull(matrix: Matrix, work: Scratch, target: Array, count: int, v: Array, out: Array) -> None:
    """``out = W' D (t - W v)`` over the rows that the Gram matrix was made of."""
    k, table = len(matrix.column), matrix.table
    fill(out, 0.0)
    for i in range(count):
        j = work.picked[i]
        miss = target[j] * matrix.row[j]
        for a in range(k):
            miss -= table[j, a] * v[a]
        miss *= work.weight[j]
        for a in range(k):
            out[a] += table[j, a] * miss


@entry
def solve(matrix: Matrix, scale: Array, target: Array, z: Array, sure: NDArray[np.bool_]) -> None:
    """See ``equations.least_squares``; only samples that are ``sure`` get their z."""
    n, m, k = scale.shape[1], len(matrix.row), len(matrix.column)
    rows, work = _rows_of(matrix), new_scratch(m, k)
    for b in range(len(z)):
        count = 0
        for j in range(n):
            work.weight[j] = (scale[b, j] / matrix.row[j]) ** 2
        for j in range(n):
            count += work.weight[j] > 0.0
        least = _factor(rows, work) if count >= k else 0.0
        sure[b] = least > _SURE
        if not sure[b]:
            continue
        v = work.gradient
        fill(v, 0.0)
        for _ in range(2 if least > _EASY else 3):
            _pull(matrix, work, target[b], count, v, work.affine)
            solve_factored(work.matrix, work.pivots, work.affine, work.sums)
            for a in range(k):
                v[a] += work.affine[a]
        for a in range(k):
            z[b, a] = v[a] * matrix.column[a]


@entry
def judge(matrix: Matrix, chosen: NDArray[np.bool_], sure: NDArray[np.bool_]) -> None:
    """See ``equations.rank_of_rows``."""
    n, m, k = chosen.shape[1], len(matrix.row), len(matrix.column)
    rows, work = _rows_of(matrix), new_scratch(m, k)
    for b in range(len(sure)):
        count = 0
        for j in range(n):
            work.weight[j] = 1.0 if chosen[b, j] else 0.0
            count += chosen[b, j]
        sure[b] = count >= k and _factor(rows, work) > _SURE
