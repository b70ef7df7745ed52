"""The normal equations ``(G' D G) v = r`` of a layer program: products, Gram matrix, Cholesky.

G stacks the sides of a program, N = 2 m + 2 k + 1 inequalities over ``v = (z, d)``:

        [  W  -u ]   upper sides      W is m x k and is stored by columns (k, m), so that every
        [ -W  -l ]   lower sides      loop runs along the long dimension and vectorises
    G = [  I     ]   z <= high
        [ -I     ]   z >= low
        [     -1 ]   d >= 0           (no column and no row for d unless the slack is shared)

Nothing here calls BLAS: at these sizes compiled loops are as quick as it is, and the order of
every sum is fixed by the shapes alone, so that a sample's bits do not depend on its company.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled

Array = NDArray[np.float64]


# A pivot this small against its diagonal entry is rounding: the column depends on those before.
_NO_PIVOT = 1e-14


class Rows(NamedTuple):
    """The matrix G of one program.

    Attributes:
        columns: (k padded to 3, m), W transposed; m is a multiple of 8, padding is 0.
        upper_rate: (m,), u.
        lower_rate: (m,), l.
        k: Number of entries of z.
        shared: 1 if the last variable is the slack d, else 0.
    """

    columns: Array
    upper_rate: Array
    lower_rate: Array
    k: int
    shared: int


# Loops written out: NumPy's own array expressions take seconds each to compile.


@compiled
def fill(array: Array, value: float) -> None:
    """``array[:] = value``."""
    for i in range(len(array)):
        array[i] = value


@compiled
def copy(source: Array, target: Array) -> None:
    """``target[:] = source``."""
    for i in range(len(source)):
        target[i] = source[i]


@compiled
def multiply(array: Array, factor: float) -> None:
    """``array *= factor``."""
    for i in range(len(array)):
        array[i] *= factor


@compiled
def largest(array: Array) -> float:
    """``max |array|``, 0 if empty."""
    peak = 0.0
    for i in range(len(array)):
        peak = max(peak, abs(array[i]))
    return peak


@compiled
def total(array: Array) -> float:
    """The sum."""
    running = 0.0
    for i in range(len(array)):
        running += array[i]
    return running


@compiled
def times(rows: Rows, v: Array, image: Array, out: Array) -> None:
    """``out = G v``; ``image`` (m,) is scratch for ``W z``."""
    columns, k, m = rows.columns, rows.k, rows.columns.shape[1]
    for j in range(m):
        image[j] = 0.0
    for a in range(0, k - k % 4, 4):
        v0, v1, v2, v3 = v[a], v[a + 1], v[a + 2], v[a + 3]
        for j in range(m):
            image[j] += (
                columns[a, j] * v0
                + columns[a + 1, j] * v1
                + columns[a + 2, j] * v2
                + columns[a + 3, j] * v3
            )
    for a in range(k - k % 4, k):
        for j in range(m):
            image[j] += columns[a, j] * v[a]
    slack = v[k] if rows.shared else 0.0
    for j in range(m):
        out[j] = image[j] - rows.upper_rate[j] * slack
        out[m + j] = -image[j] - rows.lower_rate[j] * slack
    for a in range(k):
        out[2 * m + a] = v[a]
        out[2 * m + k + a] = -v[a]
    out[2 * m + 2 * k] = -slack


@compiled
def transposed_times(rows: Rows, x: Array, image: Array, out: Array) -> None:
    """``out = G' x``; ``image`` (m,) is scratch."""
    columns, k, m = rows.columns, rows.k, rows.columns.shape[1]
    for j in range(m):
        image[j] = x[j] - x[m + j]
    for a in range(0, k - k % 4, 4):
        sum0, sum1, sum2, sum3 = 0.0, 0.0, 0.0, 0.0
        for j in range(m):
            sum0 += columns[a, j] * image[j]
            sum1 += columns[a + 1, j] * image[j]
            sum2 += columns[a + 2, j] * image[j]
            sum3 += columns[a + 3, j] * image[j]
        out[a], out[a + 1], out[a + 2], out[a + 3] = sum0, sum1, sum2, sum3
    for a in range(k - k % 4, k):
        product = 0.0
        for j in range(m):
            product += columns[a, j] * image[j]
        out[a] = product
    for a in range(k):
        out[a] += x[2 * m + a] - x[2 * m + k + a]
    if rows.shared:
        pull = 0.0
        for j in range(m):
            pull += rows.upper_rate[j] * x[j] + rows.lower_rate[j] * x[m + j]
        out[k] = -pull - x[2 * m + 2 * k]


@compiled
def _dots(left: Array, a: int, b: int, m: int, gram: Array) -> None:
    """The 3 x 3 inner products of rows a.. and b.. of ``left``, into the upper triangle."""
    g00 = g01 = g02 = g10 = g11 = g12 = g20 = g21 = g22 = 0.0
    for j in range(m):
        x0, x1, x2 = left[a, j], left[a + 1, j], left[a + 2, j]
        y0 = left[b, j]
        g00 += x0 * y0
        g10 += x1 * y0
        g20 += x2 * y0
        y1 = left[b + 1, j]
        g01 += x0 * y1
        g11 += x1 * y1
        g21 += x2 * y1
        y2 = left[b + 2, j]
        g02 += x0 * y2
        g12 += x1 * y2
        g22 += x2 * y2
    gram[b, a], gram[b, a + 1], gram[b, a + 2] = g00, g10, g20
    gram[b + 1, a], gram[b + 1, a + 1], gram[b + 1, a + 2] = g01, g11, g21
    gram[b + 2, a], gram[b + 2, a + 1], gram[b + 2, a + 2] = g02, g12, g22


@compiled
def normal_matrix(rows: Rows, weight: Array, image: Array, root: Array, matrix: Array) -> None:
    """Upper triangle of ``G' diag(weight) G``, padded by an identity.

    Both sides of a row share one weight of the Gram matrix; the slack's column is a border:

        [ W' (D_u + D_l) W + D_high + D_low      W' (l D_l - u D_u)         ]
        [                                        u' D_u u + l' D_l l + D_d  ]

    Args:
        rows: G.
        weight: (N,), the diagonal of D, not negative.
        image: (m,), scratch.
        root: (k padded, m), scratch for ``sqrt(D_u + D_l) W``.
        matrix: (at least k + 3, square), written.
    """
    columns, k, m = rows.columns, rows.k, rows.columns.shape[1]
    for j in range(m):
        image[j] = np.sqrt(weight[j] + weight[m + j])
    for a in range(k):
        for j in range(m):
            root[a, j] = image[j] * columns[a, j]
    for a in range(0, k, 3):
        for b in range(0, a + 1, 3):
            _dots(root, a, b, m, matrix)
    for a in range(k, matrix.shape[0]):
        for b in range(a):
            matrix[b, a] = 0.0
        matrix[a, a] = 1.0
    for a in range(k):
        matrix[a, a] += weight[2 * m + a] + weight[2 * m + k + a]
    if rows.shared:
        corner = weight[2 * m + 2 * k]
        for j in range(m):
            up, low = rows.upper_rate[j] * weight[j], rows.lower_rate[j] * weight[m + j]
            image[j] = low - up
            corner += rows.upper_rate[j] * up + rows.lower_rate[j] * low
        for a in range(k):
            product = 0.0
            for j in range(m):
                product += columns[a, j] * image[j]
            matrix[a, k] = product
        matrix[k, k] = corner


@compiled
def cholesky(matrix: Array, diagonal: Array, inverse: Array) -> None:
    """Factor ``matrix = U' U`` in place, four pivots at a time; the size is a multiple of 4.

    A column that depends on those before it gets a zero row and a zero inverse pivot, so that
    its variable stays where it is.

    Args:
        matrix: Upper triangle; overwritten by U.
        diagonal: Scratch.
        inverse: Written: the inverse pivots.
    """
    size = matrix.shape[0]
    for a in range(size):
        diagonal[a] = matrix[a, a]
    for p in range(0, size, 4):
        for q in range(p, p + 4):
            pivot = matrix[q, q]
            inverse[q] = 1.0 / np.sqrt(pivot) if pivot > _NO_PIVOT * diagonal[q] else 0.0
            for c in range(q, size):
                matrix[q, c] *= inverse[q]
            for i in range(q + 1, p + 4):
                factor = matrix[q, i]
                for c in range(i, size):
                    matrix[i, c] -= factor * matrix[q, c]
        for i in range(p + 4, size):
            f0, f1, f2, f3 = matrix[p, i], matrix[p + 1, i], matrix[p + 2, i], matrix[p + 3, i]
            for c in range(i, size):
                matrix[i, c] -= (
                    f0 * matrix[p, c]
                    + f1 * matrix[p + 1, c]
                    + f2 * matrix[p + 2, c]
                    + f3 * matrix[p + 3, c]
                )


@compiled
def solve_factored(factor: Array, inverse: Array, size: int, x: Array) -> None:
    """``x <- (U' U)^-1 x`` for the first ``size`` entries."""
    for p in range(size):
        value = x[p] * inverse[p]
        x[p] = value
        for c in range(p + 1, size):
            x[c] -= factor[p, c] * value
    for p in range(size - 1, -1, -1):
        known = 0.0
        for c in range(p + 1, size):
            known += factor[p, c] * x[c]
        x[p] = (x[p] - known) * inverse[p]
