"""What ``equations`` does for each sample, in compiled code; importing it imports Numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preimage.lp.block import Matrix, equilibrate, room_for_matrix
from preimage.lp.compiled import compiled, entry
from preimage.lp.normal import (
    Rows,
    cholesky,
    fill,
    normal_matrix,
    solve_factored,
    times,
    transposed_times,
)
from preimage.lp.room import Scratch, new_scratch

Array = NDArray[np.float64]

# The smallest pivot, relative to its diagonal entry, that leaves no doubt about the rank. The
# condition number is then about 1e5 at most, and two refinements reach rounding error.
_SURE = 1e-9
_REFINEMENTS = 2


def prepare(weight: Array) -> Matrix:
    """The matrix (n, k) as the compiled code wants it: scaled, by columns."""
    matrix = room_for_matrix(*weight.shape)
    equilibrate(np.ascontiguousarray(weight), matrix)
    return matrix


@compiled
def _rows_of(matrix: Matrix) -> Rows:
    m, k, zero = len(matrix.row), len(matrix.column), np.zeros(len(matrix.row))
    return Rows(matrix.columns, zero, zero, m, k, 0, 2 * m + 2 * k + 1, 0)


@compiled
def _factor(rows: Rows, work: Scratch) -> bool:
    """Factor ``W' diag(work.weight) W``; whether the rank is beyond doubt."""
    normal_matrix(
        rows, work.weight, 0.0, work.picked, work.image, work.near, work.root, work.matrix
    )
    cholesky(work.matrix, work.diagonal, work.pivots)
    sure = True
    for a in range(rows.k):
        pivot = work.pivots[a]
        # 1 / pivot^2 is what was left of the diagonal entry.
        sure = sure and pivot > 0.0 and _SURE * work.diagonal[a] * pivot * pivot < 1.0
    return sure


@entry
def solve(matrix: Matrix, scale: Array, target: Array, z: Array, sure: NDArray[np.bool_]) -> None:
    """See ``equations.least_squares``; only samples that are ``sure`` get their z."""
    n, m, k = scale.shape[1], len(matrix.row), len(matrix.column)
    rows, work = _rows_of(matrix), new_scratch(m, k)
    for b in range(len(z)):
        count = 0
        for j in range(n):
            work.weight[j] = (scale[b, j] / matrix.row[j]) ** 2
            count += scale[b, j] != 0.0
        sure[b] = count >= k and _factor(rows, work)
        if not sure[b]:
            continue
        v = work.gradient
        fill(v, 0.0)
        fill(work.product, 0.0)
        for _ in range(1 + _REFINEMENTS):
            for j in range(n):
                work.x[j] = work.weight[j] * (target[b, j] * matrix.row[j] - work.product[j])
            transposed_times(rows, work.x, work.image, work.affine)
            solve_factored(work.matrix, work.pivots, work.affine)
            for a in range(k):
                v[a] += work.affine[a]
            times(rows, v, work.image, work.product)
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
        sure[b] = count >= k and _factor(rows, work)
