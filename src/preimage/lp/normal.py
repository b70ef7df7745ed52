"""The normal equations ``(G' D G) v = r`` of a layer program: products, Gram matrix, Cholesky.

G stacks the sides of a program, N = 2 m + 2 k + 1 inequalities over ``v = (z, d)``:

        [  W  -u ]   upper sides      W is m x k and is stored by columns (k, m), so that every
        [ -W  -l ]   lower sides      loop runs along the long dimension and vectorises
    G = [  I     ]   z <= high
        [ -I     ]   z >= low
        [     -1 ]   d >= 0           (no column and no row for d unless the slack is shared)

The Gram matrix alone reads W by rows, from a second copy. Where most of W is 0, products and Gram
matrix go through the list of its entries instead. Nothing here calls BLAS: at these sizes
``tiles`` are as quick, and the order of every sum is fixed by the shapes alone, so that a sample's
bits do not depend on its company.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled
from preimage.lp.tiles import (
    TILE,
    add_tile,
    eliminate_tile,
    factor_tile,
    lanes,
    subtract_tile,
    tile_times,
    transposed_tile_times,
)

Array = NDArray[np.float64]


# Rows whose weight is below this fraction of the size-th largest weight do not enter the Gram
# matrix: they change the Newton direction by less than the next step's own error.
NEGLIGIBLE = 2.0**-10

# Rows that enter the Gram matrix at a time: two tiles' worth of them fit the first-level cache.
PANEL = 128

# A pivot this small against its diagonal entry is rounding: the column depends on those before.
_NO_PIVOT = 1e-14


class Rows(NamedTuple):
    """The matrix G of one program.

    Attributes:
        columns: (k, at least m), W transposed; padding is 0.
        table: (rows of the whole program, stride), W by rows; padding is 0.
        origin: (at least m,), where in the table each row is.
        first: (rows of the whole program + 1,), where in ``place`` the entries of a table's row
            start; empty if they are not listed.
        place: Columns of the entries that are not 0, row by row, in order.
        upper_rate: (at least m,), u.
        lower_rate: (at least m,), l.
        m: Number of rows, padded to a multiple of 4.
        k: Number of entries of z.
        shared: 1 if the last variable is the slack d, else 0.
        sides: N, ``2 m + 2 k + 1``.
        soft: Number of leading sides that may be soft: ``2 m`` under l1, else 0.
    """

    columns: Array
    table: Array
    origin: NDArray[np.int64]
    first: NDArray[np.int64]
    place: NDArray[np.int64]
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
def _weight_times(rows: Rows, z: Array, image: Array) -> None:
    """``image = W z``."""
    columns, k, m = rows.columns, rows.k, rows.m
    if len(rows.first) > 0:
        for j in range(m):
            origin, product = rows.origin[j], 0.0
            for i in range(rows.first[origin], rows.first[origin + 1]):
                product += rows.table[origin, rows.place[i]] * z[rows.place[i]]
            image[j] = product
        return
    for j in range(m):
        image[j] = 0.0
    for a in range(0, k - k % 4, 4):
        z0, z1, z2, z3 = z[a], z[a + 1], z[a + 2], z[a + 3]
        for j in range(m):
            image[j] += (
                columns[a, j] * z0
                + columns[a + 1, j] * z1
                + columns[a + 2, j] * z2
                + columns[a + 3, j] * z3
            )
    for a in range(k - k % 4, k):
        for j in range(m):
            image[j] += columns[a, j] * z[a]


@compiled
def times(rows: Rows, v: Array, image: Array, out: Array) -> None:
    """``out = G v``; ``image`` (m,) is scratch for ``W z``."""
    k, m = rows.k, rows.m
    _weight_times(rows, v, image)
    slack = v[k] if rows.shared else 0.0
    for j in range(m):
        out[j] = image[j] - rows.upper_rate[j] * slack
        out[m + j] = -image[j] - rows.lower_rate[j] * slack
    for a in range(k):
        out[2 * m + a] = v[a]
        out[2 * m + k + a] = -v[a]
    out[2 * m + 2 * k] = -slack


@compiled
def _transposed_weight_times(rows: Rows, image: Array, out: Array) -> None:
    """``out[:k] = W' image``."""
    columns, k, m = rows.columns, rows.k, rows.m
    if len(rows.first) > 0:
        for a in range(k):
            out[a] = 0.0
        for j in range(m):
            origin = rows.origin[j]
            for i in range(rows.first[origin], rows.first[origin + 1]):
                out[rows.place[i]] += rows.table[origin, rows.place[i]] * image[j]
        return
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


@compiled
def transposed_times(rows: Rows, x: Array, image: Array, out: Array) -> None:
    """``out = G' x``, padded by zeros; ``image`` (m,) is scratch."""
    k, m = rows.k, rows.m
    for j in range(m):
        image[j] = x[j] - x[m + j]
    _transposed_weight_times(rows, image, out)
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
    return float(NEGLIGIBLE * 2.0 ** (e - 1023)) if e > 0 else 0.0


@compiled
def _keep(rows: Rows, weight: Array, least: float, index: NDArray[np.int64], scale: Array) -> int:
    """List the rows whose weight ``D_u + D_l`` is above ``least``, and its root; their number."""
    m, kept = rows.m, 0
    for j in range(m):
        both = weight[j] + weight[m + j]
        index[kept], scale[kept] = j, both
        kept += both > least
    for i in range(kept):
        scale[i] = np.sqrt(scale[i])
    return kept


@compiled
def _fill_panel(
    rows: Rows,
    weight: Array,
    index: NDArray[np.int64],
    scale: Array,
    first: int,
    count: int,
    root: NDArray[np.floating[Any]],
) -> None:
    """Write the listed rows of ``[sqrt(D_u + D_l) W, (l D_l - u D_u) / sqrt(D_u + D_l)]``."""
    k, m, table = rows.k, rows.m, rows.table
    for i in range(count):
        j, s = index[first + i], scale[first + i]
        origin = rows.origin[j]
        for a in range(table.shape[1]):
            root[i, a] = s * table[origin, a]
        if rows.shared:
            pull = rows.lower_rate[j] * weight[m + j] - rows.upper_rate[j] * weight[j]
            root[i, k] = pull / s


@compiled
def add_gram(root: NDArray[np.floating[Any]], count: int, matrix: Array) -> None:
    """Add ``root' root`` of the first ``count`` rows to the upper triangle (and some below it)."""
    size, out_stride, stride = matrix.shape[0], matrix.shape[1], root.shape[1]
    wide = lanes(root.itemsize)
    for a in range(0, size, wide):
        for b in range(0, min(a + wide, size), TILE):
            add_tile(root, stride, count, a, b, matrix, out_stride, b * out_stride + a)


@compiled
def _add_listed_gram(
    rows: Rows, weight: Array, index: NDArray[np.int64], kept: int, matrix: Array
) -> None:
    """The same from the listed entries of the kept rows: pairs within a row, nothing else."""
    k, m, table, place = rows.k, rows.m, rows.table, rows.place
    for i in range(kept):
        j = index[i]
        origin, both = rows.origin[j], weight[j] + weight[m + j]
        start, end = rows.first[origin], rows.first[origin + 1]
        for p in range(start, end):
            a = place[p]
            own = both * table[origin, a]
            for q in range(p, end):
                matrix[a, place[q]] += own * table[origin, place[q]]
        if rows.shared:
            pull = rows.lower_rate[j] * weight[m + j] - rows.upper_rate[j] * weight[j]
            for p in range(start, end):
                matrix[place[p], k] += pull * table[origin, place[p]]


@compiled
def normal_matrix(
    rows: Rows,
    weight: Array,
    least: float,
    index: NDArray[np.int64],
    scale: Array,
    root: NDArray[np.floating[Any]],
    matrix: Array,
) -> None:
    """Upper triangle of ``G' diag(weight) G``, padded by an identity.

    Both sides of a row share one weight of the Gram matrix; the slack's column is a border:

        [ W' (D_u + D_l) W + D_high + D_low      W' (l D_l - u D_u)         ]
        [                                        u' D_u u + l' D_l l + D_d  ]

    Args:
        rows: G.
        weight: (N,), the diagonal of D, not negative.
        least: Rows of a weight up to this are left out.
        index: (m,), scratch.
        scale: (m,), scratch.
        root: (PANEL, stride), scratch; its dtype is the precision of the products.
        matrix: (size, stride), written.
    """
    k, m, size = rows.k, rows.m, matrix.shape[0]
    kept = _keep(rows, weight, least, index, scale)
    for a in range(size):
        for b in range(a // TILE * TILE, matrix.shape[1]):
            matrix[a, b] = 0.0
    listed = len(rows.first) > 0
    if listed:
        _add_listed_gram(rows, weight, index, kept, matrix)
    for first in range(0, 0 if listed else kept, PANEL):
        count = min(PANEL, kept - first)
        _fill_panel(rows, weight, index, scale, first, count, root)
        add_gram(root, count, matrix)
    for a in range(k):
        matrix[a, a] += weight[2 * m + a] + weight[2 * m + k + a]
    for a in range(k, size):
        matrix[a, a] = 1.0
    if rows.shared:
        corner = weight[2 * m + 2 * k]
        for j in range(m):
            corner += rows.upper_rate[j] ** 2 * weight[j]
            corner += rows.lower_rate[j] ** 2 * weight[m + j]
        matrix[k, k] = corner


@compiled
def cholesky(matrix: Array, diagonal: Array, inverse: Array) -> None:
    """Factor ``matrix = U' U`` in place, TILE rows of U at a time; the size is a multiple of it.

    A column that depends on those before it gets the inverse pivot 0, so that its variable stays
    where it is.

    Args:
        matrix: Upper triangle; overwritten by U.
        diagonal: Scratch.
        inverse: Written: the inverse pivots.
    """
    size, stride, upper = matrix.shape[0], matrix.shape[1], matrix
    for a in range(size):
        diagonal[a] = upper[a, a]
    for first in range(0, size, TILE):
        for b in range(first, size, TILE):
            subtract_tile(upper, stride, first, b, first, upper, stride, first * stride + b)
        factor_tile(upper, stride, first, diagonal, _NO_PIVOT, inverse)
        for b in range(first + TILE, size, TILE):
            eliminate_tile(upper, stride, first, b, inverse)


@compiled
def solve_factored(factor: Array, inverse: Array, x: Array, sums: Array) -> None:
    """``x <- (U' U)^-1 x``, TILE unknowns at a time; ``sums`` (TILE,) is scratch."""
    up, size, stride = factor, factor.shape[0], factor.shape[1]
    for first in range(0, size, TILE):
        transposed_tile_times(up, stride, first, first, x, sums)
        for p in range(TILE):
            i = first + p
            x[i] = (x[i] - sums[p]) * inverse[i]
            for b in range(p + 1, TILE):
                sums[b] += up[i, first + b] * x[i]
    for first in range(size - TILE, -1, -TILE):
        tile_times(up, stride, first, first + TILE, size, x, sums)
        for p in range(TILE - 1, -1, -1):
            i = first + p
            x[i] = (x[i] - sums[p]) * inverse[i]
            for b in range(p):
                sums[b] += up[first + b, i] * x[i]
