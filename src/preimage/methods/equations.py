"""Equations ``w_j . z = t_j`` on some rows of one matrix, other rows for each sample.

The C kernel solves normal equations and refines with the residual of the equations themselves.
They square the condition number, so a sample whose pivots leave any doubt, or every sample where
there is no kernel, is left to a rank-revealing factorisation of its rows.
"""

from __future__ import annotations

import numpy as np

from preimage import engine
from preimage.clock import UNLIMITED, Clock
from preimage.matrix import Array, Flags, Integers
from preimage.scaling import Scaled

# A sample's columns depend on each other when the smallest diagonal entry of R in a pivoted QR
# factorisation is below this fraction of the largest.
RANK = 1e-11


def least_squares(
    units: Scaled, scale: Array, target: Array, clock: Clock = UNLIMITED
) -> tuple[Array, Flags]:
    """Minimise ``sum_j (scale_j (w_j . z - t_j))^2`` for each sample (paper, Theorem 2).

    Args:
        units: The matrix W (n, k); see ``Layer.scaled``.
        scale: (batch, n), 0 for rows that do not count.
        target: (batch, n), finite.
        clock: Samples that are not reached in time count as not of full rank.

    Returns:
        Minimisers (batch, k), NaN where the rows do not have full column rank; and where they do.
    """
    z = np.zeros((len(scale), units.weight.shape[1]))
    if not units.usable:
        return np.full_like(z, np.nan), np.zeros(len(z), dtype=np.bool_)
    full = _solve(units, scale, target, z)
    z[~full] = np.nan
    for sample in np.flatnonzero(~full):
        if clock.is_over:
            break
        rows = np.flatnonzero(scale[sample])
        factor = scale[sample, rows] / units.row[rows]
        scaled = units.table[rows, : z.shape[1]]
        solution = _by_qr(factor[:, None] * scaled, scale[sample, rows] * target[sample, rows])
        if solution is not None:
            z[sample], full[sample] = solution * units.column, True
    return z, full


def rank_of_rows(units: Scaled, rows: Flags, clock: Clock = UNLIMITED) -> Integers:
    """(batch,) numerical rank of ``W[rows[sample]]``, for ``rows`` (batch, n); -1 if unknown."""
    k = units.weight.shape[1]
    if not units.usable:
        return np.full(len(rows), -1)
    rank = np.full(len(rows), k)
    for sample in np.flatnonzero(~_solve(units, rows.astype(np.float64), None, None)):
        if clock.is_over:
            rank[sample] = -1
            continue
        some = units.table[:-1, :k][rows[sample]]
        rank[sample] = np.linalg.matrix_rank(some) if some.size else 0
    return rank


def inverse_diagonals(gram: Array) -> tuple[Array, Flags]:
    """Diagonals of the inverses of ``D^-1 gram D^-1``, where D is the root of the diagonal.

    Args:
        gram: (batch, k, k), symmetric and positive semidefinite.

    Returns:
        Diagonals (batch, k), each at least 1, and (batch,) where the matrix is positive definite
        in floating point; elsewhere the diagonal is NaN.
    """
    batch, k, _ = gram.shape
    diagonal, positive = np.full((batch, k), np.nan), np.full(batch, k == 0)
    if k and batch and engine.library() is not None:
        flags = np.zeros(batch, dtype=np.int64)
        held = (np.ascontiguousarray(gram), diagonal, flags)
        # The fields of ``Inverses`` of ``src/kernel/inverse.c``.
        engine.call("invert_diagonals", batch, k, engine.processors(), *held)
        return diagonal, flags != 0
    size = np.sqrt(np.einsum("raa->ra", gram))
    some = np.flatnonzero((size > 0).all(axis=1) & np.isfinite(size).all(axis=1))
    if k and len(some):
        scaled = gram[some] / (size[some, :, None] * size[some, None, :])
        values, vectors = np.linalg.eigh(scaled)
        positive[some] = values[:, 0] > k * np.finfo(float).eps * values[:, -1]
        good = positive[some]
        diagonal[some[good]] = np.einsum("rab,rb->ra", vectors[good] ** 2, 1.0 / values[good])
    return diagonal, positive


def _solve(units: Scaled, scale: Array, target: Array | None, z: Array | None) -> Flags:
    """Let the kernel solve; True where it is sure of the rank, and z is written."""
    (batch, n), k = scale.shape, units.weight.shape[1]
    sure = np.full(batch, k == 0, dtype=np.int64)
    if k and batch and engine.library() is not None:
        arrays = (units.table, units.row, units.column, scale, target, z, sure)
        held = [part if part is None else np.ascontiguousarray(part) for part in arrays]
        sizes = batch, n, k, units.table.shape[-1], engine.processors()
        # The fields of ``Equations`` of ``src/kernel/equations.c``.
        engine.call("solve_equations", *sizes, *held)
    return sure != 0


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
