"""Scaling of a linear program by powers of two, so that scaling itself rounds nothing.

Solvers work with absolute tolerances, and HiGHS drops matrix entries below 1e-9 without a word:
with weights of 1e-10 it returns a wrong point as optimal. After scaling, every row and column of
the matrix has its largest entry near 1, and so have the bounds and the costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from preimage.layer_program import LinearProgram

Array = NDArray[np.float64]
_ROUNDS = 4


@dataclass(frozen=True, eq=False)
class Scaled:
    """A scaled program, and the way back for its first ``size`` variables and for its rows."""

    program: LinearProgram
    factor: Array
    dual_factor: Array

    def restore(self, point: Array) -> Array:
        """The first variables of ``point`` in the units of the program before scaling."""
        return point[: len(self.factor)] * self.factor

    def restore_dual(self, dual: Array) -> Array:
        """The rows' multipliers in the units of the program before scaling, at least 0."""
        return np.maximum(dual, 0.0) * self.dual_factor


def _power(values: Array) -> Array:
    """The power of two nearest to each value in the logarithm; 1 for 0."""
    positive = np.where(values > 0, values, 1.0)
    return np.exp2(np.round(np.log2(positive)))


def scale(program: LinearProgram, size: int) -> Scaled:
    """Equilibrate rows and columns, then bounds and costs.

    Args:
        program: In its own units. Its variables' bounds must be 0 or infinite, or else are scaled
            along.
        size: How many of the first variables ``Scaled.restore`` shall return.
    """
    is_sparse = sparse.issparse(program.matrix)
    magnitude = abs(program.matrix)
    rows, columns = np.ones(magnitude.shape[0]), np.ones(magnitude.shape[1])
    if min(magnitude.shape) > 0:
        largest = (lambda m, axis: m.max(axis=axis).toarray()) if is_sparse else np.max
        scaled = magnitude
        for _ in range(_ROUNDS):
            rows /= np.sqrt(_positive(largest(scaled, axis=1)))
            columns /= np.sqrt(_positive(largest(scaled, axis=0)))
            scaled = _apply(magnitude, rows, columns)
        rows, columns = _power(rows), _power(columns)
    bound = program.bound * rows
    unit = float(_power(np.array(np.max(np.abs(bound), initial=0.0))))
    cost = program.cost * columns
    price = float(_power(np.array(np.max(np.abs(cost), initial=0.0))))
    return Scaled(
        LinearProgram(
            cost=cost / price,
            matrix=_apply(program.matrix, rows, columns),
            bound=bound / unit,
            lower=program.lower / columns / unit,
            upper=program.upper / columns / unit,
        ),
        factor=(columns * unit)[:size],
        dual_factor=rows * price,
    )


def _positive(values: Array) -> Array:
    return np.where(values > 0, values, 1.0)


def _apply(matrix: Array, rows: Array, columns: Array) -> Array:
    if sparse.issparse(matrix):
        return sparse.csr_array(sparse.diags_array(rows) @ matrix @ sparse.diags_array(columns))
    return rows[:, None] * matrix * columns
