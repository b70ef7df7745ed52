"""Equations ``w_j . z = t_j`` on some rows of one matrix, other rows for each sample.

Normal equations by the kernel's Gram and Cholesky routines, refined with the residual of the
equations themselves. They square the condition number, so a sample whose pivots leave any doubt is
left to a rank-revealing factorisation of its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from preimage.threads import processors

Array = NDArray[np.float64]

# A sample's columns depend on each other when the smallest diagonal entry of R in a pivoted QR
# factorisation is below this fraction of the largest.
RANK = 1e-11
# Samples that a thread takes at a time.
_PART = 32


def least_squares(weight: Array, scale: Array, target: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Minimise ``sum_j (scale_j (w_j . z - t_j))^2`` for each sample (paper, Theorem 2).

    Args:
        weight: (n, k).
        scale: (batch, n), 0 for rows that do not count.
        target: (batch, n), finite.

    Returns:
        Minimisers (batch, k), NaN where the rows do not have full column rank; and where they do.
    """
    from preimage.methods import compiled_equations as inner

    batch, k = len(scale), weight.shape[1]
    z, sure = np.zeros((batch, k)), np.ones(batch, dtype=np.bool_)
    if k:
        _in_parts(
            batch,
            inner.prepare(weight),
            lambda matrix, part: inner.solve(matrix, scale[part], target[part], z[part],
                                             sure[part]),
        )  # fmt: skip
    full = sure.copy()
    for sample in np.flatnonzero(~sure):
        rows = np.flatnonzero(scale[sample])
        factor = scale[sample, rows]
        solution = _by_qr(factor[:, None] * weight[rows], factor * target[sample, rows])
        z[sample], full[sample] = (np.nan, False) if solution is None else (solution, True)
    return z, full


def rank_of_rows(weight: Array, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(batch,) numerical rank of ``weight[rows[sample]]``, for ``rows`` (batch, n)."""
    from preimage.methods import compiled_equations as inner

    batch, k = len(rows), weight.shape[1]
    sure = np.ones(batch, dtype=np.bool_)
    if k:
        _in_parts(
            batch,
            inner.prepare(weight),
            lambda matrix, part: inner.judge(matrix, rows[part], sure[part]),
        )
    rank = np.full(batch, k)
    for sample in np.flatnonzero(~sure):
        some = weight[rows[sample]]
        rank[sample] = np.linalg.matrix_rank(some) if some.size else 0
    return rank


def _in_parts(batch: int, matrix: object, work: Callable[..., object]) -> None:
    parts = [slice(first, first + _PART) for first in range(0, batch, _PART)]
    if len(parts) <= 1:
        for part in parts:
            work(matrix, part)
        return
    with ThreadPoolExecutor(min(processors(), len(parts))) as pool:
        for _ in pool.map(lambda part: work(matrix, part), parts):
            pass


def _by_qr(matrix: Array, rhs: Array) -> Array | None:
    """Column-pivoted QR with one step of refinement; None if the columns are dependent."""
    from scipy import linalg  # a tenth of a second, which `import preimage` need not pay

    if len(matrix) < matrix.shape[1]:
        return None
    # Columns of very different size are a matter of units, not of rank.
    size = np.linalg.norm(matrix, axis=0)
    if not (size > 0).all():
        return None
    scaled = matrix / size
    q, r, order = linalg.qr(scaled, mode="economic", pivoting=True, check_finite=False)
    diagonal = np.abs(np.diag(r))
    if diagonal[-1] <= RANK * diagonal[0]:
        return None
    y = np.zeros(matrix.shape[1])
    for _ in range(2):
        residual = rhs - scaled @ y
        y[order] += linalg.solve_triangular(r, q.T @ residual, check_finite=False)
    return y / size
