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

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled

Array = NDArray[np.float64]


# Rows whose weight is below this fraction of the size-th largest weight do not enter the Gram
# matrix: they change the Newton direction by less than the next step's own error.
_NEGLIGIBLE = 2.0**-10

# Rows that enter the Gram matrix at a time: k times these fit into the second-level cache.
PANEL = 256

# A pivot this small against its diagonal entry is rounding: the column depends on those before.
_NO_PIVOT = 1e-14


class Rows(NamedTuple):
    """The matrix G of one program.

    Attributes:
        columns: (k padded to 3, at least m), W transposed; padding is 0.
        upper_rate: (at least m,), u.
        lower_rate: (at least m,), l.
        m: Number of rows, padded to a multiple of 4.
        k: Number of entries of z.
        shared: 1 if the last variable is the slack d, else 0.
        sides: N, ``2 m + 2 k + 1``.
        soft: Number of leading sides that may be soft: ``2 m`` under l1, else 0.
    """

    columns: Array
    upper_rate: Array
    lower_rate: Array
    m: int
    k: int
    shared: int
    sides: int
    soft: int


# Loops written out: NumPy's own array expressions take seconds each to compile.


@compiled
def fill(array: Array, value: float) -> None:
    """``array[:] = value``."""
    for i in range(len(array)):
        array[i] = value


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
def times(rows: Rows, v: Array, image: Array, out: Array) -> None:
    """``out = G v``; ``image`` (m,) is scratch for ``W z``."""
    columns, k, m = rows.columns, rows.k, rows.m
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
    """``out = G' x``, padded by zeros; ``image`` (m,) is scratch."""
    columns, k, m = rows.columns, rows.k, rows.m
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
    for a in range(k + rows.shared, len(out)):
        out[a] = 0.0


@compiled
def _add_dots(left: NDArray[np.floating[Any]], a: int, b: int, count: int, gram: Array) -> None:
    """Add the 3 x 3 inner products of rows a.. and b.. of ``left`` over its first columns.

    The sums have the precision of ``left``, float64 or float32.
    """
    zero = left[a, 0] - left[a, 0]
    g00 = g01 = g02 = g10 = g11 = g12 = g20 = g21 = g22 = zero
    for j in range(count):
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
    gram[a, b] += g00
    gram[a, b + 1] += g01
    gram[a, b + 2] += g02
    gram[a + 1, b] += g10
    gram[a + 1, b + 1] += g11
    gram[a + 1, b + 2] += g12
    gram[a + 2, b] += g20
    gram[a + 2, b + 1] += g21
    gram[a + 2, b + 2] += g22


@compiled
def cutoff(weight: Array, n: int, size: int, histogram: NDArray[np.int64]) -> float:
    """A power of two below which a weight is negligible beside the ``size`` largest ones.

    Whatever binds has one of those, so that the matrix keeps its rank.

    Args:
        weight: (at least n,), not negative.
        n: Number of sides.
        size: Number of variables.
        histogram: (2048,) scratch, one bin an exponent.
    """
    for e in range(len(histogram)):
        histogram[e] = 0
    exponents = weight.view(np.int64)
    for i in range(n):
        histogram[exponents[i] >> 52] += 1
    seen, e = 0, len(histogram)
    while seen < size and e > 0:
        e -= 1
        seen += histogram[e]
    return float(_NEGLIGIBLE * 2.0 ** (e - 1023)) if e > 0 else 0.0


@compiled
def scaled_rows(
    rows: Rows,
    weight: Array,
    least: float,
    index: NDArray[np.int64],
    scale: Array,
    root: NDArray[np.floating[Any]],
) -> int:
    """``root = sqrt(D_u + D_l) W`` without the rows whose weight is at most ``least``.

    Args:
        rows: G.
        weight: (N,), the diagonal of D.
        least: The cutoff.
        index: (m,), written: which rows were kept.
        scale: (m,), written: the square roots of their weights.
        root: (panels, k padded, PANEL), written.

    Returns:
        Number of columns of ``root`` that count: rows kept, padded by zeros to a multiple of 4.
    """
    columns, m = rows.columns, rows.m
    kept = 0
    for j in range(m):
        both = weight[j] + weight[m + j]
        index[kept], scale[kept] = j, np.sqrt(both)
        kept += both > least
    padded = (kept + 3) // 4 * 4
    for i in range(kept, padded):
        index[i], scale[i] = 0, 0.0
    for p in range((padded + PANEL - 1) // PANEL):
        panel, first = root[p], p * PANEL
        for a in range(rows.k):
            for i in range(min(PANEL, padded - first)):
                panel[a, i] = scale[first + i] * columns[a, index[first + i]]
    return padded


@compiled
def normal_matrix(
    rows: Rows,
    weight: Array,
    least: float,
    index: NDArray[np.int64],
    image: Array,
    near: Array,
    root: NDArray[np.floating[Any]],
    matrix: Array,
) -> None:
    """Lower triangle of ``G' diag(weight) G``, padded by an identity.

    Both sides of a row share one weight of the Gram matrix; the slack's column is a border:

        [ W' (D_u + D_l) W + D_high + D_low      W' (l D_l - u D_u)         ]
        [                                        u' D_u u + l' D_l l + D_d  ]

    Args:
        rows: G.
        weight: (N,), the diagonal of D, not negative.
        least: Rows of a weight up to this are left out.
        index: (m,), scratch.
        image: (m,), scratch.
        near: (PANEL,), scratch.
        root: (panels, k padded, PANEL), scratch; its dtype is the precision of the products.
        matrix: (at least k + 3, square), written.
    """
    k, m = rows.k, rows.m
    kept = scaled_rows(rows, weight, least, index, image, root)
    for a in range(0, k, 3):
        for r in range(a, a + 3):
            for b in range(a + 3):
                matrix[r, b] = 0.0
    for p in range((kept + PANEL - 1) // PANEL):
        panel, count = root[p], min(PANEL, kept - p * PANEL)
        for a in range(0, k, 3):
            for b in range(0, a + 1, 3):
                _add_dots(panel, a, b, count, matrix)
    for a in range(k, matrix.shape[0]):
        for b in range(a):
            matrix[a, b] = 0.0
        matrix[a, a] = 1.0
    for a in range(k):
        matrix[a, a] += weight[2 * m + a] + weight[2 * m + k + a]
    if rows.shared:
        corner = weight[2 * m + 2 * k]
        for j in range(m):
            corner += rows.upper_rate[j] ** 2 * weight[j]
            corner += rows.lower_rate[j] ** 2 * weight[m + j]
        for i in range(kept):
            j = index[i]
            pull = rows.lower_rate[j] * weight[m + j] - rows.upper_rate[j] * weight[j]
            image[i] = pull / image[i] if image[i] > 0.0 else 0.0
        for p in range((kept + PANEL - 1) // PANEL):
            panel, first = root[p], p * PANEL
            count = min(PANEL, kept - first)
            for i in range(count):
                near[i] = image[first + i]
            for a in range(k):
                product = 0.0
                for i in range(count):
                    product += panel[a, i] * near[i]
                matrix[k, a] += product
        matrix[k, k] = corner


@compiled
def _subtract_dots(factor: Array, i: int, j: int) -> None:
    """``L_ij -= sum_{t < j} L_it L_jt`` for 4 rows i.. and 2 columns j.. (one pass, 8 sums)."""
    d00 = d10 = d20 = d30 = d01 = d11 = d21 = d31 = 0.0
    for t in range(j // 4 * 4):
        x0, x1, x2, x3 = factor[i, t], factor[i + 1, t], factor[i + 2, t], factor[i + 3, t]
        y0 = factor[j, t]
        d00 += x0 * y0
        d10 += x1 * y0
        d20 += x2 * y0
        d30 += x3 * y0
        y1 = factor[j + 1, t]
        d01 += x0 * y1
        d11 += x1 * y1
        d21 += x2 * y1
        d31 += x3 * y1
    factor[i, j] -= d00
    factor[i + 1, j] -= d10
    factor[i + 2, j] -= d20
    factor[i + 3, j] -= d30
    factor[i, j + 1] -= d01
    factor[i + 1, j + 1] -= d11
    factor[i + 2, j + 1] -= d21
    factor[i + 3, j + 1] -= d31


@compiled
def cholesky(matrix: Array, diagonal: Array, inverse: Array) -> None:
    """Factor ``matrix = L L'`` in place, by 4 x 4 blocks; the size is a multiple of 4.

    A column that depends on those before it gets the inverse pivot 0, so that its variable stays
    where it is.

    Args:
        matrix: Lower triangle; overwritten by L.
        diagonal: Scratch.
        inverse: Written: the inverse pivots.
    """
    size, low = matrix.shape[0], matrix
    for a in range(size):
        diagonal[a] = low[a, a]
    for i in range(0, size, 4):
        for j in range(0, i, 4):
            _subtract_dots(low, i, j)
            _subtract_dots(low, i, j + 2)
            for r in range(i, i + 4):
                x0 = low[r, j] * inverse[j]
                x1 = (low[r, j + 1] - x0 * low[j + 1, j]) * inverse[j + 1]
                x2 = low[r, j + 2] - x0 * low[j + 2, j] - x1 * low[j + 2, j + 1]
                x2 *= inverse[j + 2]
                x3 = low[r, j + 3] - x0 * low[j + 3, j] - x1 * low[j + 3, j + 1]
                x3 -= x2 * low[j + 3, j + 2]
                low[r, j], low[r, j + 1], low[r, j + 2] = x0, x1, x2
                low[r, j + 3] = x3 * inverse[j + 3]
        _subtract_dots(low, i, i)
        _subtract_dots(low, i, i + 2)
        for p in range(i, i + 4):
            pivot = low[p, p]
            for t in range(i, p):
                pivot -= low[p, t] * low[p, t]
            inverse[p] = 1.0 / np.sqrt(pivot) if pivot > _NO_PIVOT * diagonal[p] else 0.0
            low[p, p] = pivot * inverse[p]
            for r in range(p + 1, i + 4):
                entry = low[r, p]
                for t in range(i, p):
                    entry -= low[r, t] * low[p, t]
                low[r, p] = entry * inverse[p]


@compiled
def solve_factored(factor: Array, inverse: Array, x: Array) -> None:
    """``x <- (L L')^-1 x``, four unknowns at a time."""
    low, size = factor, factor.shape[0]
    for i in range(0, size, 4):
        d0 = d1 = d2 = d3 = 0.0
        for t in range(i):
            d0 += low[i, t] * x[t]
            d1 += low[i + 1, t] * x[t]
            d2 += low[i + 2, t] * x[t]
            d3 += low[i + 3, t] * x[t]
        x0 = (x[i] - d0) * inverse[i]
        x1 = (x[i + 1] - d1 - low[i + 1, i] * x0) * inverse[i + 1]
        x2 = (x[i + 2] - d2 - low[i + 2, i] * x0 - low[i + 2, i + 1] * x1) * inverse[i + 2]
        x3 = x[i + 3] - d3 - low[i + 3, i] * x0 - low[i + 3, i + 1] * x1 - low[i + 3, i + 2] * x2
        x[i], x[i + 1], x[i + 2], x[i + 3] = x0, x1, x2, x3 * inverse[i + 3]
    for i in range(size - 4, -1, -4):
        x3 = x[i + 3] * inverse[i + 3]
        x2 = (x[i + 2] - low[i + 3, i + 2] * x3) * inverse[i + 2]
        x1 = (x[i + 1] - low[i + 3, i + 1] * x3 - low[i + 2, i + 1] * x2) * inverse[i + 1]
        x0 = x[i] - low[i + 3, i] * x3 - low[i + 2, i] * x2 - low[i + 1, i] * x1
        x0 *= inverse[i]
        x[i], x[i + 1], x[i + 2], x[i + 3] = x0, x1, x2, x3
        for t in range(i):
            x[t] -= low[i, t] * x0 + low[i + 1, t] * x1 + low[i + 2, t] * x2 + low[i + 3, t] * x3
